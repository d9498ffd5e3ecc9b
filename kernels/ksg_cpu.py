"""Nearest neighbours and marginal counts of two scalars, for the KSG and Ross estimators.

Everything is decided by comparing differences ``|v_j - v_i|``, as the definition does. A difference
of two floats is monotone in each of them even after rounding, so a border found by bisection over
sorted values is exactly the border that a comparison with every sample would find.
"""

import numpy as np

from ._jit import jit


@jit
def count_within(values, position, radius):
    """How many other values of a sorted array are at most ``radius`` away from the one at ``position``."""
    centre = values[position]
    last = position
    span = len(values) - position
    while span > 1:
        half = span >> 1
        if values[last + half] - centre <= radius:
            last += half
        span -= half
    first = position
    span = position + 1
    while span > 1:
        half = span >> 1
        if centre - values[first - half] <= radius:
            first -= half
        span -= half
    return last - first


@jit
def offer(nearest, dx, dy):
    """Keep a neighbour in the ascending array of the smallest joint distances, if it is one of them."""
    distance = max(abs(dx), abs(dy))
    slot = len(nearest) - 1
    if distance >= nearest[slot]:
        return
    while slot > 0 and nearest[slot - 1] > distance:
        nearest[slot] = nearest[slot - 1]
        slot -= 1
    nearest[slot] = distance


@jit
def sweep(strip_x, strip_y, x, y, below, above, first, end, nearest):
    """Offer a strip's points, down from ``below`` and up from ``above``, while they can be near enough."""
    last = len(nearest) - 1
    for q in range(above, end):
        if strip_y[q] - y >= nearest[last]:
            break
        offer(nearest, strip_x[q] - x, strip_y[q] - y)
    for q in range(below, first - 1, -1):
        if y - strip_y[q] >= nearest[last]:
            break
        offer(nearest, strip_x[q] - x, strip_y[q] - y)


@jit
def widen(strip_x, strip_y, x, y, below, above, first, end, radius, radii):
    """Raise both axes' radii to the largest gap among a strip's points within the joint ``radius``."""
    for q in range(above, end):
        if strip_y[q] - y > radius:
            break
        if abs(strip_x[q] - x) <= radius:
            radii[0] = max(radii[0], abs(strip_x[q] - x))
            radii[1] = max(radii[1], strip_y[q] - y)
    for q in range(below, first - 1, -1):
        if y - strip_y[q] > radius:
            break
        if abs(strip_x[q] - x) <= radius:
            radii[0] = max(radii[0], abs(strip_x[q] - x))
            radii[1] = max(radii[1], y - strip_y[q])


@jit
def advance(cursor, strip, strip_y, end, y):
    """Move a strip's cursor to its first point at or above ``y``; queries come in ascending order."""
    at = cursor[strip]
    while at < end and strip_y[at] < y:
        at += 1
    cursor[strip] = at
    return at


@jit
def into_strips(xs, ys, x_position, width, strip_x, strip_y, strip_rank):
    """Cut the plane into strips of ``width`` points by x rank; in each, points ascend in y.

    Parameters
    ----------
    xs, ys : (n,) float64
        Both variables, each sorted.
    x_position : (n,) int32
        Position in ``xs`` of the sample with the j-th smallest y.
    width : int
    strip_x, strip_y : (n,) float64, written
    strip_rank : (n,) int32, written
        j of each point.
    """
    cursor = np.arange(0, len(xs), width)
    for j in range(len(ys)):
        strip = x_position[j] // width
        slot = cursor[strip]
        cursor[strip] = slot + 1
        strip_x[slot] = xs[x_position[j]]
        strip_y[slot] = ys[j]
        strip_rank[slot] = j


@jit
def start_cursors(cursor, width):
    """Set every strip's cursor to its first point."""
    for strip in range(len(cursor)):
        cursor[strip] = strip * width


@jit
def border_gap(xs, x, strip, side, width):
    """Distance in x from a query to a strip on its left (side -1) or right (side 1)."""
    return x - xs[(strip + 1) * width - 1] if side < 0 else xs[strip * width] - x


@jit
def neighbour_radii(xs, strip_x, strip_y, strip_rank, width, n_neighbors, radius):
    """Joint distance (maximum norm) from every sample to its k-th nearest neighbour.

    A query sweeps its own strip, then the strips to its left and right while their border is nearer
    than its k-th neighbour so far. Ties cost nothing: a k-th distance of 0 ends the search.

    Parameters
    ----------
    xs, strip_x, strip_y, strip_rank, width
        As :func:`into_strips` takes and fills them.
    n_neighbors : int
        At most n - 1.
    radius : (n,) float64, written
        Of the sample with the j-th smallest y.
    """
    n = len(xs)
    n_strips = (n + width - 1) // width
    cursor = np.empty(n_strips, np.int64)
    nearest = np.empty(n_neighbors)
    last = n_neighbors - 1
    for home in range(n_strips):
        start_cursors(cursor, width)
        for p in range(home * width, min((home + 1) * width, n)):
            x = strip_x[p]
            y = strip_y[p]
            nearest[:] = np.inf
            for side in range(3):
                step = -1 if side == 1 else 1
                strip = home if side == 0 else home + step
                while 0 <= strip < n_strips:
                    first = strip * width
                    end = min(first + width, n)
                    below = p - 1
                    above = p + 1
                    if side != 0:
                        if border_gap(xs, x, strip, step, width) >= nearest[last]:
                            break
                        above = advance(cursor, strip, strip_y, end, y)
                        below = above - 1
                    sweep(strip_x, strip_y, x, y, below, above, first, end, nearest)
                    if side == 0:
                        break
                    strip += step
            radius[strip_rank[p]] = nearest[last]


@jit
def axis_radii(xs, strip_x, strip_y, strip_rank, width, radius, x_radius, y_radius):
    """For KSG-2: the largest |dx|, and the largest |dy|, among all points within the joint radius.

    Arguments as in :func:`neighbour_radii`, whose result is read; the last two are written.
    """
    n = len(xs)
    n_strips = (n + width - 1) // width
    cursor = np.empty(n_strips, np.int64)
    radii = np.empty(2)
    for home in range(n_strips):
        start_cursors(cursor, width)
        for p in range(home * width, min((home + 1) * width, n)):
            x = strip_x[p]
            y = strip_y[p]
            reach = radius[strip_rank[p]]
            radii[:] = 0.0
            for side in range(3):
                step = -1 if side == 1 else 1
                strip = home if side == 0 else home + step
                while 0 <= strip < n_strips and reach > 0.0:
                    first = strip * width
                    end = min(first + width, n)
                    below = p - 1
                    above = p + 1
                    if side != 0:
                        if border_gap(xs, x, strip, step, width) > reach:
                            break
                        above = advance(cursor, strip, strip_y, end, y)
                        below = above - 1
                    widen(strip_x, strip_y, x, y, below, above, first, end, reach, radii)
                    if side == 0:
                        break
                    strip += step
            x_radius[strip_rank[p]] = radii[0]
            y_radius[strip_rank[p]] = radii[1]


@jit
def count_all(values, positions, radius, strict, counts):
    """Count, for each query, the other values nearer than its radius (``strict``) or at most as far.

    Parameters
    ----------
    values : (n,) float64
        Sorted.
    positions : (n,) int32
        Position of each query in ``values``.
    radius : (n,) float64
    strict : bool
    counts : (n,) int32, written
    """
    for j in range(len(positions)):
        if not strict:
            counts[j] = count_within(values, positions[j], radius[j])
        elif radius[j] > 0.0:
            # Below a float means: at most the float before it.
            counts[j] = count_within(values, positions[j], np.nextafter(radius[j], 0.0))
        else:
            counts[j] = 0


@jit
def common_cell(x, x_order, x_codes, y, y_order, y_codes, xs, ys, x_position, samples):
    """Sort the samples that are continuous in both variables, from the order of each variable alone.

    Parameters
    ----------
    x, y : (n,) float64
        In sample order; entries with a code other than 0 are not read.
    x_order, y_order : int32
        The samples with code 0, ascending in value.
    x_codes, y_codes : (n,) int32
        0 for continuous, an atom's number otherwise.
    xs, ys : float64, written
        Sorted values of the common samples; arrays at least as long as either order.
    x_position, samples : int32, written
        Position in ``xs`` of the sample with the j-th smallest y, and that sample.

    Returns
    -------
    int
        Number of common samples.
    """
    position = np.empty(len(x), np.int32)
    size = 0
    for sample in x_order:
        if y_codes[sample] == 0:
            xs[size] = x[sample]
            position[sample] = size
            size += 1
    at = 0
    for sample in y_order:
        if x_codes[sample] == 0:
            ys[at] = y[sample]
            samples[at] = sample
            x_position[at] = position[sample]
            at += 1
    return size


@jit
def group_neighbour(values, position, n_neighbors):
    """Distance to the k-th nearest other value of a sorted array that holds more than k."""
    centre = values[position]
    below = position - 1
    above = position + 1
    distance = 0.0
    for _ in range(n_neighbors):
        down = centre - values[below] if below >= 0 else np.inf
        up = values[above] - centre if above < len(values) else np.inf
        if down < up:
            distance = down
            below -= 1
        else:
            distance = up
            above += 1
    return distance


@jit
def add_ross(x, order, labels, n_labels, n_neighbors, psi, local):
    """Add I(X; label) of the samples in ``order`` (Ross 2014), to each sample's own entry.

    Parameters
    ----------
    x : (n,) float64
    order : int32
        The samples that take part, ascending in value.
    labels : (n,) int32
        0 to n_labels - 1.
    n_neighbors : int
        Neighbours within a sample's own label; groups of that many or fewer use all of theirs.
    psi : (n + 1,) float64
    local : (n,) float64, added to
        A label's only sample adds 0. Where values tie at the k-th distance, k is the number of
        samples that near, on both sides alike.
    """
    size = len(order)
    start = np.zeros(n_labels + 1, np.int64)
    for sample in order:
        start[labels[sample] + 1] += 1
    for label in range(n_labels):
        start[label + 1] += start[label]
    cursor = start[:n_labels].copy()
    xs = np.empty(size)
    grouped = np.empty(size)
    overall = np.empty(size, np.int32)
    for i in range(size):
        label = labels[order[i]]
        xs[i] = x[order[i]]
        grouped[cursor[label]] = xs[i]
        overall[cursor[label]] = i
        cursor[label] += 1
    for label in range(n_labels):
        group = grouped[start[label] : start[label + 1]]
        members = len(group)
        k = min(n_neighbors, members - 1)
        if k < 1 or members == size:
            continue
        for i in range(members):
            radius = group_neighbour(group, i, k)
            near = count_within(group, i, radius)
            at = overall[start[label] + i]
            everywhere = count_within(xs, at, radius)
            local[order[at]] += psi[size] - psi[members] + psi[near] - psi[everywhere]
