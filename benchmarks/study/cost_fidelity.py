"""How far an attribution can be trusted: what a low cost must not be bought with."""

from __future__ import annotations

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

RESAMPLES = 2000


def completeness(case, values, promise):
    """Median over samples of |sum of values - what they promise to add up to| over the size of that.

    Parameters
    ----------
    case : Case
    values : array (n, ...)
        Attributions, of values or of groups.
    promise : {"change", "output"}
        The change of the explained number from baseline to sample, or the number itself.
    """
    wanted = case.scores(case.inputs, case.target)
    if promise == "change":
        wanted = wanted - case.scores(case.baselines, case.target)
    sums = np.asarray(values, np.float64).reshape(len(values), -1).sum(1)
    return float(np.median(np.abs(sums - wanted) / np.abs(wanted)))


def deletion(case, groups):
    """What is left of the explained change as groups are taken away, the largest attribution first.

    Parameters
    ----------
    case : Case
    groups : array (n, n_groups)

    Returns
    -------
    areas, changes : arrays (n,)
        Mean of F(what is left) - F(baseline) over the steps from nothing to all taken away (trapezoids), and
        F(sample) - F(baseline). The ratio of their sums is 0.5 where every group weighs the same.
    """
    areas, changes = [], []
    for i, values in enumerate(groups):
        rank = np.argsort(np.argsort(-values, kind="stable"))
        kept = rank[None, :] >= np.arange(case.n_groups + 1)[:, None]
        left = case.scores(case.masked(i, kept), case.target[i])
        left = left - left[-1]
        areas.append(trapezoid(left, dx=1 / case.n_groups))
        changes.append(left[0])
    return np.array(areas), np.array(changes)


def share_left(areas, changes):
    """Ratio of sums, and its 95 % interval over samples drawn anew."""
    drawn = np.random.default_rng(0).integers(0, len(areas), (RESAMPLES, len(areas)))
    low, high = np.quantile(areas[drawn].sum(1) / changes[drawn].sum(1), [0.025, 0.975])
    return {"area": float(areas.sum() / changes.sum()), "low": float(low), "high": float(high)}


def at_random(case, draws=5):
    """The same for orders drawn at random."""
    rng = np.random.default_rng(0)
    found = [deletion(case, rng.random((len(case.inputs), case.n_groups))) for _ in range(draws)]
    return share_left(np.mean([areas for areas, _ in found], axis=0), found[0][1])


def agreement(first, second):
    """Median over samples of the rank correlation between two runs' values of groups."""
    found = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    return float(np.median(found))
