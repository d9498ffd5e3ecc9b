"""Gradient passes on a GPU: room for them, sums of their gradients, and recording them as CUDA graphs."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from .._validate import Float64
from .backend import Backend

_T = TypeVar("_T")

# Of the free memory, where nobody has said how much: the rest is for results, and for what else runs there.
_SHARE = 0.5
# Of the room that rows seem to fill by what a pass took: memory comes in pieces, and workspaces grow.
_FILLED = 7 / 8
# Graphs share memory, yet each keeps its inputs and outputs.
_MOST_GRAPHS = 4
_THREADS = 128

Outputs = tuple[torch.Tensor | None, ...]
Pass = Callable[..., Outputs]


class PassDevice:
    """What gradient passes ask of a GPU.

    Parameters
    ----------
    backend : Backend
    fused : bool
        Whether numba-cuda can be used. Without it torch adds gradients up, one node after the other.
    """

    def __init__(self, backend: Backend, *, fused: bool) -> None:
        self._backend, self._fused = backend, fused
        self._constants: dict[bytes, torch.Tensor] = {}
        self._flags = torch.zeros(3, dtype=torch.int32, device=backend.device)

    def room(self, max_memory: int | None) -> int:
        """Bytes that passes may take: half of what is free, or as much of ``max_memory`` as is free."""
        if max_memory is None:
            return int(_SHARE * self._backend.free_memory())
        return self._backend.budget(max_memory)

    def peak(self, work: Callable[[], _T]) -> tuple[_T, int]:
        """The work's result, and the bytes that it took at most; restarts torch's own record of the peak."""
        device = self._backend.device
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        found = work()
        return found, torch.cuda.max_memory_allocated(device) - before

    def constant(self, values: Float64) -> torch.Tensor:
        """Numbers on the device; copied once, as the device waits for it."""
        values = np.ascontiguousarray(values)
        key = values.tobytes()
        if key not in self._constants:
            self._constants[key] = torch.from_numpy(values).to(self._backend.device)
        return self._constants[key]

    def add_weighted(self, total: torch.Tensor, gradient: torch.Tensor, weights: torch.Tensor) -> None:
        """Add ``weights[s] * gradient[s]`` for all s to ``total``, float64; nothing is waited for."""
        if self._fused and gradient.is_floating_point():
            from .riemann import add_weighted

            steps = gradient.reshape(len(gradient), -1)
            if steps.shape[1] > 1 and steps.stride(1) != 1:
                steps = steps.contiguous()
            add_weighted(self._backend, steps, weights, total.view(-1), self._flags, more=True)
            return
        for step, weight in zip(gradient, weights, strict=True):
            total.addcmul_(step.to(total.dtype), weight)

    def add_trapezoid(
        self,
        before: tuple[torch.Tensor, torch.Tensor],
        after: tuple[torch.Tensor, torch.Tensor],
        total: torch.Tensor,
    ) -> None:
        """Add an activation's change times the mean of its gradients to ``total``, float64; all are (m,)."""
        if self._fused and before[0].dtype in (torch.float32, torch.float64):
            from ..kernels.trapezoids_cuda import add_trapezoid

            operands = [one.contiguous() for one in (before[0], after[0], before[1], after[1])]
            blocks = -(-len(total) // _THREADS)
            self._backend.launch(add_trapezoid, blocks, _THREADS, *operands, total)
            return
        change = after[0].to(total.dtype) - before[0].to(total.dtype)
        total.addcmul_(change, before[1].to(total.dtype) + after[1], value=0.5)

    def graphs(self) -> Graphs:
        """Where passes are recorded, for as long as it is kept."""
        return Graphs(Recorder(self._backend.device))


def rows_of(room: int, peak: int, rows: int) -> int:
    """How many rows fill the room, where a pass of ``rows`` took ``peak`` bytes; at least one."""
    return max(1, int(_FILLED * room * rows) // max(peak, 1))


@contextmanager
def _nothing_waited_for() -> Iterator[None]:
    """RuntimeError where the host waits for the device: recording that would fail, and torch not recover."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    if any("synchronizing CUDA operation" in str(one.message) for one in seen):
        raise RuntimeError("the model waits for the device")


class Recorder:
    """Records work as CUDA graphs that share memory, so that they are replayed one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """What runs the work again, and the tensors that take its results whenever that is called.

        The work runs once before, beside the current stream: libraries set themselves up at a first run.
        """
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(current)
            with torch.cuda.stream(side), _nothing_waited_for():
                work()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating meanwhile. A recording that fails leaves its own stream the
            # current one: the outer context puts ours back.
            recording: Any = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
            with torch.cuda.stream(current), recording:
                outputs = work()
            self._pool = graph.pool()
        return graph.replay, outputs


class Graphs:
    """Passes over tensors, recorded when their shapes come a second time, and replayed from then on.

    Where recording fails, one warning says why, and all passes run as they are.

    Parameters
    ----------
    recorder : Recorder
        Or what has its method.
    """

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self._seen: Counter[Any] = Counter()
        self._kept: dict[Any, tuple[tuple[torch.Tensor, ...], Callable[[], None], Outputs, Any]] = {}
        self._failed = False

    def run(self, work: Pass, tensors: tuple[torch.Tensor, ...], constants: tuple[Any, ...] = ()) -> Outputs:
        """``work(*tensors)``.

        Parameters
        ----------
        work : callable
            Computes tensors from tensors, on one device, by the same operations for the same shapes.
        tensors : tuple of Tensor
            What may change from call to call.
        constants : tuple
            What else the work depends on: another object is another work.
        """
        key = (
            tuple((tuple(one.shape), one.dtype, one.requires_grad) for one in tensors),
            tuple(map(id, constants)),
        )
        if not self._failed and key not in self._kept:
            self._seen[key] += 1
            if self._seen[key] == 2 and len(self._kept) < _MOST_GRAPHS:
                self._record(key, work, tensors, constants)
        if self._failed or key not in self._kept:
            return work(*tensors)
        own, replay, outputs, _ = self._kept[key]
        with torch.no_grad():
            for mine, theirs in zip(own, tensors, strict=True):
                mine.copy_(theirs)
        replay()
        # The next replay overwrites them.
        return tuple(None if one is None else one.clone() for one in outputs)

    def _record(self, key: Any, work: Pass, tensors: tuple[torch.Tensor, ...], constants: Any) -> None:
        own = tuple(one.detach().clone().requires_grad_(one.requires_grad) for one in tensors)
        try:
            replay, outputs = self._recorder.record(lambda: work(*own))
        except RuntimeError as error:
            self._failed = True
            self._kept.clear()
            warnings.warn(
                "cuda_graph: a pass could not be recorded, so all run without a graph "
                f"({str(error).strip().splitlines()[0]})",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        # Constants are kept, as the key goes by where they lie.
        self._kept[key] = own, replay, outputs, constants
