"""Lattices: values that were rounded to float16, bfloat16 or a uniform step.

Nearest-neighbour estimators assume that no two distances are equal. Values rounded to a coarse
lattice break that; spreading each value evenly over its own rounding cell mends it without
changing what the value tells, because the cells do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._validate import Float64

# A uniform lattice needs enough levels to be told from a discrete variable.
_MIN_LEVELS = 16
# Gaps that are no multiple of the step: one atom off the lattice makes two.
_MAX_ODD_GAPS = 4
_STEP_TOLERANCE = 0.01


@dataclass(frozen=True)
class Lattice:
    """A set of representable values.

    Attributes
    ----------
    name : str
        "float16", "bfloat16" or "uniform".
    step : float
        Spacing of a uniform lattice; of a floating-point one the smallest (subnormal) spacing.
    digits : int
        Significant binary digits of a floating-point lattice, the leading one counted; 0 for a uniform one.
    """

    name: str
    step: float
    digits: int = 0

    def gaps(self, values: Float64) -> tuple[Float64, Float64]:
        """Distances from lattice values to the lattice value before and after each."""
        if self.digits == 0:
            gap = np.full(values.shape, self.step)
            return gap, gap
        mantissa, exponent = np.frexp(np.abs(values))
        away = np.maximum(np.ldexp(1.0, exponent - self.digits), self.step)
        # A power of two has half the spacing on the side of zero.
        toward = np.where(mantissa == 0.5, np.maximum(away / 2, self.step), away)
        away = np.where(values == 0, self.step, away)
        toward = np.where(values == 0, self.step, toward)
        below = np.where(values < 0, away, toward)
        above = np.where(values < 0, toward, away)
        return below, above

    def spread(self, values: Float64, uniform: Float64) -> Float64:
        """Move each value within its rounding cell: to the midpoints of the adjacent lattice values.

        Parameters
        ----------
        values : (n,) float64
        uniform : (n,) float64
            Draws from [0, 1).
        """
        below, above = self.gaps(values)
        return values - below / 2 + uniform * ((below + above) / 2)


FLOAT16 = Lattice("float16", 2.0**-24, 11)
BFLOAT16 = Lattice("bfloat16", 2.0**-133, 8)


def _on_float16(values: Float64) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.all(values.astype(np.float16) == values))


def _on_bfloat16(values: Float64) -> bool:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return bool(np.all(single == values) and not np.any(single.view(np.uint32) & 0xFFFF))


def _floating_lattice(distinct: Float64, dtype: np.dtype[Any]) -> Lattice | None:
    """The half-precision format that holds every value; by dtype, else by the bits."""
    if dtype == np.float16:
        return FLOAT16
    if dtype.kind != "f":
        return None
    return next(
        (
            lattice
            for lattice, holds in ((BFLOAT16, _on_bfloat16), (FLOAT16, _on_float16))
            # A few values rule it out nearly always.
            if holds(distinct[:64]) and holds(distinct)
        ),
        None,
    )


def _uniform_step(distinct: Float64) -> float | None:
    """The step of a densely used uniform lattice; None where there is none."""
    if len(distinct) < _MIN_LEVELS:
        return None
    gaps = np.diff(distinct)
    step = float(gaps.min())
    # Gaps may be beyond float64 in steps: those are no multiples.
    with np.errstate(over="ignore", invalid="ignore"):
        multiples = gaps / step
        nearest = np.round(multiples)
        on_step = np.abs(multiples - nearest) <= _STEP_TOLERANCE * nearest
    singles = on_step & (nearest == 1)
    if np.count_nonzero(~on_step) > _MAX_ODD_GAPS or 2 * np.count_nonzero(singles) < len(gaps):
        return None
    return float(gaps[singles].mean())


def find_lattice(distinct: Float64, n_samples: int, dtype: np.dtype[Any]) -> Lattice | None:
    """The lattice that a variable's values lie on.

    Parameters
    ----------
    distinct : (m,) float64
        Its distinct values, ascending.
    n_samples : int
        How many samples share them; a uniform lattice shows only in repeated values.
    dtype : numpy dtype
        Of the variable as given.

    Returns
    -------
    Lattice or None
        float16 by dtype; float16 and bfloat16 by the bits of wider floats; a uniform step where at
        least half of 16 or more levels are neighbours. The coarser one where two fit.
    """
    floating = _floating_lattice(distinct, dtype)
    step = _uniform_step(distinct) if len(distinct) < n_samples else None
    if step is None:
        return floating
    if floating is not None:
        typical = np.median(np.abs(distinct), keepdims=True)
        if floating.gaps(typical)[1][0] >= step * (1 - _STEP_TOLERANCE):
            return floating
    return Lattice("uniform", step)
