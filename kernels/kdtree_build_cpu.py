"""Making a k-d tree: points sorted into compact runs, and the boxes around them.

See :mod:`qixai_fast.kernels.kdtree_cpu` for what a tree is.
"""

import numpy as np

from ._jit import jit

# Ranges that wait to be cut; each cut of 2^31 points leaves one.
_DEPTH = 80


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
    firsts = np.empty(_DEPTH, np.int64)
    ends = np.empty(_DEPTH, np.int64)
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
