"""Whether a layer cuts the network: whether all that the output knows of the inputs goes through it, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._layer_sweep import Key, LayerSweep, same_random_numbers, with_tensor
from ._layer_tensors import Slot, tensor_of
from ._path_inputs import PathSamples
from ._path_model import _points, without_cudnn

if TYPE_CHECKING:
    from torch import Tensor

# Of the output's size: what more than rounding makes F differ by.
_DIFFERENT = 1e-3


def why_incomplete(
    sweep: LayerSweep, samples: PathSamples, name: str, at_input: Tensor, tensors: Mapping[Key, Any]
) -> str | None:
    """Why a layer's conductances do not add up to the change of the output; None where they do.

    The model runs at the baseline of a few samples with the layer's tensors from the input. If the layer
    cuts the network, the output is that at the input, and has no gradient with respect to the inputs.

    Parameters
    ----------
    sweep : LayerSweep
    samples : PathSamples
    name : str
        The layer.
    at_input : Tensor
        F at the samples' inputs, computed with :func:`same_random_numbers`, so that dropout does not look
        like another path.
    tensors : mapping of Key to Tensor or PackedSequence
        The layer's tensors there.
    """
    leaves: list[Tensor] = []
    own: list[Tensor] = []

    def replace(name: str, slot: Slot, value: Any) -> Any:
        own.append(tensor_of(value))
        leaves.append(tensor_of(tensors[name, slot]).detach().clone().requires_grad_())
        return with_tensor(value, leaves[-1].clone())

    rows = _points(samples, [0.0])
    with same_random_numbers(samples), without_cudnn():
        replaced = sweep.forward(samples, rows, (name,), replace)
        around, again = _depends([replaced], rows), _depends(own, leaves)
    if around:
        return f"{name!r} does not cut the network: a path from the inputs to the output goes around it"
    at_input, replaced = at_input.detach(), replaced.detach()
    if bool(((replaced - at_input).abs() > _DIFFERENT * at_input.abs().amax()).any()):
        return (
            f"{name!r} does not cut the network: the output depends on the inputs also around it, through "
            "operations without a gradient"
        )
    if again:
        return f"calls of {name!r} follow one another, so that the same change is counted at each of them"
    return None


def _depends(values: list[Tensor], on: Any) -> bool:
    """Whether differentiable operations lead from some tensors to others."""
    import torch

    values = [value for value in values if value.requires_grad]
    if not values:
        return False
    found = torch.autograd.grad(
        values, tuple(on), [torch.ones_like(value) for value in values], allow_unused=True, retain_graph=True
    )
    return any(gradient is not None for gradient in found)
