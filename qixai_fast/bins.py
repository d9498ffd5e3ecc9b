"""Bins of the columns of a matrix, and the codes of its values: equal width, or equal frequency."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._memory import release_pages, release_rows
from ._threads import ordered_map
from ._validate import Array, Float64, Matrix, check_choice, check_int
from .kernels.histogram_cpu import digitize_block, extents, transpose

Result = TypeVar("Result")
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Index = npt.NDArray[np.int64]

STRATEGIES = ("uniform", "quantile")
MAX_BINS = 4096
MAX_SAMPLES = 2**31 - 1

# Edges at least so many units in the last place apart: rounding moves a value by less than one bin.
_APART = 8
# Columns of a feature-major file that are read before their pages are let go.
_MAPPED_COLUMNS = 4


def code_dtype(n_bins: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every bin."""
    return np.dtype(np.uint8 if n_bins <= 256 else np.uint16)


def check_binning(n_bins: Any, strategy: Any, n_samples: int) -> int:
    """Check ``n_bins`` and ``strategy``; return n_bins."""
    check_choice(strategy, "strategy", STRATEGIES)
    if n_samples > MAX_SAMPLES:
        raise ValueError(f"X: wanted at most {MAX_SAMPLES} samples, got {n_samples}")
    return check_int(n_bins, "n_bins", low=2, high=MAX_BINS)


def check_flag(value: Any, name: str) -> bool:
    """Return a boolean option, or raise TypeError naming it."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: wanted True or False, got {type(value).__name__}")
    return bool(value)


@dataclass(frozen=True)
class Bins:
    """Bins of every column of a matrix.

    Attributes
    ----------
    edges : (d, n_bins + 1) float64
        Bin b of a column holds ``edges[b] <= value < edges[b + 1]``; the last bin also holds the maximum.
    steps : (d,) float64
        Where not 0, edge k is ``k * step`` beyond the first to the bit, so that a bin is computed; 0 where
        edges are searched.
    zero : bool
        Whether bin 0 holds the values that are 0 and no others. Then ``edges[0]`` is 0, and the edges of
        bins 1 to n_bins - 1 begin at ``edges[1]``.
    """

    edges: Float64
    steps: Float64
    zero: bool = False

    @property
    def n_bins(self) -> int:
        return int(self.edges.shape[1]) - 1

    def encode(self, block: Array, codes: Codes, start: int = 0) -> None:
        """Write the bins of a block of rows (float32 or float64) into columns ``start`` on of ``codes``."""
        digitize_block(np.ascontiguousarray(block), self.edges, self.steps, self.zero, codes, start)


def row_blocks(n_samples: int, rows: int) -> list[tuple[int, int]]:
    """First and last-plus-one row of consecutive blocks of ``rows`` rows."""
    return [(start, min(start + rows, n_samples)) for start in range(0, n_samples, rows)]


def over_blocks(
    function: Callable[[tuple[int, int]], Result], blocks: list[tuple[int, int]], n_jobs: int
) -> Iterator[Result]:
    """Map over blocks of rows, on no more threads than blocks: a small block takes less than a thread."""
    return ordered_map(function, blocks, min(n_jobs, len(blocks)))


def block_dtype(matrix: Matrix) -> np.dtype[Any]:
    """float32 where it holds every value that the matrix's dtype can hold, float64 elsewhere."""
    return np.dtype(np.float32 if np.can_cast(matrix.dtype, np.float32) else np.float64)


def read_block(matrix: Matrix, start: int, stop: int) -> Array:
    """Rows ``start:stop`` as a new C-ordered array of :func:`block_dtype`, not checked to be finite.

    Pages of a mapped file are let go once they are copied.
    """
    return _read(matrix, start, stop, slice(0, matrix.n_features))


def _read(matrix: Matrix, start: int, stop: int, columns: slice) -> Array:
    view = matrix.data[start:stop, columns]
    if not (isinstance(view, np.memmap) and matrix.data.flags.f_contiguous and view.shape[1] > 1):
        copied = np.array(view, dtype=block_dtype(matrix), order="C")
        release_rows(matrix.data, start, stop)
        return copied
    # A feature-major file: every column lies elsewhere in it, and the kernel may map megabytes around each.
    copied = np.empty(view.shape, dtype=block_dtype(matrix))
    for left in range(0, view.shape[1], _MAPPED_COLUMNS):
        copied[:, left : left + _MAPPED_COLUMNS] = view[:, left : left + _MAPPED_COLUMNS]
        release_pages(matrix.data)
    return copied


def check_span(name: str, low: Float64, high: Float64, first: int = 0) -> None:
    """Raise ValueError naming a column whose width is no float64."""
    with np.errstate(over="ignore"):
        wide = np.flatnonzero(~np.isfinite(high - low))
    if len(wide):
        j = int(wide[0])
        raise ValueError(
            f"{name}: column {first + j} spans {low[j]:g} to {high[j]:g}, "
            "too wide for float64 bins; scale it down"
        )


def _even_edges(low: Float64, high: Float64, n_bins: int) -> tuple[Float64, Float64]:
    """``numpy.linspace(low, high, n_bins + 1)`` of every column, and the steps of :class:`Bins`."""
    edges = np.empty((len(low), n_bins + 1))
    steps = (high - low) / n_bins
    # numpy.linspace switches its formula for all columns when one step is 0, so those go alone.
    flat = steps == 0.0
    for j in np.flatnonzero(flat):
        edges[j] = np.linspace(low[j], high[j], n_bins + 1)
    even = ~flat
    edges[even] = np.linspace(low[even], high[even], n_bins + 1, axis=1)
    largest = np.maximum(np.abs(low), np.abs(high))
    with np.errstate(divide="ignore", over="ignore"):
        computed = (steps > _APART * np.spacing(largest)) & np.isfinite(1.0 / steps)
    return edges, np.where(computed, steps, 0.0)


def even_bins(name: str, low: Float64, high: Float64, n_bins: int, *, zero: bool) -> Bins:
    """Bins of equal width between the smallest and the largest value that counts of each column.

    Where none does, the smallest is inf and the largest -inf.
    """
    nothing = low > high
    low[nothing] = high[nothing] = 0.0
    check_span(name, low, high)
    edges, steps = _even_edges(low, high, n_bins - zero)
    if zero:
        edges = np.column_stack([np.zeros(len(edges)), edges])
    return Bins(edges, steps, zero)


def uniform_bins(matrix: Matrix, n_bins: int, *, zero: bool = False, rows: int, n_jobs: int) -> Bins:
    """Bins of equal width between each column's minimum and maximum; one pass, which also checks all values.

    Parameters
    ----------
    matrix : Matrix
    n_bins : int
    zero : bool
        Whether the first bin is for zeros alone, and the others lie between the least and the largest of all
        other values.
    rows : int
        Rows read at a time by each thread.
    n_jobs : int
    """
    dtype = block_dtype(matrix)

    def extent(bounds: tuple[int, int]) -> tuple[Array, Array]:
        block = read_block(matrix, *bounds)
        low = np.full(matrix.n_features, np.inf, dtype=dtype)
        high, odd = -low, np.zeros_like(low)
        extents(block, zero, low, high, odd)
        if not np.all(odd == 0.0):
            matrix.block(*bounds)
        return low, high

    low = np.full(matrix.n_features, np.inf)
    high = np.full(matrix.n_features, -np.inf)
    for least, most in over_blocks(extent, row_blocks(matrix.n_samples, rows), n_jobs):
        np.minimum(low, least, out=low)
        np.maximum(high, most, out=high)
    return even_bins(matrix.name, low, high, n_bins, zero=zero)


def _gather(matrix: Matrix, columns: slice, rows: int, out: Array) -> None:
    """Copy columns into the rows of ``out``, checking that they are finite."""
    for start, stop in row_blocks(matrix.n_samples, rows):
        part = _read(matrix, start, stop, columns)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(part.sum(dtype=np.float64))
        if not finite:
            matrix.block(start, stop)
        transpose(part, out, start)


def quantile_places(n: int, n_bins: int) -> tuple[Index, Index, Float64]:
    """Between which of n sorted values the edges lie, and how far from the first towards the second."""
    position = np.linspace(0.0, 1.0, n_bins + 1) * (n - 1)
    below = np.minimum(position.astype(np.int64), n - 1)
    return below, np.minimum(below + 1, n - 1), position - below


def quantile_line(left: Float64, right: Float64, share: Float64) -> Float64:
    """Edges that lie ``share`` of the way from ``left`` to ``right``."""
    with np.errstate(over="ignore", invalid="ignore"):
        gap = right - left
        # The form of numpy.quantile: from the nearer end.
        line = np.where(share >= 0.5, right - gap * (1.0 - share), left + gap * share)
    edges: Float64 = np.maximum.accumulate(line)
    return edges


def _quantiles(values: Array, n_bins: int) -> Float64:
    """``numpy.quantile(values, linspace(0, 1, n_bins + 1))`` of sorted values, in float64."""
    below, above, share = quantile_places(len(values), n_bins)
    return quantile_line(values[below].astype(np.float64), values[above].astype(np.float64), share)


def quantile_bins(
    matrix: Matrix, n_bins: int, *, zero: bool = False, columns: int, rows: int, n_jobs: int
) -> Bins:
    """Bins of equal frequency: edges are ``numpy.quantile(column, linspace(0, 1, n_bins + 1))``, exactly.

    Parameters
    ----------
    matrix : Matrix
    n_bins : int
    zero : bool
        Whether the first bin is for zeros alone, and the others share all other values.
    columns : int
        Columns held and sorted at a time; the matrix is read once for each such block.
    rows : int
        Rows read at a time.
    n_jobs : int
    """
    n, d = matrix.n_samples, matrix.n_features
    edges = np.zeros((d, n_bins + 1))
    buffer = np.empty((min(columns, d), n), dtype=block_dtype(matrix))

    def cut(task: tuple[int, int]) -> None:
        slot, column = task
        values = buffer[slot]
        values.sort()
        if zero:
            begin, end = np.searchsorted(values, 0.0), np.searchsorted(values, 0.0, side="right")
            # The others move together; what is left behind them is not looked at.
            values[begin : begin + n - end] = values[end:]
            values = values[: begin + n - end]
        if len(values):
            edges[column, int(zero) :] = _quantiles(values, n_bins - zero)

    for first in range(0, d, columns):
        stop = min(first + columns, d)
        _gather(matrix, slice(first, stop), rows, buffer[: stop - first])
        for _ in ordered_map(cut, enumerate(range(first, stop)), min(n_jobs, stop - first)):
            pass
        check_span(matrix.name, edges[first:stop, int(zero)], edges[first:stop, -1], first)
    return Bins(edges, np.zeros(d), zero)


def make_bins(
    matrix: Matrix, n_bins: int, strategy: str, *, zero: bool, rows: int, sort_columns: int, n_jobs: int
) -> Bins:
    """Bins of every column, by one of the two strategies."""
    if strategy == "uniform":
        return uniform_bins(matrix, n_bins, zero=zero, rows=rows, n_jobs=n_jobs)
    return quantile_bins(matrix, n_bins, zero=zero, columns=sort_columns, rows=rows, n_jobs=n_jobs)


def encode_rows(
    matrix: Matrix, bins: Bins, codes: Codes, start: int, stop: int, *, rows: int, n_jobs: int
) -> None:
    """Write the codes of rows ``start`` to ``stop`` into the first columns of feature-major ``codes``."""

    def write(bounds: tuple[int, int]) -> None:
        bins.encode(read_block(matrix, start + bounds[0], start + bounds[1]), codes, bounds[0])

    for _ in over_blocks(write, row_blocks(stop - start, rows), n_jobs):
        pass


def encode(matrix: Matrix, bins: Bins, *, rows: int, n_jobs: int) -> Codes:
    """Codes of a whole matrix, (d, n): one pass."""
    codes: Codes = np.empty((matrix.n_features, matrix.n_samples), dtype=code_dtype(bins.n_bins))
    encode_rows(matrix, bins, codes, 0, matrix.n_samples, rows=rows, n_jobs=n_jobs)
    return codes
