"""Integrals of gradients along the paths of samples: by a rule of fixed nodes, or refined to a tolerance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._path_inputs import PathSamples, summing_dtype
from ._path_model import PathModel
from ._path_passes import Passes, pass_budget, pass_device
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
from .quadrature import METHODS, path_nodes

if TYPE_CHECKING:
    from torch import Tensor
    from tqdm import tqdm

_STEPS = 50
# Every interval of a tolerance's first mesh has three nodes: 15 gradients are enough for smooth outputs.
_FIRST_STEPS = 5


@dataclass(frozen=True)
class Rule:
    """How paths are integrated."""

    method: str
    n_steps: int
    accuracy: Accuracy | None
    multiply: bool

    def named(self) -> dict[str, Any]:
        """As the arguments of the call, in plain JSON."""
        accuracy = self.accuracy
        return {
            "method": self.method,
            "n_steps": self.n_steps,
            "tol": accuracy and accuracy.tol,
            "atol": accuracy and accuracy.atol,
            "max_n_steps": accuracy and accuracy.max_n_steps,
            "multiply_by_inputs": self.multiply,
        }


def check_rule(
    method: str | None, n_steps: int | None, tol: Any, atol: Any, limit: Any, multiply: Any
) -> Rule:
    """The rule that is asked for; what is not said depends on whether there is a tolerance."""
    if not isinstance(multiply, bool):
        raise TypeError(f"multiply_by_inputs: wanted True or False, got {type(multiply).__name__}")
    if n_steps is None:
        n_steps = _STEPS if tol is None else _FIRST_STEPS
    if method is None:
        method = "riemann_middle" if tol is None else "riemann_trapezoid"
    check_choice(method, "method", METHODS)
    n_steps = check_int(n_steps, "n_steps", low=1)
    accuracy = check_accuracy(tol, atol, limit, method, n_steps)
    path_nodes(method, n_steps)
    return Rule(method, n_steps, accuracy, multiply)


@dataclass
class Result:
    """Sums over baselines, of all samples, in the dtypes of the result."""

    values: tuple[Tensor, ...]
    delta: Tensor
    n_steps: Tensor
    n_gradients: Tensor
    converged: Tensor

    @staticmethod
    def zeros(samples: PathSamples) -> Result:
        import torch

        n, device = len(samples), samples.inputs[0].device
        values = tuple(
            torch.zeros(x.shape, dtype=torch.float32 if x.dtype.itemsize < 4 else x.dtype, device=device)
            for x in samples.inputs
        )
        steps = torch.zeros(n, dtype=torch.int64, device=device)
        delta = torch.zeros(n, dtype=summing_dtype(samples.inputs[0]), device=device)
        converged = torch.ones(n, dtype=torch.bool, device=device)
        return Result(values, delta, steps, torch.zeros_like(steps), converged)

    def divide(self, count: int) -> None:
        """Make means of sums over so many baselines."""
        for total in (*self.values, self.delta) if count > 1 else ():
            total.div_(count)


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


def _fixed_group(
    passes: Passes, samples: PathSamples, ends: tuple[Tensor, Tensor], first: int, rule: Rule, into: Result
) -> None:
    """Attributions of a few samples by a rule of fixed nodes."""
    nodes, weights = path_nodes(rule.method, rule.n_steps)
    here = slice(first, first + len(samples))
    delta = ends[0] - ends[1]
    for value, total, x, baseline in zip(
        into.values, passes.sums(samples, nodes, weights), samples.inputs, samples.baselines, strict=True
    ):
        if not rule.multiply:
            value[here] += total
        total.mul_(x.to(total.dtype) - baseline.to(total.dtype))
        if rule.multiply:
            value[here] += total
        delta += total.reshape(len(total), -1).sum(1)
    into.delta[here] += delta
    into.n_steps[here] += rule.n_steps
    into.n_gradients[here] += len(nodes)


def _refined_group(
    passes: Passes,
    samples: PathSamples,
    ends: tuple[Tensor, Tensor],
    first: int,
    rule: Rule,
    accuracy: Accuracy,
    shares: Shares,
    into: Result,
) -> None:
    """Attributions of a few samples, refined until each is accurate."""
    import torch

    here = slice(first, first + len(samples))
    refined = refine_paths(passes, samples, ends, rule.method, rule.n_steps, accuracy, shares, rule.multiply)
    into.delta[here] += refined.delta
    column = 0
    for value in into.values:
        width = value[0].numel()
        value[here] += refined.values[:, column : column + width].reshape(value[here].shape)
        column += width
    device = into.n_steps.device
    into.n_steps[here] += torch.as_tensor(refined.n_steps, device=device)
    into.n_gradients[here] += torch.as_tensor(refined.n_gradients, device=device)
    into.converged[here] &= torch.as_tensor(refined.converged, device=device)


@dataclass(frozen=True)
class Plan:
    """How samples go through the model within a budget.

    Attributes
    ----------
    rows : int
        Rows of a pass.
    at_once : int
        Samples that share their passes.
    shares : Shares or None
        With a tolerance, how these share memory.
    n_nodes : int
        Gradients of a sample, at least.
    room : int
        Bytes of a GPU that may be filled, as measured passes show how many rows do so; else 0.
    """

    rows: int
    at_once: int
    shares: Shares | None
    n_nodes: int
    room: int = 0


def plan_passes(samples: PathSamples, per_row: int, rule: Rule, max_memory: int | float | str | None) -> Plan:
    """Share the budget among what passes of ``per_row`` bytes a row take, as the model's probe has found.

    Raises
    ------
    MemoryBudgetError
        Where a single gradient does not fit.
    """
    device, accuracy = samples.inputs[0].device, rule.accuracy
    gpu = pass_device(samples.inputs[0])
    if accuracy is None:
        room = pass_budget(max_memory, per_row, device.type, gpu)
        rows = room // per_row
        n_nodes = len(path_nodes(rule.method, rule.n_steps)[0])
        return Plan(rows, rows, None, n_nodes, 0 if gpu is None else room)
    kept = least_kept(rule.method, rule.n_steps, accuracy)
    room = pass_budget(max_memory, per_row + memory_of_sample(samples, kept), device.type, gpu)
    shares = share(samples, kept, room, per_row, accuracy.max_n_steps)
    rows = (room - shares.bytes) // per_row
    return Plan(rows, shares.at_once, shares, first_nodes(rule.method, rule.n_steps))


def along_paths(
    model: PathModel,
    samples: PathSamples,
    rule: Rule,
    plan: Plan,
    bar: tqdm[Any],
    *,
    start: int = 0,
    into: Result | None = None,
) -> Result:
    """Attributions of samples, for one baseline each, added ``into`` those for others.

    ``start`` is the first sample's place among all.
    """
    import torch

    n = len(samples)
    # Allocated before the passes: small results kept between large blocks would fragment the heap.
    result = Result.zeros(samples) if into is None else into
    gpu = pass_device(samples.inputs[0])
    if gpu is not None and isinstance(samples.target, torch.Tensor):
        # Copied in each pass, it would keep the device waiting each time.
        samples = replace(samples, target=samples.target.to(samples.inputs[0].device))
    passes = Passes(model, plan.rows, bar, gpu=gpu, room=plan.room // model.copies)
    passes.announce(n * plan.n_nodes)
    for first in range(0, n, plan.at_once):
        group = samples.take(torch.arange(first, min(first + plan.at_once, n)))
        ends = _ends(model, group, start + first)
        if rule.accuracy is None or plan.shares is None:
            _fixed_group(passes, group, ends, first, rule, result)
        else:
            _refined_group(passes, group, ends, first, rule, rule.accuracy, plan.shares, result)
    return result
