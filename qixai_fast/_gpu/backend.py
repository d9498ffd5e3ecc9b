"""One GPU: its memory, its streams, and launching kernels on torch's tensors without copying them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._memory import format_bytes
from ..errors import MemoryBudgetError

# Of a device's free memory: the rest is for what torch, cuBLAS and the driver take.
_USABLE = 0.9
_configuring = Lock()


@cache
def _numba_stream(index: int, handle: int) -> Any:
    """A stream of torch's as numba knows it: always the same object, by which numba knows a grid again.

    To be called in the device's context.
    """
    del index  # handles are one device's own
    import numba.cuda

    return numba.cuda.external_stream(handle)


@cache
def _type_text(dtype: torch.dtype) -> str:
    return np.dtype(str(dtype).removeprefix("torch.")).str


def _described(tensor: torch.Tensor) -> dict[str, Any]:
    """A tensor in the terms of the CUDA array interface; torch's own knows fewer types in older versions."""
    strides = None if tensor.is_contiguous() else tuple(step * tensor.itemsize for step in tensor.stride())
    return {
        "shape": tuple(tensor.shape),
        "strides": strides,
        "typestr": _type_text(tensor.dtype),
        "data": (tensor.data_ptr(), False),
        "version": 3,
    }


def _configured(kernel: Any, blocks: int | tuple[int, ...], threads: int, stream: Any) -> Any:
    """A kernel with its grid; without numba's advice against small grids, which small inputs have."""
    options = importlib.import_module("numba.cuda.dispatcher").config
    with _configuring:
        before, options.CUDA_LOW_OCCUPANCY_WARNINGS = options.CUDA_LOW_OCCUPANCY_WARNINGS, 0
        try:
            return kernel[blocks, threads, stream]
        finally:
            options.CUDA_LOW_OCCUPANCY_WARNINGS = before


class Backend:
    """A CUDA device, as the families see it.

    A test's stand-in has the same methods on the CPU, with kernels in numba's simulator.

    Parameters
    ----------
    index : int
        As torch counts devices.
    """

    def __init__(self, index: int) -> None:
        self.device = torch.device("cuda", index)
        self.n_multiprocessors: int = torch.cuda.get_device_properties(index).multi_processor_count
        self.capability: tuple[int, int] = torch.cuda.get_device_capability(index)
        self._copies: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def free_memory(self) -> int:
        """Bytes that can be allocated: the device's own, and what torch holds and does not use."""
        free, _ = torch.cuda.mem_get_info(self.device)
        held = torch.cuda.memory_stats(self.device)
        idle = held.get("reserved_bytes.all.current", 0) - held.get("allocated_bytes.all.current", 0)
        return int(free + idle)

    def budget(self, max_memory: int | None) -> int:
        """Bytes of the device that a call may take: nine tenths of what is free, ``max_memory`` at most."""
        free = int(_USABLE * self.free_memory())
        return free if max_memory is None else min(free, max_memory)

    def require(self, budget: int, required: int, work: str) -> None:
        """Raise :class:`MemoryBudgetError` where ``required`` bytes of the device exceed ``budget``."""
        if required > budget:
            raise MemoryBudgetError(
                f"max_memory: {work} needs {format_bytes(required)} of {self.device}, it may take "
                f"{format_bytes(budget)}; max_memory={required} would do where the device has as much",
                required,
            )

    def launch(self, kernel: Any, blocks: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
        """Start a kernel on torch's current stream; tensors are passed as they lie, strides and all.

        ``blocks`` of 0 start nothing. A tensor of bfloat16 has no form in numba: view it as int16.
        """
        if blocks == 0 or (isinstance(blocks, tuple) and 0 in blocks):
            return
        import numba.cuda

        cuda: Any = numba.cuda
        index = self.device.index
        with cuda.gpus[index]:
            stream = _numba_stream(index, torch.cuda.current_stream(self.device).cuda_stream)
            passed = [
                cuda.from_cuda_array_interface(_described(one), owner=one) if torch.is_tensor(one) else one
                for one in arguments
            ]
            _configured(kernel, blocks, threads, stream)(*passed)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor of the host that the device can read while it computes."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def reads(self, array: npt.NDArray[Any]) -> bool:
        """Whether the device can read an array of the host while it computes, as it does pinned memory."""
        return array.flags.writeable and torch.from_numpy(array).is_pinned()

    def copying(self) -> AbstractContextManager[Any]:
        """What is started inside runs on the stream for copies, beside the current stream."""
        context: AbstractContextManager[Any] = torch.cuda.stream(self._copies)
        return context

    def mark(self) -> Any:
        """A mark in the current stream, for :meth:`wait` in another and :meth:`block_until` on the host."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def wait(self, mark: Any) -> None:
        """Let the current stream wait until another has come to a mark."""
        torch.cuda.current_stream(self.device).wait_event(mark)

    def block_until(self, mark: Any) -> None:
        """Let the host wait until a stream has come to a mark."""
        mark.synchronize()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this device the one that torch's functions take by default."""
        with torch.cuda.device(self.device):
            yield


@cache
def open_backend(index: int) -> Backend:
    """The backend of a device; one a process."""
    return Backend(index)
