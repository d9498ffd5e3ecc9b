"""Gradients along paths in passes that fit a budget, and the weighted sums of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import _device
from ._memory import parse_memory, require_budget
from ._path_inputs import PathSamples, summing_dtype
from ._path_model import Gradients, PathModel
from ._validate import Float64

if TYPE_CHECKING:
    from torch import Tensor
    from tqdm import tqdm

    from ._gpu.passes import PassDevice

_T = TypeVar("_T")

# Bytes of a batch. On the CPU larger ones are slower: they leave the caches, and every large tensor is
# fresh memory from the system.
_CPU_BATCH = 64 * 2**20
# Where rows are large, a few of them serve weights that are read anew in each pass, within this many bytes.
_FEW_ROWS, _CPU_MOST = 8, 256 * 2**20
# Where the device is not asked what it has free.
_CUDA_BATCH = 2**30
# Buffers and code that torch's libraries keep once a model has run, and memory its allocator holds back.
TORCH_OWN = 16 * 2**20


def pass_device(tensor: Tensor) -> PassDevice | None:
    """The GPU that a tensor lives on, as passes see it; None on the CPU."""
    if tensor.device.type != "cuda":
        return None
    from ._gpu.backend import open_backend
    from ._gpu.passes import PassDevice

    return PassDevice(open_backend(tensor.device.index or 0), fused=_device.cuda_problem() is None)


def pass_budget(
    max_memory: int | float | str | None, least: int, device_type: str, gpu: PassDevice | None = None
) -> int:
    """Bytes for passes: the budget less torch's own, or what serves the device best where that is less.

    A GPU wants many rows: it gets all of an explicit budget, and without one half of what it has free.

    Raises
    ------
    MemoryBudgetError
        Where ``least`` bytes do not fit.
    """
    budget = parse_memory(max_memory)
    require_budget(budget, TORCH_OWN + least, "one gradient")
    if gpu is not None:
        return max(gpu.room(budget) - TORCH_OWN, least)
    few = min(_CPU_MOST, TORCH_OWN + _FEW_ROWS * least)
    default = max(_CUDA_BATCH if device_type == "cuda" else _CPU_BATCH, few, TORCH_OWN + least)
    if budget is None or device_type == "cpu":
        budget = min(budget or default, default)
    return budget - TORCH_OWN


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the CPU or on a GPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def progress_bar(shown: bool, total: int | None = None) -> tqdm[Any]:
    """A bar that counts gradients, on stderr; nothing is printed of what takes less than a second."""
    from tqdm import tqdm

    return tqdm(desc="integrated gradients", unit="gradient", total=total, delay=1, disable=not shown)


def unless_out_of_memory(work: Callable[[], _T], *, give_up: bool) -> _T | None:
    """The work's result; None where memory ran out, which is an error only where one is to ``give_up``."""
    import torch

    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if give_up or not out_of_memory(error):
            raise
    # Only here is the traceback gone, and with it what the pass had allocated.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


@dataclass
class Passes:
    """Gradient passes of at most ``rows`` rows (nodes times samples); fewer once memory has run out.

    Attributes
    ----------
    model : PathModel
    rows : int
    bar : tqdm
        Counts gradients.
    least : int
        Rows that a pass cannot do without.
    gpu : PassDevice or None
        Where passes run, if not on the CPU.
    room : int
        Bytes that passes may take on the GPU. Passes of more rows than any before are measured, and the next
        ones have as many rows as fill it by that; 0 where ``rows`` stay as they are.
    """

    model: PathModel
    rows: int
    bar: tqdm[Any]
    least: int = 1
    gpu: PassDevice | None = None
    room: int = 0
    _measured: int = 0

    def announce(self, count: int) -> None:
        """So many gradients are still to come, at least."""
        self.bar.total = max(self.bar.total or 0, self.bar.n + count)

    def _fitting(self, work: Callable[[], _T], rows: int) -> _T | None:
        """The work's result; None where memory ran out, and ``rows`` are halved."""
        gpu = self.gpu
        if gpu is None or not self.room or rows <= self._measured:
            found = unless_out_of_memory(work, give_up=rows <= self.least)
        else:
            measured = unless_out_of_memory(lambda: gpu.peak(work), give_up=rows <= self.least)
            found = None
            if measured is not None:
                from ._gpu.passes import rows_of

                found, peak = measured
                self._measured = rows
                self.rows = max(self.least, rows_of(self.room, peak, rows))
        if found is None:
            self.rows = max(self.least, min(self.rows, rows // 2))
            self.room = 0  # what is free is less than it seemed
        return found

    def gradients(self, samples: PathSamples, nodes: Float64 | Tensor) -> Gradients:
        """As :meth:`PathModel.gradients`, in parts where memory runs out."""
        import torch

        n_nodes, n = len(nodes), len(samples)
        if n_nodes * n <= self.rows:
            found = self._fitting(lambda: self.model.gradients(samples, nodes), n_nodes * n)
            if found is not None:
                self.bar.update(n_nodes * n)
                return found
        if n_nodes > 1:
            axis, step = 0, max(1, self.rows // n)
            parts = [
                self.gradients(samples, nodes[first : first + step]) for first in range(0, n_nodes, step)
            ]
        else:
            axis, step = 1, self.rows
            parts = []
            for first in range(0, n, step):
                here = slice(first, min(first + step, n))
                some = samples.take(torch.arange(here.start, here.stop))
                parts.append(self.gradients(some, nodes if nodes.ndim == 1 else nodes[:, here]))
        columns = zip(*(part.by_input for part in parts), strict=True)
        return Gradients(
            torch.cat([part.scores for part in parts], axis),
            # An input is without a gradient in all parts or in none.
            tuple(
                torch.cat([part for part in column if part is not None], axis)
                if column[0] is not None
                else None
                for column in columns
            ),
        )

    def sums(self, samples: PathSamples, nodes: Float64, weights: Float64) -> list[Tensor]:
        """Weighted sum of the gradients over the nodes, in float64; shaped as the inputs."""
        import torch

        self.announce(len(nodes) * len(samples))
        totals = [torch.zeros(x.shape, dtype=summing_dtype(x), device=x.device) for x in samples.inputs]
        if self.gpu is not None:
            self._sum_on(self.gpu, samples, nodes, weights, totals)
            return totals
        start = 0
        while start < len(nodes):
            part = slice(start, start + max(1, self.rows // len(samples)))
            for total, gradient in zip(totals, self.gradients(samples, nodes[part]).by_input, strict=True):
                if gradient is None:
                    continue
                for step, weight in zip(gradient, weights[part], strict=True):
                    total.add_(step, alpha=float(weight))
            start = part.stop
        return totals

    def _sum_on(
        self, gpu: PassDevice, samples: PathSamples, nodes: Float64, weights: Float64, totals: list[Tensor]
    ) -> None:
        """As :meth:`sums`: nothing goes to the host or comes from it on the way, so a GPU never waits."""
        places, factors = gpu.constant(nodes), gpu.constant(weights)
        start = 0
        while start < len(nodes):
            left = len(nodes) - start
            # Passes of one size: of other sizes they would be slower, and no graph would fit them.
            n_parts = -(-left // max(1, self.rows // len(samples)))
            part = slice(start, start - (-left // n_parts))
            found = self.gradients(samples, places[part]).by_input
            for total, gradient in zip(totals, found, strict=True):
                if gradient is not None:
                    gpu.add_weighted(total, gradient, factors[part])
            start = part.stop

    def flat_gradients(self, samples: PathSamples, index: Any, nodes: Float64, into: Tensor) -> Tensor:
        """Gradients at one node each of the samples at ``index``, all inputs side by side.

        Parameters
        ----------
        samples : PathSamples
        index : ndarray of int64, shape (m,)
            No more than ``rows``.
        nodes : ndarray of shape (m,)
        into : Tensor of shape (m, width)
            Takes them.

        Returns
        -------
        Tensor of shape (m,)
            The outputs there.
        """
        import torch

        found = self.gradients(samples.take(torch.as_tensor(index)), np.asarray(nodes)[None])
        column = 0
        for x, gradient in zip(samples.inputs, found.by_input, strict=True):
            here = into[:, column : column + x[0].numel()]
            if gradient is None:
                here.zero_()
            else:
                here.copy_(gradient.reshape(here.shape))
            column += here.shape[1]
        return found.scores[0]
