"""Passes along the paths that serve several layers at once: their tensors, and the gradients at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._layer_tensors import Layout, Slot, find_layouts, hooked, samples_first, tensor_of
from ._path_inputs import PathSamples, select_outputs, summing_dtype
from ._path_model import CudnnFallback, _points
from ._validate import Float64

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Key = tuple[str, Slot]
"""A tensor of a layer, by the layer's name."""


def with_tensor(value: Any, tensor: Tensor) -> Any:
    """The tensor, packed as ``value`` is."""
    from torch.nn.utils.rnn import PackedSequence

    return PackedSequence(tensor, *value[1:]) if isinstance(value, PackedSequence) else tensor


@dataclass(frozen=True)
class Pass:
    """Some nodes of all samples.

    Attributes
    ----------
    scores : Tensor of shape (n_nodes, n)
        F, in float64.
    tensors : dict of Key to (Tensor, Tensor)
        What a layer put out in one call, and the gradient of F there, both (n_nodes, n, ...).
    """

    scores: Tensor
    tensors: dict[Key, tuple[Tensor, Tensor]]


class LayerSweep:
    """The model and its layers along straight paths; used inside ``recording()``.

    Attributes
    ----------
    layouts : dict of str to Layout
        Each layer's calls and tensors.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        modules: Mapping[str, Module],
        samples: PathSamples,
        *,
        at_input: bool,
    ) -> None:
        self._model, self._modules, self._at_input = model, modules, at_input
        self._cudnn = CudnnFallback()
        self._copies: dict[Key, int] = {}

        def run(n_rows: int) -> None:
            first = first_samples(samples, n_rows)
            model(*(row.clone() for row in _points(first, [1.0])), *first.repeated_extra(1))

        self.layouts: dict[str, Layout] = find_layouts(run, modules, at_input=at_input)

    def forward(
        self,
        samples: PathSamples,
        rows: tuple[Tensor, ...],
        names: Iterable[str],
        replace: Callable[[str, Slot, Any], Any],
    ) -> Tensor:
        """F at some rows, (n_rows,), while ``replace`` sees and replaces the tensors of some layers."""
        seen = dict.fromkeys(names, 0)
        slots = {(name, slot.call, slot.place): slot for name in seen for slot in self.layouts[name].slots}

        def visit(name: str, call: int, place: int, tensor: Any) -> Any:
            slot = slots.get((name, call, place))
            if slot is None:
                return tensor
            seen[name] += 1
            return replace(name, slot, tensor)

        modules = {name: self._modules[name] for name in seen}
        n_rows = len(rows[0])
        with hooked(modules, visit, at_input=self._at_input) as calls:
            copies = (row.clone() for row in rows)
            output = self._model(*copies, *samples.repeated_extra(n_rows // len(samples)))
        for name, count in seen.items():
            self.layouts[name].check(name, calls[name], count)
        return select_outputs(output, samples.target, n_rows)

    def record(self, samples: PathSamples, rows: tuple[Tensor, ...]) -> tuple[Tensor, dict[Key, Any]]:
        """F at some rows, and the layers' tensors, at which a gradient of F can be taken.

        What is kept is a view: a layer may hand on the very tensor it was given, and the gradient is that
        of what goes on from here. A network that works in place overwrites what is kept. Tensors to which
        that happens are copied: first for the network to go on with, and where this was not enough, for
        keeping, too.
        """
        while True:
            kept: dict[Key, Any] = {}
            versions: dict[Key, int] = {}

            def keep(name: str, slot: Slot, value: Any, kept: Any = kept, versions: Any = versions) -> Any:
                key, tensor = (name, slot), tensor_of(value)
                copies = self._copies.get(key, 0) if tensor.requires_grad else 2
                own = tensor.clone().requires_grad_() if copies == 2 else tensor.view_as(tensor)
                kept[key], versions[key] = with_tensor(value, own), own._version
                return with_tensor(value, own.clone() if copies else own)

            scores = self.forward(samples, rows, self._modules, keep)
            changed = [key for key, value in kept.items() if tensor_of(value)._version != versions[key]]
            if not changed:
                return scores, kept
            for key in changed:
                self._copies[key] = self._copies.get(key, 0) + 1

    def run(self, samples: PathSamples, nodes: Float64) -> Pass:
        """One forward and one backward pass for all layers."""
        return self._cudnn.run(lambda: self._run(samples, nodes))

    def _run(self, samples: PathSamples, nodes: Float64) -> Pass:
        import torch

        n_nodes, n = len(nodes), len(samples)
        scores, kept = self.record(samples, _points(samples, nodes))
        found: tuple[Tensor | None, ...] = (None,) * len(kept)
        if scores.requires_grad:
            at = [tensor_of(value) for value in kept.values()]
            found = torch.autograd.grad(scores, at, torch.ones_like(scores), allow_unused=True)
        tensors = {}
        for ((name, slot), value), gradient in zip(kept.items(), found, strict=True):
            if gradient is None:  # zeros that take no memory
                gradient = tensor_of(value).new_zeros(()).expand_as(tensor_of(value))
            activation, slope = (
                by_sample(part, slot, n_nodes * n, name).detach()
                for part in (value, with_tensor(value, gradient))
            )
            shape = (n_nodes, n, *activation.shape[1:])
            tensors[name, slot] = activation.view(shape), slope.view(shape)
        return Pass(scores.detach().to(summing_dtype(scores)).reshape(n_nodes, n), tensors)


@contextmanager
def same_random_numbers(samples: PathSamples) -> Iterator[None]:
    """The same random numbers in each such block, as dropout draws them; the generators stay as they are."""
    import torch

    device = samples.inputs[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def first_samples(samples: PathSamples, n_rows: int) -> PathSamples:
    """So many rows of the first two samples, one after the other."""
    import torch

    return samples.take(torch.arange(n_rows) % min(2, len(samples)))


def by_sample(value: Any, slot: Slot, n_rows: int, name: str) -> Tensor:
    """Samples along the first axis; packed sequences padded with zeros to (n, longest, ...)."""
    from torch.nn.utils.rnn import pad_packed_sequence

    if slot.packed:
        value, _ = pad_packed_sequence(value, batch_first=True)
    return samples_first(value, slot, n_rows, name)
