"""Neighbours of points in several dimensions: distances to the k-th, and how many are within a radius.

Exact, in the maximum norm, and the same whatever the number of threads: each query is answered on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._threads import ordered_map
from .._validate import Float64
from ..kernels import kdtree_build_cpu, kdtree_cpu
from .variables import Int32

# Queries in a task: enough that scheduling costs little.
_QUERIES = 2048


def _places(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _QUERIES, n)) for start in range(0, n, _QUERIES))


@dataclass(frozen=True)
class Tree:
    """Points in the order and boxes of a k-d tree; see :mod:`qixai_fast.kernels.kdtree_cpu`.

    Attributes
    ----------
    order : (n,) int32
        The point at each place.
    starts : (levels,) int64
    leaves, boxes : float64
    """

    order: Int32
    starts: npt.NDArray[np.int64]
    leaves: Float64
    boxes: Float64

    @classmethod
    def of(cls, points: Float64) -> Tree:
        """Tree of (n, d) points."""
        n, d = points.shape
        if d == 1:
            order = np.argsort(points[:, 0]).astype(np.int32)
        else:
            order = np.arange(n, dtype=np.int32)
            kdtree_build_cpu.sort_points(points, order)
        starts, used = [0], 0
        children = -(-n // 8)
        leaves = np.empty(children * d * 8)
        while children > 1:
            children = -(-children // 8)
            starts.append(used)
            used += children * d * 16
        tree = cls(order, np.array(starts), leaves, np.empty(used))
        kdtree_build_cpu.fill_tree(points, *tree._arrays)
        return tree

    @property
    def _arrays(self) -> tuple[Int32, npt.NDArray[np.int64], Float64, Float64]:
        return self.order, self.starts, self.leaves, self.boxes

    def radii(self, n_neighbors: int, n_jobs: int) -> Float64:
        """Distance from every point to its k-th nearest neighbour, shape (n,)."""
        radius = np.empty(len(self.order))

        def search(places: tuple[int, int]) -> None:
            kdtree_cpu.neighbour_radii(*self._arrays, n_neighbors, *places, radius)

        _each(search, len(radius), n_jobs)
        return radius

    def axis_radii(self, n_x: int, radius: Float64, n_jobs: int) -> tuple[Float64, Float64]:
        """Largest distances in the first ``n_x`` dimensions, and in the others, of all within the radius."""
        x_radius, y_radius = np.empty((2, len(radius)))

        def search(places: tuple[int, int]) -> None:
            kdtree_cpu.axis_radii(*self._arrays, n_x, *places, radius, x_radius, y_radius)

        _each(search, len(radius), n_jobs)
        return x_radius, y_radius

    def counts(self, radius: Float64, n_jobs: int) -> Int32:
        """How many other points are at most as far as each point's radius, shape (n,)."""
        counts = np.empty(len(radius), np.int32)

        def count(places: tuple[int, int]) -> None:
            kdtree_cpu.count_within(*self._arrays, *places, radius, counts)

        _each(count, len(radius), n_jobs)
        return counts


def _each(function: Callable[[tuple[int, int]], None], n: int, n_jobs: int) -> None:
    """Apply a function to blocks of places, on threads."""
    for _ in ordered_map(function, _places(n), min(n_jobs, -(-n // _QUERIES))):
        pass


def make_trees(spaces: Sequence[Sequence[Float64]], n_jobs: int) -> list[Tree]:
    """Trees of the same samples in several spaces, each spanned by some variables; built on threads."""

    def make(variables: Sequence[Float64]) -> Tree:
        return Tree.of(np.concatenate(variables, axis=1) if len(variables) > 1 else variables[0])

    return list(ordered_map(make, spaces, min(n_jobs, len(spaces))))


def just_below(radius: Float64) -> Float64:
    """Radii that make "at most as far" mean "nearer than the radius"; negative where nothing can be."""
    return np.where(radius > 0, np.nextafter(radius, 0), -1.0)
