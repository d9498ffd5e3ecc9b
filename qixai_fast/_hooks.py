"""Find modules by name, and record what they put out while a network runs, leaving no trace in it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._reductions import REDUCTIONS, reduce_output
from ._validate import Array

if TYPE_CHECKING:
    import torch


def nearest(wanted: str, known: Iterable[str]) -> str:
    """The known names that look most like a wanted one, for a message."""
    known = list(known)
    close = difflib.get_close_matches(wanted, known, n=5, cutoff=0.4)
    if close:
        return "nearest: " + ", ".join(repr(name) for name in close)
    shown = ", ".join(repr(name) for name in known[:8])
    return f"there are {shown}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")


def find_modules(model: torch.nn.Module, layers: str | Iterable[str]) -> dict[str, torch.nn.Module]:
    """The modules that names and glob patterns mean, in the order asked for; within a pattern the model's.

    Raises
    ------
    ValueError
        For no layer at all, a name or pattern that matches nothing (the nearest names are listed), and two
        names of one shared module.
    """
    wanted = [layers] if isinstance(layers, str) else list(layers)
    if not wanted:
        raise ValueError("layers: wanted at least one module name or pattern, got none")
    known = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if not known:
        raise ValueError(f"layers: {type(model).__name__} has no named submodules to capture")
    found: dict[str, torch.nn.Module] = {}
    names = {id(module): name for name, module in reversed(known.items())}
    for pattern in wanted:
        if not isinstance(pattern, str):
            raise TypeError(f"layers: wanted module names, got {type(pattern).__name__}")
        if pattern in known:
            matches = [pattern]
        else:
            every = fnmatch.filter(names.values(), pattern)
            matches = sorted(every, key=list(known).index)
        if not matches:
            raise ValueError(f"layers: {pattern!r} matches no module of the model; {nearest(pattern, known)}")
        for name in matches:
            twin = next((old for old, module in found.items() if module is known[name] and old != name), None)
            if twin is not None:
                raise ValueError(
                    f"layers: {twin!r} and {name!r} are one shared module; name it once "
                    "(its calls are stored one by one, with #1, #2, ... after the name)"
                )
            found[name] = known[name]
    return found


def reduction_of_each(reduce: str | Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The reduction of each layer: one for all, or by name or pattern (the first that fits; else "gap")."""
    names = list(names)
    choices = ", ".join(repr(name) for name in REDUCTIONS)
    if isinstance(reduce, str):
        reduce = {"*": reduce}
    elif not isinstance(reduce, Mapping):
        raise TypeError(f"reduce: wanted a name or a dict by layer, got {type(reduce).__name__}")
    for pattern, reduction in reduce.items():
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduce: {reduction!r} is not a reduction; wanted one of {choices}")
        if pattern not in names and not fnmatch.filter(names, pattern):
            raise ValueError(f"reduce: {pattern!r} matches no captured layer; {nearest(pattern, names)}")
    each = {}
    for name in names:
        patterns = [pattern for pattern in reduce if fnmatch.fnmatchcase(name, pattern)]
        chosen = name if name in reduce else (patterns[0] if patterns else None)
        each[name] = "gap" if chosen is None else reduce[chosen]
    return each


def first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor of a module's output: itself, or the first within a tuple, list, dict or dataclass."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    elif is_dataclass(output):
        output = [getattr(output, part.name) for part in fields(output)]
    if isinstance(output, (tuple, list)):
        return next((found for part in output if (found := first_tensor(part)) is not None), None)
    return None


@dataclass(frozen=True)
class Output:
    """One reduced output of one call of a module, on the CPU, in its own precision (bfloat16 as float32)."""

    values: Array
    source_dtype: str
    reduction: str


@dataclass
class Recorder:
    """Collects the reduced outputs of some modules, call by call, while the model runs."""

    modules: dict[str, torch.nn.Module]
    reductions: dict[str, str]
    _calls: dict[str, list[Output]] = field(default_factory=dict)

    def take(self) -> dict[str, Output]:
        """What was recorded since the last time, by layer: "name", or "name#1", "name#2", ... where one
        forward pass called the module more than once.

        Raises
        ------
        ValueError
            Where a module was not called.
        """
        calls, self._calls = self._calls, {}
        taken: dict[str, Output] = {}
        for name in self.modules:
            if name not in calls:
                raise ValueError(
                    f"layers: {name!r} was not called in the forward pass, so it has no output to capture; "
                    "leave it out, or give a forward= that runs it"
                )
            many = len(calls[name]) > 1
            taken |= {f"{name}#{i}" if many else name: output for i, output in enumerate(calls[name], 1)}
        return taken

    def discard(self) -> None:
        """Forget what an unfinished forward pass recorded."""
        self._calls = {}

    def record(self, name: str, module: torch.nn.Module, output: Any) -> None:
        """Reduce and copy one output now: what runs next may write over it in place."""
        import torch
        from torch.nn.utils.rnn import PackedSequence

        if isinstance(output, PackedSequence) or (
            isinstance(output, tuple) and output and isinstance(output[0], PackedSequence)
        ):
            raise ValueError(
                f"layers: {name!r} puts out a PackedSequence, which has no row for each sample; "
                "capture a module after pad_packed_sequence, or run it on padded input with forward="
            )
        tensor = first_tensor(output)
        if tensor is None:
            raise ValueError(f"layers: {name!r} puts out {type(output).__name__} without any tensor in it")
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_complex():
            kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else None
            raise ValueError(
                f"layers: {name!r} puts out a {kind or tensor.dtype} tensor of layout {tensor.layout}; "
                "wanted a dense tensor of real numbers"
            )
        if tensor.ndim == 3 and getattr(module, "batch_first", True) is False:
            tensor = tensor.transpose(
                0, 1
            )  # (T, n, d), as recurrent and attention modules have it by default
        reduction = self.reductions[name]
        reduced = reduce_output(tensor, reduction, name, module)
        precision = torch.float32 if reduced.dtype == torch.bfloat16 else reduced.dtype
        copied = reduced.detach().to("cpu", precision, copy=True).numpy()
        self._calls.setdefault(name, []).append(
            Output(np.ascontiguousarray(copied), str(tensor.dtype).removeprefix("torch."), reduction)
        )


@contextmanager
def recording(model: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
    """Hook the recorder's modules, in eval mode and without gradients; undo all of it on leaving.

    ``no_grad`` and not ``inference_mode``: modules that cache tensors in their first forward pass would
    keep inference tensors, and could not be trained afterwards. Torch's fused transformer kernels are off,
    because they skip submodules and turn padded batches into nested tensors.
    """
    import torch

    with ExitStack() as undo:
        for module in model.modules():
            undo.callback(setattr, module, "training", module.training)
        undo.callback(recorder.discard)
        fused = getattr(torch.backends, "mha", None)
        if fused is not None:
            undo.callback(fused.set_fastpath_enabled, fused.get_fastpath_enabled())
            fused.set_fastpath_enabled(False)
        for name, module in recorder.modules.items():

            def hook(module: torch.nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                recorder.record(name, module, output)

            undo.callback(module.register_forward_hook(hook).remove)
        model.eval()
        with torch.no_grad():
            yield
