"""From a module's output, (n, ...), to what is stored of it: one vector a sample, or all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Reduce = Callable[["torch.Tensor"], "torch.Tensor"]


def _spatial_mean(output: torch.Tensor) -> torch.Tensor:
    return output.flatten(2).mean(dim=2)


def _spatial_max(output: torch.Tensor) -> torch.Tensor:
    return output.flatten(2).amax(dim=2)


def _token_mean(output: torch.Tensor) -> torch.Tensor:
    return output.flatten(1, -2).mean(dim=1)


def _last_token(output: torch.Tensor) -> torch.Tensor:
    return output[:, -1]


def _flatten(output: torch.Tensor) -> torch.Tensor:
    return output.reshape(len(output), -1)


def _as_is(output: torch.Tensor) -> torch.Tensor:
    return output


# Name: what it does, the numbers of dimensions it takes, their meaning. Of the reductions over places, every
# one leaves (n, d) alone. Three dimensions are tokens (n, T, d) or 1-D maps (n, C, L): only the caller
# knows which, and averaging the wrong one gives plausible nonsense. Hence gap1d and max1d.
REDUCTIONS: dict[str, tuple[Reduce, range, str]] = {
    "gap": (_spatial_mean, range(4, 6), "(n, C, H, W) or (n, C, D, H, W)"),
    "max": (_spatial_max, range(4, 6), "(n, C, H, W) or (n, C, D, H, W)"),
    "gap1d": (_spatial_mean, range(3, 4), "(n, C, L), maps of a 1-D convolution"),
    "max1d": (_spatial_max, range(3, 4), "(n, C, L), maps of a 1-D convolution"),
    "mean_tokens": (_token_mean, range(3, 5), "(n, T, d) or (n, H, W, d), features last"),
    "last_token": (_last_token, range(3, 4), "(n, T, d)"),
    "flatten": (_flatten, range(1, 64), "any shape (n, ...)"),
    "none": (_as_is, range(2, 64), "any shape (n, d, ...)"),
}
_MEANS = {"gap", "gap1d", "mean_tokens"}
_KEEPS_ALL = {"flatten", "none"}
_OVER_MAPS = {"gap", "max", "gap1d", "max1d"}


_CHANNELS_FIRST_HOMES = {
    f"torch.nn.modules.{name}" for name in ("conv", "batchnorm", "pooling", "instancenorm")
}


def _features_last(module: torch.nn.Module) -> bool:
    from torch import nn

    # The very types: a subclass (such as a channels-first layer norm) may have moved the dimensions.
    return type(module) in (
        nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNN, nn.LSTM, nn.GRU, nn.MultiheadAttention,
    )  # fmt: skip


def _channels_first(module: torch.nn.Module) -> bool:
    return any(kind.__module__ in _CHANNELS_FIRST_HOMES for kind in type(module).__mro__)


def _fits(reduction: str, ndim: int, module: torch.nn.Module) -> bool:
    _, ranks, _ = REDUCTIONS[reduction]
    if reduction in _KEEPS_ALL:
        return ndim in ranks
    if ndim == 2:
        return True
    if reduction in ("gap", "max") and ndim == 3:
        return _channels_first(module)
    if ndim not in ranks:
        return False
    return not (_features_last(module) if reduction in _OVER_MAPS else _channels_first(module))


def reduce_output(output: torch.Tensor, reduction: str, layer: str, module: torch.nn.Module) -> torch.Tensor:
    """Reduce one output of a module to what is stored.

    Parameters
    ----------
    output : Tensor, shape (n, ...)
        Real numbers of any dtype. Means are taken in float32 at least.
    reduction : str
        A name in ``REDUCTIONS``.
    layer : str
        The module's name, for messages.
    module : torch.nn.Module
        Says where its features lie, for the types of module that torch fixes it for.

    Returns
    -------
    Tensor
        Shape (n, d), or ``output.shape`` for "none". May share memory with ``output``.

    Raises
    ------
    ValueError
        Where the reduction does not fit the shape; names those that do.
    """
    import torch

    if not _fits(reduction, output.ndim, module):
        fitting = [name for name in REDUCTIONS if _fits(name, output.ndim, module)]
        meant = "; ".join(f"{name!r} for {REDUCTIONS[name][2]}" for name in fitting)
        raise ValueError(
            f"reduce: {reduction!r} does not fit layer {layer!r} ({type(module).__name__}), whose output has "
            f"shape {tuple(output.shape)}: it takes {REDUCTIONS[reduction][2]}"
            + (f"; choose for this layer {meant}" if meant else "; the first dimension must be samples")
        )
    if reduction not in _KEEPS_ALL and output.ndim == 2:
        return output
    if reduction in _MEANS:
        output = output.to(torch.promote_types(output.dtype, torch.float32))
    return REDUCTIONS[reduction][0](output)
