"""Composite rules on intervals of different lengths, split where more nodes are needed.

Every interval of a path has three nodes, and from them two values of its integral: the coarse one of one
step, and the fine one of the steps it splits into. Splitting it makes three nodes for each part, of which
the old ones are some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._validate import Float64

Int64 = npt.NDArray[np.int64]
# A split leaves intervals alone whose changes together (root of the sum of squares: errors of separate
# intervals are as often of one sign as of the other) are below this part of what tol allows.
_LEFT_ALONE = 0.8


@dataclass(frozen=True)
class Splitting:
    """How an interval of unit length is summed and split.

    Attributes
    ----------
    fine, change : ndarray of shape (3,)
        Weights of the three nodes: in the fine value, and in the fine less the coarse one.
    nodes : tuple of float
        Places of the three nodes.
    parts : tuple of tuple
        For each part the nodes it takes over: its own place among three, and the parent's.
    new : tuple of float
        Places, within a part, of the nodes that it does not take over.
    """

    fine: Float64
    change: Float64
    nodes: tuple[float, float, float]
    parts: tuple[tuple[tuple[int, int], ...], ...]
    new: tuple[float, ...]

    @property
    def new_places(self) -> list[int]:
        """Which of a part's three nodes are new."""
        return [place for place in range(3) if place not in dict(self.parts[0])]


SPLITTING = {
    "riemann_middle": Splitting(
        np.full(3, 1 / 3),
        np.array([1.0, -2.0, 1.0]) / 3,
        (1 / 6, 1 / 2, 5 / 6),
        (((1, 0),), ((1, 1),), ((1, 2),)),
        (1 / 6, 5 / 6),
    ),
    "riemann_trapezoid": Splitting(
        np.array([1.0, 2.0, 1.0]) / 4,
        np.array([-1.0, 2.0, -1.0]) / 4,
        (0.0, 1 / 2, 1.0),
        (((0, 0), (2, 1)), ((0, 1), (2, 2))),
        (1 / 2,),
    ),
}


@dataclass
class Intervals:
    """Intervals of many samples' paths.

    Attributes
    ----------
    sample : ndarray of int64, shape (m,)
    start, length : ndarray of shape (m,)
    slots : ndarray of int64, shape (m, 3)
        Where the gradients at the three nodes are kept.
    """

    sample: Int64
    start: Float64
    length: Float64
    slots: Int64

    def __len__(self) -> int:
        return len(self.sample)

    def take(self, index: Any) -> Intervals:
        return Intervals(self.sample[index], self.start[index], self.length[index], self.slots[index])

    def renumbered(self, known: Int64) -> Intervals:
        """The same intervals, with slots by their place among the ``known`` ones (ascending)."""
        return Intervals(self.sample, self.start, self.length, np.searchsorted(known, self.slots))

    def __add__(self, other: Intervals) -> Intervals:
        return Intervals(
            np.concatenate([self.sample, other.sample]),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.length, other.length]),
            np.concatenate([self.slots, other.slots]),
        )


def first_mesh(splitting: Splitting, n_samples: int, n_intervals: int) -> tuple[Intervals, Int64, Float64]:
    """Intervals of equal length for every sample, and the nodes to compute: sample and place of each.

    Node ``i`` of the result belongs in slot ``i``.
    """
    shared = int(splitting.nodes[0] == 0.0)  # ends that neighbours have in common
    step = 3 - shared
    start = np.arange(n_intervals) / n_intervals
    per_sample = step * n_intervals + shared
    slots = step * np.arange(n_intervals)[:, None] + np.arange(3)
    places = np.empty(per_sample)
    places[slots] = start[:, None] + np.array(splitting.nodes) / n_intervals
    first = per_sample * np.arange(n_samples)
    return (
        Intervals(
            np.repeat(np.arange(n_samples), n_intervals),
            np.tile(start, n_samples),
            np.full(n_samples * n_intervals, 1 / n_intervals),
            (first[:, None, None] + slots).reshape(-1, 3),
        ),
        np.repeat(np.arange(n_samples), per_sample),
        np.tile(places, n_samples),
    )


def split(splitting: Splitting, parents: Intervals, first: int) -> tuple[Intervals, Int64, Float64]:
    """The parts of some intervals, and the nodes to compute for them: sample and place of each.

    Node ``i`` of the result belongs in slot ``first + i``.
    """
    n_parts, new = len(splitting.parts), splitting.new_places
    m = len(parents)
    length = np.repeat(parents.length / n_parts, n_parts)
    start = np.repeat(parents.start, n_parts) + np.tile(np.arange(n_parts), m) * length
    slots = np.empty((m, n_parts, 3), np.int64)
    for part, taken in enumerate(splitting.parts):
        for place, old in taken:
            slots[:, part, place] = parents.slots[:, old]
    slots[:, :, new] = first + np.arange(m * n_parts * len(new)).reshape(m, n_parts, len(new))
    sample = np.repeat(parents.sample, n_parts)
    parts = Intervals(sample, start, length, slots.reshape(-1, 3))
    nodes = start[:, None] + np.array(splitting.new) * length[:, None]
    return parts, np.repeat(sample, len(new)), nodes.reshape(-1)


@dataclass
class Nodes:
    """What is known at the nodes, by slot.

    Attributes
    ----------
    place : ndarray
        On the path, in [0, 1].
    value, slope : ndarray
        F there, and its derivative along the path.
    """

    place: Float64
    value: Float64
    slope: Float64

    def __len__(self) -> int:
        return len(self.place)

    def append(self, place: Float64) -> None:
        """More nodes, at which nothing is known yet."""
        nothing = np.full(len(place), np.nan)
        self.place = np.append(self.place, place)
        self.value, self.slope = np.append(self.value, nothing), np.append(self.slope, nothing)


def unexplained(intervals: Intervals, nodes: Nodes, ends: tuple[Float64, Float64]) -> Float64:
    """How much of F's change in and around each interval the derivatives at its nodes do not account for.

    A gradient says nothing of a step between two nodes; F itself does.

    Parameters
    ----------
    intervals : Intervals
    nodes : Nodes
    ends : tuple of ndarray
        F at the baseline and at the input of every sample.
    """
    order = np.lexsort((intervals.start, intervals.sample))
    own = intervals.take(order)
    sample, start, stop, rounding = own.sample, own.start, own.start + own.length, own.length / 1000
    place, value, slope = nodes.place[own.slots], nodes.value[own.slots], nodes.slope[own.slots]
    with np.errstate(invalid="ignore"):  # F may be infinite
        steps = np.diff(value) - np.diff(place) * (slope[:, 1:] + slope[:, :-1]) / 2
        found = np.abs(steps).sum(1)
        mean = (slope[1:, 0] + slope[:-1, 2]) / 2
        between = np.abs(value[1:, 0] - value[:-1, 2] - (place[1:, 0] - place[:-1, 2]) * mean)
        # Between two intervals there may be others that are not among these.
        between[(sample[1:] != sample[:-1]) | (np.abs(start[1:] - stop[:-1]) > rounding[:-1])] = 0.0
        found[1:] += between
        found[:-1] += between
        for here, end, where, node in (
            (start < rounding, ends[0], 0.0, 0),
            (stop > 1 - rounding, ends[1], 1.0, 2),
        ):
            change = (where - place[here, node]) * slope[here, node]
            found[here] += np.abs(end[sample[here]] - value[here, node] - change)
    result: Float64 = np.empty_like(found)
    result[order] = found
    return result


def to_split(sample: Int64, score: Float64) -> npt.NDArray[np.bool_]:
    """For every sample the fewest intervals, of largest scores, that leave little enough in the others.

    Parameters
    ----------
    sample : ndarray of int64, shape (m,)
    score : ndarray of shape (m,)
        Change of an interval, in units of what tol allows the sample.

    Returns
    -------
    ndarray of bool, shape (m,)
        At least one for every sample.

    Examples
    --------
    >>> to_split(np.array([0, 0, 0, 1]), np.array([0.1, 3.0, 1.0, 0.0]))
    array([False,  True,  True,  True])
    """
    order = np.lexsort((score, sample))  # smallest first
    # What is this large is split in any case; larger squares would drown the next sample's.
    squares = np.minimum(score[order], 1e3) ** 2
    ordered = sample[order]
    below = np.cumsum(squares)
    first = np.searchsorted(ordered, ordered)
    below -= below[first] - squares[first]
    last = np.append(ordered[1:] != ordered[:-1], True)
    chosen = np.zeros(len(sample), bool)
    chosen[order] = (below > _LEFT_ALONE**2) | last
    return chosen
