"""Statistics that add up over rows: one definition for memory, memmaps, CUDA and a cluster.

A statistic is written once as ``chunk(blocks) -> partial``, ``combine(partial, partial) -> partial``
and ``finalize(partial) -> result``. Rows are cut into leaves of a fixed number of rows, a function of
total width and dtype only, and partials combine in one binary tree fixed by leaf index. So the bits of
a result do not depend on threads, workers, budget or the caller's own chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ._blas import mirror_upper
from ._cluster import tree
from ._device import Home
from ._memory import parse_memory, workers_within
from ._threads import resolve_n_jobs, single_threaded_blas
from ._trees import combine_tree as combine_tree
from ._validate import Float64, Matrix
from .pair_products import PairProducts, scratch_bytes
from .shifted_rows import PRODUCT_ROWS, ShiftedReader, aligned_zeros, mean_of_rows

Partial = TypeVar("Partial")

_LEAF_BYTES = 4 * 2**20
_MIN_LEAF_ROWS = 32
_MAX_LEAF_ROWS = 32768


def leaf_rows(width: int, dtype: np.dtype[Any]) -> int:
    """Rows in a leaf: a power of two so that a leaf of ``width`` columns holds about 4 MiB.

    Examples
    --------
    >>> leaf_rows(512, np.dtype("float32"))
    2048
    """
    rows = _LEAF_BYTES // max(1, width * dtype.itemsize)
    power = 1 << max(0, rows.bit_length() - 1)
    return min(_MAX_LEAF_ROWS, max(_MIN_LEAF_ROWS, power))


def leaf_bounds(matrices: Sequence[Matrix]) -> list[tuple[int, int]]:
    """First and last-plus-one row of every leaf of matrices that share their samples."""
    width = sum(matrix.n_features for matrix in matrices)
    dtype = max((matrix.dtype for matrix in matrices), key=lambda dtype: dtype.itemsize)
    rows = leaf_rows(width, dtype)
    n = matrices[0].n_samples
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]


class RowStatistic(Protocol[Partial]):
    """The contract: what a statistic over rows has to offer."""

    def chunk(self, blocks: Sequence[Float64]) -> Partial:
        """The partial result of one leaf; ``blocks`` holds the same rows of every matrix."""
        ...

    def combine(self, first: Partial, second: Partial) -> Partial:
        """The partial result of both parts' rows; may reuse the memory of its arguments."""
        ...


def reduce_rows(statistic: RowStatistic[Partial], matrices: Sequence[Matrix], n_jobs: int) -> Partial:
    """Read every matrix once, leaf by leaf, and return the combined partial of all rows.

    Parameters
    ----------
    statistic : RowStatistic
    matrices : sequence of Matrix
        The same samples in each.
    n_jobs : int
        Threads, as ``resolve_n_jobs`` gives them; each holds one leaf. Callers set the limit on
        BLAS threads (``single_threaded_blas``) and check the budget.
    """

    def leaf(bounds: tuple[int, int]) -> Partial:
        return statistic.chunk([matrix.block(*bounds) for matrix in matrices])

    return tree(leaf, leaf_bounds(matrices), statistic.combine, n_jobs)


def leaf_shift(block: Float64) -> Float64:
    """A value for each column to take moments about: its mean over one block, leaf 0.

    Moments about any fixed value near the data are exact enough; about zero they are not where
    means are far larger than spreads. The mean is taken about the first row, so that a constant
    column has its own value as shift, to the bit, and a variance of exactly zero.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        shift: Float64 = block[0] + (block - block[0]).mean(axis=0)
    return shift


@dataclass
class ShiftedSums:
    """Partial of :class:`ShiftedMoments`: rows, their sums and products about the shift.

    Attributes
    ----------
    n : int
    sums : ndarray of shape (2, d)
        Sums and sums of squares of each column.
    products : ndarray of shape (d, d)
        On and above the diagonal.
    peak : ndarray of shape (d,)
        Largest sum of squares of each column within one product of rows.
    """

    n: int
    sums: Float64
    products: Float64
    peak: Float64


@dataclass(frozen=True)
class ShiftedMoments:
    """Sums and products of all columns about a fixed shift (a :class:`RowStatistic`).

    Attributes
    ----------
    shift : ndarray of shape (d,)
        One value for each column of the concatenated inputs; every chunk must use the same.
    single : bool
        Products of 512 rows at a time in float32, added up in float64; sums and squares are float64
        all the same. :mod:`qixai_fast.rounding` bounds what that costs.
    """

    shift: Float64
    single: bool = False

    def chunk(self, blocks: Sequence[Float64]) -> ShiftedSums:
        """Sums and products of blocks with the same rows."""
        matrices = [Matrix("blocks", block, Home()) for block in blocks]
        return self.chunk_of(matrices, 0, len(blocks[0]))

    def chunk_of(self, matrices: Sequence[Matrix], start: int, stop: int) -> ShiftedSums:
        """Sums and products of rows ``start:stop``, read a few at a time.

        Raises
        ------
        ValueError
            For the first value that is not finite.
        """
        width = len(self.shift)
        dtype = np.dtype(np.float32 if self.single else np.float64)
        reader = ShiftedReader(matrices, self.shift, dtype, min(PRODUCT_ROWS, stop - start))
        square = (width, width)
        part = ShiftedSums(stop - start, np.zeros((2, width)), aligned_zeros(square, float), np.zeros(width))
        pairs = PairProducts(min(PRODUCT_ROWS, stop - start), width, dtype)
        for first in range(start, stop, PRODUCT_ROWS):
            last = min(first + PRODUCT_ROWS, stop)
            sums = np.zeros((2, width))
            rows = reader.read(first, last, sums)
            reader.check(first, last, sums)
            pairs.add(rows, part.products)
            part.sums += sums
            np.maximum(part.peak, sums[1], out=part.peak)
        reader.release(stop)
        if self.single:
            np.fill_diagonal(part.products, part.sums[1])
        return part

    def combine(self, first: ShiftedSums, second: ShiftedSums) -> ShiftedSums:
        """Add two partials into the memory of the first."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(first.sums, second.sums, out=first.sums)
            np.add(first.products, second.products, out=first.products)
        np.maximum(first.peak, second.peak, out=first.peak)
        return ShiftedSums(first.n + second.n, first.sums, first.products, first.peak)


@dataclass(frozen=True)
class CrossMoments:
    """First and second moments of one or more matrices over the same samples, in float64.

    Attributes
    ----------
    n : int
        Samples.
    shift, mean : ndarray of shape (d,)
        Of the concatenated columns; ``shift`` is what the products were taken about.
    scatter : ndarray of shape (d, d)
        Centred sums of products, exactly symmetric.
    edges : tuple of int
        Input ``i`` holds columns ``edges[i]:edges[i + 1]``.
    raw_trace : float
        Sum of squares about the shift; rounding errors in ``scatter`` are proportional to it.
    squares, peak : ndarray of shape (d,)
        Sum of squares of each column about the shift, and the largest within one product of rows.
    single : bool
        Whether products are float32.
    """

    n: int
    shift: Float64
    mean: Float64
    scatter: Float64
    edges: tuple[int, ...]
    raw_trace: float
    squares: Float64
    peak: Float64
    single: bool

    def _columns(self, i: int) -> slice:
        return slice(self.edges[i], self.edges[i + 1])

    def mean_of(self, i: int) -> Float64:
        """Column means of input ``i``, shape (d_i,)."""
        return self.mean[self._columns(i)]

    def block(self, i: int, j: int) -> Float64:
        """Centred sums of products of the columns of inputs ``i`` and ``j``, shape (d_i, d_j); a view."""
        return self.scatter[self._columns(i), self._columns(j)]

    def raw_block(self, i: int, j: int) -> Float64:
        """Sums of products about zero of the columns of inputs ``i`` and ``j``, shape (d_i, d_j)."""
        raw: Float64 = self.block(i, j) + self.n * np.outer(self.mean_of(i), self.mean_of(j))
        return raw


def finalize_moments(
    sums: ShiftedSums, shift: Float64, widths: Sequence[int], *, single: bool = False
) -> CrossMoments:
    """Turn combined sums about a shift into centred moments; overwrites the products."""
    products, total, n = sums.products, sums.sums[0], sums.n
    raw_trace = float(np.trace(products))
    mirror_upper(products)
    for start in range(0, len(total), 256):
        rows = slice(start, start + 256)
        products[rows] -= np.outer(total[rows], total) / n
    edges = tuple(int(edge) for edge in np.cumsum([0, *widths]))
    mean = shift + total / n
    return CrossMoments(n, shift, mean, products, edges, raw_trace, sums.sums[1], sums.peak, single)


def check_squares(sum_of_squares: float, matrices: Sequence[Matrix]) -> None:
    """Raise ValueError where the sum of squares of all values has overflowed float64."""
    if not np.isfinite(sum_of_squares):
        names = " and ".join(matrix.name for matrix in matrices)
        raise ValueError(f"{names}: the squares of the values overflow float64; scale the input down")


def moment_bounds(matrices: Sequence[Matrix]) -> list[tuple[int, int]]:
    """First and last-plus-one row of every part of cross moments: four leaves of rows each.

    Adding up products of all pairs of columns costs more than it does for sums of columns.
    """
    leaves = leaf_bounds(matrices)
    return [(leaves[i][0], leaves[min(i + 3, len(leaves) - 1)][1]) for i in range(0, len(leaves), 4)]


def cross_moments_memory(matrices: Sequence[Matrix]) -> tuple[int, int]:
    """Bytes that :func:`cross_moments` takes, results included: once, and for each worker."""
    width = sum(matrix.n_features for matrix in matrices)
    bounds = moment_bounds(matrices)
    rows = min(PRODUCT_ROWS, bounds[0][1])
    square = 8 * width * width
    held = len(bounds).bit_length() + 1
    # A worker holds rows as they are read, one matrix after the other, and as they are multiplied.
    read = max(matrix.n_features * np.result_type(matrix.dtype, np.float32).itemsize for matrix in matrices)
    per_worker = rows * (read + 8 * width) + scratch_bytes(rows, width) + square + 8 * 8 * width + 2**16
    return held * square + 3 * 8 * min(256, width) * width + 2**16, per_worker


def cross_moments(
    matrices: Sequence[Matrix],
    *,
    single: bool = False,
    n_jobs: int | None = None,
    max_memory: int | float | str | None = None,
) -> CrossMoments:
    """Means and all sums of products of the columns of several matrices, in one read of each.

    PCA, cosine between feature maps, linear CKA and Schmidt spectra all follow from the result.

    Parameters
    ----------
    matrices : sequence of Matrix
        The same samples in each; ``d`` columns in all.
    single : bool
        Products in float32, about twice as fast: see :class:`ShiftedMoments`. A product (i, j) is then off by
        about 1e-8 of the root of products (i, i) and (j, j), and by less for many samples; or by what
        underflows, about 1e-45 a sample. Values whose squares overflow float32 are read again for
        float64 products.
    n_jobs : int, optional
        Threads; the result has the same bits for any number.
    max_memory : int or str, optional
        Budget; here the (d, d) result counts.

    Returns
    -------
    CrossMoments

    Raises
    ------
    ValueError
        For NaN or infinite values (first row and column named), and values whose squares overflow.
    MemoryBudgetError
        Where the budget is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast._validate import as_matrix
    >>> X = as_matrix(np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> moments = cross_moments([X])
    >>> moments.mean, moments.block(0, 0)
    (array([2., 4.]), array([[2., 4.],
           [4., 8.]]))
    """
    fixed, per_worker = cross_moments_memory(matrices)
    width = sum(matrix.n_features for matrix in matrices)
    work = f"cross moments of {width} features"
    workers = workers_within(
        parse_memory(max_memory), resolve_n_jobs(n_jobs), fixed=fixed, per_worker=per_worker, work=work
    )
    statistic = ShiftedMoments(first_means(matrices), single)

    def part(bounds: tuple[int, int]) -> ShiftedSums:
        return statistic.chunk_of(matrices, *bounds)

    with single_threaded_blas():
        sums = tree(part, moment_bounds(matrices), statistic.combine, workers)
    check_squares(float(sums.sums[1].sum()), matrices)
    with np.errstate(over="ignore", invalid="ignore"):
        overflown = not np.isfinite(sums.products.sum())
    if single and overflown:
        return cross_moments(matrices, n_jobs=n_jobs, max_memory=max_memory)
    widths = [matrix.n_features for matrix in matrices]
    return finalize_moments(sums, statistic.shift, widths, single=single)


def first_means(matrices: Sequence[Matrix]) -> Float64:
    """Mean of every column over its first rows, shape (d,): what moments are taken about."""
    stop = min(PRODUCT_ROWS, leaf_bounds(matrices)[0][1])
    return np.concatenate([mean_of_rows(matrix, 0, stop) for matrix in matrices])
