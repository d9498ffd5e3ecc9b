"""Confidence intervals by subsampling, and where they do not hold.

A statistic is computed again on many subsamples of m out of n samples, drawn without replacement (Politis,
Romano and Wolf, "Subsampling", Springer 1999, chapter 2; Politis and Romano, Annals of Statistics 22, 2031
(1994)). If it converges at the rate n^b, deviations of the subsamples, scaled by (m/n)^b, are distributed as
its own. b is 1/2 for whatever is smooth in means: variances, correlations, CKA, and entropies away from
their extremes.

Why not the bootstrap: it draws samples twice, and a nearest neighbour at distance zero is worthless to KSG.

Two departures from the theorem, for m/n of a tenth and not of almost nothing:

- Subsamples share members, so their variance lacks the factor 1 - m/n, which is put back (as in the delete-d
  jackknife: Shao and Wu, Annals of Statistics 17, 1176 (1989)).
- Deviations are taken from the mean of the subsamples, not from the whole sample's value. A bias that falls
  as 1/n, as that of plug-in entropies, differs between m and n, and would push the interval to one side. The
  interval is thus one for the statistic's mean at n samples; how far this depends on n is :func:`drift`.

Not valid for the largest of many values (max MI): its rate need not be 1/2, its distribution is skewed, and
its selection makes it too large by an amount that depends on n. Nor for the identity of the largest (top
pairs).
:func:`rate` finds out from two sizes of samples.
"""

from __future__ import annotations

import math

import numpy as np

REPLICATES = 39  # the smallest and the largest of 39 draws leave 1/40 on each side: 95 %


def subsamples(n, m, *, seed, count=REPLICATES):
    """``count`` rows of m different indices below n, sorted."""
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(n, m, replace=False)) for _ in range(count)])


def interval(value, replicates, m, n, *, level=0.95, rate=0.5):
    """Lower and upper end of the interval of a statistic.

    Parameters
    ----------
    value : float
        The statistic on all n samples.
    replicates : array_like, shape (count,)
        The same on subsamples of m.
    level : float
        Coverage. ``count + 1`` should be a multiple of ``2 / (1 - level)``.
    rate : float
        Exponent b of the rate of convergence.
    """
    replicates = np.asarray(replicates, dtype=float)
    if not 0 < m < n:
        raise ValueError(f"m: wanted more than 0 and fewer than n = {n}, got {m}")
    scale = (m / n) ** rate / math.sqrt(1 - m / n)
    tail = (1 - level) / 2
    deviations = (replicates - replicates.mean()) * scale
    low, high = np.quantile(deviations, [tail, 1 - tail], method="weibull")
    return float(value - high), float(value - low)


def drift(value, replicates, m, n):
    """How far the statistic's mean at n samples is from its limit, if its bias falls as 1/n.

    From its mean at m: delete-d jackknife, Shao and Wu 1989. Where it is not small beside the interval, the
    number says as much about the sample's size as about the network.
    """
    return float((np.mean(replicates) - value) * m / (n - m))


def rate(few, m, many, n, *, pool=math.inf):
    """The exponent b of the rate of convergence, from values on samples of m and of n > m.

    From the ratio of standard deviations (Politis, Romano and Wolf 1999, chapter 8, take ranges of
    quantiles); None where one is 0. ``pool`` samples are there to draw from, and their number is allowed for.
    """
    spreads = [np.std(values, ddof=1) / math.sqrt(1 - size / pool) for values, size in ((few, m), (many, n))]
    return float(math.log(spreads[0] / spreads[1]) / math.log(n / m)) if min(spreads) > 0 else None
