"""A GPU's stand-in: torch on the CPU, kernels in numba's simulator, and a record of what was asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

from qixai_fast._gpu.backend import Backend

# The simulator puts its own module into a kernel's globals while it runs: one at a time.
_SIMULATOR = Lock()


class FakeBackend(Backend):
    """Has the methods of a backend.

    Parameters
    ----------
    index : int
    memory : int
        Bytes that are free.

    Attributes
    ----------
    pinned_inputs : bool
        Whether the host's arrays count as pinned memory.
    log : list of tuples
        ("launch", kernel's name, blocks, threads), ("pinned", shape), ("mark", number, stream),
        ("wait", number, stream), ("block until", number), in order.
    """

    def __init__(self, index: int = 0, memory: int = 2**30) -> None:
        self.index = index
        self.device = torch.device("cpu")
        self.n_multiprocessors = 2
        self.capability = (9, 0)
        self.memory = memory
        self.pinned_inputs = False
        self.log: list[tuple[Any, ...]] = []
        self._stream = "current"
        self._marks = 0

    def free_memory(self) -> int:
        return self.memory

    def launch(self, kernel: Any, blocks: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
        if blocks == 0 or (isinstance(blocks, tuple) and 0 in blocks):
            return
        self.log.append(("launch", getattr(kernel, "__name__", str(kernel)), blocks, threads))
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        # As they lie in memory: the simulator would copy plain arrays, and takes contiguous ones only.
        passed = [FakeCUDAArray(one.detach().numpy()) if torch.is_tensor(one) else one for one in arguments]
        with _SIMULATOR:
            kernel[blocks, threads](*passed)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        self.log.append(("pinned", shape))
        return torch.empty(shape, dtype=dtype)

    def reads(self, array: Any) -> bool:
        return self.pinned_inputs

    @contextmanager
    def copying(self) -> Iterator[None]:
        before, self._stream = self._stream, "copies"
        try:
            yield
        finally:
            self._stream = before

    def mark(self) -> int:
        self._marks += 1
        self.log.append(("mark", self._marks, self._stream))
        return self._marks

    def wait(self, mark: int) -> None:
        self.log.append(("wait", mark, self._stream))

    def block_until(self, mark: int) -> None:
        self.log.append(("block until", mark))

    @contextmanager
    def current(self) -> Iterator[None]:
        yield
