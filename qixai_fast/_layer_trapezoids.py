"""Trapezoids in the activations of layers: the sums that conductances are, and their refinement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layer_sweep import Key, LayerSweep
from ._path_inputs import PathSamples, summing_dtype
from ._path_refinement import Accuracy
from ._threads import ordered_map
from ._validate import Float64, check_choice, check_int

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from tqdm import tqdm

    from ._gpu.passes import PassDevice

METHODS = ("chebyshev", "riemann_trapezoid")

Place = tuple[str, int]
"""A layer, and which of its tensors: those of several calls add up."""


def trapezoid_nodes(method: str, n_steps: int) -> Float64:
    """Where the trapezoids end, on [0, 1]; those of ``n_steps`` are among those of ``2 * n_steps``.

    Chebyshev nodes lie closer at both ends. Networks bend most near the usual baselines (next to zero each
    unit's bias decides, and layer normalization jumps), and saturate at the other end.

    Examples
    --------
    >>> trapezoid_nodes("chebyshev", 4).round(3)
    array([0.   , 0.146, 0.5  , 0.854, 1.   ])
    """
    check_choice(method, "method", METHODS)
    places = np.arange(check_int(n_steps, "n_steps", low=1) + 1) / n_steps
    if method == "chebyshev":
        places = np.sin(np.pi / 2 * places) ** 2
        places[-1] = 1.0
    return places


# Elements that one thread takes at a time.
_PIECE = 1 << 17


class _Trapezoids:
    """Sums over the steps of an activation's change times the mean of the gradients before and after."""

    def __init__(self, gpu: PassDevice | None) -> None:
        self._gpu = gpu
        self.totals: dict[Place, Tensor] = {}
        self._before: dict[Key, tuple[Tensor, Tensor]] = {}

    def add(self, tensors: Mapping[Key, tuple[Tensor, Tensor]]) -> None:
        """Go on with the next nodes: activations and gradients, (n_nodes, n, ...)."""
        import torch

        for key, (activations, gradients) in tensors.items():
            place = key[0], key[1].place
            shape = activations.shape[1:]
            if place not in self.totals:
                precise = summing_dtype(activations)
                self.totals[place] = torch.zeros(shape, dtype=precise, device=activations.device)
            total = self.totals[place]
            if total.shape != shape:
                raise ValueError(
                    f"layers: {key[0]!r} hands on shapes {tuple(total.shape)} and {tuple(shape)} in "
                    "different calls, which cannot be added up"
                )
            dtype = result_dtype(activations)
            nodes = [
                (activation.to(dtype).reshape(-1), gradient.to(dtype).reshape(-1))
                for activation, gradient in zip(activations, gradients, strict=True)
            ]
            before = self._before.get(key)
            _add(total.view(-1), nodes if before is None else [before, *nodes], self._gpu)
            last = nodes[-1]
            # A view would keep all of the pass alive.
            self._before[key] = last if len(nodes) == 1 else (last[0].clone(), last[1].clone())


def _add(total: Tensor, nodes: list[tuple[Tensor, Tensor]], gpu: PassDevice | None) -> None:
    """Add the trapezoids between successive nodes, each an activation and a gradient, (m,)."""
    import torch

    if gpu is not None:
        for first, second in pairwise(nodes):
            gpu.add_trapezoid(first, second, total)
        return
    if total.device.type != "cpu":
        for (before, slope_before), (after, slope_after) in pairwise(nodes):
            change = after.to(total.dtype) - before.to(total.dtype)
            slope = slope_before.to(total.dtype).add_(slope_after)
            total.addcmul_(change, slope, value=0.5)
        return
    from .kernels.trapezoids_cpu import add_trapezoid

    sums = total.numpy()
    arrays = [(activation.numpy(), gradient.numpy()) for activation, gradient in nodes]

    def add_piece(start: int) -> None:
        piece = slice(start, start + _PIECE)
        for (before, slope_before), (after, slope_after) in pairwise(arrays):
            add_trapezoid(before[piece], after[piece], slope_before[piece], slope_after[piece], sums[piece])

    for _ in ordered_map(add_piece, range(0, len(sums), _PIECE), torch.get_num_threads()):
        pass


def result_dtype(tensor: Tensor) -> torch.dtype:
    """float32 for half precision, else the tensor's own."""
    import torch

    return torch.float32 if tensor.dtype.itemsize < 4 else tensor.dtype


def grown(total: Tensor, shape: torch.Size) -> Tensor:
    """With zeros at the end of the second axis: packed sequences are as long as their batch's longest."""
    import torch

    if total.ndim < 2 or total.shape[1] >= shape[1]:
        return total
    larger = total.new_zeros((total.shape[0], shape[1], *total.shape[2:]))
    larger[:, : total.shape[1]] = total
    return torch.as_tensor(larger)


def layer_sums(totals: Mapping[Place, Tensor], name: str) -> Tensor:
    """Each sample's sum over all units of a layer, shape (n,)."""
    import torch

    parts = [total.reshape(len(total), -1).sum(1) for (layer, _), total in totals.items() if layer == name]
    return torch.stack(parts).sum(0)


def _largest(totals: Iterable[Tensor]) -> Tensor:
    """Each sample's largest magnitude, shape (n,)."""
    import torch

    return torch.stack([total.reshape(len(total), -1).abs().amax(1) for total in totals]).amax(0)


@dataclass
class Passes:
    """Passes of at most ``rows`` rows (nodes times samples); on ``gpu``, if not on the CPU."""

    sweep: LayerSweep
    method: str
    rows: int
    bar: tqdm[Any]
    gpu: PassDevice | None = None

    def sums(self, samples: PathSamples, n_steps: int, first: int) -> tuple[Tensor, dict[Place, Tensor]]:
        """F(input) - F(baseline), and the conductances, of a few samples.

        ``first`` is the first one's place among all, for messages.
        """
        nodes = trapezoid_nodes(self.method, n_steps)
        self.bar.total = max(self.bar.total or 0, self.bar.n + len(nodes) * len(samples))
        trapezoids = _Trapezoids(self.gpu)
        at_once = max(1, self.rows // len(samples))
        ends = []
        for start in range(0, len(nodes), at_once):
            part = nodes[start : start + at_once]
            done = self.sweep.run(samples, part)
            if start == 0:
                ends.append(_finite(done.scores[0], "baseline", first))
            if start + len(part) == len(nodes):
                ends.append(_finite(done.scores[-1], "input", first))
            trapezoids.add(done.tensors)
            self.bar.update(len(part) * len(samples))
        return ends[1] - ends[0], trapezoids.totals


def _finite(scores: Tensor, where: str, first: int) -> Tensor:
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0])
        raise ValueError(f"model: output {float(scores[row])} at the {where} of sample {first + row}")
    return scores


@dataclass
class Group:
    """Conductances of samples that share their passes.

    Attributes
    ----------
    change : Tensor of shape (n,)
        F(input) - F(baseline).
    totals : dict of Place to Tensor
        In float64.
    n_steps, n_gradients : Tensor of shape (n,)
    converged : dict of str to Tensor of shape (n,)
        By layer.
    """

    change: Tensor
    totals: dict[Place, Tensor]
    n_steps: Tensor
    n_gradients: Tensor
    converged: dict[str, Tensor]


def conduct(
    passes: Passes,
    samples: PathSamples,
    first: int,
    n_steps: int,
    accuracy: Accuracy | None,
    complete: Mapping[str, bool],
) -> Group:
    """Conductances of a few samples; ``complete`` says of which layers they add up to the change of F."""
    import torch

    change, totals = passes.sums(samples, n_steps, first)
    counts = torch.ones_like(change, dtype=torch.int64)
    none = torch.zeros_like(change, dtype=torch.bool)
    group = Group(
        change, totals, counts * n_steps, counts * (n_steps + 1), {name: none.clone() for name in complete}
    )
    if accuracy is not None:
        _refine(passes, samples, group, n_steps, accuracy, complete)
    return group


def _refine(
    passes: Passes,
    samples: PathSamples,
    group: Group,
    n_steps: int,
    accuracy: Accuracy,
    complete: Mapping[str, bool],
) -> None:
    """Double the steps, up to ``max_n_steps``, only of the samples that need it.

    The coarser nodes are computed again: to keep activations and gradients of all layers at all nodes
    would take many times the memory of a pass.
    """
    import torch

    active = torch.arange(len(samples), device=group.change.device)
    finer = 2 * n_steps
    while len(active) and finer <= accuracy.max_n_steps:
        change, totals = passes.sums(samples.take(active), finer, 0)
        done = torch.ones_like(active, dtype=torch.bool)
        hopeless = torch.zeros_like(done)
        for name, adds_up in complete.items():
            fine = {
                place: grown(total, group.totals[place].shape)
                for place, total in totals.items()
                if place[0] == name
            }
            good = _largest(total - group.totals[place][active] for place, total in fine.items()) <= (
                accuracy.tol * _largest(fine.values())
            )
            sums = layer_sums(fine, name)
            if adds_up:
                scale = change.abs().clamp(min=accuracy.atol)
                good &= (sums - change).abs() <= accuracy.tol * scale
            group.converged[name][active] = good
            done &= good
            hopeless |= ~sums.isfinite()
            for place, total in fine.items():
                group.totals[place][active] = total
        group.n_steps[active] = finer
        group.n_gradients[active] += finer + 1
        active = active[~(done | hopeless)]
        finer *= 2
