"""Refinement towards a tolerance: nodes where a path needs them, every gradient used again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._path_inputs import PathSamples, summing_dtype
from ._path_mesh import SPLITTING, Int64, Intervals, Nodes, first_mesh, split, to_split, unexplained
from ._path_passes import Passes
from ._validate import check_int
from .quadrature import NESTING, path_nodes, refine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Gradients of a sample that there is room for, beside the first ones, where samples share their passes.
# A CNN's softmax takes up to 75 to a tolerance of 1 %.
_KEPT = 128


@dataclass(frozen=True)
class Accuracy:
    """When a sample's attributions are accurate enough, and when to give up."""

    tol: float
    atol: float
    max_n_steps: int


def _check_number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: wanted a positive number, got {value}")
    return float(value)


def first_nodes(method: str, n_steps: int) -> int:
    """Gradients of a sample before any interval is split."""
    return (3 if method == "riemann_middle" else 2) * n_steps


def check_accuracy(tol: Any, atol: Any, max_n_steps: Any, method: str, n_steps: int) -> Accuracy | None:
    """The accuracy asked for; None without ``tol``.

    Raises
    ------
    TypeError, ValueError
        For numbers that are none or not positive, a rule that cannot be refined, and a ``max_n_steps``
        that leaves no room for a comparison.
    """
    atol = _check_number(atol, "atol")
    limit = check_int(max_n_steps, "max_n_steps", low=1)
    if tol is None:
        return None
    tol = _check_number(tol, "tol")
    if method not in SPLITTING:
        wanted = " and ".join(repr(name) for name in SPLITTING)
        raise ValueError(
            f"method: tol reuses the gradients of coarser steps, which {method!r} cannot; only {wanted} nest"
        )
    needed = first_nodes(method, n_steps)
    if limit < needed:
        raise ValueError(
            f"max_n_steps: tol compares n_steps={n_steps} with {needed} steps, so wanted at least {needed}, "
            f"got {limit}"
        )
    return Accuracy(tol, atol, limit)


@dataclass(frozen=True)
class Shares:
    """How samples share memory.

    Attributes
    ----------
    at_once : int
        Samples that share their passes.
    kept, kept_alone : int
        Gradients of each that are kept; and of one that takes more, and is done alone.
    bytes : int
        What the samples take besides the passes.
    """

    at_once: int
    kept: int
    kept_alone: int
    bytes: int


def _per_gradient(samples: PathSamples) -> int:
    return sum(x[0].numel() for x in samples.inputs) * _kept_dtype(samples).itemsize


def _besides(samples: PathSamples) -> int:
    """Bytes of a sample's sums and their temporaries."""
    return sum(x[0].numel() for x in samples.inputs) * 64


def least_kept(method: str, n_steps: int, accuracy: Accuracy) -> int:
    """Gradients of a sample that there has to be room for."""
    return min(first_nodes(method, n_steps) + _KEPT, accuracy.max_n_steps)


def memory_of_sample(samples: PathSamples, kept: int) -> int:
    """Bytes that refining one sample takes besides its passes, with so many gradients kept."""
    return kept * _per_gradient(samples) + _besides(samples)


def share(samples: PathSamples, kept: int, room: int, per_row: int, limit: int) -> Shares:
    """How samples share ``room`` bytes: half for what they keep, half for passes of ``per_row`` a row.

    Parameters
    ----------
    samples : PathSamples
    kept : int
        As :func:`least_kept`.
    room, per_row : int
    limit : int
        Gradients of a sample that are never exceeded.
    """
    at_once = max(1, min(len(samples), room // 2 // (memory_of_sample(samples, kept) + per_row)))
    each, alone = (
        min(limit, max(kept, (room // 2 // count - _besides(samples)) // _per_gradient(samples)))
        for count in (at_once, 1)
    )
    return Shares(at_once, each, alone, at_once * memory_of_sample(samples, each))


def _kept_dtype(samples: PathSamples) -> torch.dtype:
    import torch

    small = all(x.dtype.itemsize <= 4 for x in samples.inputs)
    return torch.float32 if small else summing_dtype(samples.inputs[0])


def _side_by_side(parts: Iterable[Tensor]) -> Tensor:
    import torch

    return torch.cat([part.reshape(len(part), -1) for part in parts], 1)


def _way(samples: PathSamples) -> Tensor:
    """Input - baseline, all inputs side by side."""
    precise = summing_dtype(samples.inputs[0])
    ways = zip(samples.inputs, samples.baselines, strict=True)
    return _side_by_side(x.to(precise) - start.to(precise) for x, start in ways)


def _finest_length(samples: PathSamples) -> float:
    """Shortest interval to split, relative to its place: the points of a shorter one hardly differ."""
    import torch

    return max(1e-11, 4 * min(torch.finfo(x.dtype).eps for x in samples.inputs))


@dataclass
class Refined:
    """Attributions of a few samples, all inputs side by side.

    Attributes
    ----------
    values : Tensor of shape (n, width)
    delta : Tensor of shape (n,)
    n_steps, n_gradients : ndarray of int64, shape (n,)
    converged : ndarray of bool, shape (n,)
    rough : ndarray of bool, shape (n,)
        Samples that have stopped because no more gradients could be kept.
    """

    values: Tensor
    delta: Tensor
    n_steps: Int64
    n_gradients: Int64
    converged: Any
    rough: Any


class _Verdict(NamedTuple):
    """Which samples are accurate, cannot become so, add up; and how far values and sums may be off."""

    good: Any
    hopeless: Any
    complete: Any
    complete_within: Any
    stable_within: Any


class Refinement:
    """Integrals of gradients along the paths of a few samples, split where they change most.

    Parameters
    ----------
    passes : Passes
    samples : PathSamples
    ends : tuple of Tensor of shape (n,)
        F at the baselines and at the inputs.
    method : {"riemann_middle", "riemann_trapezoid"}
    n_steps : int
        Intervals of equal length to begin with.
    accuracy : Accuracy
    kept : int
        Most gradients of a sample.
    multiply : bool
        Whether the attributions that must hold still are the gradients times (input - baseline).
    """

    def __init__(
        self,
        passes: Passes,
        samples: PathSamples,
        ends: tuple[Tensor, Tensor],
        method: str,
        n_steps: int,
        accuracy: Accuracy,
        kept: int,
        multiply: bool,
    ) -> None:
        import torch

        self._passes, self._samples = passes, samples
        self._change = ends[1] - ends[0]
        self._ends = (ends[0].cpu().numpy(), ends[1].cpu().numpy())
        self._splitting, self._accuracy = SPLITTING[method], accuracy
        self._kept = kept
        n = len(samples)
        self._way, self._finest = _way(samples), _finest_length(samples)
        self._scale = self._way if multiply else torch.ones_like(self._way[:1])
        # Where nothing is written, the system has not given any memory yet.
        self._rows = self._way.new_empty((n * kept, self._way.shape[1]), dtype=_kept_dtype(samples))
        self._nodes = Nodes(*np.zeros((3, n * kept)))
        self._sums, self._changes = torch.zeros_like(self._way), torch.zeros_like(self._way)
        self._n_steps = np.zeros(n, np.int64)
        self._rough = np.zeros(n, bool)
        self._method, self._n_intervals = method, n_steps

    def run(self) -> Refined:
        """Refine until every sample is accurate, or has as many gradients as it may have."""
        splitting = self._splitting
        intervals, sample, nodes = first_mesh(splitting, len(self._samples), self._n_intervals)
        self._evaluate(sample, nodes, 0)
        self._add(self._sums, intervals, splitting.fine)
        largest = self._add(self._changes, intervals, splitting.change)
        converged = np.zeros(len(self._samples), bool)
        while True:
            verdict = self._judge()
            converged |= verdict.good
            going_on = ~(converged | verdict.hopeless | self._rough)[intervals.sample]
            intervals, largest = intervals.take(going_on), largest[going_on]
            if not len(intervals):
                break
            chosen = self._choose(intervals, self._score(intervals, largest, verdict))
            if not chosen.any():
                break
            parents, intervals, largest = intervals.take(chosen), intervals.take(~chosen), largest[~chosen]
            first = int(self._n_steps.sum())
            parts, sample, nodes = split(splitting, parents, first)
            self._evaluate(sample, nodes, first)
            self._add(self._changes, parents, -splitting.change)
            self._add(self._sums, parts, splitting.change)
            largest = np.append(largest, self._add(self._changes, parts, splitting.change))
            intervals += parts
        values = self._sums * self._scale
        return Refined(values, self._delta(), self._n_steps, self._n_steps.copy(), converged, self._rough)

    def run_evenly(self, n_steps: int) -> Refined:
        """Equal steps, finer and finer, of which only sums are kept."""
        import torch

        limit = self._accuracy.max_n_steps
        n_gradients = np.zeros(len(self._samples), np.int64)
        converged = np.zeros(len(self._samples), bool)
        nodes, weights = path_nodes(self._method, n_steps)
        rest, keep = np.arange(len(self._samples)), 0.0
        while len(rest):
            index = torch.as_tensor(rest, device=self._sums.device)
            sums = _side_by_side(self._passes.sums(self._samples.take(index), nodes, weights))
            sums += keep * self._sums[index]
            self._changes[index] = sums - self._sums[index]
            self._sums[index] = sums
            self._n_steps[rest] = n_steps
            n_gradients[rest] += len(nodes)
            verdict = self._judge()
            converged[rest] = verdict.good[rest] & (keep > 0)
            rest = rest[~(converged | verdict.hopeless)[rest]]
            finer = refine(self._method, n_steps)
            if finer.n_steps > limit:
                break
            n_steps, keep, nodes, weights = finer.n_steps, finer.keep, finer.nodes, finer.weights
        values = self._sums * self._scale
        return Refined(values, self._delta(), self._n_steps, n_gradients, converged, self._rough)

    def _delta(self) -> Tensor:
        return (self._sums * self._way).sum(1) - self._change

    def _score(self, intervals: Intervals, largest: Any, verdict: _Verdict) -> Any:
        """What an interval leaves open, in units of what the tolerance allows its sample."""
        of = intervals.sample
        missing = unexplained(intervals, self._nodes, self._ends) / verdict.complete_within[of]
        missing[np.isnan(missing)] = np.inf  # F is no number there
        return np.maximum(largest / verdict.stable_within[of], np.where(verdict.complete[of], 0.0, missing))

    def _nodes_of(self, n_parents: int) -> int:
        return n_parents * len(self._splitting.parts) * len(self._splitting.new)

    def _evaluate(self, sample: Int64, nodes: Any, first_slot: int) -> None:
        """Compute gradients at nodes of some samples, into slots from ``first_slot`` on."""
        import torch

        self._n_steps += np.bincount(sample, minlength=len(self._n_steps))
        for first in range(0, len(nodes), self._passes.rows):
            part = slice(first, first + self._passes.rows)
            slots = slice(first_slot + first, first_slot + first + len(nodes[part]))
            rows = self._rows[slots]
            values = self._passes.flat_gradients(self._samples, sample[part], nodes[part], rows)
            way = self._way[torch.as_tensor(sample[part], device=rows.device)]
            self._nodes.place[slots] = nodes[part]
            self._nodes.value[slots] = values.double().cpu().numpy()
            self._nodes.slope[slots] = way.mul_(rows).sum(1).cpu().numpy()

    def _add(self, totals: Tensor, intervals: Intervals, weights: Any) -> Any:
        """Add weighted gradients of intervals to their samples' rows; each one's largest attribution."""
        import torch

        device = totals.device
        largest = np.empty(len(intervals))
        for first in range(0, len(intervals), self._passes.rows):
            part = slice(first, first + self._passes.rows)
            some = intervals.take(part)
            sample = torch.as_tensor(some.sample, device=device)
            length = torch.as_tensor(some.length, device=device, dtype=totals.dtype)[:, None]
            value = torch.zeros((len(some), totals.shape[1]), dtype=totals.dtype, device=device)
            for node, weight in enumerate(weights):
                slots = torch.as_tensor(some.slots[:, node], device=device)
                value.add_(self._rows[slots], alpha=float(weight))
            value.mul_(length)
            totals.index_add_(0, sample, value)
            scale = self._scale if len(self._scale) == 1 else self._scale[sample]
            largest[part] = value.mul_(scale).abs_().amax(1).cpu().numpy()
        return largest

    def _judge(self) -> _Verdict:
        """Which samples are accurate, and what their tolerances allow."""
        stable = self._accuracy.tol * (self._sums * self._scale).abs().amax(1)
        complete = self._accuracy.tol * self._change.abs().clamp(min=self._accuracy.atol)
        delta = self._delta()
        moved = (self._changes * self._scale).abs().amax(1)
        is_complete = delta.abs() <= complete
        return _Verdict(
            (is_complete & (moved <= stable)).cpu().numpy(),
            (~delta.isfinite()).cpu().numpy(),
            is_complete.cpu().numpy(),
            complete.cpu().numpy(),
            stable.clamp(min=np.finfo(np.float64).tiny).cpu().numpy(),
        )

    def _choose(self, intervals: Intervals, score: Any) -> Any:
        """Which intervals to split."""
        chosen = to_split(intervals.sample, score)
        chosen &= intervals.length > self._finest * (intervals.start + intervals.length)
        per_split = self._nodes_of(1)
        wanted = per_split * np.bincount(intervals.sample[chosen], minlength=len(self._n_steps))
        limit = self._accuracy.max_n_steps
        if self._kept < limit:
            self._rough = self._n_steps + wanted > self._kept
            chosen &= ~self._rough[intervals.sample]
        for sample in np.flatnonzero((self._n_steps + wanted > limit) & ~self._rough):
            own = np.flatnonzero(chosen & (intervals.sample == sample))
            most = (limit - self._n_steps[sample]) // per_split
            chosen[own[np.argsort(-score[own], kind="stable")[most:]]] = False
        return chosen


def refine_paths(
    passes: Passes,
    samples: PathSamples,
    ends: tuple[Tensor, Tensor],
    method: str,
    n_steps: int,
    accuracy: Accuracy,
    shares: Shares,
    multiply: bool,
) -> Refined:
    """Attributions of a few samples, each as accurate as asked for or as ``max_n_steps`` allows.

    A path that takes more gradients than there is room for is done again alone, where there is room for
    more; failing that with equal steps, which need none.
    """
    import torch

    def refinement(part: PathSamples, ends: tuple[Tensor, Tensor], kept: int) -> Refinement:
        return Refinement(passes, part, ends, method, n_steps, accuracy, kept, multiply)

    found = refinement(samples, ends, shares.kept).run()
    factor = NESTING[method]
    for i in np.flatnonzero(found.rough):
        index = torch.tensor([int(i)])
        one, own_ends = samples.take(index), (ends[0][i : i + 1], ends[1][i : i + 1])
        tries = []
        if shares.kept_alone > shares.kept:
            tries.append(refinement(one, own_ends, shares.kept_alone).run())
        if not tries or tries[0].rough[0]:
            even = n_steps
            while even * factor < shares.kept and even * factor**2 <= accuracy.max_n_steps:
                even *= factor
            tries.append(refinement(one, own_ends, 0).run_evenly(even))
        last = tries[-1]
        found.values[i], found.delta[i] = last.values[0], last.delta[0]
        found.n_steps[i], found.converged[i] = last.n_steps[0], last.converged[0]
        found.n_gradients[i] += sum(int(each.n_gradients[0]) for each in tries)
    return found
