"""Data whose mutual information is known: Gaussian pairs, plain, cut off at an atom, or on other marginals.

Mutual information does not change under strictly increasing functions of x and of y. So a Gaussian pair that
is given the marginals of a user's own columns keeps -ln(1 - rho^2) / 2, except for what an atom hides: where
the marginal holds a share p of its samples in its smallest value (a ReLU's zeros), the pair tells what a
Gaussian pair tells that is cut off from below at the quantile p. That is an integral over one variable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from .._validate import Array, Float64
from ..mutual_info.lattice import Lattice, find_lattice

# Gauss-Legendre nodes on an interval: spectral for densities as smooth as these.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_FAR = 9.0
# A value with more of the samples than this is an atom, as in qixai_fast.mutual_info.atoms.
ATOM_SHARE = 0.01


def gaussian(rho: float) -> float:
    """Mutual information of a Gaussian pair with correlation ``rho``, in nats."""
    return -0.5 * math.log1p(-(rho**2))


def _density(z: Float64) -> Float64:
    values: Float64 = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return values


def _one_atom(rho: float, p: float, q: float) -> float:
    """Integral over y above its quantile q of f(x <= a, y) ln(P(x <= a | y) / p), a the quantile p of x."""
    if p == 0:
        return 0.0
    low = ndtri(q) if q > 0 else -_FAR
    y = low + (_NODES + 1) * (_FAR - low) / 2
    t = (ndtri(p) - rho * y) / math.sqrt(1 - rho**2)
    parts = _density(y) * ndtr(t) * (log_ndtr(t) - math.log(p))
    return float(_WEIGHTS @ parts * (_FAR - low) / 2)


def _both_atoms(rho: float, p: float, q: float) -> float:
    """P ln(P / (p q)) of both variables in their atoms."""
    if p == 0 or q == 0:
        return 0.0
    high = ndtri(q)
    y = -_FAR + (_NODES + 1) * (high + _FAR) / 2
    t = (ndtri(p) - rho * y) / math.sqrt(1 - rho**2)
    both = float(_WEIGHTS @ (_density(y) * ndtr(t)) * (high + _FAR) / 2)
    return both * math.log(both / (p * q)) if both > 0 else 0.0


def _no_atom(rho: float, p: float, q: float) -> float:
    """Integral of f ln(f / (f_x f_y)) over x and y above their atoms; that over x is done by hand."""
    s = math.sqrt(1 - rho**2)
    low = ndtri(q) if q > 0 else -_FAR
    y = low + (_NODES + 1) * (_FAR - low) / 2
    # x = rho y + s z: the logarithm is -ln s + (rho^2 y^2 + 2 rho s y z - rho^2 z^2) / 2, for z above t.
    t = (ndtri(p) - rho * y) / s if p > 0 else np.full_like(y, -50.0)
    above, at = ndtr(-t), _density(t)
    inner = above * (rho**2 * y**2 / 2 - math.log(s)) + rho * s * y * at - rho**2 / 2 * (above + t * at)
    return float(_WEIGHTS @ (_density(y) * inner) * (_FAR - low) / 2)


def cut_gaussian(rho: float, p: float = 0.0, q: float = 0.0) -> float:
    """Mutual information in nats of a Gaussian pair whose lowest share p of x, and q of y, is one value.

    Parameters
    ----------
    rho : float
        Correlation before the cut, between -1 and 1.
    p, q : float
        Share of each variable that its atom holds, from 0 (none) to below 1. 0.5 is a ReLU.

    Examples
    --------
    >>> round(cut_gaussian(0.6), 4), round(cut_gaussian(0.6, 0.5, 0.5), 4)
    (0.2231, 0.1528)
    """
    if rho == 0:
        return 0.0
    return _both_atoms(rho, p, q) + _one_atom(rho, p, q) + _one_atom(rho, q, p) + _no_atom(rho, p, q)


@dataclass(frozen=True)
class Marginal:
    """One column's own distribution, as far as a Gaussian can be given it exactly.

    Attributes
    ----------
    atom, share : float
        The smallest value, and how much of the samples it holds; 0 where it is no atom.
    values, places : (m,) float64
        The other distinct values, ascending, and the middle of each one's share of them.
    lattice : Lattice or None
    """

    atom: float
    share: float
    values: Float64
    places: Float64
    lattice: Lattice | None

    @classmethod
    def of(cls, column: Array) -> Marginal | None:
        """The marginal of a column; None where a planted truth would not be exact.

        That is: atoms elsewhere than at the minimum, few distinct values, or values on a uniform lattice.
        """
        values, counts = np.unique(column.astype(np.float64), return_counts=True)
        lattice = find_lattice(values, len(column), column.dtype)
        share = counts[0] / len(column)
        first = int(share > ATOM_SHARE)
        rest, held = values[first:], counts[first:]
        if len(rest) < 20 or held.max() > max(3, ATOM_SHARE * len(column)):
            return None
        if lattice is not None and lattice.name == "uniform":
            return None
        places = (np.cumsum(held) - held / 2) / held.sum()
        return cls(float(values[0]), float(share) if first else 0.0, rest, places, lattice)

    def at(self, normal: Float64) -> Float64:
        """The marginal's quantiles at those of standard normal values."""
        level = (ndtr(normal) - self.share) / (1 - self.share)
        values = np.interp(level, self.places, self.values)
        if self.lattice is not None:
            values = _rounded(values, self.lattice)
        return np.where(level <= 0, self.atom, values) if self.share else values


def _rounded(values: Float64, lattice: Lattice) -> Float64:
    if lattice.name == "float16":
        return values.astype(np.float16).astype(np.float64)
    bits = (values.astype(np.float32).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def normals(rng: np.random.Generator, n: int, blocks: list[tuple[int, float]]) -> Float64:
    """Standard normal columns: within a block of so many, each pair has the block's correlation; else 0."""
    parts = []
    for width, rho in blocks:
        common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, width))
        parts.append(math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
    return np.hstack(parts)


def block_pairs(blocks: list[tuple[int, float]], most: int) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs of such columns and their correlations; all correlations come equally early and often."""
    place = [index for index, (width, _) in enumerate(blocks) for _ in range(width)]
    by_rho: dict[float, list[tuple[int, int]]] = {}
    for j in range(len(place)):
        for i in range(j):
            rho = blocks[place[i]][1] if place[i] == place[j] else 0.0
            by_rho.setdefault(rho, []).append((i, j))
    rhos = sorted(by_rho, reverse=True)
    turns = min(len(pairs) for pairs in by_rho.values())
    chosen = [(by_rho[rho][turn], rho) for turn in range(turns) for rho in rhos][:most]
    return [pair for pair, _ in chosen], [rho for _, rho in chosen]
