"""Integrated gradients: how much of an output's change from a baseline each input accounts for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._memory import parse_memory, require_budget
from ._path_inputs import PathSamples, check_samples, check_values, summing_dtype
from ._path_model import PathModel, check_model, recording
from ._validate import Float64, check_int
from .quadrature import path_nodes, refine

if TYPE_CHECKING:
    from torch import Tensor
    from tqdm import tqdm

# Bytes of a batch. On the CPU larger ones are slower: they leave the caches, and every large tensor is
# fresh memory from the system. A GPU wants more rows, and gets all of an explicit budget.
_CPU_BATCH = 64 * 2**20
_CUDA_BATCH = 2**30
# Buffers and code that torch's libraries keep once a model has run, and memory its allocator holds back.
_TORCH_OWN = 16 * 2**20


@dataclass(frozen=True)
class Attribution:
    """Attributions, and how far each sample's can be trusted.

    Attributes
    ----------
    values : Tensor or tuple of Tensor
        Shape of the inputs, on their device; float32 for half-precision inputs, else the inputs' dtype.
    delta : Tensor of shape (n_samples,), float64
        Completeness error: sum of a sample's values, minus the change F(input) - F(baseline) that they
        should add up to. (float32 on devices without float64.)
    n_steps : Tensor of shape (n_samples,), int64
        Steps of the rule behind each sample's values.
    n_gradients : Tensor of shape (n_samples,), int64
        Gradients evaluated for each sample, all levels of refinement together.
    converged : Tensor of shape (n_samples,), bool, or None
        Whether ``tol`` was reached; None where no ``tol`` was asked for.
    """

    values: Tensor | tuple[Tensor, ...]
    delta: Tensor
    n_steps: Tensor
    n_gradients: Tensor
    converged: Tensor | None


@dataclass(frozen=True)
class _Accuracy:
    tol: float
    atol: float
    max_n_steps: int


@dataclass(frozen=True)
class _Passes:
    """Gradient passes of at most ``rows`` rows (nodes times samples)."""

    model: PathModel
    rows: int
    bar: tqdm[Any]

    def sums(self, samples: PathSamples, nodes: Float64, weights: Float64) -> list[Tensor]:
        """Weighted sum of the gradients over the nodes, times (input - baseline), in float64."""
        import torch

        self.bar.total = max(self.bar.total or 0, self.bar.n + len(nodes) * len(samples))
        totals = [torch.zeros(x.shape, dtype=summing_dtype(x), device=x.device) for x in samples.inputs]
        at_once = max(1, self.rows // len(samples))
        for start in range(0, len(nodes), at_once):
            part = slice(start, start + at_once)
            for total, gradient in zip(totals, self.model.gradients(samples, nodes[part]), strict=True):
                if gradient is None:
                    continue
                for step, weight in zip(gradient, weights[part], strict=True):
                    total.add_(step, alpha=float(weight))
            self.bar.update(len(nodes[part]) * len(samples))
        for total, x, baseline in zip(totals, samples.inputs, samples.baselines, strict=True):
            total.mul_(x.to(total.dtype) - baseline.to(total.dtype))
        return totals


def _totals(parts: list[Tensor]) -> Tensor:
    """Each sample's sum over all elements of all inputs, shape (n,)."""
    import torch

    return torch.stack([part.reshape(len(part), -1).sum(1) for part in parts]).sum(0)


def _largest(parts: list[Tensor]) -> Tensor:
    """Each sample's largest magnitude over all elements of all inputs, shape (n,)."""
    import torch

    return torch.stack([part.reshape(len(part), -1).abs().amax(1) for part in parts]).amax(0)


@dataclass
class _Group:
    """Attributions of samples that share their passes, not yet rounded to the result's dtype."""

    samples: PathSamples
    change: Tensor
    sums: list[Tensor]
    n_steps: Tensor
    n_gradients: Tensor
    converged: Tensor

    def refine(self, passes: _Passes, method: str, n_steps: int, accuracy: _Accuracy) -> None:
        """Go on to finer steps, up to ``max_n_steps``, only with the samples that need them."""
        import torch

        active = torch.arange(len(self.samples), device=self.change.device)
        finer = refine(method, n_steps)
        while len(active) and finer.n_steps <= accuracy.max_n_steps:
            coarse = [part[active] for part in self.sums]
            sums = passes.sums(self.samples.take(active), finer.nodes, finer.weights)
            for fine, old in zip(sums, coarse, strict=True):
                fine.add_(old, alpha=finer.keep)
            delta = _totals(sums) - self.change[active]
            scale = self.change[active].abs().clamp(min=accuracy.atol)
            complete = delta.abs() <= accuracy.tol * scale
            stable = _largest([fine - old for fine, old in zip(sums, coarse, strict=True)]) <= (
                accuracy.tol * _largest(sums)
            )
            for part, fine in zip(self.sums, sums, strict=True):
                part[active] = fine
            self.n_steps[active] = finer.n_steps
            self.n_gradients[active] += len(finer.nodes)
            self.converged[active] = complete & stable
            active = active[~(complete & stable) & delta.isfinite()]
            finer = refine(method, finer.n_steps)


def _attribute_group(
    passes: _Passes, samples: PathSamples, first: int, method: str, n_steps: int, accuracy: _Accuracy | None
) -> _Group:
    """Attributions of a few samples; ``first`` is the first one's place among all, for messages."""
    import torch

    ends = []
    for node, where in ((0.0, "baseline"), (1.0, "input")):
        values = passes.model.outputs(samples, node)
        if not values.isfinite().all():
            row = int((~values.isfinite()).nonzero()[0])
            raise ValueError(f"model: output {float(values[row])} at the {where} of sample {first + row}")
        ends.append(values)
    nodes, weights = path_nodes(method, n_steps)
    change = (ends[1] - ends[0]).to(samples.inputs[0].device)
    counts = torch.full_like(change, 1, dtype=torch.int64)
    group = _Group(
        samples,
        change,
        passes.sums(samples, nodes, weights),
        counts * n_steps,
        counts * len(nodes),
        torch.zeros_like(change, dtype=torch.bool),
    )
    if accuracy is not None:
        group.refine(passes, method, n_steps, accuracy)
    return group


def _check_accuracy(tol: Any, atol: Any, max_n_steps: Any, method: str, n_steps: int) -> _Accuracy | None:
    for value, name in ((tol, "tol"), (atol, "atol")):
        if value is None and name == "tol":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: wanted a positive number, got {value}")
    limit = check_int(max_n_steps, "max_n_steps", low=1)
    if tol is None:
        return None
    needed = refine(method, n_steps).n_steps
    if limit < needed:
        raise ValueError(
            f"max_n_steps: tol compares n_steps={n_steps} with {needed} steps, so wanted at least {needed}, "
            f"got {limit}"
        )
    return _Accuracy(float(tol), float(atol), limit)


def _rows_within(max_memory: int | float | str | None, per_row: int, device_type: str) -> int:
    """Rows of a pass that fit the budget."""
    budget = parse_memory(max_memory)
    least = _TORCH_OWN + per_row
    require_budget(budget, least, "one gradient")
    default = max(_CUDA_BATCH if device_type == "cuda" else _CPU_BATCH, least)
    if budget is None or device_type == "cpu":
        budget = min(budget or default, default)
    return (budget - _TORCH_OWN) // per_row


def integrated_gradients(
    model: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    *,
    baselines: Any = None,
    target: Any = None,
    n_steps: int = 50,
    method: str = "riemann_middle",
    tol: float | None = None,
    atol: float = 1e-3,
    max_n_steps: int = 1350,
    additional_forward_args: Any = None,
    max_memory: int | float | str | None = None,
    progress: bool = False,
) -> Attribution:
    """Attribute an output's change from baseline to input to the single inputs.

    ``(x - x') * integral over a in [0, 1] of dF/dx at x' + a (x - x')``, by a rule whose weights sum to 1.
    Nodes times samples go through the model in batches that ``max_memory`` decides. The model is left
    as it is found: training mode, ``.grad``, ``requires_grad`` and hooks.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called as ``model(*inputs, *additional_forward_args)`` with any number of rows. Its rows must not
        depend on each other; active dropout or batch statistics give a warning.
    inputs : Tensor or tuple of Tensor
        Shape (n_samples, ...), floating point, on the model's device.
    baselines : None, number, Tensor or tuple, optional
        Where the paths begin: 0 where None; a tensor of shape (n_samples, ...) or (1, ...); for a tuple
        of inputs a tuple of these, or one number for all.
    target : None, int, tuple of int, integer Tensor or callable, optional
        Which output: None for models with one output a sample; an index, a tuple of indices for outputs
        with more axes, an integer tensor of one index (or row of indices) a sample; or a callable that
        turns the model's output into one number a row.
    n_steps : int, default=50
        Steps of the rule, see :func:`qixai_fast.quadrature.path_nodes`. With ``tol``, where to begin.
    method : str, default="riemann_middle"
        ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"``,
        ``"gausslegendre"`` or ``"simpson"``.
    tol : float, optional
        Refine until, for each sample, ``|delta| <= tol * max(|F(x) - F(x')|, atol)`` and the attributions
        have changed by at most ``tol`` times their largest magnitude since the coarser steps. The steps
        grow 3 times (midpoint) or 2 times (trapezoid), every gradient is used again, and only samples
        that need it go on. Other rules do not nest.
    atol : float, default=1e-3
        Smallest change of the output, in its own units, that ``tol`` is relative to.
    max_n_steps : int, default=1350
        Where refinement ends; a sample that has not met ``tol`` by then has ``converged`` False.
    additional_forward_args : object or tuple, optional
        Further arguments of the model. Tensors with ``n_samples`` rows go with their samples, all else
        is passed as it is.
    max_memory : int or str, optional
        Limit in bytes, or as ``"2GB"``, on what the passes allocate, estimated from the tensors that one
        row saves for its gradient, and 16 MiB for torch's own buffers; the result does not count. Without
        it: 64 MiB (1 GiB on CUDA), or one row where that is more. The CPU uses no more than these 64 MiB,
        as larger batches are slower.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    Attribution
        Its values are a tensor for a tensor and a tuple for a tuple. An input that the output does not
        depend on gets zeros, as long as it depends on another one. A gradient that is not finite on a
        sample's path gives a RuntimeWarning, and that sample's values and delta are not finite.

    Raises
    ------
    TypeError
        For inputs that are no floating-point tensors (token ids have no gradient), for weights of a dtype
        that the model cannot combine with them, and targets that are no integers.
    ValueError
        For NaN or infinite inputs, shapes and targets that do not fit, a model on another device, an
        output that is not finite or has no gradient, and ``tol`` with a rule that does not nest.
    MemoryBudgetError
        Where ``max_memory`` is too small for a single gradient.

    References
    ----------
    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017): equations 1
    (integrated gradients) and 3 (its approximation), proposition 1 (completeness).

    Examples
    --------
    For ``F(x) = x0 * x1`` each factor accounts for half of the product.

    >>> import torch
    >>> import qixai_fast as qf
    >>> x = torch.tensor([[2.0, 3.0]])
    >>> result = qf.integrated_gradients(lambda x: x.prod(1), x)
    >>> result.values
    tensor([[3., 3.]])
    >>> abs(result.delta.item()) < 1e-6
    True
    """
    import torch
    from tqdm import tqdm

    nodes, _ = path_nodes(method, n_steps)
    accuracy = _check_accuracy(tol, atol, max_n_steps, method, n_steps)
    with recording():
        samples = check_samples(inputs, baselines, target, additional_forward_args)
        check_model(model, samples)
        check_values(samples, as_tuple=isinstance(inputs, tuple))
        path_model = PathModel(model)
        per_row = path_model.probe(samples)
        n, device = len(samples), samples.inputs[0].device
        rows = _rows_within(max_memory, per_row, device.type)

        values = tuple(
            torch.empty(x.shape, dtype=torch.float32 if x.dtype.itemsize < 4 else x.dtype, device=device)
            for x in samples.inputs
        )
        # Allocated before the passes: small results kept between large blocks would fragment the heap.
        delta = torch.empty(n, dtype=summing_dtype(samples.inputs[0]), device=device)
        steps = torch.empty(n, dtype=torch.int64, device=device)
        evaluations = torch.empty_like(steps)
        converged = torch.empty(n, dtype=torch.bool, device=device)
        with tqdm(total=n * len(nodes), unit="gradient", disable=not progress) as bar:
            passes = _Passes(path_model, rows, bar)
            for first in range(0, n, rows):
                here = slice(first, min(first + rows, n))
                index = torch.arange(here.start, here.stop)
                group = _attribute_group(passes, samples.take(index), first, method, n_steps, accuracy)
                for value, part in zip(values, group.sums, strict=True):
                    value[here] = part
                delta[here] = _totals(group.sums) - group.change
                steps[here], evaluations[here] = group.n_steps, group.n_gradients
                converged[here] = group.converged
    if not delta.isfinite().all():
        bad = (~delta.isfinite()).nonzero().flatten().tolist()
        warnings.warn(
            f"integrated_gradients: the gradient is not finite on the path of {len(bad)} sample(s), first "
            f"sample {bad[0]}; their values are not finite either (a rule without the path's ends, such as "
            "'riemann_middle', or another baseline may help)",
            RuntimeWarning,
            stacklevel=2,
        )
    return Attribution(
        values if isinstance(inputs, tuple) else values[0],
        delta,
        steps,
        evaluations,
        None if accuracy is None else converged,
    )
