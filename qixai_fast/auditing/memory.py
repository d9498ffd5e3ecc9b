"""Memory of the whole process: what it holds already, and what a stage leaves behind."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from .._memory import format_bytes, parse_memory, release_pages, require_budget
from .._origins import remember
from .._validate import Array
from ..errors import MemoryBudgetError

# Rows drawn from a mapped file before their pages are let go: a kernel maps up to 2 MiB around each.
_DRAWN_ROWS = 16
# What a process takes while it works beside its engines' arrays: kernels that are loaded or compiled, stacks,
# tables of results, and figures.
_WORKING_BYTES = 128 * 2**20
# Less than this, and no engine can do anything.
_LEAST_BYTES = 16 * 2**20


@contextmanager
def of_the_process(max_memory: int | str | None) -> Iterator[int | None]:
    """What is left of a budget for the whole process, for the arrays of engines; None for no limit.

    Counted beside them: all that is resident now (interpreter, libraries, data of the caller) and 128 MiB
    for kernels yet to be loaded, stacks, tables of results and figures.

    Raises
    ------
    MemoryBudgetError
        Where nothing useful is left; those raised within name a budget for the whole process, too.
    """
    total = parse_memory(max_memory)
    if total is None:
        yield None
        return
    from .report import writer  # noqa: F401  (brings matplotlib, which counts)

    beside = int(psutil.Process().memory_info().rss) + _WORKING_BYTES
    what = f"of which {format_bytes(beside)} are for Python, its libraries and figures"
    require_budget(total, beside + _LEAST_BYTES, f"an audit, {what},")
    try:
        yield total - beside
    except MemoryBudgetError as error:
        required = error.required + beside
        need, _, _ = str(error).partition(" needs ")
        raise MemoryBudgetError(
            f"{need} needs {format_bytes(required)}, {what}, the budget is {format_bytes(total)}; "
            f"max_memory={required} would do",
            required,
        ) from None


@cache
def _trimmer() -> Any:
    """glibc's ``malloc_trim``; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Hand freed memory back to the system: allocators keep it, and it adds up over stages."""
    trim = _trimmer()
    if trim is not None:
        trim(0)


def take_rows(array: Array, rows: npt.NDArray[np.int64]) -> Array:
    """``array[rows]``, letting go of the pages of a mapped file that lie around them."""
    taken: Array = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
    for start in range(0, len(rows), _DRAWN_ROWS):
        some = rows[start : start + _DRAWN_ROWS]
        taken[start : start + len(some)] = array[some]
        release_pages(array[some.min() : some.max() + 1])
    remember(taken, take_rows, array, rows)
    return taken


def take_columns(array: Array, columns: npt.NDArray[np.int64]) -> Array:
    """``array[:, columns]``, read a block of rows at a time, whose pages are let go."""
    taken: Array = np.empty((len(array), len(columns)), dtype=array.dtype)
    step = max(1, 2**22 // max(1, array.itemsize * array.shape[1]))
    for start in range(0, len(array), step):
        block = array[start : start + step]
        taken[start : start + step] = block[:, columns]
        release_pages(block)
    remember(taken, take_columns, array, columns)
    return taken
