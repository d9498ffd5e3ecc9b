"""A function that begins at the tensors of one or more of its layers, as Captum replaces them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._layer_path import _embeddings_following, _following
from .._layer_tensors import find_layouts, hooked
from .._path_model import recording
from ._captum_forward import AssertedValueError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ._captum_forward import Forward

Place = tuple[str, int]
"""A layer, and which of its tensors."""
# Samples of a forward pass that takes no gradient.
_ROWS = 64


@dataclass(frozen=True)
class LayerValues:
    """Tensors that layers hand on, samples first, and the function as one of them.

    Attributes
    ----------
    forward : callable
        Called as ``forward(*activations, *inputs, *extra)``.
    inputs, baselines : tuple of Tensor
        The tensors at the function's inputs and baselines, (n_samples, ...).
    places : tuple of Place
    flattened : tuple of bool
        Which had several rows for each sample, (n_samples * rows, ...), and have an axis more here.
    together : bool
        Whether samples cannot be separated.
    """

    forward: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    places: tuple[Place, ...]
    flattened: tuple[bool, ...]
    together: bool


class _Replaced:
    """The function with the tensors of layers replaced, in every call of a layer by the same."""

    def __init__(
        self,
        forward: Forward,
        modules: dict[str, Module],
        axes: dict[Place, int | None],
        at_input: bool,
    ) -> None:
        self._forward, self._modules, self._axes, self._at_input = forward, modules, axes, at_input

    def __call__(self, *arguments: Any) -> Tensor:
        count = len(self._axes)
        values = {
            place: value.flatten(0, 1) if axis is None else value.movedim(0, axis)
            for (place, axis), value in zip(self._axes.items(), arguments, strict=False)
        }

        def replace(name: str, call: int, place: int, tensor: Any) -> Any:
            value = values.get((name, place))
            if value is None:
                return tensor
            if value.shape != tensor.shape:
                raise AssertedValueError(
                    f"layer: hands on shape {tuple(tensor.shape)} in one of its calls, but its activation "
                    f"has {tuple(value.shape)}; all calls of a layer are given that of the last one"
                )
            # What follows a call may change it in place.
            return value.clone() if call else value

        with hooked(self._modules, replace, at_input=self._at_input):
            return self._forward(*arguments[count:])


def layer_values(
    forward: Forward,
    layers: list[Module],
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    *,
    at_input: bool,
) -> LayerValues:
    """What layers hand on at inputs and baselines, in their last call.

    Raises
    ------
    ValueError
        For a layer that is not called, or whose tensors have no rows for the samples.
    """
    modules = {str(i): layer for i, layer in enumerate(layers)}
    axes = _axes(forward, modules, inputs, at_input)
    n = len(inputs[0])
    together = forward.together or axes is None
    rows = n if together else _ROWS
    ends = []
    for values in (inputs, baselines):
        parts = [
            _last_call(forward, modules, tuple(x[i : i + rows] for x in values), slice(i, i + rows), at_input)
            for i in range(0, n, rows)
        ]
        if axes is None:
            axes = {
                place: 0 if len(tensor) == n else None for place, tensor in parts[0].items() if tensor.ndim
            }
        ends.append(
            {place: _samples_first([part[place] for part in parts], axis, n) for place, axis in axes.items()}
        )
    missing = [name for name in modules if all(place[0] != name for place in axes or {})]
    if missing or axes is None:
        raise AssertedValueError(
            "layer: was not called in the forward pass, or hands on no floating-point tensor, so nothing can "
            "be attributed to it"
        )
    flattened = tuple(axis is None for axis in axes.values())
    return LayerValues(
        _Replaced(forward, modules, axes, at_input),
        tuple(ends[0].values()),
        tuple(ends[1].values()),
        tuple(axes),
        flattened,
        together or any(flattened),
    )


def _axes(
    forward: Forward, modules: dict[str, Module], inputs: tuple[Tensor, ...], at_input: bool
) -> dict[Place, int | None] | None:
    """The axis of samples of each tensor in a layer's last call, found with 2 and 3 rows.

    None where that cannot be told: the function may take its own number of rows only, or a layer may have
    several rows for each sample. All samples then stay together.
    """
    import torch

    n = len(inputs[0])

    def run(n_rows: int) -> None:
        index = torch.arange(n_rows) % min(2, n)
        forward(
            *(_following(x[index.to(x.device)]) for x in inputs),
            *(
                x[index.to(x.device)] if own else x
                for x, own in zip(forward.extra, forward.extra_by_sample, strict=True)
            ),
        )

    try:
        with recording(), _embeddings_following(forward.function):
            layouts = find_layouts(run, modules, at_input=at_input, argument="layer")
    except Exception:
        # Whatever is wrong with more than the number of rows shows when all samples are run.
        return None
    packed = [name for name, layout in layouts.items() if any(slot.packed for slot in layout.slots)]
    if packed:
        raise AssertedValueError(
            "layer: hands on a PackedSequence, which has no row for each sample; choose a layer before "
            "pack_padded_sequence or after pad_packed_sequence"
        )
    return {
        (name, slot.place): slot.axis
        for name, layout in layouts.items()
        for slot in layout.slots
        if slot.call == layout.n_calls - 1
    }


def _last_call(
    forward: Forward, modules: dict[str, Module], inputs: tuple[Tensor, ...], here: slice, at_input: bool
) -> dict[Place, Tensor]:
    """Copies of what layers hand on when they are called for the last time."""
    import torch

    found: dict[str, dict[int, Tensor]] = {name: {} for name in modules}
    calls = dict.fromkeys(modules, -1)

    def keep(name: str, call: int, place: int, tensor: Any) -> Any:
        if call > calls[name]:
            calls[name] = call
            found[name].clear()
        if not isinstance(tensor, torch.Tensor):
            raise AssertedValueError("layer: hands on a PackedSequence, which has no row for each sample")
        found[name][place] = tensor.detach().clone()
        return tensor

    extra = (x[here] if own else x for x, own in zip(forward.extra, forward.extra_by_sample, strict=True))
    with torch.no_grad(), hooked(modules, keep, at_input=at_input):
        forward(*inputs, *extra)
    return {(name, place): tensor for name, places in found.items() for place, tensor in places.items()}


def _samples_first(parts: list[Tensor], axis: int | None, n_samples: int) -> Tensor:
    import torch

    if axis is not None:
        parts = [part.movedim(axis, 0) for part in parts]
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise AssertedValueError(
            f"layer: hands on shapes {', '.join(map(str, sorted(shapes)))} for different samples; give "
            "samples of equal length, or pad them"
        )
    whole = torch.cat(parts)
    if axis is None:
        if len(whole) % n_samples:
            raise AssertedValueError(
                f"layer: hands on shape {tuple(whole.shape)} for {n_samples} sample(s); wanted one row, or "
                "equally many, for each"
            )
        whole = whole.reshape(n_samples, -1, *whole.shape[1:])
    return whole
