"""The estimate for one pair of scalar variables, as a mean over samples of local parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._validate import Float64
from ..kernels import cells_cpu, ksg_cpu
from ..kernels._emit import LANES
from ..kernels._lanes import REGISTERS
from ..kernels.axis_cpu import PAD, Axis, make_axis, pad_in_place
from .variables import Int32, Variable, View, choose_views

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


# Points in a strip, in square roots of all: keeps both the sweep within a strip and the strips visited few.
_WIDTH = 2.2


def strip_width(n: int) -> int:
    """Points in a strip of n."""
    width: int = max(LANES, int(_WIDTH * math.sqrt(n)) // LANES * LANES)
    return width


def strips_room(n: int) -> int:
    """Places that hold the strips of n points, and of any fewer: their strips may be narrower, and more."""
    strips = 1 + math.ceil(n / max(LANES, _WIDTH * math.sqrt(n) - LANES))
    room: int = PAD + n + strip_width(n) + strips * PAD
    return room


class Scratch:
    """What pairs of variables of n samples take while they run, one pair after the other."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.strips = np.empty(strips_room(n)), np.empty(strips_room(n))
        self.counts = np.empty(n + LANES, np.int32), np.empty(n + LANES, np.int32)
        self.times = np.empty(n, np.int32)
        self.position = np.empty(n, np.int32)
        self._cell: tuple[Float64, Float64, Int32, Int32] | None = None

    @property
    def cell(self) -> tuple[Float64, Float64, Int32, Int32]:
        """Room for the common samples of two variables with atoms: values, values, ranks, samples."""
        if self._cell is None:
            integers = np.empty(self.n, np.int32), np.empty(self.n, np.int32)
            self._cell = np.empty(self.n + 2 * PAD), np.empty(self.n + 2 * PAD), *integers
        return self._cell


def ksg_counts(
    x: Axis, y: Axis, x_position: Int32, n_neighbors: int, algorithm: int, scratch: Scratch
) -> tuple[Int32, Int32]:
    """Marginal neighbour counts of every point, as KSG-1 or KSG-2 defines them.

    Parameters
    ----------
    x, y : Axis
        Both variables, of n values.
    x_position : (n,) int32
        Rank in x of the sample with the j-th smallest y.
    n_neighbors, algorithm : int
    scratch : Scratch
        For n samples or more; holds the result.

    Returns
    -------
    n_x, n_y : (n,) int32
        Point after point of strip after strip; :func:`strip_order` tells which j each is.
    """
    n = len(x_position)
    width = strip_width(n)
    n_x, n_y = (counts[: n + LANES] for counts in scratch.counts)
    registers = next((count for count in REGISTERS if count >= n_neighbors), 0)
    ksg_cpu.into_strips(x.values, y.values, x_position, width, *scratch.strips)
    ksg_cpu.marginal_counts(
        x,
        y,
        n_neighbors,
        width,
        *scratch.strips,
        np.empty(LANES * max(registers, n_neighbors)),
        (0,) * registers,
        None if algorithm == 1 else np.empty(2 * LANES),
        n_x,
        n_y,
    )
    return n_x[:n], n_y[:n]


def strip_order(x_position: Int32) -> Int32:
    """Which j each of the points of :func:`ksg_counts` is."""
    order = np.empty(len(x_position), np.int32)
    ksg_cpu.strip_order(x_position, strip_width(len(x_position)), order)
    return order


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


def joint_terms(x_codes: Int32, n_x: int, y_codes: Int32, n_y: int) -> tuple[Float64, Float64]:
    """Joint counts of two discrete variables, and ln p(x, y) / (p(x) p(y)) of each cell, (n_x, n_y) both."""
    counts = np.zeros((n_x, n_y), dtype=np.int64)
    cells_cpu.joint_counts(x_codes, y_codes, counts)
    joint = counts.astype(np.float64)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0) / len(x_codes)
    terms = np.zeros_like(joint)
    seen = joint > 0
    np.divide(joint, expected, out=terms, where=seen)
    np.log(terms, out=terms, where=seen)
    return joint, terms


def discrete_local(x_codes: Int32, n_x: int, y_codes: Int32, n_y: int) -> Float64:
    """Each sample's part of the plug-in mutual information of two discrete variables."""
    local: Float64 = joint_terms(x_codes, n_x, y_codes, n_y)[1][x_codes, y_codes]
    return local


@dataclass(frozen=True)
class Cell:
    """The samples that are continuous in both of two variables."""

    x: Axis
    y: Axis
    x_position: Int32
    samples: Int32

    @classmethod
    def of(cls, x: Variable, y: Variable, x_view: View, y_view: View, scratch: Scratch) -> Cell | None:
        """None where there are fewer than two such samples, or one variable has but one value there."""
        if x_view.axis is None or y_view.axis is None:
            return None
        if x_view.rank is not None and y_view.rank is not None:
            np.take(x_view.rank, y_view.order, out=scratch.position, mode="clip")
            return cls(x_view.axis, y_view.axis, scratch.position, y_view.order)
        xs, ys, x_position, samples = scratch.cell
        size = cells_cpu.common_cell(
            x_view.axis.values,
            x_view.order,
            x.codes,
            y_view.axis.values,
            y_view.order,
            y.codes,
            *scratch.cell,
            scratch.position,
        )
        if size < 2 or xs[PAD] == xs[PAD + size - 1] or ys[PAD] == ys[PAD + size - 1]:
            return None
        axes = (make_axis(pad_in_place(values, size)) for values in (xs, ys))
        return cls(next(axes), next(axes), x_position[:size], samples[:size])


# Counts of a cell's points, for k and the algorithm, and which of the cell's samples each point is.
Counts = Callable[[Cell, int, int, Scratch], tuple[Int32, Int32, Int32]]


def _counts_here(
    cell: Cell, n_neighbors: int, algorithm: int, scratch: Scratch
) -> tuple[Int32, Int32, Int32]:
    counts = ksg_counts(cell.x, cell.y, cell.x_position, n_neighbors, algorithm, scratch)
    return *counts, strip_order(cell.x_position)


def pair_local(
    x: Variable,
    y: Variable,
    n_neighbors: int,
    algorithm: int,
    psi: Float64,
    counts: Counts = _counts_here,
) -> Float64:
    """Each sample's part of I(X;Y), by the chain rule over atoms; the mean is the estimate.

    Parts are added so that exchanging x and y gives the same bits.

    Parameters
    ----------
    x, y : Variable
    n_neighbors, algorithm : int
    psi : (n + 1,) float64
        Digamma of the integers.
    counts : callable, optional
        Counts neighbours elsewhere than on the CPU.

    Returns
    -------
    (n,) float64
    """
    local = np.zeros(len(x.codes))
    _atoms(x, y, n_neighbors, psi, local)
    if x.n_codes > 1 and y.n_codes > 1:
        local += discrete_local(x.codes, x.n_codes, y.codes, y.n_codes)
    scratch = Scratch(len(local))
    cell = Cell.of(x, y, *choose_views(x, y), scratch)
    if cell is not None:
        k = min(n_neighbors, len(cell.samples) - 1)
        n_x, n_y, order = counts(cell, k, algorithm, scratch)
        local[cell.samples[order]] += ksg_local(n_x, n_y, k, algorithm, psi)
    return local


def _atoms(x: Variable, y: Variable, n_neighbors: int, psi: Float64, local: Float64) -> float:
    """Sum of the parts I(X;b_y|b_x) and I(b_x;Y|b_y); a ``local`` that is not empty gets each sample's."""
    total = 0.0
    for view, other in zip(choose_views(x, y), (y, x), strict=True):
        if other.n_codes > 1 and view.axis is not None:
            total += cells_cpu.ross_sum(
                view.axis.values, view.order, other.codes, other.n_codes, n_neighbors, psi, local
            )
    return total


def pair_value(
    x: Variable, y: Variable, n_neighbors: int, algorithm: int, psi: Float64, scratch: Scratch | None = None
) -> float:
    """The estimate of I(X;Y) for one pair, in nats: the mean of :func:`pair_local`, without the parts.

    Sums do not depend on the order of the samples, and exchanging x and y gives the same bits.

    Parameters
    ----------
    x, y, n_neighbors, algorithm, psi
        As in :func:`pair_local`.
    scratch : Scratch, optional
        To be used again for the next pair.
    """
    n = len(x.codes)
    scratch = scratch or Scratch(n)
    total = discrete_total(x, y, n_neighbors, psi)
    cell = Cell.of(x, y, *choose_views(x, y), scratch)
    if cell is not None:
        size = len(cell.samples)
        k = min(n_neighbors, size - 1)
        counts = ksg_counts(cell.x, cell.y, cell.x_position, k, algorithm, scratch)
        digammas = ksg_cpu.sum_digamma(*counts, count_offset(algorithm), psi, scratch.times[:size])
        total += cell_total(size, digammas, k, algorithm, psi)
    return float(total / n)


def discrete_total(x: Variable, y: Variable, n_neighbors: int, psi: Float64) -> float:
    """Sum over samples of all parts of I(X;Y) but that of the continuous cell; 0 without atoms."""
    total = _atoms(x, y, n_neighbors, psi, np.empty(0))
    if x.n_codes > 1 and y.n_codes > 1:
        joint, terms = joint_terms(x.codes, x.n_codes, y.codes, y.n_codes)
        total += math.fsum((joint * terms).ravel())
    return total


def count_offset(algorithm: int) -> int:
    """What is added to a count before its digamma is taken."""
    return 1 if algorithm == 1 else 0


def cell_total(size: Any, digammas: Any, n_neighbors: int, algorithm: int, psi: Float64) -> Any:
    """Sum over samples of the continuous cell's part, from the sum of digammas of both counts.

    ``size`` and ``digammas`` are those of one cell, or arrays of those of many.
    """
    own = psi[n_neighbors] + psi[size] - (0.0 if algorithm == 1 else 1 / n_neighbors)
    return size * own - digammas
