"""Files mapped for reading that say so when they are cut short, where a plain map ends the process."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from .errors import StoreError


class FileMap(np.memmap[Any, np.dtype[Any]]):
    """A read-only ``np.memmap`` that looks at its file's length whenever a part of it is taken.

    Reading a mapped page that its file has no more ends a process by SIGBUS, which no Python code can turn
    into words. Whatever streams a file takes it part by part, and asks here before each: one system call,
    beside megabytes that are read. What remains open is a file that is cut while one part is being read.
    Whole-array operations (``array.sum()``) take no part, and are not watched.
    """

    def __getitem__(self, index: Any) -> Any:
        _require_whole(self)
        found = np.ndarray.__getitem__(self, index)
        copied = isinstance(found, FileMap) and found._mmap is None  # type: ignore[attr-defined]
        return found.view(np.ndarray) if copied else found

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # As np.memmap does, for itself only: results are no maps.
        wrapped = np.ndarray.__array_wrap__(self, array, context)
        if wrapped is self:
            return wrapped
        return wrapped[()] if return_scalar else wrapped.view(np.ndarray)


def _require_whole(array: FileMap) -> None:
    mapped: mmap.mmap | None = array._mmap  # type: ignore[attr-defined]
    if mapped is None or array.offset is None:
        return
    wanted = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + len(mapped)
    size = mapped.size()
    if size < wanted:
        raise StoreError(
            f"{array.filename}: became shorter while it was read: it has {size} bytes of {wanted}; "
            "restore it from a copy, and make the same call again"
        )
