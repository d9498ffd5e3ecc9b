"""A k-d tree for exact neighbour distances and counts in the maximum norm.

Points are sorted so that every run of 8, 64, 512, ... of them, counted from the start, is a compact box.
Runs of eight points are the leaves, stored dimension by dimension; runs of eight leaves, and of eight such
runs, and so on, are the nodes, which hold the boxes of their eight children, again dimension by dimension.
So one query meets eight points, or eight boxes, at a time, and where a run begins needs no pointers.

All is decided by differences, as the definitions say. Rounding keeps the order of differences: a box whose
nearest corner is out of reach holds no point within, and a box whose far ends are within reach holds no
point beyond, to the last bit. Where nearly every box is needed (many dimensions, few points), a walk is
brute force with a twelfth on top, so no other way is wanted. :mod:`qixai_fast.kernels.kdtree_build_cpu`
makes the tree.
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
def replace_top(heap, value):
    """Put a value in place of the largest of a heap, and the largest on top again."""
    at = 0
    child = 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = value


@jit
def neighbour_radii(order, starts, leaves, boxes, n_neighbors, first, end, radius):
    """Distance from points to their k-th nearest neighbours.

    Parameters
    ----------
    order, starts, leaves, boxes
        A tree, as ``kdtree_build_cpu.fill_tree`` takes and fills it.
    n_neighbors : int
        At most n - 1.
    first, end : int
        Queries are the points at these places of the tree.
    radius : (n,) float64, written
        Of each point, wherever it is in the tree.
    """
    d = len(leaves) // (((len(order) + 7) >> 3) * 8)
    # The k + 1 smallest distances: a point is its own nearest. Up to sixteen ascend in two registers,
    # behind -inf; more are in a heap, the largest on top.
    heap = np.empty(0 if n_neighbors < 16 else n_neighbors + 1)
    distances = np.empty(8)
    found = np.empty(16)
    levels = np.empty(_WAITING, np.int64)
    nodes = np.empty(_WAITING, np.int64)
    gaps = np.empty(_WAITING)
    for s in range(16):
        found[s] = np.inf if s >= 15 - n_neighbors else -np.inf
    no_lower = load(found, 0)
    no_upper = load(found, 8)
    for i in range(first, end):
        query = (i >> 3) * d * 8 + (i & 7)
        lower = no_lower
        upper = no_upper
        bound = np.inf
        for s in range(len(heap)):
            heap[s] = np.inf
        top = 0
        risen = 0
        while True:
            visited = 0
            if top > 0:
                top -= 1
                if gaps[top] >= bound:
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
                near = less(gap, splat(bound)) & ~visited
                store(distances, 0, gap)
            while near != 0:
                child = lowest(near)
                near &= near - 1
                if level > 1:
                    levels[top] = level - 1
                    nodes[top] = node * 8 + child
                    gaps[top] = distances[child]
                    top += 1
                elif distances[child] < bound:
                    at = (node * 8 + child) * d * 8
                    distance = splat(0.0)
                    for j in range(d):
                        distance = apart(distance, load(leaves, at + 8 * j), leaves[query + 8 * j])
                    hits = less(distance, splat(bound))
                    store(found, 0, distance)
                    while hits != 0:
                        value = found[lowest(hits)]
                        hits &= hits - 1
                        if len(heap) == 0:
                            upper = insert(upper, last(lower), value)
                            lower = insert(lower, -np.inf, value)
                            bound = last(upper)
                        elif value < bound:
                            replace_top(heap, value)
                            bound = heap[0]
        radius[order[i]] = bound


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
