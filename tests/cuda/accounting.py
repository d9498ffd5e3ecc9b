"""What a call takes of a device's memory at most, beyond what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter


class Usage:
    """Bytes of tensors.

    Attributes
    ----------
    peak : int
        The most that were alive at once; known when the block of :func:`device_memory` ends.
    """

    peak = 0


class _Accountant(TorchDispatchMode):
    """Follows the storages that operations create in this thread, from their creation until nothing has them.

    Memory that NumPy made (``torch.from_numpy``) and buffers of the host are not counted.
    """

    def __init__(self, usage: Usage) -> None:
        super().__init__()
        self.usage = usage
        self.alive: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {
            one.untyped_storage()._cdata for one in tree_iter((args, kwargs)) if isinstance(one, torch.Tensor)
        }
        self.sweep()
        for one in tree_iter(result):
            if isinstance(one, torch.Tensor) and not one.is_meta:
                storage = one.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self.alive:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.usage.peak = max(self.usage.peak, sum(size for _, size in self.alive.values()))
        return result

    def sweep(self) -> None:
        for key in [key for key, (reference, _) in self.alive.items() if reference.expired()]:
            del self.alive[key]


@contextmanager
def device_memory(gpu: Any) -> Iterator[Usage]:
    """Measure a block: ``with device_memory(gpu) as used: ...``, then ``used.peak``.

    On a GPU torch's own count; in the simulator all tensors that operations create in this thread, which is
    more than a device would hold where a call makes tensors of the host, too.

    Parameters
    ----------
    gpu : the fixture
    """
    usage = Usage()
    gc.collect()
    if not gpu.simulated:
        device = gpu.backend.device
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        # What was asked for: blocks are larger, by luck.
        before = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        yield usage
        torch.cuda.synchronize(device)
        usage.peak = torch.cuda.memory_stats(device)["requested_bytes.all.peak"] - before
        return
    accountant = _Accountant(usage)
    make = gpu.backend.pinned

    def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        with _disable_current_modes():  # stands for memory of the host
            return make(shape, dtype)

    gpu.backend.pinned = pinned
    try:
        with accountant:
            yield usage
    finally:
        gpu.backend.pinned = make
