"""A network that begins at one of its layers: what ``integrated_gradients(layer=...)`` integrates over."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._layer_tensors import Layout, find_layouts, hooked, name_layer, samples_first
from ._path_model import recording

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class LayerModel:
    """The model as a function of a layer's output (or input) beside the model's own arguments.

    Called as ``layer_model(*activations, *arguments)``: the model runs on the arguments, and the layer's
    tensors are replaced by the activations, samples along their first axis. A layer that hands on several
    floating-point tensors, or that is called more than once in a forward pass, has one activation for each
    tensor of each call, in this order; they are replaced together. Hooks are gone after each call.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        name: str,
        module: Module,
        layout: Layout,
        *,
        at_input: bool = False,
    ) -> None:
        self._model = model
        self._modules = {name: module}
        self._layout = layout
        self._at_input = at_input

    def __call__(self, *values: Any) -> Any:
        (name,) = self._modules
        count = len(self._layout.slots)
        arguments = values[count:]
        by_place = {
            (slot.call, slot.place): activation.movedim(0, slot.axis)
            for slot, activation in zip(self._layout.slots, values, strict=False)
        }

        replaced = set()

        def replace(name: str, call: int, place: int, tensor: Any) -> Any:
            new = by_place.get((call, place))
            if new is None:
                return tensor
            if new.shape != tensor.shape:
                raise ValueError(
                    f"layer: {name!r} hands on shape {tuple(tensor.shape)}, but its activation has "
                    f"{tuple(new.shape)}"
                )
            replaced.add((call, place))
            return new

        with hooked(self._modules, replace, at_input=self._at_input) as calls:
            output = self._model(*arguments)
        self._layout.check(name, calls[name], len(replaced), "layer")
        return output

    def activations(
        self, arguments: tuple[Any, ...], n_samples: int, *, rows: int = 64
    ) -> tuple[Tensor, ...]:
        """The layer's tensors at the model's arguments, (n_samples, ...), ``rows`` at a time.

        The forward pass ends where the last of them is known.
        """
        import torch

        (name,) = self._modules
        places = {(slot.call, slot.place): i for i, slot in enumerate(self._layout.slots)}
        found: list[Tensor] = []
        for first in range(0, n_samples, rows):
            index = torch.arange(first, min(first + rows, n_samples))
            part: dict[int, Tensor] = {}

            def keep(
                name: str, call: int, place: int, tensor: Any, part: Any = part, n: int = len(index)
            ) -> Any:
                i = places.get((call, place))
                if i is not None:
                    part[i] = samples_first(tensor, self._layout.slots[i], n, name, "layer").detach().clone()
                    if len(part) == len(places):
                        raise _AllSeen
                return tensor

            try:
                with recording(), hooked(self._modules, keep, at_input=self._at_input) as calls:
                    self._model(*take_rows(arguments, index, n_samples))
            except _AllSeen:
                pass
            else:
                self._layout.check(name, calls[name], len(part), "layer")
            if not found:
                found = [
                    torch.empty((n_samples, *part[i].shape[1:]), dtype=part[i].dtype, device=part[i].device)
                    for i in range(len(places))
                ]
            for i, whole in enumerate(found):
                if part[i].shape[1:] != whole.shape[1:]:
                    raise ValueError(
                        f"layer: {name!r} hands on shape {tuple(part[i].shape)}, but {tuple(whole.shape)} "
                        "for the first samples; give samples of equal length, or pad them"
                    )
                whole[first : first + rows] = part[i]
        return tuple(found)


class _AllSeen(BaseException):
    """Ends a forward pass; no Exception, so that a network that catches those does not catch it."""


@dataclass(frozen=True)
class LayerPath:
    """Where a layer's path begins and ends, and the model along it.

    Attributes
    ----------
    model : LayerModel
        Called as ``model(*activations, *extra)``.
    inputs, baselines : tuple of Tensor
        The layer's tensors at the model's inputs and baselines, (n, ...).
    extra : tuple
        The model's inputs and further arguments.
    """

    model: LayerModel
    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    extra: tuple[Any, ...]


def take_rows(arguments: tuple[Any, ...], index: Tensor, n_samples: int) -> tuple[Any, ...]:
    """The rows at ``index`` of all tensors with one row a sample; all else as it is."""
    import torch

    return tuple(
        x.index_select(0, index.to(x.device))
        if isinstance(x, torch.Tensor) and x.ndim and x.shape[0] == n_samples
        else x
        for x in arguments
    )


def layer_path(
    model: Callable[..., Any],
    layer: str | Module,
    inputs: Any,
    baselines: Any = None,
    additional_forward_args: Any = None,
    *,
    at_input: bool = False,
    rows: int = 64,
) -> LayerPath:
    """Run the model at inputs and baselines and keep what one layer puts out, or takes in, there.

    Parameters
    ----------
    model : callable
    layer : str or Module
        A module's name, or the module.
    inputs : Tensor or tuple of Tensor
        Shape (n_samples, ...), of any dtype: token ids are welcome.
    baselines : None, number, Tensor or tuple
        As for :func:`qixai_fast.integrated_gradients`; for token ids an id or ids, 0 where None.
    additional_forward_args : object or tuple
    at_input : bool
        Whether the layer's input is meant.
    rows : int
        Samples of a forward pass.

    Raises
    ------
    TypeError
        For a layer that is neither name nor module, inputs that are no tensors, baselines that do not fit.
    ValueError
        For an unknown name (the nearest are listed), a layer that is not called, that hands on integers
        or packed sequences, or tensors without one row for each sample.
    """
    import torch

    name, module = name_layer(model, layer)
    ends, beginnings = _check_ends(inputs, baselines)
    n = len(ends[0])
    extra = () if additional_forward_args is None else additional_forward_args
    extra = extra if isinstance(extra, tuple) else (extra,)
    with torch.inference_mode(False):
        # Tensors made in inference mode cannot take part in a gradient; their copies can.
        ends, extra = (
            tuple(x.clone() if isinstance(x, torch.Tensor) and x.is_inference() else x for x in group)
            for group in (ends, extra)
        )

    def run(n_rows: int) -> None:
        index = torch.arange(n_rows) % min(2, n)
        model(
            *(_following(x) for x in take_rows(ends, index, n)),
            *take_rows(extra, index, n),
        )

    with recording(), _embeddings_following(model):
        layout = find_layouts(run, {name: module}, at_input=at_input, argument="layer")[name]
    if any(slot.packed for slot in layout.slots):
        raise ValueError(
            f"layer: {name!r} {'takes' if at_input else 'puts out'} a PackedSequence, which has no row for "
            "each sample; choose a layer before pack_padded_sequence or after pad_packed_sequence"
        )
    layer_model = LayerModel(model, name, module, layout, at_input=at_input)
    return LayerPath(
        layer_model,
        layer_model.activations((*ends, *extra), n, rows=rows),
        layer_model.activations((*beginnings, *extra), n, rows=rows),
        (*ends, *extra),
    )


def _following(x: Tensor) -> Tensor:
    """A copy that wants a gradient, if it can have one: what depends on it shows."""
    return x.requires_grad_().clone() if x.dtype.is_floating_point else x


@contextmanager
def _embeddings_following(model: Any) -> Iterator[None]:
    """Let what depends on embeddings show also where their weights are frozen: masks do not."""
    from torch import nn

    def follow(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return output if output.requires_grad else output.clone().requires_grad_()

    with ExitStack() as undo:
        for module in model.modules() if isinstance(model, nn.Module) else ():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                undo.callback(module.register_forward_hook(follow).remove)
        yield


def _check_ends(inputs: Any, baselines: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs, and baselines of the same shapes and dtypes."""
    import torch

    values = inputs if isinstance(inputs, tuple) else (inputs,)
    if not values:
        raise ValueError("inputs: wanted a tensor or a tuple of tensors, got an empty tuple")
    for x in values:
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"inputs: wanted a torch tensor, got {type(x).__name__}; see torch.as_tensor")
        if x.ndim == 0 or x.numel() == 0 or len(x) != len(values[0]):
            raise ValueError(
                "inputs: wanted (n_samples, ...), not empty, with equally many samples, got shapes "
                + ", ".join(str(tuple(x.shape)) for x in values)
            )
    if baselines is None or isinstance(baselines, numbers.Real) or not isinstance(inputs, tuple):
        starts: tuple[Any, ...] = (baselines,) * len(values)
    else:
        starts = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(starts) != len(values):
        raise ValueError(
            f"baselines: wanted a number or a tuple of {len(values)} as inputs, got {len(starts)}"
        )
    return (
        tuple(x.detach() for x in values),
        tuple(_check_start(*pair) for pair in zip(starts, values, strict=True)),
    )


def _check_start(baseline: Any, x: Tensor) -> Tensor:
    import torch

    if baseline is None:
        return torch.zeros_like(x)
    if isinstance(baseline, numbers.Real) and not isinstance(baseline, bool):
        baseline = torch.tensor(baseline, device=x.device)
    if not isinstance(baseline, torch.Tensor):
        raise TypeError(f"baselines: wanted a number or a torch tensor, got {type(baseline).__name__}")
    if baseline.dtype.is_floating_point and not x.dtype.is_floating_point:
        raise TypeError(f"baselines: wanted integers as the inputs ({x.dtype}), got {baseline.dtype}")
    if baseline.device != x.device:
        raise ValueError(f"baselines: on {baseline.device}, but inputs are on {x.device}; move one of them")
    if baseline.ndim and baseline.shape not in (x.shape, (1, *x.shape[1:])):
        raise ValueError(
            f"baselines: wanted a number, shape {tuple(x.shape)} as inputs, or {(1, *x.shape[1:])} for all "
            f"samples, got {tuple(baseline.shape)}"
        )
    return baseline.detach().to(x.dtype).expand(x.shape)
