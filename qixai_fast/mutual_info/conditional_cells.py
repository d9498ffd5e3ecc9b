"""The parts of a conditional estimate: of continuous variables, and of labels, given a continuous z."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._validate import Float64
from .neighbours import Tree, just_below, make_trees
from .variables import Int32, Variable
from .vectors import Cells, Index, cells_local, continuous_cells, fuse, groups, ksg_cell, views_of


def _is_constant(values: Float64) -> bool:
    return not np.any(values != values[0])


def _crowds(labels: npt.NDArray[np.integer[Any]]) -> list[Index]:
    """Samples of each label that has more than one."""
    return [group for group in groups(labels) if len(group) > 1]


def frenzel_pompe(x: Float64, y: Float64, z: Float64, n_neighbors: int, psi: Float64, n_jobs: int) -> Float64:
    """Local parts of I(X;Y|Z) of continuous vectors; 0 where one sample, or one value, tells nothing."""
    if len(x) < 2 or _is_constant(x) or _is_constant(y):
        return np.zeros(len(x))
    k = min(n_neighbors, len(x) - 1)
    joint, *marginals = make_trees([(x, y, z), (x, z), (y, z), (z,)], n_jobs)
    radius = just_below(joint.radii(k, n_jobs))
    n_xz, n_yz, n_z = (tree.counts(radius, n_jobs) for tree in marginals)
    local: Float64 = psi[k] + psi[n_z + 1] - (psi[n_xz + 1] + psi[n_yz + 1])
    return local


def vector_and_label(
    x: Float64, labels: Int32, z: Float64, n_neighbors: int, psi: Float64, n_jobs: int
) -> Float64:
    """Local parts of I(X;b|Z) of a continuous vector and a label; a label's only sample has 0."""
    size = len(x)
    local = np.zeros(size)
    crowds = _crowds(labels)
    if not crowds or len(crowds[0]) == size or _is_constant(x):
        return local
    everywhere, z_tree = make_trees([(x, z), (z,)], n_jobs)
    radius = np.full(size, -1.0)
    for group in crowds:
        own, own_z = make_trees([(x[group], z[group]), (z[group],)], n_jobs)
        radius[group] = own.radii(min(n_neighbors, len(group) - 1), n_jobs)
        near = own.counts(radius[group], n_jobs)
        beside = own_z.counts(just_below(radius[group]), n_jobs)
        local[group] = psi[near] - psi[beside + 1]
    counted = radius >= 0
    n_xz = everywhere.counts(radius, n_jobs)[counted]
    n_z = z_tree.counts(just_below(radius), n_jobs)[counted]
    local[counted] += psi[n_z + 1] - psi[n_xz]
    return local


def two_labels(
    x_labels: Int32, y_labels: Int32, z: Float64, n_neighbors: int, psi: Float64, n_jobs: int
) -> Float64:
    """Local parts of I(a;b|Z) of two labels; the only sample of a pair of labels has 0."""
    size = len(z)
    local = np.zeros(size)
    radius = np.full(size, -1.0)
    for group in _crowds(fuse(x_labels, y_labels)):
        tree = Tree.of(z[group])
        radius[group] = tree.radii(min(n_neighbors, len(group) - 1), n_jobs)
        local[group] = psi[tree.counts(radius[group], n_jobs)]
    counted = radius >= 0
    same = np.zeros((2, size))
    for side, labels in enumerate((x_labels, y_labels)):
        for group in _crowds(labels):
            asked = group[counted[group]]
            within = Tree.of(z[group]).counts(radius[group], n_jobs)
            same[side, asked] = psi[within[counted[group]]]
    n_z = Tree.of(z).counts(radius, n_jobs)[counted]
    local[counted] += psi[n_z] - (same[0, counted] + same[1, counted])
    return local


def _cell_local(x: Cells, y: Cells, z: Float64, n_neighbors: int, psi: Float64, n_jobs: int) -> Float64:
    """Local parts of I(X;Y|Z) where z is continuous, by the chain rule over the labels of x and y.

    Parts are added so that exchanging x and y gives the same bits.
    """
    local = np.zeros(len(z))
    for own, other in ((x, y), (y, x)):
        if len(other.continuous) > 1:
            for members, values in own.each():
                local[members] += vector_and_label(
                    values, other.labels[members], z[members], n_neighbors, psi, n_jobs
                )
    if len(x.continuous) > 1 and len(y.continuous) > 1:
        local += two_labels(x.labels, y.labels, z, n_neighbors, psi, n_jobs)
    for both in continuous_cells(x, y):
        x_part, y_part, z_part = x.part(both), y.part(both), z[both]
        if _is_constant(z_part):
            local[both] += ksg_cell(x_part, y_part, n_neighbors, 1, psi, n_jobs)
        else:
            local[both] += frenzel_pompe(x_part, y_part, z_part, n_neighbors, psi, n_jobs)
    return local


def conditional_local(
    x_variables: Sequence[Variable],
    y_variables: Sequence[Variable],
    z_variables: Sequence[Variable],
    n_neighbors: int,
    psi: Float64,
    n_jobs: int,
) -> Float64:
    """Each sample's part of I(X;Y|Z), cell by cell of z; the mean is the estimate."""
    x, y = views_of(x_variables, y_variables)
    z = Cells.of(z_variables, 0)
    local = np.zeros(len(x.values))
    for members in groups(z.labels):
        x_part, y_part, z_part = x.take(members), y.take(members), z.part(members)
        if z_part.shape[1] == 0 or _is_constant(z_part):
            local[members] = cells_local(x_part, y_part, n_neighbors, 1, psi, n_jobs)
        else:
            local[members] = _cell_local(x_part, y_part, z_part, n_neighbors, psi, n_jobs)
    return local
