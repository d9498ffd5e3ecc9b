"""What integrated gradients are asked about: inputs, baselines, further arguments and targets, checked."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._mapped_tensors import Pages

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class PathSamples:
    """Samples that share one model: where each path begins and ends, and what else the model gets.

    Attributes
    ----------
    inputs, baselines : tuple of Tensor
        (n, ...); a baseline may be (1, ...), the same for every sample.
    extra : tuple
        Further arguments of the model.
    extra_by_sample : tuple of bool
        Which of them are tensors with one row a sample.
    target : None, callable or Tensor
        Integer tensor of shape (1, k) or (n, k): the index of one output a sample.
    """

    inputs: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    extra: tuple[Any, ...]
    extra_by_sample: tuple[bool, ...]
    target: Callable[[Any], Tensor] | Tensor | None

    def __len__(self) -> int:
        return int(self.inputs[0].shape[0])

    def take(self, index: Tensor) -> PathSamples:
        """The samples at ``index`` (integer tensor)."""
        target = self.target
        return PathSamples(
            tuple(_rows(x, index) for x in self.inputs),
            tuple(x if x.shape[0] == 1 else _rows(x, index) for x in self.baselines),
            tuple(_rows(x, index) if own else x for x, own in self._extra()),
            self.extra_by_sample,
            target if target is None or callable(target) or len(target) == 1 else _rows(target, index),
        )

    def part(self, first: int, stop: int) -> PathSamples:
        """The samples ``first:stop``, as views."""
        here = slice(first, stop)
        target = self.target
        return PathSamples(
            tuple(x[here] for x in self.inputs),
            tuple(x if x.shape[0] == 1 else x[here] for x in self.baselines),
            tuple(x[here] if own else x for x, own in self._extra()),
            self.extra_by_sample,
            target if target is None or callable(target) or len(target) == 1 else target[here],
        )

    def repeated_extra(self, times: int) -> tuple[Any, ...]:
        """Further arguments for ``times`` copies of all samples, one after the other."""
        return tuple(x.repeat(times, *[1] * (x.ndim - 1)) if own else x for x, own in self._extra())

    def _extra(self) -> Iterator[tuple[Any, bool]]:
        return zip(self.extra, self.extra_by_sample, strict=True)


def summing_dtype(tensor: Tensor) -> torch.dtype:
    """float64, or float32 on devices that have no float64."""
    import torch

    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    return tensor.index_select(0, index.to(tensor.device))


def _has_rows(value: Any, n_samples: int) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == n_samples


def _names(argument: str, count: int, *, as_tuple: bool) -> list[str]:
    return [f"{argument}[{i}]" if as_tuple else argument for i in range(count)]


def _check_tensor(value: Any, name: str) -> Tensor:
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name}: wanted a torch tensor, got {type(value).__name__}; "
            "turn arrays into tensors with torch.as_tensor"
        )
    if value.is_nested or value.layout != torch.strided:
        raise TypeError(f"{name}: sparse and nested tensors are not supported; make it a dense tensor first")
    if not value.dtype.is_floating_point:
        raise TypeError(
            f"{name}: wanted a floating-point tensor, got {value.dtype}; integers such as token ids have no "
            "gradient: give the embedding layer's output as inputs, and the rest of the network as model"
        )
    return value.detach()


def _check_finite(tensor: Tensor, name: str) -> None:
    """Raise ValueError naming the first row and column that is NaN or infinite.

    About a MB at a time: torch needs twice as much again on the way, and blocks of some MB, that glibc serves
    from its heap once one was freed, came to lie side by side there until they took 15 MB.
    """
    import torch

    rows = max(1, (1 << 18) // tensor[:1].numel())
    pages = Pages(tensor)
    for first in range(0, len(tensor), rows):
        block = tensor[first : first + rows]
        good = torch.isfinite(block)
        pages.release(block)
        if not good.all():
            row, *column = (int(i) for i in (~good).nonzero()[0])
            place = f"row {first + row}" + (f", column {', '.join(map(str, column))}" if column else "")
            value = float(block[(row, *column)])
            raise ValueError(f"{name}: {value} at {place}; remove or impute non-finite values first")


def _check_inputs(inputs: Any) -> tuple[Tensor, ...]:
    values = inputs if isinstance(inputs, tuple) else (inputs,)
    if not values:
        raise ValueError("inputs: wanted a tensor or a tuple of tensors, got an empty tuple")
    names = _names("inputs", len(values), as_tuple=isinstance(inputs, tuple))
    tensors = tuple(_check_tensor(value, name) for value, name in zip(values, names, strict=True))
    for tensor, name in zip(tensors, names, strict=True):
        if tensor.ndim == 0 or tensor.numel() == 0:
            raise ValueError(f"{name}: wanted shape (n_samples, ...), not empty, got {tuple(tensor.shape)}")
        if tensor.shape[0] != tensors[0].shape[0]:
            raise ValueError(
                f"{name}: wanted as many samples as {names[0]} ({tensors[0].shape[0]}), got {tensor.shape[0]}"
            )
        if tensor.device != tensors[0].device:
            raise ValueError(
                f"{name}: wanted all inputs on one device, got {tensor.device} beside {tensors[0].device}"
            )
    return tensors


def _check_baseline(baseline: Any, x: Tensor, name: str) -> Tensor:
    import torch

    if baseline is None:
        baseline = 0.0
    if isinstance(baseline, numbers.Real) and not isinstance(baseline, bool):
        baseline = torch.tensor(float(baseline), dtype=x.dtype, device=x.device)
    if isinstance(baseline, torch.Tensor) and not baseline.dtype.is_complex:
        baseline = baseline.to(x.dtype)
    tensor = _check_tensor(baseline, name)
    if tensor.device != x.device:
        raise ValueError(f"{name}: on {tensor.device}, but inputs are on {x.device}; move one of them")
    if tensor.ndim == 0:
        return tensor.reshape((1,) * x.ndim)
    if tensor.shape not in (x.shape, (1, *x.shape[1:])):
        raise ValueError(
            f"{name}: wanted a number, shape {tuple(x.shape)} as inputs, or {(1, *x.shape[1:])} for all "
            f"samples, got {tuple(tensor.shape)}"
        )
    return tensor


def _check_baselines(baselines: Any, inputs: tuple[Tensor, ...], *, as_tuple: bool) -> tuple[Tensor, ...]:
    if baselines is None or isinstance(baselines, numbers.Real):
        values: tuple[Any, ...] = (baselines,) * len(inputs)
    elif as_tuple:
        if not isinstance(baselines, tuple) or len(baselines) != len(inputs):
            got = f"a tuple of {len(baselines)}" if isinstance(baselines, tuple) else type(baselines).__name__
            raise ValueError(f"baselines: wanted a number or a tuple of {len(inputs)} as inputs, got {got}")
        values = baselines
    else:
        values = (baselines,)
    names = _names("baselines", len(values), as_tuple=as_tuple)
    return tuple(_check_baseline(*parts) for parts in zip(values, inputs, names, strict=True))


def check_target(target: Any, n_samples: int) -> Callable[[Any], Tensor] | Tensor | None:
    """The target as :class:`PathSamples` keeps it."""
    import torch

    if target is None or (callable(target) and not isinstance(target, torch.Tensor)):
        chosen: Callable[[Any], Tensor] | None = target
        return chosen
    if isinstance(target, tuple):
        if not target or not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in target):
            raise TypeError(f"target: wanted a tuple of integers, got {target!r}")
        return torch.tensor([[int(i) for i in target]])
    try:
        index = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        index = None
    if index is None or index.dtype.is_floating_point or index.dtype in (torch.bool, torch.complex64):
        got = f"a tensor of {target.dtype}" if isinstance(target, torch.Tensor) else repr(target)
        raise TypeError(
            "target: wanted None, an integer, integers one a sample, a tuple of integers or a callable, "
            f"got {got}"
        )
    index = index.detach().cpu().clone()
    if index.numel() == 1 and index.ndim <= 1:
        return index.reshape(1, 1).long()
    if index.ndim == 0 or index.ndim > 2 or index.shape[0] != n_samples:
        raise ValueError(
            f"target: wanted one index a sample ({n_samples} samples), got shape {tuple(index.shape)}"
        )
    return index.reshape(n_samples, -1).long()


def check_samples(inputs: Any, baselines: Any, target: Any, extra: Any) -> PathSamples:
    """Check shapes, dtypes and devices; nothing is read yet."""
    import torch

    tensors = _check_inputs(inputs)
    n = len(tensors[0])
    if extra is None:
        extra = ()
    elif not isinstance(extra, tuple):
        extra = (extra,)
    # Tensors made in inference mode cannot take part in a gradient; their copies can.
    extra = tuple(x.clone() if isinstance(x, torch.Tensor) and x.is_inference() else x for x in extra)
    return PathSamples(
        tensors,
        _check_baselines(baselines, tensors, as_tuple=isinstance(inputs, tuple)),
        extra,
        tuple(_has_rows(value, n) for value in extra),
        check_target(target, n),
    )


def check_values(samples: PathSamples, *, as_tuple: bool) -> None:
    """Check that inputs and baselines are finite."""
    for argument, tensors in (("inputs", samples.inputs), ("baselines", samples.baselines)):
        for tensor, name in zip(tensors, _names(argument, len(tensors), as_tuple=as_tuple), strict=True):
            _check_finite(tensor, name)


def check_output(output: Any, target: Any, n_rows: int) -> None:
    """Check what the model returned for ``n_rows`` rows against the target of all samples."""
    import torch

    if callable(target):
        return
    _check_rows(output, n_rows)
    shape = tuple(output.shape)
    if not output.dtype.is_floating_point:
        raise TypeError(f"model: wanted a floating-point output, got {output.dtype}")
    if target is None:
        if output.numel() != n_rows:
            raise ValueError(
                "target: None is for one output a sample, but the model's output has shape "
                f"{_per_sample(shape)}; name a class (0 to {shape[-1] - 1}) or give a callable"
            )
        return
    if target.shape[1] != len(shape) - 1:
        wanted = f"{len(shape) - 1} index(es) a sample" if len(shape) > 1 else "None"
        raise ValueError(
            f"target: wanted {wanted} for outputs of shape {_per_sample(shape)}, got {target.shape[1]}"
        )
    bad = ((target < 0) | (target >= torch.tensor(shape[1:]))).nonzero()
    if len(bad):
        row, axis = (int(i) for i in bad[0])
        raise ValueError(
            f"target: wanted 0 to {shape[axis + 1] - 1} for outputs of shape {_per_sample(shape)}, "
            f"got {int(target[row, axis])}" + (f" for sample {row}" if len(target) > 1 else "")
        )


def _check_rows(output: Any, n_rows: int) -> None:
    import torch

    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"model: wanted a tensor as output, got {type(output).__name__}; "
            "give target a callable that picks one number a row out of it"
        )
    if output.ndim == 0 or output.shape[0] != n_rows:
        raise ValueError(
            "model: wanted one row of output for each row of input, "
            f"got shape {tuple(output.shape)} for {n_rows} row(s)"
        )


def _per_sample(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' if len(shape) == 1 else ''})"


def select_outputs(output: Any, target: Any, n_rows: int) -> Tensor:
    """The outputs that are attributed: one number for each of the ``n_rows`` rows given to the model.

    An index with fewer rows than ``n_rows`` is repeated.
    """
    import torch

    scores: Tensor
    if callable(target):
        scores = target(output)
        fits = isinstance(scores, torch.Tensor) and tuple(scores.shape) in ((n_rows,), (n_rows, 1))
        if not fits or not scores.dtype.is_floating_point:
            got = (
                f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores)
            )
            raise ValueError(
                f"target: the callable must return one floating-point number a row, shape ({n_rows},), "
                f"it returned {got}"
            )
        return scores.reshape(n_rows)
    _check_rows(output, n_rows)
    if target is None:
        scores = output.reshape(n_rows)
        return scores
    index = target.to(output.device)
    index = index.expand(n_rows, -1) if len(index) == 1 else index.repeat(n_rows // len(index), 1)
    scores = output[(torch.arange(n_rows, device=output.device), *index.unbind(1))]
    return scores
