"""Bins of columns, and joint histograms of pairs of them: a statistic that adds up over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._memory import release_pages
from ._threads import ordered_map
from ._validate import Float64, Matrix
from .kernels.histogram_cpu import count_pairs, digitize

Result = TypeVar("Result")
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Index = npt.NDArray[np.int64]
Tables = npt.NDArray[np.int32]


def code_dtype(n_bins: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every bin."""
    return np.dtype(np.uint8 if n_bins <= 256 else np.uint16)


@dataclass(frozen=True)
class Bins:
    """Bins of every column of a matrix.

    Attributes
    ----------
    edges : (d, n_bins + 1) float64
        Bin b of a column holds ``edges[b] <= value < edges[b + 1]``; the last bin also holds the maximum.
    slopes : (d,) float64
        Bins a unit of evenly spaced edges, to find a bin without a search; 0 where edges are searched.
    """

    edges: Float64
    slopes: Float64

    @property
    def n_bins(self) -> int:
        return int(self.edges.shape[1]) - 1

    def encode(self, block: Float64, codes: Codes, start: int = 0) -> None:
        """Write the bins of a block of rows into columns ``start`` on of feature-major ``codes``."""
        digitize(block, self.edges, self.slopes, codes, start)


def row_blocks(n_samples: int, rows: int) -> list[tuple[int, int]]:
    """First and last-plus-one row of consecutive blocks of ``rows`` rows."""
    return [(start, min(start + rows, n_samples)) for start in range(0, n_samples, rows)]


def _over_blocks(
    function: Callable[[tuple[int, int]], Result], n_samples: int, rows: int, n_jobs: int
) -> Iterator[Result]:
    """Map over blocks of rows, on no more threads than blocks: a small block takes less than a thread."""
    blocks = row_blocks(n_samples, rows)
    return ordered_map(function, blocks, min(n_jobs, len(blocks)))


def _check_span(matrix: Matrix, low: Float64, high: Float64) -> None:
    with np.errstate(over="ignore"):
        wide = np.flatnonzero(~np.isfinite(high - low))
    if len(wide):
        j = int(wide[0])
        raise ValueError(
            f"{matrix.name}: column {j} spans {low[j]:g} to {high[j]:g}, "
            "too wide for float64 bins; scale it down"
        )


def uniform_bins(matrix: Matrix, n_bins: int, *, rows: int, n_jobs: int) -> Bins:
    """Equal-width bins between each column's minimum and maximum; one pass, which also checks all values.

    Parameters
    ----------
    matrix : Matrix
    n_bins : int
    rows : int
        Rows read at a time by each thread.
    n_jobs : int
    """

    def extent(bounds: tuple[int, int]) -> tuple[Float64, Float64]:
        block = matrix.block(*bounds)
        return block.min(axis=0), block.max(axis=0)

    low = np.full(matrix.n_features, np.inf)
    high = np.full(matrix.n_features, -np.inf)
    for least, most in _over_blocks(extent, matrix.n_samples, rows, n_jobs):
        np.minimum(low, least, out=low)
        np.maximum(high, most, out=high)
    _check_span(matrix, low, high)

    edges = np.empty((matrix.n_features, n_bins + 1))
    # numpy.linspace switches its formula for all columns when one step is 0, so those go alone.
    flat = (high - low) / n_bins == 0.0
    for j in np.flatnonzero(flat):
        edges[j] = np.linspace(low[j], high[j], n_bins + 1)
    even = ~flat
    edges[even] = np.linspace(low[even], high[even], n_bins + 1, axis=1)
    with np.errstate(divide="ignore", over="ignore"):
        slopes = n_bins / (high - low)
    slopes[~np.isfinite(slopes)] = 0.0
    return Bins(edges, slopes)


def _gather(matrix: Matrix, columns: slice, rows: int, out: Float64) -> None:
    """Copy columns into the rows of ``out``, checking that they are finite."""
    for start, stop in row_blocks(matrix.n_samples, rows):
        view = matrix.data[start:stop]
        np.copyto(out[:, start:stop], view[:, columns].T, casting="unsafe")
        release_pages(view)
        with np.errstate(over="ignore", invalid="ignore"):
            total = out[:, start:stop].sum()
        if not np.isfinite(total):
            matrix.block(start, stop)


def quantile_bins(matrix: Matrix, n_bins: int, *, columns: int, rows: int, n_jobs: int) -> Bins:
    """Bins of equal frequency: edges are ``numpy.quantile(column, linspace(0, 1, n_bins + 1))``, exactly.

    Parameters
    ----------
    matrix : Matrix
    n_bins : int
    columns : int
        Columns held and sorted at a time; the matrix is read once for each such block.
    rows : int
        Rows read at a time.
    n_jobs : int
    """
    n, d = matrix.n_samples, matrix.n_features
    position = np.linspace(0.0, 1.0, n_bins + 1) * (n - 1)
    below = np.minimum(position.astype(np.int64), n - 1)
    above = np.minimum(below + 1, n - 1)
    share = position - below
    edges = np.empty((d, n_bins + 1))
    buffer = np.empty((min(columns, d), n))

    def cut(task: tuple[int, int]) -> None:
        slot, column = task
        values = buffer[slot]
        values.sort()
        with np.errstate(over="ignore", invalid="ignore"):
            left, right = values[below], values[above]
            gap = right - left
            # The form of numpy.quantile: from the nearer end.
            line = np.where(share >= 0.5, right - gap * (1.0 - share), left + gap * share)
        edges[column] = np.maximum.accumulate(line)

    for first in range(0, d, columns):
        stop = min(first + columns, d)
        _gather(matrix, slice(first, stop), rows, buffer[: stop - first])
        for _ in ordered_map(cut, enumerate(range(first, stop)), min(n_jobs, stop - first)):
            pass
        _check_span(matrix, edges[first:stop, 0], edges[first:stop, -1])
    return Bins(edges, np.zeros(d))


def encode(matrix: Matrix, bins: Bins, *, rows: int, n_jobs: int) -> Codes:
    """Codes of a whole matrix, (d, n): one pass."""
    codes = np.empty((matrix.n_features, matrix.n_samples), dtype=code_dtype(bins.n_bins))

    def write(bounds: tuple[int, int]) -> None:
        bins.encode(matrix.block(*bounds), codes, bounds[0])

    for _ in _over_blocks(write, matrix.n_samples, rows, n_jobs):
        pass
    return codes


class JointHistograms:
    """Joint counts of pairs of columns: chunk -> combine, over rows.

    Partials are (pairs, n_bins_x, n_bins_y) int32 tables. They are integers, so the result is exact and the
    same for any cut of the rows and any order of combining.

    Parameters
    ----------
    bins : sequence of Bins
        Those of each input; one input is paired with itself.
    first, second : (g,) int64
        Pairs: column ``first[p]`` of the first input with column ``second[p]`` of the last.
    """

    def __init__(self, bins: Sequence[Bins], first: Index, second: Index) -> None:
        self.bins = bins
        self.first = first
        self.second = second

    def chunk(self, blocks: Sequence[Float64]) -> Tables:
        """Tables of one block of rows; ``blocks`` holds the same rows of every input."""
        coded = []
        for block, bins in zip(blocks, self.bins, strict=True):
            codes = np.empty((block.shape[1], block.shape[0]), dtype=code_dtype(bins.n_bins))
            bins.encode(block, codes)
            coded.append(codes)
        return self.count(coded[0], coded[-1])

    def count(self, codes_x: Codes, codes_y: Codes) -> Tables:
        """Tables of rows that are coded already."""
        shape = (len(self.first), self.bins[0].n_bins, self.bins[-1].n_bins)
        tables = np.zeros(shape, dtype=np.int32)
        count_pairs(codes_x, codes_y, self.first, self.second, tables)
        return tables

    def combine(self, first: Tables, second: Tables) -> Tables:
        """The tables of both parts' rows, in the memory of the first."""
        first += second
        return first


def accumulate(statistic: JointHistograms, matrices: Sequence[Matrix], *, rows: int, n_jobs: int) -> Tables:
    """Tables of all rows, read in blocks of ``rows``.

    Counts need no fixed tree, so at most ``n_jobs + 2`` partials are held at a time.
    """

    def part(bounds: tuple[int, int]) -> Tables:
        return statistic.chunk([matrix.block(*bounds) for matrix in matrices])

    total: Tables | None = None
    for partial in _over_blocks(part, matrices[0].n_samples, rows, n_jobs):
        total = partial if total is None else statistic.combine(total, partial)
    assert total is not None
    return total
