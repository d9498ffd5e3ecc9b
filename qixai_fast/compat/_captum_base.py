"""What the drop-ins for Captum's classes share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from .._layer_path import _check_ends
from .._path_inputs import PathSamples, check_samples, check_values, summing_dtype
from ._captum_forward import AssertedValueError, Forward, as_tuple, check_baselines, check_inputs

if TYPE_CHECKING:
    from torch import Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])
GRAD_KWARGS = ("allow_unused", "materialize_grads", "retain_graph")


def wrapped(function: _Function) -> _Function:
    """With a ``__wrapped__``: Captum's NoiseTunnel calls a method's."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


class Attributing:
    """What the three classes share."""

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        if not callable(forward_func):
            raise TypeError(
                f"forward_func: wanted a torch module or a function, got {type(forward_func).__name__}"
            )
        self.forward_func = forward_func

    @classmethod
    def get_name(cls) -> str:
        """The name of the class, with spaces.

        Examples
        --------
        >>> from qixai_fast.compat.captum import IntegratedGradients
        >>> IntegratedGradients.get_name()
        'Integrated Gradients'
        """
        return "".join(letter if letter.islower() else f" {letter}" for letter in cls.__name__).strip()

    def has_convergence_delta(self) -> bool:
        """Whether ``attribute`` can return a convergence delta: always."""
        return True

    @wrapped
    def compute_convergence_delta(
        self,
        attributions: Tensor | tuple[Tensor, ...],
        start_point: Any,
        end_point: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Each sample's sum of attributions, minus the change of the output that it should be.

        Parameters
        ----------
        attributions : Tensor or tuple of Tensor
            (n_samples, ...).
        start_point : None, number, Tensor or tuple
            The baselines.
        end_point : Tensor or tuple of Tensor
            The inputs.
        target, additional_forward_args
            As for ``attribute``.

        Returns
        -------
        Tensor of shape (n_samples,)
            Summed in float64, in the dtype of attributions and outputs.

        Raises
        ------
        ValueError
            For attributions without one row a sample.
        """
        import torch

        inputs = check_inputs(end_point)
        n = len(inputs[0])
        forward = Forward(self.forward_func, n, target, additional_forward_args)
        parts = as_tuple(attributions)
        for part in parts:
            if not isinstance(part, torch.Tensor) or part.ndim == 0 or len(part) != n:
                got = f"shape {tuple(part.shape)}" if isinstance(part, torch.Tensor) else type(part).__name__
                raise AssertedValueError(f"attributions: wanted one row for each of {n} sample(s), got {got}")
        starts = tensor_baselines(start_point, inputs, "start_point")
        outputs = [forward.sums(x) for x in (starts, inputs)]
        precise = summing_dtype(parts[0])
        sums = [part.detach().reshape(n, -1).sum(1, dtype=precise) for part in parts]
        change = outputs[1].to(precise) - outputs[0].to(precise)
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in (*parts, outputs[0])))
        return (torch.stack(sums).sum(0) - change.to(sums[0].device)).to(dtype)


class LayerAttributing(Attributing):
    """What the two classes for layers share."""

    def __init__(self, forward_func: Callable[..., Any], layer: Any, device_ids: Any) -> None:
        from torch.nn import Module

        super().__init__(forward_func)
        layers = layer if isinstance(layer, list) else [layer]
        if not layers or not all(isinstance(module, Module) for module in layers):
            raise TypeError(f"layer: wanted a torch module, got {layer!r}")
        self.layer = layer
        self.device_ids = device_ids

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: Any, interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Attributions of a layer, (n, channels, ...), at the size of the inputs.

        Parameters
        ----------
        layer_attribution : Tensor
            Of 3 to 5 axes.
        interpolate_dims : int or tuple of int
            The size of the axes after the second.
        interpolate_mode : str, default="nearest"
            As ``mode`` of :func:`torch.nn.functional.interpolate`.
        """
        from torch.nn.functional import interpolate

        return interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)

    def _on_one_device(self) -> Callable[..., Any]:
        """The function whose layers are called themselves, not copies of them on several devices."""
        from torch.nn import DataParallel

        function = self.forward_func
        return function.module if isinstance(function, DataParallel) else function


def path_samples(
    inputs: tuple[Tensor, ...], baselines: tuple[Any, ...], forward: Forward, *, as_tuple: bool
) -> PathSamples:
    """The paths between inputs and baselines, checked; ``as_tuple`` says how they were given."""
    if as_tuple:
        samples = check_samples(inputs, baselines, None, None)
    else:
        samples = check_samples(inputs[0], baselines[0], None, None)
    check_values(samples, as_tuple=as_tuple)
    return replace(samples, extra=forward.extra, extra_by_sample=forward.extra_by_sample)


def tensor_baselines(baselines: Any, inputs: tuple[Tensor, ...], argument: str) -> tuple[Tensor, ...]:
    """Baselines of the shapes and dtypes of the inputs."""
    return _check_ends(inputs, check_baselines(baselines, inputs, argument))[1]


def multiplied(sums: list[Tensor], samples: PathSamples, multiply: bool) -> tuple[Tensor, ...]:
    """Mean gradients, multiplied by the change of their inputs, in the dtypes of results."""
    import torch

    values = []
    for total, x, baseline in zip(sums, samples.inputs, samples.baselines, strict=True):
        if multiply:
            total = total * (x.to(total.dtype) - baseline.to(total.dtype))
        values.append(total.to(torch.float32 if x.dtype.itemsize < 4 else x.dtype))
    return tuple(values)


def check_grad_kwargs(grad_kwargs: Any) -> None:
    if grad_kwargs is None:
        return
    unknown = [key for key in grad_kwargs if key not in GRAD_KWARGS]
    if unknown:
        raise AssertedValueError(
            f"grad_kwargs: wanted some of {', '.join(GRAD_KWARGS)}, got {unknown[0]!r}; results are "
            "detached from the graph, and gradients are those of the sum over all rows"
        )
