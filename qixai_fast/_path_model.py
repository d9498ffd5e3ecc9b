"""The model along a path: its outputs, its gradients, and what a row of a pass costs in memory.

Nothing of the model is changed: gradients are asked for with respect to the inputs only, so ``.grad``,
``requires_grad``, hooks and the training mode stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ._forks import ready_torch
from ._path_inputs import PathSamples, check_output, select_outputs, summing_dtype
from ._validate import Float64

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._gpu.passes import Graphs

_T = TypeVar("_T")


@contextmanager
def recording() -> Iterator[None]:
    """Record operations for a gradient, also inside ``torch.no_grad()`` and ``torch.inference_mode()``."""
    import torch

    ready_torch()
    with torch.inference_mode(False), torch.enable_grad():
        yield


def check_model(model: Any, samples: PathSamples, *, stacklevel: int = 3) -> None:
    """Check that a model can be called, sits where the inputs are, and is in evaluation mode (a warning)."""
    import torch

    if not callable(model):
        raise TypeError(f"model: wanted a torch module or a function, got {type(model).__name__}")
    if not isinstance(model, torch.nn.Module):
        return
    here = samples.inputs[0].device
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    if devices and str(here) not in devices:
        raise ValueError(
            f"inputs: on {here}, but the model is on {', '.join(sorted(devices))}; move one of them"
        )
    unsteady = [
        name or type(module).__name__ for name, module in model.named_modules() if _is_unsteady(module)
    ]
    if unsteady:
        warnings.warn(
            f"model: {', '.join(unsteady[:3])}{' and others' if len(unsteady) > 3 else ''}: dropout or batch "
            "statistics are active, so that gradients are random or depend on the other rows of a batch; "
            "call model.eval() first",
            UserWarning,
            stacklevel=stacklevel,
        )


def _is_unsteady(module: torch.nn.Module) -> bool:
    """Whether the module's output is random, or mixes the rows of a batch."""
    from torch import nn

    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.training or module.running_mean is None
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.training and module.p > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.training and module.dropout > 0
    return False


# Saved tensors, and as much again twice for the gradients that flow back and for scratch space.
_HEADROOM = 3


@contextmanager
def without_cudnn() -> Iterator[None]:
    """cuDNN off: its recurrent layers have no gradient in evaluation mode, torch's own have."""
    from torch.backends import cudnn

    kept = {
        name: getattr(cudnn, name)
        for name in ("benchmark", "benchmark_limit", "deterministic", "allow_tf32")
        if getattr(cudnn, name) is not None
    }
    with cudnn.flags(enabled=False, **kept):
        yield


class CudnnFallback:
    """Runs gradient passes, without cuDNN from the first one on that it refuses."""

    def __init__(self) -> None:
        self._enabled = True

    def run(self, work: Callable[[], _T]) -> _T:
        """The work's result."""
        if self._enabled:
            try:
                return work()
            except RuntimeError as error:
                if "cudnn RNN backward" not in str(error):
                    raise
                self._enabled = False
        with without_cudnn():
            return work()


class Gradients(NamedTuple):
    """Outputs, and gradients with respect to each input, at nodes of some samples' paths.

    Attributes
    ----------
    scores : Tensor of shape (n_nodes, n)
    by_input : tuple of Tensor or None
        (n_nodes, n, ...); None for an input that the output does not depend on.
    """

    scores: Tensor
    by_input: tuple[Tensor | None, ...]


class PathModel:
    """A model, seen along the straight paths from baselines to inputs; used inside :func:`recording`.

    Parameters
    ----------
    model : callable
    weights : callable, optional
        The module whose weights the model uses, where it is not the model itself.
    graphs : Graphs, optional
        Records gradient passes on a GPU, and replays them.
    """

    def __init__(
        self, model: Callable[..., Any], weights: Any = None, *, graphs: Graphs | None = None
    ) -> None:
        self._model, self._graphs = model, graphs
        self._weights = model if weights is None else weights
        self._cudnn = CudnnFallback()

    @property
    def copies(self) -> int:
        """How often passes need their memory: recorded ones have their own."""
        return 1 if self._graphs is None else 2

    def _scores(self, rows: tuple[Tensor, ...], samples: PathSamples) -> Tensor:
        n_rows = int(rows[0].shape[0])
        return self._scores_of(rows, samples.repeated_extra(n_rows // len(samples)), samples.target)

    def _scores_of(self, rows: tuple[Tensor, ...], extra: tuple[Any, ...], target: Any) -> Tensor:
        # A copy, so that a model that works in place changes neither the leaf nor the caller's data.
        copies = tuple(row.clone() for row in rows)
        return select_outputs(self._model(*copies, *extra), target, int(rows[0].shape[0]))

    def outputs(self, samples: PathSamples, node: float) -> Tensor:
        """F at one point of each sample's path (0: baseline, 1: input), shape (n,), float64.

        Recorded like a gradient pass although no gradient is taken: some modules (the transformer
        encoder) compute differently where nothing is recorded, and the two must agree.
        """
        scores = self._scores(_points(samples, [node]), samples)
        return scores.detach().to(summing_dtype(scores))

    def gradients(self, samples: PathSamples, nodes: Float64 | Tensor) -> Gradients:
        """Gradients of F at points of each sample's path, and F there.

        Parameters
        ----------
        samples : PathSamples
        nodes : ndarray or Tensor of shape (n_nodes,) or (n_nodes, n)

        Returns
        -------
        Gradients
        """
        return self._cudnn.run(lambda: self._gradients(samples, nodes))

    def _gradients(self, samples: PathSamples, nodes: Float64 | Tensor) -> Gradients:
        rows = _points(samples, nodes)
        extra, target = samples.repeated_extra(len(nodes)), samples.target
        if self._graphs is None:
            scores, *found = self._pass(rows, extra, target)
        else:
            scores, *found = self._graphed_pass(self._graphs, rows, extra, samples)
        if all(gradient is None for gradient in found):
            raise ValueError(
                "model: its output does not depend on the inputs through differentiable operations "
                "(a detach, a no_grad block, an argmax or a conversion to NumPy cuts the path)"
            )
        n = len(samples)
        assert scores is not None
        return Gradients(
            scores.reshape(len(nodes), n),
            tuple(None if g is None else g.reshape(len(nodes), n, *g.shape[1:]) for g in found),
        )

    def _pass(
        self, rows: tuple[Tensor, ...], extra: tuple[Any, ...], target: Any
    ) -> tuple[Tensor | None, ...]:
        """F at some rows, and its gradients there: none at all where nothing leads back to the rows."""
        import torch

        scores = self._scores_of(rows, extra, target)
        found: tuple[Tensor | None, ...] = ()
        if scores.requires_grad:
            found = torch.autograd.grad(scores, rows, torch.ones_like(scores), allow_unused=True)
        return scores.detach(), *found

    def _graphed_pass(
        self, graphs: Graphs, rows: tuple[Tensor, ...], extra: tuple[Any, ...], samples: PathSamples
    ) -> tuple[Tensor | None, ...]:
        """As :meth:`_pass`; what belongs to samples may change from pass to pass, all else is the same."""
        import torch

        own = samples.extra_by_sample
        by_sample = tuple(x for x, has_rows in zip(extra, own, strict=True) if has_rows)
        fixed = tuple(x for x, has_rows in zip(extra, own, strict=True) if not has_rows)
        targets = (samples.target,) if isinstance(samples.target, torch.Tensor) else ()

        def work(*tensors: Tensor) -> tuple[Tensor | None, ...]:
            others = iter(tensors[len(rows) : len(rows) + len(by_sample)])
            rest = iter(fixed)
            arguments = tuple(next(others if has_rows else rest) for has_rows in own)
            return self._pass(tensors[: len(rows)], arguments, tensors[-1] if targets else samples.target)

        constants = (*fixed, samples.target if not targets else None)
        return graphs.run(work, (*rows, *by_sample, *targets), constants)

    def probe(self, samples: PathSamples, n_rows: int = 2) -> int:
        """Check the model's output on the first samples; return the bytes that a row of a pass takes."""
        import torch

        n_rows = min(n_rows, len(samples))  # two: batch normalisation refuses one row in training mode
        first = samples.take(torch.arange(n_rows))
        known = {tensor.untyped_storage().data_ptr() for tensor in _tensors_of(self._weights)}
        saved = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal saved
            if tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() not in known:
                known.add(tensor.untyped_storage().data_ptr())
                saved += tensor.untyped_storage().nbytes()
            return tensor

        rows = _points(first, [1.0])
        copies = tuple(row.clone() for row in rows)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            try:
                output = self._model(*copies, *first.repeated_extra(1))
            except RuntimeError as error:
                self._explain(error, samples)
                raise
            check_output(output, samples.target, n_rows)
            select_outputs(output, first.target, n_rows)
        if isinstance(output, torch.Tensor):
            saved += 2 * output.nbytes
        per_pass = sum(row.nbytes for row in rows)
        per_sample = sum(row.numel() * 8 for row in rows)
        # Points, their copy, their gradient, and float32 twins of half precision; float64 sums, those of
        # the coarser rule, and temporaries. A third more for what the allocator leaves unused.
        taken = (_HEADROOM * saved + 6 * per_pass + 6 * per_sample) * 4 // (3 * n_rows) + 1
        return taken * self.copies

    def _explain(self, error: RuntimeError, samples: PathSamples) -> None:
        """Raise a clearer error where the inputs' dtype is not the weights'."""
        weights = {
            str(tensor.dtype) for tensor in _tensors_of(self._weights) if tensor.dtype.is_floating_point
        }
        given = {str(x.dtype) for x in samples.inputs}
        if weights and given - weights:
            raise TypeError(
                f"inputs: {', '.join(sorted(given))}, but the model's weights are "
                f"{', '.join(sorted(weights))}, and the model refuses the mixture: {error}"
            ) from error


def _tensors_of(model: Any) -> list[Tensor]:
    import torch

    return [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []


def _points(samples: PathSamples, nodes: Any) -> tuple[Tensor, ...]:
    """Points on the paths, (n_nodes * n, ...), node after node; leaves that want a gradient."""
    import torch

    points = []
    with torch.no_grad():
        for x, baseline in zip(samples.inputs, samples.baselines, strict=True):
            # half precision would round the way itself
            dtype = torch.float32 if x.dtype.itemsize < 4 else x.dtype
            steps = torch.as_tensor(nodes, dtype=dtype, device=x.device)
            steps = steps.reshape(len(steps), -1, *[1] * (x.ndim - 1))
            way = torch.lerp(baseline.to(dtype)[None], x.to(dtype)[None], steps)
            points.append(way.to(x.dtype).reshape(-1, *x.shape[1:]))
    return tuple(point.requires_grad_() for point in points)
