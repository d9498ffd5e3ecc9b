"""The estimate for one pair of scalar variables, as a mean over samples of local parts."""

from __future__ import annotations

import math

import numpy as np

from .._validate import Float64
from ..kernels import ksg_cpu
from .variables import Int32, Variable, choose_views

# The most that one pair takes while it runs, in bytes a sample.
PAIR_BYTES = 104


def digamma_table(n: int) -> Float64:
    """Digamma of the integers 0 to n, shape (n + 1,); the entry at 0 is NaN.

    The harmonic numbers up to 16, then the asymptotic series, whose next term there is below 1e-16.
    (``scipy.special`` would say the same, and takes 0.1 s to import.)
    """
    table = np.arange(n + 1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        np.divide(1.0, table, out=table)
    head = np.cumsum(np.concatenate(([-np.euler_gamma], table[1:16])))
    for start in range(16, n + 1, 2**13):
        inverse = table[start : start + 2**13]
        square = inverse * inverse
        series = 1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132)))
        inverse[:] = -np.log(inverse) - inverse / 2 - square * series
    table[0] = np.nan
    table[1 : len(head) + 1] = head[: len(table) - 1]
    return table


def ksg_counts(
    xs: Float64, ys: Float64, x_position: Int32, n_neighbors: int, algorithm: int
) -> tuple[Int32, Int32]:
    """Marginal neighbour counts of every sample, as KSG-1 or KSG-2 defines them.

    Parameters
    ----------
    xs, ys : (n,) float64
        Both variables, each sorted.
    x_position : (n,) int32
        Position in ``xs`` of the sample with the j-th smallest y.
    n_neighbors, algorithm : int

    Returns
    -------
    n_x, n_y : (n,) int32
        Of the sample with the j-th smallest y.
    """
    n = len(xs)
    # About this many points a strip keep both the sweep within a strip and the strips visited few.
    width = max(8, int(2 * math.sqrt(n)))
    strip_x, strip_y, strip_rank = np.empty(n), np.empty(n), np.empty(n, np.int32)
    ksg_cpu.into_strips(xs, ys, x_position, width, strip_x, strip_y, strip_rank)
    radius = np.empty(n)
    ksg_cpu.neighbour_radii(xs, strip_x, strip_y, strip_rank, width, n_neighbors, radius)
    x_radius = y_radius = radius
    if algorithm == 2:
        x_radius, y_radius = np.empty(n), np.empty(n)
        ksg_cpu.axis_radii(xs, strip_x, strip_y, strip_rank, width, radius, x_radius, y_radius)
    n_x, n_y = np.empty(n, np.int32), np.empty(n, np.int32)
    ksg_cpu.count_all(xs, x_position, x_radius, algorithm == 1, n_x)
    ksg_cpu.count_all(ys, np.arange(n, dtype=np.int32), y_radius, algorithm == 1, n_y)
    return n_x, n_y


def ksg_local(n_x: Int32, n_y: Int32, n_neighbors: int, algorithm: int, psi: Float64) -> Float64:
    """Each sample's part of the KSG estimate, from its counts; their mean is the estimate.

    Kraskov, Stögbauer and Grassberger 2004, equations (8) and (9).
    """
    constant = psi[n_neighbors] + psi[len(n_x)]
    if algorithm == 1:
        local: Float64 = constant - (psi[n_x + 1] + psi[n_y + 1])
    else:
        local = (constant - 1 / n_neighbors) - (psi[n_x] + psi[n_y])
    return local


def discrete_local(x_codes: Int32, n_x: int, y_codes: Int32, n_y: int) -> Float64:
    """Each sample's part of the plug-in mutual information of two discrete variables."""
    fused = x_codes * np.int64(n_y) + y_codes
    joint = np.bincount(fused, minlength=n_x * n_y).reshape(n_x, n_y).astype(np.float64)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0) / len(fused)
    seen = joint > 0
    np.divide(joint, expected, out=joint, where=seen)
    np.log(joint, out=joint, where=seen)
    local: Float64 = joint.ravel()[fused]
    return local


def pair_local(x: Variable, y: Variable, n_neighbors: int, algorithm: int, psi: Float64) -> Float64:
    """Each sample's part of I(X;Y), by the chain rule over atoms; the mean is the estimate.

    Parts are added so that exchanging x and y gives the same bits.

    Parameters
    ----------
    x, y : Variable
    n_neighbors, algorithm : int
    psi : (n + 1,) float64
        Digamma of the integers.

    Returns
    -------
    (n,) float64
    """
    x_view, y_view = choose_views(x, y)
    x_continuous = (x_view.values, x_view.order, x.codes)
    y_continuous = (y_view.values, y_view.order, y.codes)
    local = np.zeros(len(x.codes))
    if y.n_codes > 1:
        ksg_cpu.add_ross(x_view.values, x_view.order, y.codes, y.n_codes, n_neighbors, psi, local)
    if x.n_codes > 1:
        ksg_cpu.add_ross(y_view.values, y_view.order, x.codes, x.n_codes, n_neighbors, psi, local)
    if x.n_codes > 1 and y.n_codes > 1:
        local += discrete_local(x.codes, x.n_codes, y.codes, y.n_codes)
    room = max(1, min(len(x_view.order), len(y_view.order)))
    xs, ys = np.empty(room), np.empty(room)
    x_position, samples = np.empty(room, np.int32), np.empty(room, np.int32)
    size = ksg_cpu.common_cell(*x_continuous, *y_continuous, xs, ys, x_position, samples)
    # One sample, or one value, tells nothing.
    if size < 2 or xs[0] == xs[size - 1] or ys[0] == ys[size - 1]:
        return local
    k = min(n_neighbors, size - 1)
    n_x, n_y = ksg_counts(xs[:size], ys[:size], x_position[:size], k, algorithm)
    local[samples[:size]] += ksg_local(n_x, n_y, k, algorithm, psi)
    return local


def pair_value(x: Variable, y: Variable, n_neighbors: int, algorithm: int, psi: Float64) -> float:
    """The estimate of I(X;Y) for one pair, in nats."""
    return float(pair_local(x, y, n_neighbors, algorithm, psi).mean())
