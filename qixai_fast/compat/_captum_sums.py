"""Sums over the nodes of paths as Captum defines them, in passes that fit a budget or a number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .._layer_sweep import Key, LayerSweep
from .._layer_tensors import tensor_of
from .._layer_trapezoids import grown
from .._path_inputs import PathSamples, summing_dtype
from .._path_model import PathModel, _points
from .._path_passes import Passes, out_of_memory, pass_budget
from .._validate import Float64, check_int

if TYPE_CHECKING:
    from torch import Tensor


def check_rows(internal_batch_size: Any) -> int | None:
    """Rows of a pass that the caller wants."""
    return (
        None if internal_batch_size is None else check_int(internal_batch_size, "internal_batch_size", low=1)
    )


def _groups(samples: PathSamples, at_once: int) -> Iterator[PathSamples]:
    """At most so many samples at a time, in groups of about equal size."""
    import torch

    n = len(samples)
    n_groups = -(-n // max(1, at_once))
    for i in range(n_groups):
        yield samples.take(torch.arange(i * n // n_groups, (i + 1) * n // n_groups))


def path_sums(
    model: PathModel,
    samples: PathSamples,
    nodes: Float64,
    weights: Float64,
    *,
    rows: int | None,
    together: bool,
) -> list[Tensor]:
    """Weighted sums over the nodes of the gradients at each input, in float64.

    Parameters
    ----------
    model : PathModel
    samples : PathSamples
    nodes, weights : ndarray of shape (n_nodes,)
    rows : int or None
        Rows (nodes times samples) of a pass at most; None for what fits the default budget.
    together : bool
        Whether all samples must be in each pass.
    """
    import torch
    from tqdm import tqdm

    n = len(samples)
    if rows is None:
        per_row = model.probe(samples, n if together else 2)
        rows = pass_budget(None, per_row, samples.inputs[0].device.type) // per_row
    least = n if together else 1
    with tqdm(disable=True) as bar:
        passes = Passes(model, max(rows, least), bar, least)
        parts = [passes.sums(group, nodes, weights) for group in _groups(samples, passes.rows)]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def conductances(
    sweep: LayerSweep, model: PathModel, samples: PathSamples, nodes: Float64, *, rows: int | None
) -> list[Tensor]:
    """Changes of a layer's tensors from node to node times the gradients before them, summed.

    The tensors are those of the layer's last call. Results are in their dtypes; packed sequences are padded.
    """
    import torch

    if rows is None:
        rows = _fitting_rows(sweep, model, samples)
    parts: list[list[Tensor]] = []
    first = 0
    while first < len(samples):
        stop = min(first + rows, len(samples))
        totals = _left_sums(sweep, samples.take(torch.arange(first, stop)), nodes, rows)
        if totals is None:
            rows = max(1, min(rows, len(nodes) * (stop - first)) // 2)
            continue
        parts.append(totals)
        first = stop
    return [_joined(list(column)) for column in zip(*parts, strict=True)]


def _left_sums(sweep: LayerSweep, samples: PathSamples, nodes: Float64, rows: int) -> list[Tensor] | None:
    """The sums of some samples; None where memory ran out in passes of more than one row."""
    sums = _LeftSums()
    at_once = max(1, rows // len(samples))
    try:
        for start in range(0, len(nodes), at_once):
            done = sweep.run(samples, nodes[start : start + at_once])
            sums.add(_of_last_calls(sweep, done.tensors))
    except (RuntimeError, MemoryError) as error:
        if rows == 1 or not out_of_memory(error):
            raise
        return None
    return sums.rounded()


def _fitting_rows(sweep: LayerSweep, model: PathModel, samples: PathSamples) -> int:
    """Rows of a pass by the default budget, with the layer's tensors, their gradients and sums."""
    import torch

    per_row = model.probe(samples)
    few = samples.take(torch.arange(min(2, len(samples))))
    _, kept = sweep.record(few, _points(few, [1.0]))
    sizes = [(tensor_of(value).numel(), tensor_of(value).element_size()) for value in kept.values()]
    # To a pass's own come a node before, and sums, changes and gradients in float64.
    more = sum(count * (2 * width + 4 * 8) for count, width in sizes) // len(few)
    return pass_budget(None, per_row + more, samples.inputs[0].device.type) // (per_row + more)


def _of_last_calls(
    sweep: LayerSweep, tensors: Mapping[Key, tuple[Tensor, Tensor]]
) -> dict[Key, tuple[Tensor, Tensor]]:
    return {
        (name, slot): value
        for (name, slot), value in tensors.items()
        if slot.call == sweep.layouts[name].n_calls - 1
    }


class _LeftSums:
    """Sums over the steps of an activation's change times the gradient at the step's beginning."""

    def __init__(self) -> None:
        self.totals: dict[Key, Tensor] = {}
        self._before: dict[Key, tuple[Tensor, Tensor]] = {}

    def add(self, tensors: Mapping[Key, tuple[Tensor, Tensor]]) -> None:
        """Go on with the next nodes: activations and gradients, (n_nodes, n, ...)."""
        for key, (activations, gradients) in tensors.items():
            nodes = list(zip(activations, gradients, strict=True))
            if key in self._before:
                nodes.insert(0, self._before[key])
            else:
                self.totals[key] = nodes[0][0].new_zeros(nodes[0][0].shape, dtype=summing_dtype(activations))
            total = self.totals[key]
            for (before, slope), (after, _) in pairwise(nodes):
                total.addcmul_(after.to(total.dtype) - before, slope.to(total.dtype))
            # Views would keep all of the pass alive.
            self._before[key] = nodes[-1][0].clone(), nodes[-1][1].clone()

    def rounded(self) -> list[Tensor]:
        """The sums, in the dtypes of the tensors."""
        return [total.to(self._before[key][0].dtype) for key, total in self.totals.items()]


def _joined(parts: list[Tensor]) -> Tensor:
    import torch

    for part in parts:
        parts = [grown(other, part.shape) for other in parts]
    return torch.cat(parts)
