"""X^T X of a streamed matrix, or X X^T where that is smaller, and what is computed from either.

Both are "the products of a tall matrix": tall rows are samples (:class:`Rows`) or, for data with fewer
samples than features, features (:class:`Strips`). The rest of the module does not care which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg

from ._memory import release_pages
from ._threads import ordered_map
from ._validate import Array, Float64, Matrix, check_finite
from .affine import RowMap
from .statistics import check_squares, combine_tree, leaf_bounds, leaf_rows, leaf_shift

Bounds = tuple[int, int]
_MIN_STRIP = 1024
_RELEASE_BYTES = 4 * 2**20


class Images(Protocol):
    """A tall matrix read in blocks of its rows, fixed in number by its shape and dtype."""

    @property
    def matrix(self) -> Matrix:
        """Where the data are."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tall matrix."""
        ...

    def bounds(self) -> list[Bounds]:
        """First and last-plus-one row of every block."""
        ...

    def times(self, weights: Float64) -> Callable[[Bounds], Float64]:
        """What multiplies a block, shifted or centred, by some weights; one worker takes all, in order."""
        ...


class Columns(Images, Protocol):
    """Features as tall rows."""

    @property
    def mean(self) -> Float64 | None:
        """Mean of every feature that was read; None where they are not centred."""
        ...

    def gram(self, n_jobs: int) -> Float64:
        """The (w, w) products of all pairs of columns, symmetric."""
        ...


class Tall(Images, Protocol):
    """What the host reads."""

    def read(self, bounds: Bounds) -> Float64:
        """One block, shifted or centred, as new memory."""
        ...


@dataclass(frozen=True)
class Rows:
    """Samples as rows, less ``shift`` (None: as they are)."""

    matrix: Matrix
    shift: Float64 | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.n_samples, self.matrix.n_features

    def bounds(self) -> list[Bounds]:
        return leaf_bounds([self.matrix])

    def read(self, bounds: Bounds) -> Float64:
        block = self.matrix.block(*bounds)
        if self.shift is not None:
            with np.errstate(over="ignore"):
                block -= self.shift
        return block

    def times(self, weights: Float64) -> Callable[[Bounds], Float64]:
        row_map = RowMap(weights, self.shift)
        return lambda bounds: row_map.apply(self.matrix, *bounds)


@dataclass(frozen=True)
class Strips:
    """Features as rows: strips of columns, each centred exactly where ``mean`` is given.

    Attributes
    ----------
    matrix : Matrix
    mean : ndarray of shape (d,) or None
        Takes the mean of every column that is read; None for columns as they are.
    """

    matrix: Matrix
    mean: Float64 | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.n_features, self.matrix.n_samples

    def bounds(self) -> list[Bounds]:
        d = self.matrix.n_features
        # Strips narrower than a page of the file would read each page many times over.
        width = max(_MIN_STRIP, leaf_rows(self.matrix.n_samples, self.matrix.dtype))
        return [(start, min(start + width, d)) for start in range(0, d, width)]

    def read(self, bounds: Bounds) -> Float64:
        data = self.matrix.data
        strip = np.empty((len(data), bounds[1] - bounds[0]))
        # The kernel maps far more of a file than the strip; let pages go every few megabytes.
        step = max(1, _RELEASE_BYTES // (data.shape[1] * data.itemsize))
        for start in range(0, len(data), step):
            rows = data[start : start + step]
            strip[start : start + step] = rows[:, slice(*bounds)]
            release_pages(rows)
        try:
            check_finite(strip, self.matrix.name)
        except ValueError:
            # The first bad value of this strip need not be the first of the matrix.
            for leaf in leaf_bounds([self.matrix]):
                self.matrix.block(*leaf)
            raise
        if self.mean is not None:
            mean = self.mean[slice(*bounds)] = leaf_shift(strip)
            with np.errstate(over="ignore"):
                strip -= mean
        return strip.T

    def times(self, weights: Float64) -> Callable[[Bounds], Float64]:
        return lambda bounds: self.read(bounds) @ weights

    def gram(self, n_jobs: int) -> Float64:
        """The products of all pairs of samples."""
        return gram(self, n_jobs)


def largest_block(tall: Images) -> int:
    """Bytes of the largest block of a tall matrix."""
    start, stop = tall.bounds()[0]
    return 8 * (stop - start) * tall.shape[1]


def _reduce(
    tall: Images, chunk: Callable[[Bounds], Any], combine: Callable[[Any, Any], Any], n_jobs: int
) -> Any:
    return combine_tree(ordered_map(chunk, tall.bounds(), n_jobs), combine)


def gram(tall: Tall, n_jobs: int) -> Float64:
    """The (w, w) products of all pairs of columns of a tall matrix."""

    def chunk(bounds: Bounds) -> Float64:
        block = tall.read(bounds)
        with np.errstate(over="ignore", invalid="ignore"):
            products: Float64 = block.T @ block
        return products

    def add(first: Float64, second: Float64) -> Float64:
        with np.errstate(over="ignore", invalid="ignore"):
            first += second
        return first

    products: Float64 = _reduce(tall, chunk, add, n_jobs)
    with np.errstate(over="ignore"):
        trace = float(np.trace(products))
    check_squares(trace, [tall.matrix])
    return products


def long_vectors(
    tall: Images, short: Float64, sigma: Float64, live: int, out: Array, n_jobs: int
) -> tuple[Float64, Float64]:
    """Singular vectors of the tall side from those of the short side, in one more read.

    The products T v_i / sigma_i of leading vectors are orthonormal up to rounding that grows as
    (sigma_1 / sigma_i)^2. Their Gram matrix, gathered in the same read, mends that, and singular values come
    out free of the squaring: T V = Q L^T diag(sigma), whose small right factor has an SVD (Cholesky QR).

    Parameters
    ----------
    tall : Tall
        Centred, where the decomposition is of centred data. ``m`` rows.
    short : ndarray of shape (w, k)
        Orthonormal right singular vectors, leading first.
    sigma : ndarray of shape (k,)
    live : int
        How many of them stand above rounding; the others' tall vectors are any that complete the basis.
    out : ndarray of shape (m, k)
        Takes the tall vectors.
    n_jobs : int

    Returns
    -------
    sigma, short : ndarray
        Improved.
    """
    images = tall.times(short[:, :live] / sigma[:live]) if live else None

    def chunk(bounds: Bounds) -> Float64:
        assert images is not None
        block = images(bounds)
        out[slice(*bounds), :live] = block
        products: Float64 = block.T @ block
        return products

    sigma, short = sigma.copy(), short.copy()
    if live:
        overlap = _reduce(tall, chunk, np.add, n_jobs)
        lower = np.linalg.cholesky(overlap)
        left, sigma[:live], right = np.linalg.svd(lower.T * sigma[:live])
        mend = scipy.linalg.solve_triangular(lower, left, lower=True, trans="T")
        for bounds in tall.bounds():
            rows = slice(*bounds)
            out[rows, :live] = out[rows, :live].astype(np.float64) @ mend
        short[:, :live] = short[:, :live] @ right.T
    _complete_basis(out, live, tall.bounds())
    return sigma, short


def _complete_basis(out: Array, live: int, blocks: list[Bounds]) -> None:
    """Fill columns from ``live`` on so that all columns are orthonormal; the same ones every time."""
    rng = np.random.default_rng(0)
    for j in range(live, out.shape[1]):
        column = rng.standard_normal(len(out))
        for _ in range(2):
            overlap = np.zeros(j)
            for bounds in blocks:
                rows = slice(*bounds)
                overlap += column[rows] @ out[rows, :j].astype(np.float64)
            for bounds in blocks:
                rows = slice(*bounds)
                column[rows] -= out[rows, :j].astype(np.float64) @ overlap
            column /= np.linalg.norm(column)
        out[:, j] = column
