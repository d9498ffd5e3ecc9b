"""Cells of two variables with atoms: which samples are continuous in both, joint counts, Ross's estimator."""

import numpy as np

from ._jit import jit, jit_inlined
from ._windows import hold, pointer
from .axis_cpu import PAD

# Values that a border is walked past before the rest of the way is bisected.
_STEPS = 8


@jit
def joint_counts(x_codes, y_codes, table):
    """Add the joint counts of two codes of every sample to ``table``."""
    for i in range(len(x_codes)):
        table[x_codes[i], y_codes[i]] += 1


@jit
def common_cell(
    x_values, x_order, x_codes, y_values, y_order, y_codes, xs, ys, x_position, samples, position
):
    """Sort the samples that are continuous in both variables, from the order of each variable alone.

    Parameters
    ----------
    x_values, y_values : (PAD + m + PAD,) float64
        Continuous values of each, ascending, padded as in an axis.
    x_order, y_order : (m,) int32
        The samples that they belong to.
    x_codes, y_codes : (n,) int32
        0 for continuous, an atom's number otherwise.
    xs, ys : float64, written from PAD on
        Sorted values of the common samples; room for those of either order.
    x_position, samples : int32, written
        Rank in ``xs`` of the sample with the j-th smallest y, and that sample.
    position : (n,) int32
        Scratch.

    Returns
    -------
    int
        Number of common samples.
    """
    size = 0
    for i in range(len(x_order)):
        sample = x_order[i]
        if y_codes[sample] == 0:
            xs[PAD + size] = x_values[PAD + i]
            position[sample] = size
            size += 1
    at = 0
    for i in range(len(y_order)):
        sample = y_order[i]
        if x_codes[sample] == 0:
            ys[PAD + at] = y_values[PAD + i]
            samples[at] = sample
            x_position[at] = position[sample]
            at += 1
    return size


@jit_inlined
def _first_within(values, border, end, centre, radius):
    """The first of the values at most a radius below the centre, near the last border or far above it."""
    while centre - values[border - 1] <= radius:
        border -= 1
    near = border + _STEPS
    while border < near and centre - values[border] > radius:
        border += 1
    if border == near:
        while border < end:
            middle = (border + end) >> 1
            if centre - values[middle] > radius:
                border = middle + 1
            else:
                end = middle
    return border


@jit_inlined
def _end_within(values, border, end, centre, radius):
    """The end of the values at most a radius above the centre, near the last border or far above it."""
    while values[border - 1] - centre > radius:
        border -= 1
    near = border + _STEPS
    while border < near and values[border] - centre <= radius:
        border += 1
    if border == near:
        while border < end:
            middle = (border + end) >> 1
            if values[middle] - centre <= radius:
                border = middle + 1
            else:
                end = middle
    return border


@jit
def ross_sum(values, order, labels, n_labels, n_neighbors, psi, local):
    """Sum of the local parts of I(X; label) over the samples in ``order`` (Ross 2014).

    From one sample of a label to its next larger one, the interval that reaches to the k-th neighbour moves
    up at both ends, so its borders are near those of the sample before, or are looked for above them.

    Parameters
    ----------
    values : (PAD + m + PAD,) float64
        Ascending, between infinities, as in an axis.
    order : (m,) int32
        The samples that they belong to.
    labels : (n,) int32
        0 to n_labels - 1.
    n_labels, n_neighbors : int
        Neighbours within a sample's own label; groups of that many or fewer use all of theirs.
    psi : (n + 1,) float64
    local : (n,) float64, added to, or (0,)
        A label's only sample adds 0. Where values tie at the k-th distance, k is the number of
        samples that near, on both sides alike.
    """
    size = len(order)
    start = np.empty(n_labels + 1, np.int64)
    start[:] = 0
    for sample in order:
        start[labels[sample] + 1] += 1
    for label in range(n_labels):
        start[label + 1] += start[label]
    cursor = start[:n_labels].copy()
    # A label's values between infinities: two more places for each.
    grouped = np.empty(size + 2 * n_labels)
    overall = np.empty(size, np.int32)
    for label in range(n_labels):
        grouped[start[label] + 2 * label] = -np.inf
        grouped[start[label + 1] + 2 * label + 1] = np.inf
    for i in range(size):
        label = labels[order[i]]
        grouped[cursor[label] + 2 * label + 1] = values[PAD + i]
        overall[cursor[label]] = i
        cursor[label] += 1
    everyone, group = pointer(values), pointer(grouped)
    total = 0.0
    for label in range(n_labels):
        members = start[label + 1] - start[label]
        k = min(n_neighbors, members - 1)
        if k < 1 or members == size:
            continue
        low = start[label] + 2 * label + 1
        end = low + members
        first = near_first = near_end = low
        far_first = far_end = PAD + overall[start[label]]
        part = 0.0
        for i in range(members):
            x = group[low + i]
            # The k nearest and the sample itself are k + 1 in a row.
            while first + k + 1 < end and group[first + k + 1] - x < x - group[first]:
                first += 1
            radius = max(x - group[first], group[first + k] - x)
            near_first = _first_within(group, near_first, end, x, radius)
            near_end = _end_within(group, near_end, end, x, radius)
            far_first = _first_within(everyone, far_first, PAD + size, x, radius)
            far_end = _end_within(everyone, far_end, PAD + size, x, radius)
            here = psi[near_end - near_first - 1] - psi[far_end - far_first - 1]
            part += here
            if len(local):
                local[order[overall[start[label] + i]]] += psi[size] - psi[members] + here
        total += part + members * (psi[size] - psi[members])
    hold(grouped)
    return total
