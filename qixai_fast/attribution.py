"""What attribution functions return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """Attributions, and how far each sample's can be trusted.

    Attributes
    ----------
    values : Tensor or tuple of Tensor
        Shape of the inputs (of the layer's output, where a layer is attributed to), on their device;
        float32 for half precision, else their dtype.
    delta : Tensor of shape (n_samples,), float64
        Completeness error: sum of a sample's values, minus the change F(input) - F(baseline) that they
        should add up to. NaN for a layer that does not cut the network, see ``note``. (float32 on devices
        without float64.)
    n_steps : Tensor of shape (n_samples,), int64
        Steps of the rule behind each sample's values.
    n_gradients : Tensor of shape (n_samples,), int64
        Gradients evaluated for each sample, all levels of refinement together.
    converged : Tensor of shape (n_samples,), bool, or None
        Whether ``tol`` was reached; None where no ``tol`` was asked for.
    note : str or None
        Why ``delta`` is NaN, where it is.
    """

    values: Tensor | tuple[Tensor, ...]
    delta: Tensor
    n_steps: Tensor
    n_gradients: Tensor
    converged: Tensor | None
    note: str | None = None
