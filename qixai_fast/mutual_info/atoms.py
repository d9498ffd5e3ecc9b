"""Atoms: single values that hold a share of the samples, such as the zeros of a ReLU.

A variable with atoms is neither discrete nor continuous. Its label b ("continuous", or which atom)
is discrete, and within a label the variable is constant or continuous; the chain rule
I(X;Y) = I(b_x;b_y) + I(X;b_y|b_x) + I(b_x;Y|b_y) + I(X;Y|b_x,b_y) then needs only estimators
that fit their parts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._validate import Float64
from .lattice import Lattice

# An atom holds more than this share of the samples, and this many times its lattice neighbours' counts.
_SHARE = 0.01
_PROMINENCE = 10


def find_atoms(
    distinct: Float64, counts: npt.NDArray[np.int64], n_neighbors: int, lattice: Lattice | None
) -> npt.NDArray[np.intp]:
    """Which distinct values of a variable are atoms.

    Parameters
    ----------
    distinct : (m,) float64
        Ascending.
    counts : (m,) int64
        Samples of each.
    n_neighbors : int
    lattice : Lattice or None
        Without one, a value's lattice neighbours are the adjacent floats, which hold nothing.

    Returns
    -------
    (a,) intp
        Indices of values repeated more than max(n_neighbors, 0.01 n) times and 10 times more than
        either lattice neighbour.

    Examples
    --------
    >>> find_atoms(np.array([0.0, 0.3, 0.7]), np.array([50, 1, 1]), 3, None)
    array([0])
    """
    candidates = np.flatnonzero(counts > max(n_neighbors, _SHARE * counts.sum()))
    if lattice is None or len(candidates) == 0:
        return candidates
    below, above = lattice.gaps(distinct[candidates])
    rivals = np.zeros(len(candidates), dtype=np.int64)
    for step, gap in ((-1, below), (1, above)):
        adjacent = candidates + step
        inside = (adjacent >= 0) & (adjacent < len(distinct))
        near = candidates[inside] + step
        distance = np.abs(distinct[near] - distinct[candidates[inside]])
        beside = distance <= 1.01 * gap[inside]
        rivals[inside] = np.maximum(rivals[inside], np.where(beside, counts[near], 0))
    return candidates[counts[candidates] > _PROMINENCE * rivals]
