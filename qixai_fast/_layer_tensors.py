"""The tensors that modules put out, or take in, while a network runs: found, seen and replaced by hooks.

A module may hand on several tensors (tuples, lists, dicts, dataclasses, packed sequences) and may be called
more than once in a forward pass. A :class:`Slot` names one of these tensors: the call, its place among the
floating-point tensors of that call, and the axis of its samples.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ._hooks import find_modules, nearest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.nn.utils.rnn import PackedSequence

    Visit = Callable[[str, int, int, Tensor | PackedSequence], Tensor | PackedSequence]


@dataclasses.dataclass(frozen=True)
class Slot:
    """One tensor of one layer.

    Attributes
    ----------
    call, place : int
        Which call of the module in a forward pass, and which floating-point tensor of that call.
    axis : int
        The axis of samples; 0 for packed sequences, which are padded to (n, longest, ...).
    packed : bool
        Whether it is a packed sequence.
    """

    call: int
    place: int
    axis: int
    packed: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a layer hands on in one forward pass: in so many calls, these tensors."""

    n_calls: int
    slots: tuple[Slot, ...]

    def check(self, name: str, n_calls: int, n_tensors: int, argument: str = "layers") -> None:
        """Raise ValueError where other samples have more or fewer calls or tensors."""
        if (n_calls, n_tensors) != (self.n_calls, len(self.slots)):
            raise ValueError(
                f"{argument}: {name!r} hands on {n_tensors} tensor(s) in {n_calls} call(s) of a forward "
                f"pass, but {len(self.slots)} in {self.n_calls} for the first samples; wanted as many for all"
            )


def name_layers(model: Any, layers: Any, argument: str = "layers") -> dict[str, Module]:
    """The modules that are meant by names, patterns, modules, or a mapping of names to modules.

    A module that is given and is not a part of ``model`` (a function, maybe, that calls it) is named
    after its class.
    """
    from torch.nn import Module

    if isinstance(layers, Mapping):
        found = dict(layers)
        for name, module in found.items():
            if not isinstance(name, str) or not isinstance(module, Module):
                raise TypeError(
                    f"{argument}: wanted names and modules, got {name!r}: {type(module).__name__}"
                )
        if not found:
            raise ValueError(f"{argument}: wanted at least one layer, got none")
        return found
    if isinstance(layers, (str, Module)):
        layers = [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"{argument}: wanted module names or modules, got {type(layers).__name__}")
    wanted = list(layers)
    if not wanted:
        raise ValueError(f"{argument}: wanted at least one layer, got none")
    own = dict(model.named_modules(remove_duplicate=False)) if isinstance(model, Module) else {}
    found = {}
    for layer in wanted:
        if isinstance(layer, str):
            if not isinstance(model, Module):
                raise TypeError(
                    f"{argument}: names such as {layer!r} need a torch module as model, got "
                    f"{type(model).__name__}; give the module itself"
                )
            named = find_modules(model, layer)
        elif isinstance(layer, Module):
            name = next((name for name, module in own.items() if module is layer and name), None)
            named = {name or _unused(type(layer).__name__, {*found, *own}): layer}
        else:
            raise TypeError(f"{argument}: wanted module names or modules, got {type(layer).__name__}")
        for name, module in named.items():
            if any(module is old for old in found.values()):
                continue
            found[name] = module
    return found


def name_layer(model: Any, layer: Any) -> tuple[str, Module]:
    """The one module that ``layer`` means: a name or a module."""
    from torch.nn import Module

    if not isinstance(layer, (str, Module)):
        raise TypeError(f"layer: wanted a module name or a module, got {type(layer).__name__}")
    if isinstance(layer, str) and isinstance(model, Module):
        known = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
        if layer not in known:
            raise ValueError(f"layer: {layer!r} is no module of the model; {nearest(layer, known)}")
        return layer, known[layer]
    (found,) = name_layers(model, layer, "layer").items()
    return found


def _unused(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    count = 2
    while f"{name}#{count}" in taken:
        count += 1
    return f"{name}#{count}"


def tensor_of(value: Any) -> Tensor:
    """The tensor itself, or the one of a packed sequence."""
    from torch import Tensor

    tensor: Tensor = value if isinstance(value, Tensor) else value.data
    return tensor


def map_tensors(value: Any, visit: Callable[[Any], Any]) -> Any:
    """The same structure with every floating-point tensor (or packed sequence) replaced.

    A tensor at two places is visited once, and its replacement stands at both: attention compares
    query and key by identity.
    """
    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence

    done: dict[int, Any] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, (Tensor, PackedSequence)):
            if not tensor_of(value).dtype.is_floating_point:
                return value
            if id(value) not in done:
                done[id(value)] = visit(value)
            return done[id(value)]
        if isinstance(value, Mapping):
            copied: Any = copy.copy(value)
            for key, part in value.items():
                replaced = walk(part)
                if replaced is not part:
                    copied[key] = replaced
            return copied
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [part.name for part in dataclasses.fields(value)]
            return dataclasses.replace(value, **{name: walk(getattr(value, name)) for name in names})
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(walk, value))
        if isinstance(value, (tuple, list)):
            return type(value)(map(walk, value))
        return value

    return walk(value)


@contextmanager
def hooked(modules: Mapping[str, Module], visit: Visit, *, at_input: bool) -> Iterator[Counter[str]]:
    """Let ``visit(name, call, place, tensor)`` see and replace the tensors of modules; counts their calls.

    Torch's fused transformer kernels are off meanwhile, because they skip submodules.
    """
    import torch

    calls: Counter[str] = Counter()

    def pass_on(name: str, value: Any) -> Any:
        places = Counter[str]()

        def visit_next(tensor: Any) -> Any:
            place = places[name]
            places[name] += 1
            return visit(name, calls[name], place, tensor)

        replaced = map_tensors(value, visit_next)
        calls[name] += 1
        return replaced

    with ExitStack() as undo:
        fused = getattr(torch.backends, "mha", None)
        if fused is not None:
            undo.callback(fused.set_fastpath_enabled, fused.get_fastpath_enabled())
            fused.set_fastpath_enabled(False)
        for name, module in modules.items():

            def before(module: Module, args: Any, kwargs: Any, name: str = name) -> Any:
                return pass_on(name, (args, kwargs))

            def after(module: Module, args: Any, output: Any, name: str = name) -> Any:
                return pass_on(name, output)

            if at_input:
                handle = module.register_forward_pre_hook(before, with_kwargs=True)
            else:
                handle = module.register_forward_hook(after)
            undo.callback(handle.remove)
        yield calls


@dataclasses.dataclass(frozen=True)
class _Seen:
    shape: tuple[int, ...]
    packed: bool
    depends: bool


def find_layouts(
    run: Callable[[int], Any], modules: Mapping[str, Module], *, at_input: bool, argument: str = "layers"
) -> dict[str, Layout]:
    """The tensors of each layer, and the axes of their samples: those that grow with the number of rows.

    Parameters
    ----------
    run : callable
        Runs the model on so many rows. Rows 0, 1 and then 0 again: all other lengths stay as they are.

    Raises
    ------
    ValueError
        For a layer that is not called, that hands on no floating-point tensor, or tensors without one
        axis for the samples.
    """
    seen: list[dict[str, dict[tuple[int, int], _Seen]]] = []
    counts: list[Counter[str]] = []
    for n_rows in (2, 3):
        tensors: dict[str, dict[tuple[int, int], _Seen]] = {name: {} for name in modules}

        def note(name: str, call: int, place: int, tensor: Any, tensors: Any = tensors) -> Any:
            packed = isinstance(tensor, tuple)
            shape = (int(tensor.batch_sizes[0]),) if packed else tuple(tensor.shape)
            tensors[name][call, place] = _Seen(shape, packed, tensor_of(tensor).requires_grad)
            return tensor

        with hooked(modules, note, at_input=at_input) as calls:
            run(n_rows)
        for name in modules:
            if not calls[name]:
                raise ValueError(
                    f"{argument}: {name!r} was not called in the forward pass, so nothing can be attributed "
                    "to it"
                )
        seen.append(tensors)
        counts.append(calls)
    layouts = {}
    for name in modules:
        if counts[1][name] != counts[0][name]:
            raise ValueError(
                f"{argument}: {name!r} was called {counts[0][name]} time(s) for 2 samples and "
                f"{counts[1][name]} for 3; wanted a number that does not depend on the samples"
            )
        slots = _slots(name, seen[0][name], seen[1][name], at_input, argument)
        layouts[name] = Layout(counts[0][name], slots)
    return layouts


def _slots(
    name: str,
    two: dict[tuple[int, int], _Seen],
    three: dict[tuple[int, int], _Seen],
    at_input: bool,
    argument: str,
) -> tuple[Slot, ...]:
    hands = "takes" if at_input else "puts out"
    if not two:
        raise ValueError(
            f"{argument}: {name!r} {hands} no floating-point tensor; token ids and other integers have no "
            "gradient" + (": attribute to the layer's output instead" if at_input else "")
        )
    # Masks and the like do not depend on what is attributed, where anything is known to.
    chosen = [key for key, tensor in two.items() if tensor.depends] or list(two)
    slots = []
    for key in chosen:
        small, large = two[key], three.get(key, two[key])
        grown = [
            axis for axis, pair in enumerate(zip(small.shape, large.shape, strict=False)) if pair == (2, 3)
        ]
        same = [a for i, a in enumerate(small.shape) if i not in grown] == [
            a for i, a in enumerate(large.shape) if i not in grown
        ]
        if len(grown) != 1 or not same or len(small.shape) != len(large.shape):
            raise ValueError(
                f"{argument}: {name!r} {hands} shape {small.shape} for 2 samples and {large.shape} for 3; "
                "wanted one axis with a row for each sample"
            )
        slots.append(Slot(*key, grown[0], small.packed))
    return tuple(slots)


def samples_first(tensor: Tensor, slot: Slot, n_rows: int, name: str, argument: str = "layers") -> Tensor:
    """A view with the samples along the first axis."""
    if tensor.ndim <= slot.axis or tensor.shape[slot.axis] != n_rows:
        raise ValueError(
            f"{argument}: {name!r} hands on shape {tuple(tensor.shape)} for {n_rows} row(s); "
            f"wanted as many along axis {slot.axis}"
        )
    return tensor.movedim(slot.axis, 0)
