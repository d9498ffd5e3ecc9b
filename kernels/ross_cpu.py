"""Ross's estimator with strict counts: class labels against one scalar.

A radius is the distance to the k-th neighbour of the same label, and counts take what is strictly nearer, as
scikit-learn does. (:func:`qixai_fast.kernels.cells_cpu.ross_sum` treats ties on both sides alike instead.)
"""

import math

import numpy as np

from ._jit import jit

# With this radius, strictly nearer means equal.
_EQUAL = 5e-324
_PADDING = 8


@jit
def _smallest(values, rank):
    """The value with a rank (from 0) in an array, whose order it changes (Hoare's selection)."""
    low = 0
    high = len(values) - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                swapped = values[i]
                values[i] = values[j]
                values[j] = swapped
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@jit
def _expanded_radius(group, member, rank, single, scratch):
    """Distance to the neighbour of a rank, the square expanded: x^2 - 2 x y + y^2.

    It is what a matrix product gives, and it loses half of the digits; ``single`` rounds it to float32.
    """
    x = group[member]
    for other in range(len(group)):
        y = group[other]
        scratch[other] = max(0.0, (x * x + -2.0 * (x * y)) + y * y)
    square = _smallest(scratch[: len(group)], rank)
    return np.float64(np.sqrt(np.float32(square))) if single else math.sqrt(square)


@jit
def _is_before(values, place, centre, radius, right):
    """Whether a value is before a border: not beyond the radius yet, or (on the left) not within it yet."""
    return values[place] - centre < radius if right else centre - values[place] >= radius


@jit
def _border(values, centre, radius, right, border):
    """Move a border up to the first value that is not before it.

    A short way is counted without branches that a processor could guess wrong; a long one takes steps that
    double, and the last is bisected. Values end in ``_PADDING`` infinities.
    """
    moved = 0
    for place in range(border, border + _PADDING):
        moved += _is_before(values, place, centre, radius, right)
    border += moved
    if moved < _PADDING:
        return border
    low = border
    step = _PADDING
    while border < len(values) and _is_before(values, border, centre, radius, right):
        low = border + 1
        border += step
        step += step
    border = min(border, len(values))
    while low < border:
        middle = (low + border) >> 1
        if _is_before(values, middle, centre, radius, right):
            low = middle + 1
        else:
            border = middle
    return border


@jit
def ross_information(values, labels, n_labels, n_neighbors, single, psi):
    """Mutual information in nats of a scalar and labels; samples alone in their label are left out.

    psi(n) + <psi(k)> - <psi(samples with the label)> - <psi(samples nearer than the k-th, itself included)>
    (Ross 2014, equation (2), as scikit-learn computes it).

    Parameters
    ----------
    values : (n,) float64
        Ascending.
    labels : (n,) int32 or int64
        From 0 to n_labels - 1.
    n_neighbors : int
        k; a smaller label uses all of its others. Labels with at most 2 k + 1 samples measure distances by
        the expanded square, as scikit-learn's brute-force search does.
    single : bool
        Whether those distances are float32, as they are of float32 values.
    psi : (n + 1,) float64
        Digamma of the integers.

    Returns
    -------
    float
        NaN where no label has two samples.
    """
    start = np.zeros(n_labels + 1, np.int64)
    for label in labels:
        start[label + 1] += 1
    for label in range(n_labels):
        members = start[label + 1]
        start[label + 1] = start[label] + (members if members > 1 else 0)
    size = start[n_labels]
    if size == 0:
        return np.nan
    cursor = start[:n_labels].copy()
    kept = np.full(size + _PADDING, np.inf)
    grouped = np.empty(size)
    place = np.empty(size, np.int64)
    at = 0
    for i in range(len(values)):
        label = labels[i]
        if start[label + 1] > start[label]:
            kept[at] = values[i]
            grouped[cursor[label]] = values[i]
            place[cursor[label]] = at
            cursor[label] += 1
            at += 1
    scratch = np.empty(max(0, min(size, 2 * n_neighbors + 1)))
    total = 0.0
    for label in range(n_labels):
        group = grouped[start[label] : start[label + 1]]
        members = len(group)
        if members == 0:
            continue
        k = min(n_neighbors, members - 1)
        expanded = k >= members // 2
        first = 0
        left = 0
        right = 0
        counted = 0.0
        for i in range(members):
            x = group[i]
            if expanded:
                radius = _expanded_radius(group, i, k, single, scratch)
            else:
                # The k nearest and the sample itself are k + 1 in a row, which only move up.
                while first + k + 1 < members and group[first + k + 1] - x < x - group[first]:
                    first += 1
                radius = max(x - group[first], group[first + k] - x)
            radius = max(radius, _EQUAL)
            at = place[start[label] + i]
            right = max(right, at + 1)
            # Borders only move up, too, but for rounding.
            while right > at + 1 and kept[right - 1] - x >= radius:
                right -= 1
            right = _border(kept, x, radius, True, right)
            left = min(left, at)
            while left > 0 and x - kept[left - 1] < radius:
                left -= 1
            left = _border(kept, x, radius, False, left)
            counted += psi[right - left]
        total += members * (psi[k] - psi[members]) - counted
    return psi[size] + total / size
