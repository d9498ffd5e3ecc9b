"""Letting the pages of a tensor that is mapped from a file go, as it is walked over."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from ._memory import FAULT_AROUND

if TYPE_CHECKING:
    from torch import Tensor

_MAPS = Path("/proc/self/maps")
# Below this a tensor is not looked up: its pages weigh nothing.
_LEAST = 16 * 2**20


class Pages:
    """Where a tensor's memory is a file's, shared with the system (``np.memmap`` with mode "r" or "r+").

    Only such pages can go without a loss: what was written to them is the file's already. Those of a
    copy-on-write mapping (mode "c") stay, and so do all where the system does not tell its mappings.

    Parameters
    ----------
    tensor : Tensor
    """

    def __init__(self, tensor: Tensor) -> None:
        self._range = _shared_file(tensor) if _may_be_mapped(tensor) else None

    def release(self, part: Tensor) -> None:
        """Let the pages behind a part of the tensor go; they are read again where they are used again."""
        if self._range is None or part.numel() == 0:
            return
        low, high = _bounds(part)
        if self._range[0] <= low and high <= self._range[1]:
            low = max(self._range[0], low - low % FAULT_AROUND)
            madvise = ctypes.CDLL(None).madvise
            madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
            madvise(low, high - low, mmap.MADV_DONTNEED)


def _may_be_mapped(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.nbytes >= _LEAST and _MAPS.exists()


def _bounds(tensor: Tensor) -> tuple[int, int]:
    """First byte, and the byte after the last, of a strided tensor."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize


def _shared_file(tensor: Tensor) -> tuple[int, int] | None:
    """Addresses of the shared mapping of a file that holds all of the tensor; None where there is none."""
    low, high = _bounds(tensor)
    for line in _MAPS.read_text().splitlines():
        addresses, rights, _, _, inode = line.split()[:5]
        begin, end = (int(address, 16) for address in addresses.split("-"))
        if begin <= low < end:
            return (begin, end) if high <= end and rights[3] == "s" and inode != "0" else None
    return None
