"""Cosine between feature maps, from their cross products: one read, or one for each pair of column tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from ._memory import workers_within
from ._threads import single_threaded_blas
from ._validate import Float64, Matrix
from ._views import columns_of, within_range
from .statistics import leaf_bounds, leaf_shift, reduce_rows

if TYPE_CHECKING:
    from ._gpu.moments import DeviceMatrix

Mask = npt.NDArray[np.bool_]

_MIN_TILE_COLUMNS = 64


@dataclass(frozen=True)
class CrossSums:
    """Partial of :class:`ShiftedCross`: of each side sums and squares, and the products of both."""

    n: int
    totals: list[Float64]
    squares: list[Float64]
    products: Float64


@dataclass(frozen=True)
class ShiftedCross:
    """Products of the columns of one matrix with another's, or its own, about fixed shifts.

    A :class:`~qixai_fast.statistics.RowStatistic`. Cross moments would hold the products within each
    matrix as well, where cosines take their squares only.

    Attributes
    ----------
    shifts : list of ndarray
        One for each matrix: one or two.
    """

    shifts: list[Float64]

    def chunk(self, blocks: Sequence[Float64]) -> CrossSums:
        """Sums of one leaf; overwrites the blocks."""
        for block, shift in zip(blocks, self.shifts, strict=True):
            block -= shift
        return CrossSums(
            len(blocks[0]),
            [block.sum(axis=0) for block in blocks],
            [np.einsum("ij,ij->j", block, block) for block in blocks],
            blocks[0].T @ blocks[-1],
        )

    def combine(self, first: CrossSums, second: CrossSums) -> CrossSums:
        """Add two partials into the memory of the first."""
        for held, more in zip(first.totals + first.squares, second.totals + second.squares, strict=True):
            held += more
        np.add(first.products, second.products, out=first.products)
        return CrossSums(first.n + second.n, first.totals, first.squares, first.products)


def _finalize(sums: CrossSums, shifts: list[Float64], *, center: bool) -> tuple[Float64, Mask, Mask]:
    """Turn sums about shifts into cosines; overwrites the products.

    Returns
    -------
    cosine : ndarray of shape (d_x, d_y)
        Clipped to [-1, 1]; 0 for columns with no direction.
    zero_x, zero_y : ndarray of bool
        Which columns have none: all zero, or constant where ``center``.
    """
    n, cosine = sums.n, sums.products
    means = [shift + total / n for shift, total in zip(shifts, sums.totals, strict=True)]
    norms = []
    for total, squares, mean in zip(sums.totals, sums.squares, means, strict=True):
        centred = np.maximum(squares - total * (total / n), 0.0)
        norms.append(np.sqrt(centred if center else centred + n * mean**2))
    zeros = [norm == 0 for norm in norms]
    inverses = [1.0 / np.where(zero, 1.0, norm) for norm, zero in zip(norms, zeros, strict=True)]
    for start in range(0, len(cosine), 256):
        rows = slice(start, start + 256)
        # Products of two come first: so each step is symmetric to the bit.
        cosine[rows] -= np.outer(sums.totals[0][rows], sums.totals[-1]) / n
        if not center:
            cosine[rows] += np.outer(means[0][rows], means[-1]) * n
        cosine[rows] *= np.outer(inverses[0][rows], inverses[-1])
    cosine[zeros[0]] = 0.0
    cosine[:, zeros[-1]] = 0.0
    np.clip(cosine, -1.0, 1.0, out=cosine)
    return cosine, zeros[0], zeros[-1]


def _tile(parts: list[Matrix], *, center: bool, n_jobs: int) -> tuple[Float64, Mask, Mask]:
    """Cosines between the columns of two parts, or of one with themselves."""
    if parts[0].on_device:
        from ._gpu.layers import cross_sums

        return _finalize(*cross_sums(cast("list[DeviceMatrix]", parts)), center=center)
    parts = [within_range(part, n_jobs) for part in parts]
    bounds = leaf_bounds(parts)[0]
    shifts = [leaf_shift(part.block(*bounds)) for part in parts]
    with single_threaded_blas():
        sums = reduce_rows(ShiftedCross(shifts), parts, n_jobs)
    return _finalize(sums, shifts, center=center)


def _memory(X: Matrix, Y: Matrix, columns: int, same: bool) -> tuple[int, int]:
    """Bytes that a tile of at most ``columns`` columns of each takes: once, and for each worker."""
    width_x, width_y = min(columns, X.n_features), min(columns, Y.n_features)
    parts = [columns_of(X, 0, width_x)]
    if not (same and columns >= X.n_features):
        parts.append(columns_of(Y, 0, width_y))
    if X.on_device:
        from ._gpu.layers import cross_sums_bytes

        finishing = 8 * (4 * 256 * width_y + 16 * (width_x + width_y)) + X.n_features + Y.n_features
        return cross_sums_bytes(cast("list[DeviceMatrix]", parts)) + finishing, 0
    width = sum(part.n_features for part in parts)
    bounds = leaf_bounds(parts)
    partial = 8 * (width_x * width_y + 2 * width)
    # Partials wait at every level of the tree; cosines are finished a few rows at a time.
    held = (len(bounds).bit_length() + 1) * partial + 3 * 8 * 256 * width_y
    vectors = 16 * 8 * width + X.n_features + Y.n_features
    leaf = 8 * width * (bounds[0][1] - bounds[0][0])
    return held + vectors + 2**16, 2 * leaf + partial + 2**16


def cosine_of_maps(
    X: Matrix,
    Y: Matrix,
    consume: Callable[[int, int, Float64], None],
    *,
    center: bool,
    symmetric: bool,
    n_jobs: int,
    budget: int | None,
) -> tuple[Mask, Mask]:
    """Hand tiles of the cosine between the columns of ``X`` and of ``Y`` to a consumer.

    One tile holds everything where the budget allows; smaller ones mean more reads.

    Parameters
    ----------
    X, Y : Matrix
        With the same samples, both on a device or neither; the same object where ``X`` is compared with
        itself.
    consume : callable
        ``consume(first_x, first_y, tile)``, in order of ``first_y`` for each ``first_x``.
    center, symmetric, n_jobs, budget
        ``symmetric``: only tiles on and above the diagonal.

    Returns
    -------
    zero_x, zero_y : ndarray of bool
        Columns with no direction.
    """
    same = X is Y
    if X.on_device:
        # One thread starts what the device does.
        backend = cast("DeviceMatrix", X).backend
        n_jobs, budget = 1, backend.budget(budget)
    columns = max(X.n_features, Y.n_features)
    while columns > _MIN_TILE_COLUMNS and budget is not None and sum(_memory(X, Y, columns, same)) > budget:
        columns = math.ceil(columns / 2)
    fixed, per_worker = _memory(X, Y, columns, same)
    work = "cosine between feature maps"
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    zero_x, zero_y = np.zeros(X.n_features, dtype=bool), np.zeros(Y.n_features, dtype=bool)
    for first_x in range(0, X.n_features, columns):
        part_x = columns_of(X, first_x, first_x + columns)
        for first_y in range(first_x if symmetric else 0, Y.n_features, columns):
            part_y = columns_of(Y, first_y, first_y + columns)
            parts = [part_x] if same and first_x == first_y else [part_x, part_y]
            tile, of_x, of_y = _tile(parts, center=center, n_jobs=workers)
            zero_x[first_x : first_x + columns] = of_x
            zero_y[first_y : first_y + columns] = of_y
            consume(first_x, first_y, tile)
            del tile
    return zero_x, zero_y
