"""Bin codes of columns, and joint counts of coded columns.

Codes are feature-major, ``codes[feature, sample]``, one byte each (two above 256 bins): a pair reads
two contiguous streams. Counts are integers, so they are exact whatever the order of the samples.
"""

import numpy as np

from ._jit import jit

# Rows of a block whose column is written at a time: their cache lines stay in L1 while the
# neighbouring columns are read.
_ROWS_AT_A_TIME = 32
# Samples counted for all pairs of a call before the next ones: the codes of one column in L1.
_SAMPLES_AT_A_TIME = 16384


@jit
def _last_edge_at_or_below(value, edges, column, low, high):
    """Bisect: the last of bins ``low`` to ``high`` whose left edge is at or below ``value``."""
    while low < high:
        middle = (low + high + 1) >> 1
        if value < edges[column, middle]:
            high = middle - 1
        else:
            low = middle
    return low


@jit
def digitize(block, edges, slopes, codes, start):
    """Write the bin of every value of a block of rows into ``codes``.

    The bin is ``np.digitize(value, edges) - 1``, and the maximum belongs to the last bin.

    Parameters
    ----------
    block : (rows, d) float64
    edges : (d, n_bins + 1) float64, not decreasing along a row
        The first and last edge of a column are at or beyond its minimum and maximum.
    slopes : (d,) float64
        Bins a unit where edges are evenly spaced: then the bin is computed and corrected against
        the edges. 0 searches the edges instead.
    codes : (d, n) uint8 or uint16
        Columns ``start`` to ``start + rows`` are written.
    start : int
    """
    rows, d = block.shape
    last = edges.shape[1] - 2
    for first in range(0, rows, _ROWS_AT_A_TIME):
        stop = min(first + _ROWS_AT_A_TIME, rows)
        for j in range(d):
            low = edges[j, 0]
            slope = slopes[j]
            for i in range(first, stop):
                value = block[i, j]
                if slope > 0.0:
                    code = min(max(int((value - low) * slope), 0), last)
                    while code > 0 and value < edges[j, code]:
                        code -= 1
                    while code < last and value >= edges[j, code + 1]:
                        code += 1
                else:
                    code = _last_edge_at_or_below(value, edges, j, 0, last)
                codes[j, start + i] = code


@jit
def count_codes(codes, counts):
    """Add how often each code occurs in each column: ``counts[feature, code]``, int64."""
    d, n = codes.shape
    for j in range(d):
        for s in range(n):
            counts[j, codes[j, s]] += 1


@jit
def count_pairs(codes_x, codes_y, first, second, tables):
    """Add the joint counts of pairs of coded columns.

    Parameters
    ----------
    codes_x : (d_x, n) uint8 or uint16
    codes_y : (d_y, n), same dtype
    first, second : (g,) int64
        Pair ``p`` joins ``codes_x[first[p]]`` and ``codes_y[second[p]]``. Runs of four pairs that
        share ``first`` are counted together: their four increments do not wait for one another.
    tables : (g, n_bins_x, n_bins_y) int32
        ``tables[p, a, b]`` grows by the samples with codes a and b.
    """
    n = codes_x.shape[1]
    pairs, bins_x, bins_y = tables.shape
    cells = np.uint64(bins_x * bins_y)
    width = np.uint64(bins_y)
    flat = tables.reshape(pairs * bins_x * bins_y)
    for start in range(0, n, _SAMPLES_AT_A_TIME):
        stop = min(start + _SAMPLES_AT_A_TIME, n)
        p = 0
        while p < pairs:
            x = codes_x[first[p], start:stop]
            a = codes_y[second[p], start:stop]
            t0 = np.uint64(p) * cells
            if p + 3 < pairs and first[p] == first[p + 1] == first[p + 2] == first[p + 3]:
                b = codes_y[second[p + 1], start:stop]
                c = codes_y[second[p + 2], start:stop]
                d = codes_y[second[p + 3], start:stop]
                t1 = t0 + cells
                t2 = t1 + cells
                t3 = t2 + cells
                for s in range(stop - start):
                    row = np.uint64(x[s]) * width
                    flat[t0 + row + np.uint64(a[s])] += 1
                    flat[t1 + row + np.uint64(b[s])] += 1
                    flat[t2 + row + np.uint64(c[s])] += 1
                    flat[t3 + row + np.uint64(d[s])] += 1
                p += 4
            else:
                for s in range(stop - start):
                    flat[t0 + np.uint64(x[s]) * width + np.uint64(a[s])] += 1
                p += 1
