"""Intervals that are meant to hold the truth 95 times in 100: what a user would draw about an estimate.

All of them measure how an estimate scatters. None knows its bias, so that they miss the truth where the
bias outweighs the width, however many samples there are.
"""

import math

import numpy as np
from scipy import stats

NORMAL = stats.norm.ppf(0.975)
SPLITS = 5
STUDENT = stats.t.ppf(0.975, SPLITS)


def local_width(local):
    """Half the width from local values, whose mean is the estimate: 1.96 sd / sqrt(N).

    For a plug-in estimate local values are ln(p_xy / (p_x p_y)) of each sample's cell, and this is the delta
    method (Basharin 1959; Roulston, Physica D 125, 1999, equation 31). For KSG it is the central limit
    theorem for means of local values (Gao, Oh and Viswanath 2018, "Demystifying fixed k-nearest neighbor
    information estimators"), with neighbours' correlation left out.
    """
    return float(NORMAL * np.std(np.asarray(local)) / math.sqrt(len(local)))


def halves_width(estimate, variables, rng):
    """Half the width from disjoint halves, for estimators that give nothing but a number.

    For a random split in two the halves' estimates are independent, so that ((a - b) / 2)^2 has the mean
    Var(estimate of N / 2) / 2, which is the variance from N samples where that falls as 1 / N: balanced
    half-samples (McCarthy 1969), without replacement as neighbour estimators need it (Holmes and Nemenman,
    Phys. Rev. E 100, 022404, 2019). Mean of 5 splits; Student's t of as many degrees of freedom.
    """
    n = len(variables[0])
    squares = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        a, b = (
            estimate(*(variable[np.sort(part)] for variable in variables))
            for part in (order[: n // 2], order[n // 2 : 2 * (n // 2)])
        )
        squares.append(((a - b) / 2) ** 2)
    return float(STUDENT * math.sqrt(np.mean(squares)))


def wilson(share, draws):
    """Ends of the 95 % interval of a share that was counted (Wilson 1927)."""
    z = NORMAL
    centre = (share + z * z / (2 * draws)) / (1 + z * z / draws)
    half = z / (1 + z * z / draws) * math.sqrt(share * (1 - share) / draws + z * z / (4 * draws * draws))
    return centre - half, centre + half
