"""Whether a number moved, in units of the spread between seeds."""

from __future__ import annotations

import math

import numpy as np

# The largest of thousands, and ranks among them: no interval by subsampling (survival_intervals.py).
NO_INTERVAL = ("largest", "top pairs", "MI ranks")
ALIKE = ("CKA with clean", "top pairs", "MI ranks", "IG ranks")  # 1 where nothing changed
REDUNDANT = ("entropy", "CKA,", "mean plug-in", "largest plug-in")  # follow from a twin that is counted
FAMILIES = {
    "spectra": lambda name: name.startswith(("top-5", "entropy", "effective")),
    "similarity of layers": lambda name: name.startswith(("CKA,", "debiased", "mean cosine")),
    "same layer, clean": lambda name: name.startswith("CKA with clean"),
    "size of MI": lambda name: " MI, " in name,
    "order and top of MI": lambda name: name.startswith(("MI ranks", "top pairs")),
    "attributions": lambda name: name.startswith("IG"),
}
MOVES, STAYS, UNCLEAR = "moves", "stays", "unclear"


def is_counted(name):
    """Whether a number is counted: of two that say the same, one is."""
    return not name.startswith(REDUNDANT)


def has_interval(name):
    return not name.startswith(NO_INTERVAL)


def is_likeness(name):
    """Whether the number says how like the clean case is, so that it is 1 there."""
    return name.startswith(ALIKE)


def standardised(entry, spread):
    """Shift over spread: beyond 1 in size, farther from the clean case than seeds are from each other."""
    if spread:
        return entry["shift"] / spread
    return math.copysign(math.inf, entry["shift"]) if entry["shift"] else 0.0


def verdict(entry, spread):
    """``moves`` where the whole bracket lies beyond the spread, ``stays`` where within, or ``unclear``.

    Without a bracket the value alone decides.
    """
    low, high = entry["bracket"] or (entry["shift"], entry["shift"])
    if low > spread or high < -spread:
        return MOVES
    return STAYS if -spread <= low and high <= spread else UNCLEAR


def another_seed(times, *, draws=200_000):
    """Chance that a fourth seed is farther from the first than ``times`` the range of three.

    For normal values: what a number "beyond the spread" is worth, three seeds being few.
    """
    values = np.random.default_rng(0).standard_normal((draws, 4))
    return float((np.abs(values[:, 3] - values[:, 0]) > times * np.ptp(values[:, :3], axis=1)).mean())
