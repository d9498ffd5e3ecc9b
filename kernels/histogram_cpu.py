"""Bin codes of columns, and joint counts of coded columns by incrementing tables.

Codes are feature-major, ``codes[feature, sample]``, one byte each (two above 256 bins): a pair reads
two contiguous streams. Counts are integers, so they are exact whatever the order of the samples.
"""

import numpy as np

from ._bits import SQUARE, code_square
from ._jit import jit

# A tile of a block of rows is transposed at a time: its values stay in L1.
_TILE_ROWS = 64
# Fewer columns than this fill no vector: they are looked at one after the other.
_FEW_COLUMNS = 8
# Up to so many bins, a vector of values is compared with every edge in less time than each is searched for.
_FEW_BINS = 256
# Samples counted for all pairs of a call before the next ones: the codes of one column in L1.
_SAMPLES_AT_A_TIME = 16384


@jit
def extents(block, nonzero, low, high, odd):
    """Widen the range of every column by a block of rows.

    Parameters
    ----------
    block : (rows, d) float32 or float64
    nonzero : bool
        Whether values that are 0 do not count.
    low, high : (d,) as block
        Smallest and largest value so far; start from inf and -inf.
    odd : (d,) as block
        0 as long as all values are finite, NaN ever after.
    """
    rows, d = block.shape
    if d < _FEW_COLUMNS:
        for j in range(d):
            least = low[j]
            most = high[j]
            strange = odd[j]
            for i in range(rows):
                value = block[i, j]
                strange += value - value
                counts = (value != 0.0) | (not nonzero)
                least = value if counts & (value < least) else least
                most = value if counts & (value > most) else most
            low[j] = least
            high[j] = most
            odd[j] = strange
        return
    for i in range(rows):
        for j in range(d):
            value = block[i, j]
            odd[j] += value - value
            counts = (value != 0.0) | (not nonzero)
            below = value if counts else np.inf
            above = value if counts else -np.inf
            low[j] = below if below < low[j] else low[j]
            high[j] = above if above > high[j] else high[j]


@jit
def transpose(block, columns, start):
    """Write a block of rows into columns ``start`` on of a feature-major array."""
    rows, d = block.shape
    for first in range(0, rows, _TILE_ROWS):
        for left in range(0, d, SQUARE):
            for j in range(left, min(left + SQUARE, d)):
                for i in range(first, min(first + _TILE_ROWS, rows)):
                    columns[j, start + i] = block[i, j]


@jit
def _digitize_columns(block, first, left, width, edges, steps, zero, codes, start, tile, place):
    """Write the bins of rows ``first`` on of ``width`` columns; ``tile`` and ``place`` are room for it."""
    rows = block.shape[0]
    shift = 1 if zero else 0
    last = edges.shape[1] - 2 - shift
    for begin in range(first, rows, _TILE_ROWS):
        size = min(_TILE_ROWS, rows - begin)
        for i in range(size):
            for j in range(width):
                tile[j, i] = block[begin + i, left + j]
        for j in range(width):
            if last < _FEW_BINS:
                for i in range(size):
                    place[i] = shift
                for k in range(shift + 1, shift + last + 1):
                    edge = edges[left + j, k]
                    for i in range(size):
                        place[i] += tile[j, i] >= edge
            else:
                step = steps[left + j]
                for i in range(size):
                    value = tile[j, i]
                    below = shift
                    highest = shift + last
                    if step > 0.0:
                        guess = int((value - edges[left + j, shift]) / step) + shift
                        below = min(max(guess - 1, below), highest)
                        highest = max(min(guess + 1, highest), below)
                    while below < highest:
                        middle = (below + highest + 1) >> 1
                        if value < edges[left + j, middle]:
                            highest = middle - 1
                        else:
                            below = middle
                    place[i] = below
            out = codes[left + j, start + begin : start + begin + size]
            for i in range(size):
                out[i] = place[i] if (tile[j, i] != 0.0) | (not zero) else 0


@jit
def digitize_block(block, edges, steps, zero, codes, start):
    """Write the bin of every value of a block of rows into ``codes``.

    The bin is ``np.digitize(value, edges) - 1``, and the maximum belongs to the last bin.

    Parameters
    ----------
    block : (rows, d) float32 or float64, C-ordered
    edges : (d, n_bins + 1) float64, not decreasing along a row
        The first and last edge of a column are at or beyond its minimum and maximum.
    steps : (d,) float64
        Where not 0, edge k is ``k * step + edges[0]``, rounded after each operation, and edges are further
        apart than rounding can move them: a bin is then computed, and moved by one where its edges say so.
        0 searches the edges instead.
    zero : bool
        Whether bin 0 holds the values that are 0 and no others; the edges of the others begin at index 1.
    codes : (d, n) uint8 or uint16
        Columns ``start`` to ``start + rows`` are written.
    start : int
    """
    rows, d = block.shape
    distance = codes.strides[0]
    shift = 1 if zero else 0
    most = float(edges.shape[1] - 2 - shift)
    tile = np.empty((SQUARE, _TILE_ROWS), dtype=np.float64)
    place = np.empty(_TILE_ROWS, dtype=np.int64)
    low = np.empty(SQUARE, dtype=np.float64)
    slope = np.empty(SQUARE, dtype=np.float64)
    step = np.empty(SQUARE, dtype=np.float64)
    whole = rows // SQUARE * SQUARE
    for left in range(0, d, SQUARE):
        width = min(SQUARE, d - left)
        even = width == SQUARE and codes.itemsize == 1 and codes.strides[1] == 1
        for j in range(width):
            low[j] = edges[left + j, shift]
            step[j] = steps[left + j]
            slope[j] = 1.0 / step[j] if step[j] > 0.0 else 0.0
            even &= step[j] > 0.0
        first = 0
        if even:
            for i in range(0, whole, SQUARE):
                target = left * distance + start + i
                code_square(block, i * d + left, d, low, step, slope, most, zero, codes, target, distance)
            first = whole
        _digitize_columns(block, first, left, width, edges, steps, zero, codes, start, tile, place)


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
