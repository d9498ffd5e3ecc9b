"""Integrals along the paths of a few samples, split where the gradients change or miss a change of F."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._path_inputs import PathSamples, summing_dtype
from ._path_mesh import (
    SPLITTING,
    Int64,
    Intervals,
    Nodes,
    Splitting,
    first_mesh,
    split,
    to_split,
    unexplained,
)
from ._path_passes import Passes
from ._validate import Float64

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._path_refinement import Accuracy


def of_split(splitting: Splitting) -> int:
    """Gradients that the parts of one interval take, new or not."""
    return 3 + len(splitting.parts) * len(splitting.new)


def kept_dtype(samples: PathSamples) -> torch.dtype:
    """Of gradients that are kept."""
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
        Gradients of each that there is room for. Several samples stop there, and are rough; a single one
        goes on, and what a split needs is computed again.
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
        n = len(samples)
        self._kept = kept if n > 1 else accuracy.max_n_steps
        self._way, self._finest = _way(samples), _finest_length(samples)
        self._scale = self._way if multiply else torch.ones_like(self._way[:1])
        # Where nothing is written, the system has not given any memory yet.
        self._rows = self._way.new_empty((n * kept, self._way.shape[1]), dtype=kept_dtype(samples))
        self._nodes = Nodes(*np.zeros((3, 0)))
        self._sums, self._changes = torch.zeros_like(self._way), torch.zeros_like(self._way)
        self._n_steps, self._n_gradients = np.zeros((2, n), np.int64)
        self._rough = np.zeros(n, bool)
        self._n_intervals = n_steps

    def run(self) -> Refined:
        """Refine until every sample is accurate, or has as many gradients as it may have."""
        splitting = self._splitting
        intervals, sample, places = first_mesh(splitting, len(self._samples), self._n_intervals)
        self._evaluate(sample, self._new_nodes(sample, places), 0)
        self._add(intervals, splitting.fine, self._sums)
        largest = self._add(intervals, splitting.change, self._changes)
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
            parts, of_parts = self._split(intervals.take(chosen))
            intervals, largest = intervals.take(~chosen) + parts, np.append(largest[~chosen], of_parts)
        values = self._sums * self._scale
        return Refined(values, self._delta(), self._n_steps, self._n_gradients, converged, self._rough)

    def _split(self, parents: Intervals) -> tuple[Intervals, Any]:
        """The parts of some intervals, in place of them in all sums; each part's largest attribution."""
        splitting = self._splitting
        parts, sample, places = split(splitting, parents, len(self._nodes))
        slots = self._new_nodes(sample, places)
        if len(self._nodes) <= len(self._rows):
            self._evaluate(sample, slots, int(slots[0]))
            return parts, self._exchange(parents, parts)
        # A single sample, with more nodes than rows: from here on the rows serve a few intervals at a time.
        largest, at_once, n_parts = [], len(self._rows) // of_split(splitting), len(splitting.parts)
        for first in range(0, len(parents), at_once):
            some = parents.take(slice(first, first + at_once))
            parts_of_some = parts.take(slice(n_parts * first, n_parts * (first + at_once)))
            slots = np.unique(parts_of_some.slots)
            self._evaluate(np.zeros_like(slots), slots, 0)
            largest.append(self._exchange(some.renumbered(slots), parts_of_some.renumbered(slots)))
        return parts, np.concatenate(largest)

    def _exchange(self, parents: Intervals, parts: Intervals) -> Any:
        change = self._splitting.change
        self._add(parents, -change, self._changes)
        return self._add(parts, change, self._sums, self._changes)

    def _delta(self) -> Tensor:
        return (self._sums * self._way).sum(1) - self._change

    def _score(self, intervals: Intervals, largest: Any, verdict: _Verdict) -> Any:
        """What an interval leaves open, in units of what the tolerance allows its sample."""
        of = intervals.sample
        missing = unexplained(intervals, self._nodes, self._ends) / verdict.complete_within[of]
        missing[np.isnan(missing)] = np.inf  # F is no number there
        return np.maximum(largest / verdict.stable_within[of], np.where(verdict.complete[of], 0.0, missing))

    def _new_nodes(self, sample: Int64, places: Float64) -> Int64:
        """Slots for nodes that have none yet."""
        first = len(self._nodes)
        self._nodes.append(places)
        self._n_steps += np.bincount(sample, minlength=len(self._n_steps))
        return np.arange(first, len(self._nodes))

    def _evaluate(self, sample: Int64, slots: Int64, first_row: int) -> None:
        """Compute gradients at nodes of some samples, into rows from ``first_row`` on."""
        import torch

        self._n_gradients += np.bincount(sample, minlength=len(self._n_steps))
        first = 0
        while first < len(slots):
            part = slice(first, first + self._passes.rows)
            here = slots[part]
            rows = self._rows[first_row + first : first_row + first + len(here)]
            values = self._passes.flat_gradients(self._samples, sample[part], self._nodes.place[here], rows)
            way = self._way[torch.as_tensor(sample[part], device=rows.device)]
            self._nodes.value[here] = values.double().cpu().numpy()
            self._nodes.slope[here] = way.mul_(rows).sum(1).cpu().numpy()
            first += len(here)

    def _add(self, intervals: Intervals, weights: Any, *totals: Tensor) -> Any:
        """Add weighted gradients of intervals to their samples' totals; each one's largest attribution."""
        import torch

        device, dtype = self._way.device, self._way.dtype
        largest, first = np.empty(len(intervals)), 0
        while first < len(intervals):
            part = slice(first, first + self._passes.rows)
            some = intervals.take(part)
            sample = torch.as_tensor(some.sample, device=device)
            length = torch.as_tensor(some.length, device=device, dtype=dtype)[:, None]
            value = torch.zeros((len(some), self._way.shape[1]), dtype=dtype, device=device)
            for node, weight in enumerate(weights):
                slots = torch.as_tensor(some.slots[:, node], device=device)
                value.add_(self._rows[slots], alpha=float(weight))
            value.mul_(length)
            for total in totals:
                total.index_add_(0, sample, value)
            scale = self._scale if len(self._scale) == 1 else self._scale[sample]
            largest[part] = value.mul_(scale).abs_().amax(1).cpu().numpy()
            first += len(some)
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
        per_split = of_split(self._splitting) - 3
        limit = self._accuracy.max_n_steps
        if self._kept < limit:
            wanted = per_split * np.bincount(intervals.sample[chosen], minlength=len(self._n_steps))
            self._rough |= self._n_steps + wanted > self._kept
            chosen &= ~self._rough[intervals.sample]
        most = (limit - self._n_steps) // per_split
        own = np.flatnonzero(chosen)
        own = own[np.lexsort((-score[own], intervals.sample[own]))]
        of = intervals.sample[own]
        chosen[own[np.arange(len(own)) - np.searchsorted(of, of) >= most[of]]] = False
        return chosen
