"""Integrated gradients: how much of an output's change from a baseline each input accounts for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._layer_path import layer_path
from ._path_inputs import PathSamples, check_samples, check_values, summing_dtype
from ._path_model import PathModel, check_model, recording
from ._path_passes import Passes, pass_budget
from ._path_refinement import (
    Accuracy,
    Shares,
    check_accuracy,
    first_nodes,
    least_kept,
    memory_of_sample,
    refine_paths,
    share,
)
from ._validate import check_choice, check_int
from .attribution import Attribution
from .quadrature import METHODS, path_nodes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Attribution", "integrated_gradients"]

_STEPS = 50
# Every interval of a tolerance's first mesh has three nodes: 15 gradients are enough for smooth outputs.
_FIRST_STEPS = 5


@dataclass(frozen=True)
class _Rule:
    """How paths are integrated."""

    method: str
    n_steps: int
    accuracy: Accuracy | None
    multiply: bool


def _check_rule(method: str, n_steps: int | None, tol: Any, atol: Any, limit: Any, multiply: Any) -> _Rule:
    if not isinstance(multiply, bool):
        raise TypeError(f"multiply_by_inputs: wanted True or False, got {type(multiply).__name__}")
    if n_steps is None:
        n_steps = _STEPS if tol is None else _FIRST_STEPS
    check_choice(method, "method", METHODS)
    n_steps = check_int(n_steps, "n_steps", low=1)
    accuracy = check_accuracy(tol, atol, limit, method, n_steps)
    path_nodes(method, n_steps)
    return _Rule(method, n_steps, accuracy, multiply)


@dataclass
class _Result:
    """What is known of all samples so far, in the dtypes of the result."""

    values: tuple[Tensor, ...]
    delta: Tensor
    n_steps: Tensor
    n_gradients: Tensor
    converged: Tensor

    @staticmethod
    def empty(samples: PathSamples) -> _Result:
        import torch

        n, device = len(samples), samples.inputs[0].device
        values = tuple(
            torch.empty(x.shape, dtype=torch.float32 if x.dtype.itemsize < 4 else x.dtype, device=device)
            for x in samples.inputs
        )
        steps = torch.empty(n, dtype=torch.int64, device=device)
        delta = torch.empty(n, dtype=summing_dtype(samples.inputs[0]), device=device)
        converged = torch.empty(n, dtype=torch.bool, device=device)
        return _Result(values, delta, steps, torch.empty_like(steps), converged)


def _ends(model: PathModel, samples: PathSamples, first: int) -> tuple[Tensor, Tensor]:
    """F at each baseline and input; ``first`` is the first sample's place among all, for messages."""
    ends = []
    for node, where in ((0.0, "baseline"), (1.0, "input")):
        values = model.outputs(samples, node)
        if not values.isfinite().all():
            row = int((~values.isfinite()).nonzero()[0])
            raise ValueError(f"model: output {float(values[row])} at the {where} of sample {first + row}")
        ends.append(values.to(samples.inputs[0].device))
    return ends[0], ends[1]


def _fixed_group(passes: Passes, samples: PathSamples, first: int, rule: _Rule, into: _Result) -> None:
    """Attributions of a few samples by a rule of fixed nodes."""
    nodes, weights = path_nodes(rule.method, rule.n_steps)
    ends = _ends(passes.model, samples, first)
    here = slice(first, first + len(samples))
    delta = ends[0] - ends[1]
    for value, total, x, baseline in zip(
        into.values, passes.sums(samples, nodes, weights), samples.inputs, samples.baselines, strict=True
    ):
        if not rule.multiply:
            value[here] = total
        total.mul_(x.to(total.dtype) - baseline.to(total.dtype))
        if rule.multiply:
            value[here] = total
        delta += total.reshape(len(total), -1).sum(1)
    into.delta[here] = delta
    into.n_steps[here], into.n_gradients[here] = rule.n_steps, len(nodes)


def _refined_group(
    passes: Passes,
    samples: PathSamples,
    first: int,
    rule: _Rule,
    accuracy: Accuracy,
    shares: Shares,
    into: _Result,
) -> None:
    """Attributions of a few samples, refined until each is accurate."""
    import torch

    ends = _ends(passes.model, samples, first)
    here = slice(first, first + len(samples))
    refined = refine_paths(passes, samples, ends, rule.method, rule.n_steps, accuracy, shares, rule.multiply)
    into.delta[here] = refined.delta
    column = 0
    for value in into.values:
        width = value[0].numel()
        value[here] = refined.values[:, column : column + width].reshape(value[here].shape)
        column += width
    into.n_steps[here] = torch.as_tensor(refined.n_steps)
    into.n_gradients[here] = torch.as_tensor(refined.n_gradients)
    into.converged[here] = torch.as_tensor(refined.converged)


def _along_paths(
    model: PathModel, samples: PathSamples, rule: _Rule, max_memory: int | float | str | None, progress: bool
) -> _Result:
    """Attributions of all samples, for one baseline each."""
    import torch
    from tqdm import tqdm

    per_row = model.probe(samples)
    n, device = len(samples), samples.inputs[0].device
    accuracy = rule.accuracy
    shares = None
    if accuracy is None:
        rows = at_once = pass_budget(max_memory, per_row, device.type) // per_row
        first_count = len(path_nodes(rule.method, rule.n_steps)[0])
    else:
        kept = least_kept(rule.method, rule.n_steps, accuracy)
        room = pass_budget(max_memory, per_row + memory_of_sample(samples, kept), device.type)
        shares = share(samples, kept, room, per_row, accuracy.max_n_steps)
        rows, at_once = (room - shares.bytes) // per_row, shares.at_once
        first_count = first_nodes(rule.method, rule.n_steps)
    # Allocated before the passes: small results kept between large blocks would fragment the heap.
    result = _Result.empty(samples)
    with tqdm(unit="gradient", disable=not progress) as bar:
        passes = Passes(model, rows, bar)
        passes.announce(n * first_count)
        for first in range(0, n, at_once):
            group = samples.take(torch.arange(first, min(first + at_once, n)))
            if accuracy is None or shares is None:
                _fixed_group(passes, group, first, rule, result)
            else:
                _refined_group(passes, group, first, rule, accuracy, shares, result)
    return result


def _mean(results: list[_Result]) -> _Result:
    """The mean over several baselines; steps and gradients are counted together."""
    import torch

    if len(results) == 1:
        return results[0]
    parts = zip(*(result.values for result in results), strict=True)
    return _Result(
        tuple(torch.stack(part).mean(0, dtype=summing_dtype(part[0])).to(part[0].dtype) for part in parts),
        torch.stack([result.delta for result in results]).mean(0),
        torch.stack([result.n_steps for result in results]).sum(0),
        torch.stack([result.n_gradients for result in results]).sum(0),
        torch.stack([result.converged for result in results]).all(0),
    )


def integrated_gradients(
    model: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    *,
    baselines: Any = None,
    target: Any = None,
    layer: str | torch.nn.Module | None = None,
    n_steps: int | None = None,
    method: str = "riemann_middle",
    tol: float | None = None,
    atol: float = 1e-3,
    max_n_steps: int = 1350,
    additional_forward_args: Any = None,
    multiply_by_inputs: bool = True,
    max_memory: int | float | str | None = None,
    progress: bool = False,
) -> Attribution:
    """Attribute an output's change from baseline to input to the single inputs.

    ``(x - x') * integral over a in [0, 1] of dF/dx at x' + a (x - x')``, by a rule whose weights sum to 1.
    Nodes times samples go through the model in batches that ``max_memory`` decides; where memory runs out
    all the same, batches are halved. The model is left as it is found: training mode, ``.grad``,
    ``requires_grad`` and hooks.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Called as ``model(*inputs, *additional_forward_args)`` with any number of rows. Its rows must not
        depend on each other; active dropout or batch statistics give a warning.
    inputs : Tensor or tuple of Tensor
        Shape (n_samples, ...), floating point, on the model's device. With ``layer`` any dtype: token ids
        are what an embedding layer is for.
    baselines : None, number, Tensor, tuple or list, optional
        Where the paths begin: 0 where None; a tensor of shape (n_samples, ...) or (1, ...); for a tuple
        of inputs a tuple of these, or one number for all. A list holds several baselines, each as above:
        attributions are averaged over them (expected gradients; Erion et al. 2021, equation 3).
    target : None, int, tuple of int, integer Tensor or callable, optional
        Which output: None for models with one output a sample; an index, a tuple of indices for outputs
        with more axes, an integer tensor of one index (or row of indices) a sample; or a callable that
        turns the model's output into one number a row.
    layer : str or torch.nn.Module, optional
        Attribute to this module's output in place of the inputs: the path is the straight line between
        its outputs at baseline and input. Such as an embedding layer, whose ids have no gradient. A module
        that puts out several tensors, or is called several times, gives a tuple.
    n_steps : int, optional
        Steps of the rule, see :func:`qixai_fast.quadrature.path_nodes`; 50 by default. With ``tol``, the
        equal intervals to begin with, 5 by default.
    method : str, default="riemann_middle"
        ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"``,
        ``"gausslegendre"`` or ``"simpson"``.
    tol : float, optional
        Refine until, for each sample, ``|delta| <= tol * max(|F(x) - F(x')|, atol)`` and the attributions
        are within ``tol`` times their largest magnitude of what one level less of refinement gave. Each
        interval of a path has a coarse and a fine value; where these differ most (for a saturating
        output: where it changes) it is split in 3 (midpoint) or 2 (trapezoid). Every gradient is used
        again, and only samples that need it go on. Other rules do not nest.
    atol : float, default=1e-3
        Smallest change of the output, in its own units, that ``tol`` is relative to.
    max_n_steps : int, default=1350
        Where refinement ends; a sample that has not met ``tol`` by then has ``converged`` False.
    additional_forward_args : object or tuple, optional
        Further arguments of the model. Tensors with ``n_samples`` rows go with their samples, all else
        is passed as it is.
    multiply_by_inputs : bool, default=True
        False for the mean gradient alone, without the factor ``x - x'``. ``delta`` is that of the product
        in either case.
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
    Erion, Janizek, Sturmfels, Lundberg and Lee, "Improving performance of deep learning models with
    axiomatic attribution priors and expected gradients" (Nature Machine Intelligence 2021), equation 3.

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
    rule = _check_rule(method, n_steps, tol, atol, max_n_steps, multiply_by_inputs)
    starts = baselines if isinstance(baselines, list) else [baselines]
    if not starts:
        raise ValueError("baselines: wanted at least one in the list, got none")
    with recording():
        results = []
        for start in starts:
            samples, path_model = _paths(model, inputs, start, target, layer, additional_forward_args)
            results.append(_along_paths(path_model, samples, rule, max_memory, progress))
        found = _mean(results)
    _warn_of_infinite(found.delta)
    many = len(found.values) > 1 or (layer is None and isinstance(inputs, tuple))
    return Attribution(
        found.values if many else found.values[0],
        found.delta,
        found.n_steps,
        found.n_gradients,
        None if rule.accuracy is None else found.converged,
    )


def _paths(
    model: Any, inputs: Any, baselines: Any, target: Any, layer: Any, extra: Any
) -> tuple[PathSamples, PathModel]:
    """The paths to integrate along, checked, and the model along them."""
    if layer is None:
        samples = check_samples(inputs, baselines, target, extra)
        check_model(model, samples, stacklevel=4)
        check_values(samples, as_tuple=isinstance(inputs, tuple))
        return samples, PathModel(model)
    path = layer_path(model, layer, inputs, baselines, extra)
    samples = check_samples(path.inputs, path.baselines, target, path.extra)
    check_model(model, samples, stacklevel=4)
    return samples, PathModel(path.model, weights=model)


def _warn_of_infinite(delta: Tensor) -> None:
    if not delta.isfinite().all():
        bad = (~delta.isfinite()).nonzero().flatten().tolist()
        warnings.warn(
            f"integrated_gradients: the gradient is not finite on the path of {len(bad)} sample(s), first "
            f"sample {bad[0]}; their values are not finite either (a rule without the path's ends, such as "
            "'riemann_middle', or another baseline may help)",
            RuntimeWarning,
            stacklevel=3,
        )
