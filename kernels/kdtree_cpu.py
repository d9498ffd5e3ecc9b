"""A k-d tree for exact neighbour distances and counts in the maximum norm.

Points are sorted so that every run of 8, 64, 512, ... of them, counted from the start, is a compact box.
Runs of eight points are the leaves, stored dimension by dimension; runs of eight leaves, and of eight such
runs, and so on, are the nodes, which hold the boxes of their eight children, again dimension by dimension.
So one query meets eight points, or eight boxes, at a time, and where a run begins needs no pointers.

All is decided by differences, as the definitions say. Rounding keeps the order of differences: a box whose
nearest corner is out of reach holds no point within, and a box whose far ends are within reach holds no
point beyond, to the last bit. Where nearly every box is needed (many dimensions, few points), a walk is
brute force with a twelfth on top, so no other way is wanted.
"""

import numpy as np

from ._jit import jit
from ._vectors import (
    apart,
    at_most,
    farthest_corner,
    how_many,
    insert,
    keep,
    larger,
    last,
    less,
    load,
    lowest,
    nearest_corner,
    splat,
    store,
)

# Seven siblings a level wait while a walk goes down the eighth; 2^31 points have 10 levels of nodes.
_WAITING = 80


@jit
def part(keys, order, first, end, bound, closed):
    """Move keys below ``bound`` (``closed``: at most it) to the front of ``first:end``.

    Without branches: they would be guessed wrong half the time. Returns where the other keys begin.
    """
    split = first
    for i in range(first, end):
        key = keys[i]
        sample = order[i]
        keys[i] = keys[split]
        order[i] = order[split]
        keys[split] = key
        order[split] = sample
        split += (key < bound) | (closed & (key == bound))
    return split


@jit
def select(keys, order, first, end, rank):
    """Rearrange ``first:end`` so that no key before ``rank`` is larger than any key from it on."""
    state = 1
    while end - first > 1:
        # The median of three, two of them at places that no arrangement of the points foresees.
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        a = keys[first + (end - first) * (state >> 16) // 32768]
        b = keys[first + (end - first) * (state & 0x7FFF) // 32768]
        c = keys[(first + end) >> 1]
        pivot = max(min(a, b), min(max(a, b), c))
        split = part(keys, order, first, end, pivot, False)
        if split == first:
            # Nothing is below the pivot: set all that equal it aside, or ties would take quadratic time.
            split = part(keys, order, first, end, pivot, True)
            if split > rank:
                return
        if split > rank:
            end = split
        else:
            first = split


@jit
def widest(points, order, first, end, low, high):
    """The dimension in which some points spread widest."""
    d = points.shape[1]
    for j in range(d):
        low[j] = np.inf
        high[j] = -np.inf
    for i in range(first, end):
        for j in range(d):
            value = points[order[i], j]
            low[j] = min(low[j], value)
            high[j] = max(high[j], value)
    axis = 0
    for j in range(1, d):
        if high[j] - low[j] > high[axis] - low[axis]:
            axis = j
    return axis


@jit
def sort_points(points, order):
    """Put points into the order of the tree.

    Parameters
    ----------
    points : (n, d) float64
    order : (n,) int32, written
        Begins as 0 to n - 1; becomes the point at each place.
    """
    n, d = points.shape
    keys = np.empty(n)
    low = np.empty(d)
    high = np.empty(d)
    firsts = np.empty(_WAITING, np.int64)
    ends = np.empty(_WAITING, np.int64)
    firsts[0] = 0
    ends[0] = n
    top = 1
    while top > 0:
        top -= 1
        first = firsts[top]
        end = ends[top]
        if end - first <= 8:
            continue
        # Cut between children of the smallest node that holds all, as evenly as they come.
        child = 8
        while child * 8 < end - first:
            child *= 8
        middle = first + ((end - first + child - 1) // child // 2) * child
        axis = widest(points, order, first, end, low, high)
        for i in range(first, end):
            keys[i] = points[order[i], axis]
        select(keys, order, first, end, middle)
        firsts[top] = first
        ends[top] = middle
        firsts[top + 1] = middle
        ends[top + 1] = end
        top += 2


@jit
def fill_tree(points, order, starts, leaves, boxes):
    """Copy points into leaves, and bound leaves and nodes by the smallest boxes around their points.

    Parameters
    ----------
    points : (n, d) float64
    order : (n,) int32
        From :func:`sort_points`.
    starts : (levels,) int64
        Where the nodes of each level begin in ``boxes``; the leaves, level 0, are not there.
    leaves : (n_leaves * d * 8,) float64, written
        Leaf by leaf, dimension by dimension, point by point. Points that are missing are at infinity.
    boxes : float64, written
        Node by node, dimension by dimension: lowest values of the eight children, then highest values.
        Children that are missing lie beyond all: their lowest value is inf.
    """
    n, d = points.shape
    for i in range(len(leaves)):
        leaves[i] = np.inf
    for i in range(len(boxes)):
        boxes[i] = np.inf if i & 8 == 0 else -np.inf
    for i in range(n):
        at = (i >> 3) * d * 8 + (i & 7)
        for j in range(d):
            leaves[at + 8 * j] = points[order[i], j]
    for level in range(1, len(starts)):
        for child in range(((n - 1) >> (3 * level)) + 1):
            at = starts[level] + (child >> 3) * d * 16 + (child & 7)
            for j in range(d):
                low = np.inf
                high = -np.inf
                if level == 1:
                    below = (child * d + j) * 8
                    for c in range(min(8, n - child * 8)):
                        low = min(low, leaves[below + c])
                        high = max(high, leaves[below + c])
                else:
                    below = starts[level - 1] + (child * d + j) * 16
                    for c in range(8):
                        low = min(low, boxes[below + c])
                        high = max(high, boxes[below + 8 + c])
                boxes[at + 16 * j] = low
                boxes[at + 16 * j + 8] = high


@jit
def neighbour_radii(order, starts, leaves, boxes, n_neighbors, first, end, radius):
    """Distance from points to their k-th nearest neighbours.

    Parameters
    ----------
    order, starts, leaves, boxes
        A tree, as :func:`fill_tree` takes and fills it.
    n_neighbors : int
        At most n - 1.
    first, end : int
        Queries are the points at these places of the tree.
    radius : (n,) float64, written
        Of each point, wherever it is in the tree.
    """
    d = len(leaves) // (((len(order) + 7) >> 3) * 8)
    # The k + 1 smallest distances, ascending: a point is its own nearest. The largest sixteen are in two
    # registers, the others in memory, behind eight that are never reached; -inf fills up the front.
    held = max(2, (n_neighbors + 8) // 8) * 8
    front = held - n_neighbors - 1
    smallest = np.empty(held - 8)
    distances = np.empty(8)
    found = np.empty(16)
    levels = np.empty(_WAITING, np.int64)
    nodes = np.empty(_WAITING, np.int64)
    gaps = np.empty(_WAITING)
    for s in range(16):
        found[s] = np.inf if s + held - 16 >= front else -np.inf
    no_lower = load(found, 0)
    no_upper = load(found, 8)
    for s in range(8):
        smallest[s] = -np.inf
    for i in range(first, end):
        query = (i >> 3) * d * 8 + (i & 7)
        for s in range(8, held - 8):
            smallest[s] = np.inf if s - 8 >= front else -np.inf
        lower = no_lower
        upper = no_upper
        top = 0
        risen = 0
        while True:
            visited = 0
            if top > 0:
                top -= 1
                if gaps[top] >= last(upper):
                    continue
                level = levels[top]
                node = nodes[top]
            elif risen < len(starts):
                # All around is done: go up to the next node that holds the query, past the child done.
                level = risen
                node = i >> (3 * (level + 1))
                visited = 1 << ((i >> (3 * level)) & 7)
                risen += 1
            else:
                break
            if level == 0:
                # Begin with the query's own leaf.
                node = i >> 6
                near = 1 << ((i >> 3) & 7)
                store(distances, 0, splat(0.0))
            else:
                at = starts[level] + node * d * 16
                gap = splat(0.0)
                for j in range(d):
                    low = load(boxes, at + 16 * j)
                    high = load(boxes, at + 16 * j + 8)
                    gap = nearest_corner(gap, leaves[query + 8 * j], low, high)
                near = less(gap, splat(last(upper))) & ~visited
                store(distances, 0, gap)
            while near != 0:
                child = lowest(near)
                near &= near - 1
                if level > 1:
                    levels[top] = level - 1
                    nodes[top] = node * 8 + child
                    gaps[top] = distances[child]
                    top += 1
                elif distances[child] < last(upper):
                    at = (node * 8 + child) * d * 8
                    distance = splat(0.0)
                    for j in range(d):
                        distance = apart(distance, load(leaves, at + 8 * j), leaves[query + 8 * j])
                    hits = less(distance, splat(last(upper)))
                    store(found, 0, distance)
                    while hits != 0:
                        value = found[lowest(hits)]
                        hits &= hits - 1
                        upper = insert(upper, last(lower), value)
                        lower = insert(lower, smallest[held - 9], value)
                        for s in range(held - 16, 0, -8):
                            store(smallest, s, insert(load(smallest, s), smallest[s - 1], value))
        radius[order[i]] = last(upper)


@jit
def count_within(order, starts, leaves, boxes, first, end, radius, counts):
    """How many other points are at most as far from points as their radius.

    Parameters
    ----------
    order, starts, leaves, boxes, first, end
        As :func:`neighbour_radii` takes them.
    radius : (n,) float64
        Of each point, finite; negative counts nothing.
    counts : (n,) int32, written
        Of each point.
    """
    n = len(order)
    d = len(leaves) // (((n + 7) >> 3) * 8)
    levels = np.empty(_WAITING, np.int64)
    nodes = np.empty(_WAITING, np.int64)
    for i in range(first, end):
        query = (i >> 3) * d * 8 + (i & 7)
        wanted = splat(radius[order[i]])
        total = 0
        levels[0] = len(starts) - 1
        nodes[0] = 0
        top = 1
        while top > 0:
            top -= 1
            level = levels[top]
            node = nodes[top]
            near = 1
            if level > 0:
                at = starts[level] + node * d * 16
                gap = splat(0.0)
                reach = splat(0.0)
                for j in range(d):
                    value = leaves[query + 8 * j]
                    low = load(boxes, at + 16 * j)
                    high = load(boxes, at + 16 * j + 8)
                    gap = nearest_corner(gap, value, low, high)
                    reach = farthest_corner(reach, value, low, high)
                near = at_most(gap, wanted)
                inside = near & at_most(reach, wanted)
                near &= ~inside
                total += how_many(inside) << (3 * level)
                # The last child of a level may be short of points.
                final = ((n - 1) >> (3 * level)) - node * 8
                if final < 8 and (inside >> final) & 1 != 0:
                    total -= ((node * 8 + final + 1) << (3 * level)) - n
            while near != 0:
                child = node * 8 + lowest(near)
                near &= near - 1
                if level > 1:
                    levels[top] = level - 1
                    nodes[top] = child
                    top += 1
                    continue
                at = child * d * 8
                distance = splat(0.0)
                for j in range(d):
                    distance = apart(distance, load(leaves, at + 8 * j), leaves[query + 8 * j])
                total += how_many(at_most(distance, wanted))
        counts[order[i]] = max(total - 1, 0)


@jit
def axis_radii(order, starts, leaves, boxes, n_x, first, end, radius, x_radius, y_radius):
    """For KSG-2: the largest distances in x and in y among all points within the joint radius.

    Parameters
    ----------
    order, starts, leaves, boxes, first, end
        As :func:`neighbour_radii` takes them.
    n_x : int
        The first ``n_x`` dimensions are x, the others y.
    radius : (n,) float64
        Joint distance of each point to its k-th neighbour.
    x_radius, y_radius : (n,) float64, written
    """
    d = len(leaves) // (((len(order) + 7) >> 3) * 8)
    levels = np.empty(_WAITING, np.int64)
    nodes = np.empty(_WAITING, np.int64)
    found = np.empty(16)
    for i in range(first, end):
        query = (i >> 3) * d * 8 + (i & 7)
        wanted = splat(radius[order[i]])
        x_widest = splat(0.0)
        y_widest = splat(0.0)
        levels[0] = len(starts) - 1
        nodes[0] = 0
        top = 1
        while top > 0:
            top -= 1
            level = levels[top]
            node = nodes[top]
            near = 1
            if level > 0:
                at = starts[level] + node * d * 16
                gap = splat(0.0)
                for j in range(d):
                    low = load(boxes, at + 16 * j)
                    high = load(boxes, at + 16 * j + 8)
                    gap = nearest_corner(gap, leaves[query + 8 * j], low, high)
                near = at_most(gap, wanted)
            while near != 0:
                child = node * 8 + lowest(near)
                near &= near - 1
                if level > 1:
                    levels[top] = level - 1
                    nodes[top] = child
                    top += 1
                    continue
                at = child * d * 8
                x_gap = splat(0.0)
                for j in range(n_x):
                    x_gap = apart(x_gap, load(leaves, at + 8 * j), leaves[query + 8 * j])
                y_gap = splat(0.0)
                for j in range(n_x, d):
                    y_gap = apart(y_gap, load(leaves, at + 8 * j), leaves[query + 8 * j])
                within = at_most(larger(x_gap, y_gap), wanted)
                x_widest = larger(keep(within, x_gap, x_widest), x_widest)
                y_widest = larger(keep(within, y_gap, y_widest), y_widest)
        store(found, 0, x_widest)
        store(found, 8, y_widest)
        x_largest = 0.0
        y_largest = 0.0
        for c in range(8):
            x_largest = max(x_largest, found[c])
            y_largest = max(y_largest, found[8 + c])
        x_radius[order[i]] = x_largest
        y_radius[order[i]] = y_largest
