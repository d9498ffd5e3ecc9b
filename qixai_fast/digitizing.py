"""Codes of the columns of a matrix: the bin of every value, once, for all that works on bins."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._device import Home, backends_for, home_of, is_torch
from ._memory import parse_memory, require_budget
from ._threads import resolve_n_jobs
from ._validate import Matrix, as_input
from .bins import (
    block_dtype,
    check_binning,
    check_flag,
    code_dtype,
    encode,
    encode_rows,
    make_bins,
)
from .code_files import disk_error, path_of, write_codes, written_rows

_BLOCK_BYTES = 2**20
_LEAST_ROWS = 64
_MOST_ROWS = 32768
_SORT_BYTES = 256 * 2**20
_WRITE_BYTES = 64 * 2**20
# Edges, their temporaries and steps: bytes an edge; threads and small objects.
_EDGE_BYTES = 40
_RANGE_BYTES = 64
_OVERHEAD = 2**18


@dataclass(frozen=True)
class Digitized:
    """Result of :func:`digitize`.

    Attributes
    ----------
    codes : array of shape (n_features, n_samples)
        Bin of every value, feature-major; uint8 up to 256 bins, uint16 above.
    edges : array of shape (n_features, n_bins + 1), float64
        Bin b of a column holds ``edges[b] <= value < edges[b + 1]``; the last bin also holds the maximum.
        With ``zero_bin``, bin 0 holds the zeros alone, ``edges[0]`` is 0, and this holds for bins 1 on.
    """

    codes: Any
    edges: Any


@dataclass(frozen=True)
class _Plan:
    n_jobs: int
    rows: int
    sort_columns: int
    together: int


def _plan(
    matrix: Matrix, n_bins: int, strategy: str, n_jobs: int, budget: int | None, *, buffered: bool
) -> _Plan:
    """Rows, threads and columns that fit the budget; ``buffered`` where codes are collected to be written."""
    n, d = matrix.n_samples, matrix.n_features
    itemsize = block_dtype(matrix).itemsize
    code_row = d * code_dtype(n_bins).itemsize if buffered else 0
    row = d * itemsize
    ranges = _RANGE_BYTES * d
    sort_column = n * itemsize if strategy == "quantile" else 0
    least_rows = min(n, _LEAST_ROWS)
    most_rows = min(n, _MOST_ROWS, max(_LEAST_ROWS, _BLOCK_BYTES // row))
    fixed = _OVERHEAD + _EDGE_BYTES * d * (n_bins + 1)
    require_budget(
        budget, fixed + ranges + least_rows * row + max(least_rows * code_row, sort_column), "digitize"
    )
    if budget is None:
        columns = max(1, min(d, _SORT_BYTES // max(1, sort_column)))
        return _Plan(n_jobs, most_rows, columns, written_rows(d, 1, n, _WRITE_BYTES))
    free = budget - fixed
    room = free - least_rows * code_row
    jobs = max(1, min(n_jobs, room // (ranges + least_rows * row)))
    rows = max(1, min(most_rows, (room // jobs - ranges) // (row + code_row)))
    if sort_column and free < rows * row + sort_column:
        rows = least_rows
    columns = max(1, min(d, (min(free, _SORT_BYTES) - rows * row) // max(1, sort_column)))
    left = free - jobs * (rows * row + ranges)
    return _Plan(jobs, rows, columns, written_rows(d, max(1, code_row // d), n, min(_WRITE_BYTES, left)))


def _check_out(out: Any, matrix: Any, dtype: np.dtype[Any]) -> None:
    shape = (matrix.n_features, matrix.n_samples)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: wanted a path or a NumPy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out: wanted shape {shape} and dtype {dtype}, got {out.shape} and {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out: is read-only")
    if not is_torch(matrix.data) and np.may_share_memory(out, matrix.data):
        raise ValueError("out: shares memory with X")


def _write_file(
    path: Path, shape: tuple[int, int], dtype: np.dtype[Any], write: Callable[[int, int], None]
) -> Any:
    """Write codes as a .npy file, under another name until it is whole; return it mapped, read-only.

    ``write`` gets the file's descriptor and where in it the codes begin.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", buffering=0) as file:
            try:
                header = {
                    "descr": dtype.str,
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(file, header)
                write(file.fileno(), file.tell())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        size = shape[0] * shape[1] * dtype.itemsize
        raise disk_error(error, str(path), size, "check its directory and the free space") from error
    return np.load(path, mmap_mode="r")


def _digitize_on_device(
    rows: Any,
    n_bins: int,
    strategy: str,
    zero: bool,
    path: Path | None,
    out: Any,
    home: Home,
    budget: int | None,
) -> Digitized:
    from ._gpu.binned import digitize_rows

    codes, edges = digitize_rows(rows, n_bins, strategy, zero=zero, max_memory=budget)
    if out is None:
        return Digitized(home.bring(codes), home.bring(edges))
    if path is None:
        for row, own in zip(out, codes, strict=True):
            row[:] = own.cpu().numpy()
        return Digitized(out, home.bring(edges))

    def write(descriptor: int, start: int) -> None:
        for own in codes:
            column = memoryview(own.cpu().numpy()).cast("B")
            while column:
                done = os.pwrite(descriptor, column, start)
                start, column = start + done, column[done:]

    shape = rows.n_features, rows.n_samples
    return Digitized(_write_file(path, shape, code_dtype(n_bins), write), home.bring(edges))


def digitize(
    X: Any,
    *,
    n_bins: int = 16,
    strategy: str = "uniform",
    zero_bin: bool = False,
    out: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Digitized:
    """Bin of every value, column by column: the codes that binned estimators count.

    Two passes over the data (equal width: one for the ranges, one for the codes), in blocks of rows.

    Parameters
    ----------
    X : array_like, shape (n_samples, n_features)
        Real numbers: array, memmap or torch tensor.
    n_bins : int
        Bins of each column, 2 to 4096.
    strategy : {"uniform", "quantile"}
        ``"uniform"``: edges ``numpy.linspace(min, max, n_bins + 1)`` in float64. ``"quantile"``: edges
        ``numpy.quantile(values, numpy.linspace(0, 1, n_bins + 1))``. Membership is that of
        ``numpy.digitize``, and the maximum belongs to the last bin.
    zero_bin : bool
        Give the zeros of a column (0.0 and -0.0, nothing near them) bin 0. Bins 1 to ``n_bins - 1`` are then
        those that ``n_bins - 1`` bins of the values that are not 0 would be: the minimum, maximum or
        quantiles of those values alone. Behind a ReLU, where zeros come first, the edges still ascend.
        Elsewhere a zero may lie within the range of another bin, and is not counted there. A column without
        zeros leaves bin 0 empty; one of zeros alone has edges 0.
    out : path or array, optional
        Where the codes go: a path for a ``.npy`` file, replaced when it is whole, or a NumPy array or
        memmap of the shape and dtype of the codes. A new array by default.
    n_jobs : int, optional
        Threads; all usable cores by default. The result is the same for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: that of X where it lives on a GPU, else the CPU. Codes and edges are the same on both.
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates besides the result; on a GPU, of its memory, which holds
        all codes twice.

    Returns
    -------
    Digitized
        ``codes`` (feature-major) and ``edges``: NumPy, or torch on the device of X. Codes written to a path
        come back as a read-only memmap, and ``out`` as itself.

    Raises
    ------
    ValueError
        For other shapes, NaN or infinite values, options out of range, and an ``out`` of another shape.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small; says what would do.
    OSError
        Where the codes cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast import digitize
    >>> X = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 3.0], [5.0, 4.0]])
    >>> digitize(X, n_bins=2).codes
    array([[0, 0, 0, 1],
           [0, 0, 1, 1]], dtype=uint8)
    >>> digitize(X, n_bins=3, zero_bin=True).edges
    array([[0. , 1. , 3. , 5. ],
           [0. , 1. , 2.5, 4. ]])
    """
    backends = backends_for(device, X)
    matrix = as_input(X, "X", backends)
    n_bins = check_binning(n_bins, strategy, matrix.n_samples)
    zero = check_flag(zero_bin, "zero_bin")
    path = path_of(out)
    if out is not None and path is None:
        _check_out(out, matrix, code_dtype(n_bins))
    if backends is not None:
        budget = parse_memory(max_memory)
        return _digitize_on_device(matrix, n_bins, strategy, zero, path, out, home_of(X), budget)
    plan = _plan(
        matrix, n_bins, strategy, resolve_n_jobs(n_jobs), parse_memory(max_memory), buffered=path is not None
    )
    bins = make_bins(
        matrix,
        n_bins,
        strategy,
        zero=zero,
        rows=plan.rows,
        sort_columns=plan.sort_columns,
        n_jobs=plan.n_jobs,
    )
    bring = matrix.home.bring
    if path is not None:

        def write(descriptor: int, start: int) -> None:
            write_codes(
                matrix,
                bins,
                descriptor,
                start,
                rows=plan.rows,
                together=plan.together,
                n_jobs=plan.n_jobs,
            )

        shape = matrix.n_features, matrix.n_samples
        return Digitized(_write_file(path, shape, code_dtype(n_bins), write), bring(bins.edges))
    if out is None:
        return Digitized(bring(encode(matrix, bins, rows=plan.rows, n_jobs=plan.n_jobs)), bring(bins.edges))
    encode_rows(matrix, bins, out, 0, matrix.n_samples, rows=plan.rows, n_jobs=plan.n_jobs)
    return Digitized(out, bring(bins.edges))
