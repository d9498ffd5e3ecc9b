"""The reads of a spectrum on a device: products of features or of samples, Krylov passes, and the other side.

The small eigenproblems, the Krylov basis and all bounds are the host's own. Eigenvectors of products of 512
features or more are the device's; the host computes their residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from .._memory import release_rows, require_budget
from .._trees import combine_tree
from .._validate import Array, Float64
from ..feature_products import leading_eigenpairs, with_residuals
from ..rounding import double_rounding
from ..shifted_rows import PRODUCT_ROWS
from ..statistics import CrossMoments, ShiftedSums, check_squares, finalize_moments, first_means, leaf_bounds
from ..streamed_scatter import ImageSums, StreamedScatter
from .moments import (
    PART_ROWS,
    DeviceMatrix,
    DeviceSums,
    Pair,
    Shifted,
    device_bounds,
    device_leaf_rows,
    device_sums,
    padded,
    products_bytes,
    products_of,
    shift_into,
    shifted_bytes,
    sums_bytes,
)

_MIN_STRIP, _MAX_STRIP = 1024, 8192
_PIECE_BYTES = 4 * 2**20
# Narrower eigenproblems are quick on one core: measured, 0.04 s at this width and 0.2 s at 1,024.
_LEAST_DEVICE_WIDTH = 512


class DeviceScatter(StreamedScatter):
    """The scatter of a matrix, applied to vectors by a device; products are float64.

    Parameters
    ----------
    matrix : DeviceMatrix
    shift, center
        As in :class:`~qixai_fast.streamed_scatter.StreamedScatter`.
    """

    def __init__(self, matrix: DeviceMatrix, shift: Float64, center: bool) -> None:
        super().__init__(matrix, shift, center, n_jobs=1)
        self._rows = matrix.rows

    def _sums(self, vectors: Array) -> ImageSums:
        n, d = self._rows.n_samples, self._rows.n_features
        leaf = device_leaf_rows(d)
        backend = self._rows.backend
        memory = Shifted(backend, min(leaf, n), self._shift)
        weights = torch.from_numpy(np.array(vectors, np.float64)).to(backend.device)

        def partials() -> Iterator[DeviceSums]:
            for _, block in self._rows.blocks(leaf):
                rows, sums = memory.take(block)
                yield DeviceSums([sums], {(0, 1): products_of(rows @ weights, rows)})

        part = combine_tree(partials(), DeviceSums.add).to_host()
        return ImageSums(part.sums[0], np.zeros(d), part.products[0, 1])


@dataclass(frozen=True)
class DeviceRowImages:
    """Samples as rows less ``shift`` (None: as they are), multiplied by a device.

    An :class:`~qixai_fast.gram.Images`.
    """

    matrix: DeviceMatrix
    shift: Float64 | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.n_samples, self.matrix.n_features

    def bounds(self) -> list[Pair]:
        return device_bounds(*self.shape)

    def times(self, weights: Float64) -> Callable[[Pair], Float64]:
        """What multiplies the blocks by some weights; it is asked for all of them, in order."""
        n, d = self.shape
        leaf = device_leaf_rows(d)
        backend = self.matrix.backend
        memory = Shifted(backend, min(leaf, n), np.zeros(d) if self.shift is None else self.shift)
        factor = torch.from_numpy(np.array(weights, np.float64)).to(backend.device)
        blocks = self.matrix.rows.blocks(leaf)

        def image(bounds: Pair) -> Float64:
            _, block = next(blocks)
            rows, _ = memory.take(block)
            product: Float64 = (rows[: len(block)] @ factor).cpu().numpy()
            if bounds[1] == n:
                # Here values that are not finite are named.
                next(blocks, None)
            return product

        return image


@dataclass(frozen=True)
class DeviceStrips:
    """Features as tall rows, strips of columns at a time (a :class:`~qixai_fast.gram.Columns`).

    Attributes
    ----------
    matrix : DeviceMatrix
    mean : ndarray of shape (d,) or None
        Takes the mean of every column that is read; None for columns as they are.
    scale : float
        Of all values, before means are taken away.
    """

    matrix: DeviceMatrix
    mean: Float64 | None
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.n_features, self.matrix.n_samples

    def bounds(self) -> list[Pair]:
        d, n = self.shape
        width = strip_width(n)
        return [(start, min(start + width, d)) for start in range(0, d, width)]

    def _values(self, bounds: Pair) -> torch.Tensor:
        """Columns as they are, on the device."""
        rows, columns = self.matrix.rows, slice(*bounds)
        if rows.resident:
            values: torch.Tensor = rows.data[:, columns].to(rows.dtype)
            return values
        n, width = rows.n_samples, bounds[1] - bounds[0]
        strip = torch.empty((n, width), dtype=rows.dtype)
        # The kernel maps far more of a file than the strip; let pages go every few megabytes.
        step = max(1, _PIECE_BYTES // (rows.n_features * rows.data.dtype.itemsize))
        for start in range(0, n, step):
            strip[start : start + step].numpy()[:] = rows.data[start : start + step, columns]
            release_rows(rows.data, start, min(start + step, n))
        return strip.to(rows.backend.device)

    def _read(self, bounds: Pair) -> torch.Tensor:
        """One strip, scaled and centred, as padded tall rows."""
        n, width = self.shape[1], bounds[1] - bounds[0]
        backend, values = self.matrix.backend, self._values(bounds)
        out = torch.empty((n, padded(width)), dtype=torch.float64, device=backend.device)
        out[:, width:] = 0.0
        scale = torch.full((width,), self.scale, dtype=torch.float64, device=backend.device)
        # The mean is taken about the first row, so that a constant column is exactly zero.
        shift = values[0].double() * scale if self.mean is not None else torch.zeros_like(scale)
        sums = shift_into(backend, values, scale, shift, out)
        if not bool(torch.isfinite(sums[0]).all()):
            self._name_the_first()
        if self.mean is not None:
            shift = shift + sums[0] / n
            self.mean[slice(*bounds)] = shift.cpu().numpy()
            shift_into(backend, values, scale, shift, out)
        return out.T

    def _name_the_first(self) -> None:
        for leaf in leaf_bounds([self.matrix]):
            self.matrix.block(*leaf)

    def times(self, weights: Float64) -> Callable[[Pair], Float64]:
        factor = torch.from_numpy(np.array(weights, np.float64)).to(self.matrix.backend.device)

        def image(bounds: Pair) -> Float64:
            product: Float64 = (self._read(bounds)[: bounds[1] - bounds[0]] @ factor).cpu().numpy()
            return product

        return image

    def gram(self, n_jobs: int = 1) -> Float64:
        """The (n, n) products of all pairs of samples."""

        def partials() -> Iterator[DeviceSums]:
            for bounds in self.bounds():
                rows = self._read(bounds)
                yield DeviceSums([], {(0, 0): products_of(rows, rows)})

        products: Float64 = combine_tree(partials(), DeviceSums.add).to_host().products[0, 0]
        with np.errstate(over="ignore"):
            check_squares(float(np.trace(products)), [self.matrix])
        return products


def strip_width(n: int) -> int:
    """Columns of a strip of ``n`` rows."""
    return min(_MAX_STRIP, max(_MIN_STRIP, device_leaf_rows(n)))


def strips_bytes(matrix: DeviceMatrix) -> int:
    """Bytes of a device that :meth:`DeviceStrips.gram` takes."""
    n, d = matrix.n_samples, matrix.n_features
    width = min(d, strip_width(n))
    itemsize = max(4, matrix.rows.dtype.itemsize)
    held = (-(-d // width)).bit_length() + 1
    strip = n * width * (itemsize + 8) + 16 * n * PART_ROWS
    return strip + products_bytes(width, n, n) + 8 * n * n * held + 2**16


@dataclass(frozen=True)
class DevicePasses:
    """Reads of one matrix by its device; all products are float64.

    Attributes
    ----------
    matrix : DeviceMatrix
    """

    matrix: DeviceMatrix

    def current(self) -> AbstractContextManager[None]:
        """Make the device the one that torch works on."""
        return self.matrix.backend.current()

    def require(self, budget: int | None, fixed: int, on_device: int, work: str) -> None:
        """Raise where the host's memory, or the device's, exceeds the budget.

        Parameters
        ----------
        budget : int or None
        fixed : int
            Bytes of the host beside what it reads.
        on_device : int
        work : str
        """
        rows = self.matrix.rows
        n, d = rows.n_samples, rows.n_features
        read = 2 * 8 * min(n, PRODUCT_ROWS) * d
        if not rows.resident:
            strip = n * min(d, strip_width(n)) * rows.dtype.itemsize if n < d else 0
            read = max(read, strip, rows.block_bytes(min(n, device_leaf_rows(d))))
        require_budget(budget, max(fixed + read, on_device), work)
        backend = rows.backend
        backend.require(backend.budget(budget), on_device, work)

    def _images_bytes(self, k: int) -> int:
        d = self.matrix.n_features
        rows = min(self.matrix.n_samples, device_leaf_rows(d))
        return shifted_bytes(self.matrix, rows) + 8 * k * (d + padded(rows)) if k else 0

    def features_bytes(self, k: int) -> int:
        """Bytes of the device for :meth:`moments`, and images of all rows under ``k`` vectors."""
        d = self.matrix.n_features
        # LAPACK's divide and conquer works in twice the matrix beside it and its vectors.
        eigenpairs = 8 * 5 * d * d if d >= _LEAST_DEVICE_WIDTH else 0
        return max(sums_bytes([self.matrix], [(0, 0)]), self._images_bytes(k), eigenpairs)

    def samples_bytes(self, k: int) -> int:
        """Bytes of the device for products of samples, and images of all features under ``k`` vectors."""
        n, width = self.matrix.n_samples, min(self.matrix.n_features, strip_width(self.matrix.n_samples))
        return strips_bytes(self.matrix) + 8 * k * (n + width)

    def krylov_bytes(self, block: int) -> int:
        """Bytes of the device for applying the scatter to ``block`` vectors."""
        n, d = self.matrix.n_samples, self.matrix.n_features
        bounds = device_bounds(n, d)
        held = (len(bounds).bit_length() + 1) * 8 * d * (block + 2)
        return self._images_bytes(block) + products_bytes(bounds[0][1], block, d) + held + 2**16

    def moments(self) -> CrossMoments:
        """First and second moments of the features, in one read."""
        matrix = self.matrix
        shift = first_means([matrix])
        part = device_sums([matrix], [shift], [1.0], [(0, 0)])
        check_squares(float(part.sums[0][1].sum()), [matrix])
        sums = ShiftedSums(matrix.n_samples, part.sums[0], part.products[0, 0], np.zeros(matrix.n_features))
        return finalize_moments(sums, shift, [matrix.n_features])

    def leading_eigenpairs(self, products: Float64, k: int) -> tuple[Float64, Float64, Float64]:
        """As :func:`qixai_fast.feature_products.leading_eigenpairs`; large matrices are the device's."""
        if len(products) < _LEAST_DEVICE_WIDTH:
            return leading_eigenpairs(products, k)
        # A power of two keeps squares within range, as LAPACK does by itself.
        unit = math.ldexp(1.0, max(-1000, math.frexp(float(np.trace(products)))[1] - 1))
        scaled = torch.from_numpy(products / unit).to(self.matrix.backend.device)
        values, vectors = torch.linalg.eigh(scaled)
        leading = vectors[:, -k:].flip(1).cpu().numpy()
        return with_residuals(products, values[-k:].flip(0).cpu().numpy() * unit, leading)

    def scatter(self, shift: Float64, center: bool) -> DeviceScatter:
        return DeviceScatter(self.matrix, shift, center)

    def rows(self, shift: Float64 | None) -> DeviceRowImages:
        return DeviceRowImages(self.matrix, shift)

    def write_images(
        self, weights: Float64, shift: Float64, out: Array, budget: int | None, work: str
    ) -> None:
        """Write ``(x - shift) @ weights`` for every row ``x``.

        Raises
        ------
        MemoryBudgetError
            Where the budget, or the device, is too small.
        """
        rows, k = self.rows(shift), weights.shape[1]
        bounds = rows.bounds()
        self.require(budget, 8 * k * (bounds[0][1] + 2 * len(weights)), self._images_bytes(k), work)
        with self.current():
            images = rows.times(weights)
            for leaf in bounds:
                with np.errstate(over="ignore", invalid="ignore"):
                    out[slice(*leaf)] = images(leaf)

    def strips(self, mean: Float64 | None) -> DeviceStrips:
        return DeviceStrips(self.matrix, mean)

    def rounding(self, trace: float) -> float:
        """Bound on the 2-norm error of products with this trace, as summed here."""
        n, d = self.matrix.n_samples, self.matrix.n_features
        # Rows of one product: a part, or a leaf of many features, which has no more than twice as many.
        length = min(n, 2 * PART_ROWS)
        return double_rounding(length, d, len(device_bounds(n, d)), trace)
