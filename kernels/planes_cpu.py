"""Joint counts of columns with few bins, from one bit a sample and bin.

A plane of a column is the set of samples in one bin, 64 samples a word. A cell of a joint table is the number
of samples that two planes share: AND, count the ones, add. With vector instructions that count ones, 512
samples of a cell take three instructions, so that 16 bins (225 cells, the others follow from the marginal
counts) cost 0.09 ns a sample and pair, where scattered increments of tables cost 0.26, and those of columns
packed two to a byte (four pairs an increment of a 256 x 256 table) 0.25. No increment ever waits for the one
before it, however often a cell repeats.

Bins that few samples fall into have no plane: those samples are counted one at a time. So heavy tails, which
leave most bins of equal width all but empty, make it faster.
"""

import numpy as np

from ._bits import BLOCK, add_joint_counts, count_ones, equal_bits, lowest_one
from ._jit import jit

# A bin has a plane where it holds more than one of so many samples.
RARE = 512
# Codes looked at to find a column's most frequent bin.
_GLANCE = 256
_NO_CODE = np.uint8(255)


@jit
def most_frequent(codes, columns, n_bins, left):
    """Write the most frequent code of the first few of each column.

    It is the bin that is left out, as the other bins' counts imply its own.

    Parameters
    ----------
    codes : (d, n) uint8
    columns : (a,) int64
    n_bins : int
    left : (a,) int64, written
    """
    counts = np.empty(n_bins, dtype=np.int64)
    for k in range(columns.size):
        for code in range(n_bins):
            counts[code] = 0
        best = 0
        for s in range(min(codes.shape[1], _GLANCE)):
            code = codes[columns[k], s]
            counts[code] += 1
            if counts[code] > counts[best]:
                best = code
        left[k] = best


@jit
def split_column(codes, column, start, stop, k, left, words, store, labels, margins, is_rare, rare):
    """Write the planes of samples ``start`` to ``stop`` of a column; return how many, and how many are rare.

    Parameters
    ----------
    codes : (d, n) uint8
    column, start, stop : int
    k : int
        Place of the column in what follows.
    left : int
        The bin that is left out.
    words : int
        Words of a plane.
    store : (places * (n_bins - 1) * words,) uint64
        Written: the planes of bins ``labels[k, 0]``, ``labels[k, 1]``, ... one after the other.
    labels : (places, n_bins - 1 or more) uint8
    margins : (places, n_bins) int64
        Grows by the samples of each bin.
    is_rare : (places, n_bins) bool, written
        Bins whose samples have their positions in ``rare`` instead of a plane.
    rare : (places, m) int32
    """
    n = stop - start
    n_bins = margins.shape[1]
    own = codes[column]
    whole = n >> 6
    tail = np.empty(64, dtype=np.uint8)
    for s in range(64):
        at = start + 64 * whole + s
        tail[s] = own[at] if at < stop else _NO_CODE
    used = 0
    found = 0
    seen = 0
    for code in range(n_bins):
        is_rare[k, code] = False
        if code == left:
            continue
        plane = (k * (n_bins - 1) + used) * words
        for w in range(whole):
            store[plane + w] = equal_bits(own, start + 64 * w, np.uint8(code))
        for w in range(whole, words):
            store[plane + w] = 0
        if whole < words:
            store[plane + whole] = equal_bits(tail, 0, np.uint8(code))
        count = 0
        for w in range(words):
            count += count_ones(store[plane + w])
        margins[k, code] += count
        seen += count
        if count * RARE > n:
            labels[k, used] = code
            used += 1
            continue
        is_rare[k, code] = True
        if count > 0:
            for w in range(words):
                word = store[plane + w]
                while word != 0:
                    rare[k, found] = 64 * w + lowest_one(word)
                    found += 1
                    word &= word - np.uint64(1)
    margins[k, left] += n - seen
    return used, found


@jit
def count_planes(
    codes_x,
    columns_x,
    codes_y,
    columns_y,
    first,
    second,
    left,
    margins,
    flat,
    cells,
    width,
    samples,
    store,
    labels,
    is_rare,
    rare,
    used,
    sums,
):
    """Add the joint counts of pairs of coded columns, but for the bins left out.

    Parameters
    ----------
    codes_x : (d_x, n) uint8
    columns_x : (a,) int64
        Columns of x that occur in the pairs: places 0 to a - 1.
    codes_y : (d_y, n) uint8
    columns_y : (b,) int64
        Columns of y, places a to a + b - 1; none where pairs are of columns of x alone.
    first, second : (g,) int64
        Pair ``p`` joins places ``first[p]`` and ``second[p]``.
    left : (a + b,) int64
        Bin of each place that is left out: :func:`complete_tables` puts it in when all samples are counted.
    margins : (a + b, n_bins) int64
        Grows by the samples of each bin; as many bins as the side with more of them has.
    flat : (g * cells,) int32
        Joint tables, one after the other; grow by the samples of each cell.
    cells, width : int
        Cells of a table, and of a row of it.
    samples : int
        Samples whose planes are made at a time.
    store, labels, is_rare, rare
        Room for the planes of all places, as in :func:`split_column`; ``labels`` is 0 to begin with, so that
        blocks of planes are whole: beyond a column's planes they add nothing to cell 0.
    used : (2, a + b) int64
    sums : (BLOCK**2,) int64
    """
    n = codes_x.shape[1]
    n_bins = margins.shape[1]
    row_cells = np.uint64(width)
    for start in range(0, n, samples):
        stop = min(start + samples, n)
        words = 8 * ((stop - start + 511) // 512)
        for k in range(left.size):
            codes, column = codes_x, 0
            if k < columns_x.size:
                column = columns_x[k]
            else:
                codes = codes_y
                column = columns_y[k - columns_x.size]
            used[0, k], used[1, k] = split_column(
                codes, column, start, stop, k, left[k], words, store, labels, margins, is_rare, rare
            )
        for p in range(first.size):
            i = first[p]
            j = second[p]
            table = np.uint64(p * cells)
            for a in range(0, used[0, i], BLOCK):
                rows = min(BLOCK, used[0, i] - a)
                x = (i * (n_bins - 1) + a) * words
                for b in range(0, used[0, j], BLOCK):
                    columns = min(BLOCK, used[0, j] - b)
                    y = (j * (n_bins - 1) + b) * words
                    add_joint_counts(store, x, rows, y, columns, words, sums)
                    for row in range(BLOCK):
                        cell = table + np.uint64(labels[i, a + row]) * row_cells
                        for column in range(BLOCK):
                            flat[cell + np.uint64(labels[j, b + column])] += sums[row * BLOCK + column]
            if used[1, i] + used[1, j] == 0:
                continue
            own = codes_x[columns_x[i], start:stop]
            if j < columns_x.size:
                other = codes_x[columns_x[j], start:stop]
            else:
                other = codes_y[columns_y[j - columns_x.size], start:stop]
            # Cells of a bin that is left out may count too: they are written when all samples are counted.
            for r in range(used[1, i]):
                s = np.uint64(rare[i, r])
                flat[table + np.uint64(own[s]) * row_cells + np.uint64(other[s])] += 1
            for r in range(used[1, j]):
                s = np.uint64(rare[j, r])
                if not is_rare[i, own[s]]:
                    flat[table + np.uint64(own[s]) * row_cells + np.uint64(other[s])] += 1


@jit
def complete_tables(first, second, left, margins, tables):
    """Write the cells of the bins that :func:`count_planes` left out, from the marginal counts."""
    _, bins_x, bins_y = tables.shape
    column = np.empty(bins_y, dtype=np.int32)
    for p in range(first.size):
        i = first[p]
        j = second[p]
        table = tables[p]
        out_x = left[i]
        out_y = left[j]
        for b in range(bins_y):
            column[b] = margins[j, b]
        corner = margins[j, out_y]
        for a in range(bins_x):
            if a == out_x:
                continue
            counted = 0
            for b in range(bins_y):
                counted += table[a, b]
                column[b] -= table[a, b]
            rest = margins[i, a] - (counted - table[a, out_y])
            table[a, out_y] = rest
            corner -= rest
        column[out_y] = corner
        for b in range(bins_y):
            table[out_x, b] = column[b]
