"""Memory budgets, and giving pages of mapped files back."""

from __future__ import annotations

import mmap
import re
from typing import Any

import numpy as np

from ._lazy_rows import LazyRows
from .errors import MemoryBudgetError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Where a page of a file is used, Linux may map the large folio around it: also pages that had gone already.
FAULT_AROUND = max(1 << 21, mmap.PAGESIZE)
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)

# What a kernel maps around a page that is read, where the file lies in large pieces in its cache.
_MAPPED_AROUND = 2**21


def parse_memory(max_memory: int | float | str | None) -> int | None:
    """Turn ``max_memory`` into bytes.

    Parameters
    ----------
    max_memory : int, float, str or None
        Bytes, or text such as ``"2GB"`` (powers of 1000) or ``"512MiB"`` (powers of 1024).

    Returns
    -------
    int or None
        Bytes; None for no limit.

    Examples
    --------
    >>> parse_memory("2GB"), parse_memory("1.5 MiB"), parse_memory(None)
    (2000000000, 1572864, None)
    """
    if max_memory is None:
        return None
    if isinstance(max_memory, str):
        match = _PATTERN.fullmatch(max_memory)
        if match is None:
            raise ValueError(f"max_memory: {max_memory!r} is not a size; write bytes, '2GB' or '512MiB'")
        unit = _UNITS[match[2].lower()]
        if match[3]:
            unit = 1024 ** ("kmgt".index(match[2].lower()) + 1) if match[2] else 1
        size = int(float(match[1]) * unit)
    elif isinstance(max_memory, bool) or not isinstance(max_memory, (int, float, np.integer, np.floating)):
        raise TypeError(f"max_memory: wanted bytes or text such as '2GB', got {type(max_memory).__name__}")
    else:
        if not np.isfinite(max_memory):
            raise ValueError(f"max_memory: wanted a finite size, got {max_memory}")
        size = int(max_memory)
    if size <= 0:
        raise ValueError(f"max_memory: wanted a positive size, got {max_memory!r}")
    return size


def format_bytes(size: float) -> str:
    """Write a size for a person to read.

    Examples
    --------
    >>> format_bytes(2_500_000)
    '2.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def require_budget(budget: int | None, required: int, work: str) -> None:
    """Raise :class:`MemoryBudgetError` where ``required`` bytes exceed ``budget`` (None: no limit)."""
    if budget is not None and required > budget:
        raise MemoryBudgetError(
            f"max_memory: {work} needs {format_bytes(required)}, the budget is {format_bytes(budget)}; "
            f"max_memory={required} would do",
            required,
        )


def workers_within(budget: int | None, n_jobs: int, *, fixed: int, per_worker: int, work: str) -> int:
    """How many workers fit a budget: as many as asked for, or fewer, at least one.

    Parameters
    ----------
    budget : int or None
        Bytes in all; None for no limit.
    n_jobs : int
        Workers wanted.
    fixed, per_worker : int
        Bytes that the work takes once, and for each worker.
    work : str
        Named in the error.

    Raises
    ------
    MemoryBudgetError
        Where not even one worker fits.
    """
    require_budget(budget, fixed + per_worker, work)
    if budget is None:
        return n_jobs
    return max(1, min(n_jobs, (budget - fixed) // max(per_worker, 1)))


def release_pages(array: np.ndarray[Any, Any] | LazyRows) -> None:
    """Let the resident pages behind a view of a read-only mapped file go; a no-op for other arrays.

    A plain walk over a memmap grows resident memory to the size of the file. The data stay on
    disk (and mostly in the page cache): reading them again is always correct. Reading a page may map others
    around it, those of blocks that were let go before among them, so a margin goes with the block.
    """
    if isinstance(array, LazyRows):
        mapped = array.mapped
        if mapped is not None:
            release_pages(mapped)
        return
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.base is None:
            return
        base = base.base
    if not isinstance(base, mmap.mmap) or array.size == 0 or not hasattr(base, "madvise"):
        return
    if array.flags.writeable or not _in_one_piece(array):
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    origin = np.frombuffer(base, dtype=np.uint8).ctypes.data
    begin = max(0, low - origin - _MAPPED_AROUND)
    begin -= begin % mmap.PAGESIZE
    end = min(len(base), high - origin + _MAPPED_AROUND)
    base.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def release_rows(array: np.ndarray[Any, Any] | LazyRows, start: int, stop: int) -> None:
    """Let the pages of some rows go, as :func:`release_pages`; rows in no file are not read for it."""
    if isinstance(array, LazyRows):
        mapped = array.mapped
        if mapped is None:
            return
        array = mapped
    release_pages(array[start:stop])


def _in_one_piece(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array is a stretch of its file, but for columns left out of its rows."""
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return True
    if array.ndim != 2:
        return False
    (rows, columns), (row, column) = array.shape, array.strides
    return bool(0 < column * columns <= row or 0 < row * rows <= column)
