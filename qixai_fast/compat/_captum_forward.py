"""Functions and their arguments as Captum takes them: targets, baselines, what is repeated for each node."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validate import Float64, check_choice, check_int
from ..quadrature import path_nodes

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "gausslegendre")
# Samples of a forward pass that takes no gradient.
_ROWS = 64


def path_rule(method: str, n_steps: int) -> tuple[Float64, Float64]:
    """Nodes and weights of Captum's rules: always ``n_steps`` nodes.

    All its weights, and the nodes of Riemann sums, are rounded to torch's default precision, float32. Here
    they are, too, so that results in float64 agree. The trapezoid's weights are our own: they sum to 1.
    """
    import torch

    check_choice(method, "method", METHODS)
    n = check_int(n_steps, "n_steps", low=2 if method == "riemann_trapezoid" else 1)
    nodes, weights = path_nodes(method, n - 1 if method == "riemann_trapezoid" else n)
    if method == "gausslegendre":
        return nodes, weights.astype(np.float32).astype(np.float64)
    nodes = torch.linspace(nodes[0], nodes[-1], n).double().numpy()
    return nodes, weights if method == "riemann_trapezoid" else weights.astype(np.float32).astype(np.float64)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple as it is, anything else as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def as_arguments(value: Any) -> tuple[Any, ...]:
    """Further arguments of the function."""
    return () if value is None else tuple(_usable(x) for x in as_tuple(value))


def _usable(value: Any) -> Any:
    """Tensors made in inference mode cannot take part in a gradient; their copies can."""
    import torch

    return value.clone() if isinstance(value, torch.Tensor) and value.is_inference() else value


def check_inputs(inputs: Any) -> tuple[Tensor, ...]:
    """Inputs as a tuple of tensors with equally many samples."""
    import torch

    values = as_tuple(inputs)
    if not values:
        raise AssertedValueError("inputs: wanted a tensor or a tuple of tensors, got an empty tuple")
    for x in values:
        if not isinstance(x, torch.Tensor):
            raise TypeError(
                f"inputs: wanted a torch tensor or a tuple of tensors, got {type(x).__name__}; "
                "turn arrays into tensors with torch.as_tensor"
            )
        if x.ndim == 0 or x.numel() == 0 or len(x) != len(values[0]):
            raise AssertedValueError(
                "inputs: wanted (n_samples, ...), not empty, with equally many samples, got shapes "
                + ", ".join(str(tuple(x.shape)) for x in values)
            )
    return tuple(_usable(x).detach() for x in values)


def check_baselines(
    baselines: Any, inputs: tuple[Tensor, ...], argument: str = "baselines"
) -> tuple[Any, ...]:
    """One baseline for each input; numbers become those of the input's dtype."""
    if baselines is None or isinstance(baselines, numbers.Real):
        values: tuple[Any, ...] = (baselines,) * len(inputs)
    else:
        values = as_tuple(baselines)
    if len(values) != len(inputs):
        raise AssertedValueError(
            f"{argument}: wanted a number or a tuple of {len(inputs)}, one for each input, got {len(values)}"
        )
    return tuple(
        int(b) if not x.dtype.is_floating_point and isinstance(b, float) and b.is_integer() else b
        for b, x in zip(values, inputs, strict=True)
    )


def floating(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Integers between which a path leads become floats, as in Captum."""
    import torch

    return tuple(
        x if x.dtype.is_floating_point or x.dtype.is_complex else x.to(torch.get_default_dtype())
        for x in inputs
    )


def _indices(target: Any, n_samples: int) -> Any:
    """None; a tuple of integers for all samples; or an integer tensor (n_samples, k)."""
    import torch

    def integer(value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return value.numel() == 1 and not (value.dtype.is_floating_point or value.dtype is torch.bool)
        return hasattr(value, "__index__") and not isinstance(value, bool)

    def integers(value: Any) -> tuple[int, ...]:
        values = as_tuple(value)
        if not values or not all(map(integer, values)):
            raise TypeError(
                "target: wanted None, an integer, a tuple of integers, or a list or tensor of one target a "
                f"sample, got {value!r}"
            )
        return tuple(int(i) for i in values)

    if target is None:
        return None
    if isinstance(target, torch.Tensor) and target.numel() != 1:
        if target.dtype.is_floating_point or target.dtype in (torch.bool, torch.complex64):
            raise TypeError(f"target: wanted integers, got a tensor of {target.dtype}")
        if target.ndim > 2 or len(target) != n_samples:
            raise AssertedValueError(
                f"target: wanted one index a sample ({n_samples} samples), got shape {tuple(target.shape)}"
            )
        return target.detach().cpu().reshape(n_samples, -1).long()
    if isinstance(target, list):
        rows = [integers(value) for value in target]
        if len(rows) != n_samples or len({len(row) for row in rows}) != 1:
            raise AssertedValueError(
                f"target: wanted a list with one integer, or tuple of equally many, for each of {n_samples} "
                f"sample(s), got {len(rows)}"
            )
        return torch.tensor(rows)
    return integers(target)


class AssertedValueError(ValueError, AssertionError):
    """A value that does not fit: Captum asserts, and what catches that goes on working."""


class Forward:
    """A function with a target, as Captum calls it: with copies of all samples, one after the other.

    Called as ``forward(*inputs, *extra)``, for the outputs that the target names.

    Attributes
    ----------
    function : callable
    extra : tuple
        Further arguments; the last may be the targets of all samples.
    extra_by_sample : tuple of bool
        Which of them have one row a sample.
    together : bool
        Whether samples cannot be separated: tensors among the further arguments have another number of
        rows. As in Captum they are repeated as a whole for each copy of the samples.
    """

    def __init__(self, function: Any, n_samples: int, target: Any, extra: Any) -> None:
        import torch

        if not callable(function):
            raise TypeError(
                f"forward_func: wanted a torch module or a function, got {type(function).__name__}"
            )
        self.function, self._n = function, n_samples
        index = _indices(target, n_samples)
        self._index = index if isinstance(index, tuple) else None
        self._by_row = isinstance(index, torch.Tensor)
        self.extra = as_arguments(extra) + ((index,) if self._by_row else ())
        tensors = [isinstance(x, torch.Tensor) and x.ndim > 0 for x in self.extra]
        self.extra_by_sample = tuple(
            own and len(x) == n_samples for own, x in zip(tensors, self.extra, strict=True)
        )
        self._whole = [own and not split for own, split in zip(tensors, self.extra_by_sample, strict=True)]
        self.together = any(self._whole)

    def __call__(self, *arguments: Any) -> Tensor:
        import torch

        times = max(1, len(arguments[0]) // self._n)
        count = len(arguments) - len(self.extra)
        values = list(arguments[:count])
        for value, whole in zip(arguments[count:], self._whole, strict=True):
            values.append(torch.cat([value] * times) if whole else value)
        index = values.pop() if self._by_row else self._index
        output = self.function(*values)
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"forward_func: wanted a tensor as output, got {type(output).__name__}")
        return output if index is None else _select(output, index)

    def sums(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The sum of each sample's outputs, (n,), without a gradient; (1,) for one output in all."""
        import torch

        sums = []
        rows = self._n if self.together else _ROWS
        for first in range(0, self._n, rows):
            here = slice(first, first + rows)
            extra = (x[here] if own else x for x, own in zip(self.extra, self.extra_by_sample, strict=True))
            with torch.no_grad():
                output = self(*(x[here] for x in inputs), *extra).detach()
            sums.append(output.reshape(len(output) if output.ndim else 1, -1).sum(1))
        if len(sums[0]) == 1 < len(inputs[0]):
            return torch.stack(sums).sum(0)
        return torch.cat(sums)


def _select(output: Tensor, index: Any) -> Tensor:
    """Outputs at one index, or at an index (or row of indices) for each row of the output."""
    import torch

    fixed = isinstance(index, tuple)
    width = len(index) if fixed else index.shape[1]
    shape = tuple(output.shape)
    if len(shape) <= width:
        raise AssertedValueError(
            f"target: wanted at most {max(0, len(shape) - 1)} index(es) for outputs of shape {shape}, got "
            f"{width}"
        )
    if not fixed and len(index) != shape[0]:
        raise AssertedValueError(
            f"target: one a sample needs a row of output for each row of input, got outputs of shape {shape} "
            f"for {len(index)} row(s)"
        )
    chosen = torch.tensor([index]) if fixed else index
    sizes = torch.tensor(shape[1 : 1 + width])
    bad = ((chosen < -sizes) | (chosen >= sizes)).nonzero()
    if len(bad):
        row, axis = (int(i) for i in bad[0])
        raise AssertedValueError(
            f"target: wanted 0 to {int(sizes[axis]) - 1} for outputs of shape {shape}, got "
            f"{int(chosen[row, axis])}"
        )
    if fixed:
        return output[(slice(None), *index)]
    chosen = chosen.to(output.device)
    return output[(torch.arange(len(chosen), device=output.device), *chosen.unbind(1))]


class OneARow:
    """One number for each row of the first argument.

    A function may return one number for the whole batch. Where it is the sum over all rows, its gradients
    are those of the rows; that this is so is checked once.

    Parameters
    ----------
    function : callable
    least : int
        Rows that cannot be separated.
    """

    def __init__(self, function: Callable[..., Tensor], least: int = 1) -> None:
        self._function, self._least = function, least
        self._adds_up = False

    def __call__(self, *arguments: Any) -> Tensor:
        n_rows = len(arguments[0])
        output = self._function(*arguments)
        if not output.dtype.is_floating_point:
            raise TypeError(f"forward_func: wanted a floating-point output, got {output.dtype}")
        if output.numel() == n_rows:
            return output.reshape(n_rows)
        if output.numel() != 1:
            raise AssertedValueError(
                "target: wanted one that leaves one number for each row of input, got outputs of shape "
                f"{tuple(output.shape)} for {n_rows} row(s)"
            )
        total = output.reshape(())
        self._check_sum(arguments, total)
        return (total / n_rows).expand(n_rows)

    def _check_sum(self, arguments: Sequence[Any], total: Tensor) -> None:
        import torch

        n_rows = len(arguments[0])
        first = n_rows // self._least // 2 * self._least
        if self._adds_up or not first:
            return
        parts = []
        for part in (slice(0, first), slice(first, n_rows)):
            rows = (
                x[part] if isinstance(x, torch.Tensor) and x.ndim and len(x) == n_rows else x
                for x in arguments
            )
            with torch.no_grad():
                parts.append(self._function(*rows).detach().double().reshape(()))
        error = torch.abs(parts[0] + parts[1] - total.detach())
        if not error <= 1e-3 * (parts[0].abs() + parts[1].abs()):
            raise AssertedValueError(
                "forward_func: its one number for a whole batch is not the sum over the rows, so that it "
                "mixes the steps of a path; return one number a row"
            )
        self._adds_up = True
