"""What a figure shows of an attribution: one sample's values, what they add up to, and words for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._device import is_torch, to_numpy
from .._validate import Array, Float64, as_index, check_int, check_real
from ..gradients import Attribution


@dataclass(frozen=True)
class Shown:
    """One sample's attributions.

    Attributes
    ----------
    values : ndarray of float64
        Finite, in their own shape, without the axis of samples.
    delta : float or None
        Completeness error, where it is known.
    converged : bool
        False only where a tolerance was asked for and not met.
    part : bool
        Whether there are values of other inputs beside these.
    """

    values: Float64
    delta: float | None = None
    converged: bool = True
    part: bool = False


def finite_array(value: Any, name: str) -> Float64:
    """Any array of real numbers as float64, or an error that names the first place without a number."""
    array = to_numpy(value, name)
    check_real(array, name)
    if array.size == 0:
        raise ValueError(f"{name}: wanted values to draw, got shape {array.shape}")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        where = f"[{', '.join(map(str, place))}]" if place else "its only value"
        raise ValueError(f"{name}: {numbers[place]} at {where}; wanted finite numbers")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.abs(numbers).sum()):
            raise ValueError(f"{name}: too large to be added up in float64; scale them down")
    return numbers


def list_of(value: Any, name: str, of: str) -> list[Any]:
    """A sequence as a list; TypeError for a single string, for what has no order and what is no sequence."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: wanted a sequence of {of}, got a single string")
    if isinstance(value, (set, frozenset)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: wanted a sequence of {of}, got {type(value).__name__}")
    return list(value)


def choose_sample(values: Any, sample: Any, input_index: Any) -> Shown:
    """The values to draw of an array, or of one sample of an :class:`~qixai_fast.Attribution`.

    Raises
    ------
    TypeError, ValueError
        Where it is not clear which sample or input is wanted, and for values that are not finite numbers.
    """
    if isinstance(values, Attribution):
        return _of_attribution(values, sample, input_index)
    if input_index is not None:
        raise ValueError(f"input_index: wanted None beside an array of values, got {input_index!r}")
    if sample is None:
        return Shown(finite_array(values, "values"))
    rows = values if is_torch(values) else to_numpy(values, "values")
    if rows.ndim == 0:
        raise ValueError("values: wanted several samples to choose from, got a single number")
    return Shown(finite_array(rows[_row(sample, len(rows))], f"values of sample {sample}"))


def _row(sample: Any, n_samples: int) -> int:
    if sample is None:
        if n_samples > 1:
            raise ValueError(f"sample: which of the {n_samples} samples? wanted 0 to {n_samples - 1}")
        return 0
    return check_int(sample, "sample", low=0, high=n_samples - 1)


def _of_attribution(found: Attribution, sample: Any, input_index: Any) -> Shown:
    parts = found.values if isinstance(found.values, tuple) else (found.values,)
    if input_index is None and len(parts) > 1:
        raise ValueError(f"input_index: which of the {len(parts)} inputs? wanted 0 to {len(parts) - 1}")
    chosen = 0 if input_index is None else check_int(input_index, "input_index", low=0, high=len(parts) - 1)
    row = _row(sample, len(found.delta))
    delta = float(found.delta[row])
    return Shown(
        finite_array(parts[chosen][row], f"values of sample {row}"),
        delta=delta if np.isfinite(delta) else None,
        converged=found.converged is None or bool(found.converged[row]),
        part=len(parts) > 1,
    )


def signed(value: float) -> str:
    """A number with its sign and three digits."""
    return "0" if value == 0 else f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def caption(shown: Shown, target: Any) -> list[str]:
    """The parts of a title: what is explained, what the values add up to, and how far that is off."""
    if not (target is None or isinstance(target, str) or as_index(target) is not None):
        raise TypeError(f"target: wanted a name or a number for the title, got {type(target).__name__}")
    parts = [] if target is None else [f"target {target}"]
    whose = "of this input" if shown.part else "of attributions"
    parts.append(f"sum {whose} {signed(float(shown.values.sum()))}")
    if shown.delta is not None:
        parts.append(f"delta {signed(shown.delta)}")
    if not shown.converged:
        parts.append("not converged")
    return parts


def largest_shown(values: Array, percentile: Any) -> float:
    """Where colours end: a percentile of the magnitudes, so that a few outliers do not hide the rest.

    Always one of the magnitudes: up to 100 values, their 99th percentile is the largest. Where most values
    are 0, it is the largest, too; 1 where all are.
    """
    if isinstance(percentile, bool) or not isinstance(percentile, (int, float, np.integer, np.floating)):
        raise TypeError(f"percentile: wanted a number, got {type(percentile).__name__}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: wanted above 0, up to 100, got {percentile}")
    size = np.abs(values)
    return float(np.percentile(size, percentile, method="higher")) or float(size.max()) or 1.0
