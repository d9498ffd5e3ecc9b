"""The estimate for two vector variables: the same chain rule over cells of atoms, through a k-d tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._validate import Float64
from .neighbours import Tree, just_below, make_trees
from .pairs import ksg_local
from .variables import Int32, Variable

# Bytes: for each sample, for each of its components (its Variable included), for each dimension of each of
# the trees, and whatever their number.
_SAMPLE_BYTES = 200
_COMPONENT_BYTES = 80
_TREE_BYTES = 14
_BASE_BYTES = 2**21


def vector_bytes(n_samples: int, n_x: int, n_y: int, n_z: int = 0) -> int:
    """The most that an estimate for vectors of these dimensions takes."""
    components = _COMPONENT_BYTES * (n_x + n_y + n_z) + _TREE_BYTES * (2 * n_x + 2 * n_y + 4 * n_z)
    return n_samples * (_SAMPLE_BYTES + components) + _BASE_BYTES


Index = npt.NDArray[np.intp]


def groups(labels: npt.NDArray[np.integer[Any]]) -> list[Index]:
    """The samples of each label, ascending; labels ascend, too."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


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

    def take(self, members: Index) -> Cells:
        """The same variable in some of its samples."""
        kinds, labels = np.unique(self.labels[members], return_inverse=True)
        continuous = [self.continuous[kind] for kind in kinds]
        return Cells(self.values[members], labels.reshape(-1).astype(np.int32), continuous)

    def part(self, members: Index) -> Float64:
        """Continuous components of samples of one cell."""
        chosen = self.continuous[self.labels[members[0]]]
        if len(members) == len(self.labels) and chosen.all():
            return self.values
        return self.values[np.ix_(members, np.flatnonzero(chosen))]

    def each(self) -> Iterator[tuple[Index, Float64]]:
        """Samples and their continuous components, for every cell that has any."""
        for members in groups(self.labels):
            if self.continuous[self.labels[members[0]]].any():
                yield members, self.part(members)


def ksg_cell(
    x: Float64, y: Float64, n_neighbors: int, algorithm: int, psi: Float64, n_jobs: int
) -> Float64 | float:
    """Local parts of I(X;Y) in one cell; 0 where one sample, or one value, tells nothing."""
    size = len(x)
    if size < 2 or not np.any(x != x[0]) or not np.any(y != y[0]):
        return 0.0
    k = min(n_neighbors, size - 1)
    joint, x_tree, y_tree = make_trees([(x, y), (x,), (y,)], n_jobs)
    radius = joint.radii(k, n_jobs)
    if algorithm == 1:
        x_radius = y_radius = just_below(radius)
    else:
        x_radius, y_radius = joint.axis_radii(x.shape[1], radius, n_jobs)
    return ksg_local(x_tree.counts(x_radius, n_jobs), y_tree.counts(y_radius, n_jobs), k, algorithm, psi)


def ross_cell(x: Float64, labels: Int32, n_neighbors: int, psi: Float64, n_jobs: int) -> Float64:
    """Local parts of I(X; label) in one cell (Ross 2014), as ``kernels.cells_cpu.ross_sum`` defines them."""
    size = len(x)
    radius, near = np.full(size, -1.0), np.zeros(size, np.int32)
    members = np.ones(size, np.int64)
    for group in groups(labels):
        k = min(n_neighbors, len(group) - 1)
        if k == 0 or len(group) == size:
            continue
        members[group] = len(group)
        tree = Tree.of(x[group])
        radius[group] = tree.radii(k, n_jobs)
        near[group] = tree.counts(radius[group], n_jobs)
    local = np.zeros(size)
    counted = members > 1
    if counted.any():
        everywhere = Tree.of(x).counts(radius, n_jobs)[counted]
        local[counted] = psi[size] - psi[members[counted]] + psi[near[counted]] - psi[everywhere]
    return local


def views_of(x_variables: Sequence[Variable], y_variables: Sequence[Variable]) -> tuple[Cells, Cells]:
    """Both vectors with independent jitter, the same two when x and y are exchanged."""
    stream = int([v.key for v in x_variables] > [v.key for v in y_variables])
    return Cells.of(x_variables, stream), Cells.of(y_variables, 1 - stream)


def vector_local(
    x_variables: Sequence[Variable],
    y_variables: Sequence[Variable],
    n_neighbors: int,
    algorithm: int,
    psi: Float64,
    n_jobs: int,
) -> Float64:
    """Each sample's part of I(X;Y) of two vectors; the mean is the estimate."""
    return cells_local(*views_of(x_variables, y_variables), n_neighbors, algorithm, psi, n_jobs)


def fuse(x_labels: Int32, y_labels: Int32) -> npt.NDArray[np.int64]:
    """One label for each pair of labels."""
    return x_labels * np.int64(y_labels.max() + 1) + y_labels


def labels_local(x_labels: Int32, y_labels: Int32) -> Float64:
    """Each sample's part of the plug-in mutual information of two labels, of which there may be many."""
    pairs = np.unique(fuse(x_labels, y_labels), return_inverse=True)[1].reshape(-1)
    joint = np.bincount(pairs)[pairs].astype(np.float64)
    expected = np.bincount(x_labels)[x_labels] * np.bincount(y_labels)[y_labels].astype(np.float64)
    local: Float64 = np.log(joint * len(pairs) / expected)
    return local


def continuous_cells(x: Cells, y: Cells) -> Iterator[Index]:
    """Samples of each pair of cells in which both variables have continuous components."""
    for members in groups(fuse(x.labels, y.labels)):
        first = members[0]
        if x.continuous[x.labels[first]].any() and y.continuous[y.labels[first]].any():
            yield members


def cells_local(x: Cells, y: Cells, n_neighbors: int, algorithm: int, psi: Float64, n_jobs: int) -> Float64:
    """Each sample's part of I(X;Y), by the chain rule over cells.

    Parts are added so that exchanging x and y gives the same bits.
    """
    local = np.zeros(len(x.values))
    for own, other in ((x, y), (y, x)):
        if len(other.continuous) > 1:
            for members, values in own.each():
                local[members] += ross_cell(values, other.labels[members], n_neighbors, psi, n_jobs)
    if len(x.continuous) > 1 and len(y.continuous) > 1:
        local += labels_local(x.labels, y.labels)
    for both in continuous_cells(x, y):
        local[both] += ksg_cell(x.part(both), y.part(both), n_neighbors, algorithm, psi, n_jobs)
    return local
