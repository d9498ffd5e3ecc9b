"""The estimate for two vector variables: the same chain rule over cells of atoms, through a k-d tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._threads import ordered_map
from .._validate import Float64
from ..kernels import boxes_cpu, ksg_cpu
from .pairs import discrete_local, ksg_local
from .variables import Int32, Variable

# Queries in a task.
_QUERIES = 1024

# Bytes: for each sample, for each sample and dimension (its Variable included), and whatever their number.
VECTOR_BYTES = 180
VECTOR_DIMENSION_BYTES = 80
VECTOR_BASE_BYTES = 2**21


@dataclass(frozen=True)
class Cells:
    """A vector variable split by the atoms of its components.

    Attributes
    ----------
    values : (n, d) float64
    labels : (n,) int32
        Cell of each sample.
    continuous : list of (d,) bool
        For each cell, the components that are continuous in it; the others are constant.
    """

    values: Float64
    labels: Int32
    continuous: list[npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, variables: Sequence[Variable], stream: int) -> Cells:
        values = np.stack([variable.view(stream).values for variable in variables], axis=1)
        codes = np.stack([variable.codes for variable in variables], axis=1)
        if not codes.any():
            return cls(values, np.zeros(len(codes), dtype=np.int32), [np.ones(codes.shape[1], dtype=bool)])
        kinds, labels = np.unique(codes, axis=0, return_inverse=True)
        return cls(values, labels.reshape(-1).astype(np.int32), [kind == 0 for kind in kinds])

    def each(self) -> Iterator[tuple[npt.NDArray[np.intp], Float64]]:
        """Samples and their continuous components, for every cell that has any."""
        for label, continuous in enumerate(self.continuous):
            if continuous.any():
                members = np.flatnonzero(self.labels == label)
                yield members, self.values[members][:, continuous]


def _slices(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _QUERIES, n)) for start in range(0, n, _QUERIES))


def neighbour_radii(points: Float64, n_neighbors: int, n_jobs: int) -> Float64:
    """Distance (maximum norm) from every point to its k-th nearest neighbour."""
    from scipy.spatial import cKDTree

    tree: Any = cKDTree(points)

    def query(part: slice) -> Float64:
        # The point itself is its own nearest.
        distances: Float64 = tree.query(points[part], k=[n_neighbors + 1], p=np.inf)[0][:, 0]
        return distances

    return np.concatenate(list(ordered_map(query, _slices(len(points)), n_jobs)))


def count_neighbours(points: Float64, radius: Float64, *, strict: bool, n_jobs: int) -> Int32:
    """How many other points are nearer than each point's radius (``strict``), or at most as far."""
    order = np.argsort(points[:, 0], kind="stable")
    ascending = np.ascontiguousarray(points[order])
    positions = np.empty(len(points), np.int32)
    positions[order] = np.arange(len(points), dtype=np.int32)
    counts = np.empty(len(points), np.int32)
    line = np.ascontiguousarray(ascending[:, 0])

    def count(part: slice) -> None:
        if points.shape[1] == 1:
            ksg_cpu.count_all(line, positions[part], radius[part], strict, counts[part])
        else:
            boxes_cpu.count_boxes(ascending, positions[part], radius[part], strict, counts[part])

    for _ in ordered_map(count, _slices(len(points)), n_jobs):
        pass
    return counts


def _axis_radii(joint: Float64, n_x: int, radius: Float64, n_jobs: int) -> tuple[Float64, Float64]:
    """KSG-2's radii in x and y, in the order of the points."""
    order = np.argsort(joint[:, 0], kind="stable")
    ascending, reach = np.ascontiguousarray(joint[order]), radius[order]
    found = np.empty((2, len(joint)))

    def search(part: slice) -> None:
        boxes_cpu.box_radii(ascending, n_x, part.start, part.stop, reach, found[0], found[1])

    for _ in ordered_map(search, _slices(len(joint)), n_jobs):
        pass
    radii = np.empty_like(found)
    radii[:, order] = found
    return radii[0], radii[1]


def _ksg_cell(
    x: Float64, y: Float64, n_neighbors: int, algorithm: int, psi: Float64, n_jobs: int
) -> Float64 | float:
    """Local parts of I(X;Y) in one cell; 0 where one sample, or one value, tells nothing."""
    size = len(x)
    if size < 2 or not np.any(x != x[0]) or not np.any(y != y[0]):
        return 0.0
    k = min(n_neighbors, size - 1)
    joint = np.concatenate([x, y], axis=1)
    x_radius = y_radius = neighbour_radii(joint, k, n_jobs)
    if algorithm == 2:
        x_radius, y_radius = _axis_radii(joint, x.shape[1], x_radius, n_jobs)
    strict = algorithm == 1
    n_x = count_neighbours(x, x_radius, strict=strict, n_jobs=n_jobs)
    n_y = count_neighbours(y, y_radius, strict=strict, n_jobs=n_jobs)
    return ksg_local(n_x, n_y, k, algorithm, psi)


def _ross_cell(x: Float64, labels: Int32, n_neighbors: int, psi: Float64, n_jobs: int) -> Float64:
    """Local parts of I(X; label) in one cell (Ross 2014), as ``kernels.ksg_cpu.add_ross`` defines them."""
    size = len(x)
    radius, near = np.zeros(size), np.zeros(size, np.int32)
    members = np.ones(size, np.int64)
    for label in np.unique(labels):
        group = np.flatnonzero(labels == label)
        k = min(n_neighbors, len(group) - 1)
        if k == 0 or len(group) == size:
            continue
        members[group] = len(group)
        radius[group] = neighbour_radii(x[group], k, n_jobs)
        near[group] = count_neighbours(x[group], radius[group], strict=False, n_jobs=n_jobs)
    local = np.zeros(size)
    counted = members > 1
    if counted.any():
        everywhere = count_neighbours(x, radius, strict=False, n_jobs=n_jobs)[counted]
        local[counted] = psi[size] - psi[members[counted]] + psi[near[counted]] - psi[everywhere]
    return local


def vector_local(
    x_variables: Sequence[Variable],
    y_variables: Sequence[Variable],
    n_neighbors: int,
    algorithm: int,
    psi: Float64,
    n_jobs: int,
) -> Float64:
    """Each sample's part of I(X;Y) of two vectors; the mean is the estimate.

    Parts are added so that exchanging x and y gives the same bits.
    """
    stream = int([v.key for v in x_variables] > [v.key for v in y_variables])
    x, y = Cells.of(x_variables, stream), Cells.of(y_variables, 1 - stream)
    local = np.zeros(len(x.values))
    for own, other in ((x, y), (y, x)):
        if len(other.continuous) > 1:
            for members, values in own.each():
                local[members] += _ross_cell(values, other.labels[members], n_neighbors, psi, n_jobs)
    if len(x.continuous) > 1 and len(y.continuous) > 1:
        local += discrete_local(x.labels, len(x.continuous), y.labels, len(y.continuous))
    for x_members, x_values in x.each():
        for y_members, y_values in y.each():
            both, from_x, from_y = np.intersect1d(
                x_members, y_members, assume_unique=True, return_indices=True
            )
            if len(both):
                local[both] += _ksg_cell(
                    x_values[from_x], y_values[from_y], n_neighbors, algorithm, psi, n_jobs
                )
    return local
