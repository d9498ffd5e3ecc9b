"""Bin codes of columns, and joint counts of coded columns by incrementing tables, on a GPU.

Codes are feature-major. Tables of a patch of columns x columns lie in a block's shared memory, in several
copies where there is room, so that lanes of a warp meet less often; eight codes of a column come in one load
and meet those of all columns of the patch. Increments are of integers, so counts are exact in any order.

On paper: a patch of 4 x 4 columns reads half a byte a sample and pair from the second-level cache, which
gives about 20 bytes a clock and multiprocessor; shared memory takes at most 32 increments a clock, and
perhaps an eighth of that where lanes meet in cells and banks. On an H200 (132 multiprocessors, 1.8 GHz) that
would be 9.5e11 sample-pairs a second, for any number of bins, and less the more samples share a bin.
"""

from functools import cache

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda

# Cells of the private tables of a block: 32 KiB.
PRIVATE_CELLS = 8192
# Bins of one column that are counted by themselves in shared memory.
MARGIN_BINS = 4096
# A tile of values is coded at a time: its rows are read, its columns written in one piece.
TILE_COLUMNS = 32
TILE_ROWS = 128
_TILE_STRIDE = TILE_ROWS + 2
# Codes in a word.
CODES = 8

_BYTE = np.uint64(255)


@jit_cuda
def digitize_block(block, inner, zero, codes, start):
    """Write the bin of every value of a block of rows into ``codes``.

    Grid: (tiles of rows, tiles of columns).

    Parameters
    ----------
    block : (rows, d) float32 or float64
    inner : (d, m) as block
        Edges between the bins of a column, not decreasing. The bin is the number of edges that are at most
        the value. Edges of float32 values are rounded up: no float32 lies between an edge and the next one.
    zero : bool
        Whether bin 0 holds the values that are 0 and no others; the others begin with bin 1.
    codes : (d, n or more) uint8 or int16
        Columns ``start`` to ``start + rows`` are written.
    start : int
    """
    tile = cuda.shared.array((TILE_COLUMNS, _TILE_STRIDE), np.int16)
    rows, d = block.shape
    top = cuda.blockIdx.x * TILE_ROWS
    left = cuda.blockIdx.y * TILE_COLUMNS
    for cell in range(cuda.threadIdx.x, min(TILE_ROWS, rows - top) * TILE_COLUMNS, cuda.blockDim.x):
        i = cell // TILE_COLUMNS
        j = cell % TILE_COLUMNS
        if left + j < d:
            value = block[top + i, left + j]
            below = 0
            above = inner.shape[1]
            while below < above:
                middle = (below + above) >> 1
                if value >= inner[left + j, middle]:
                    below = middle + 1
                else:
                    above = middle
            if zero:
                below = 0 if value == 0 else below + 1
            tile[j, i] = below
    cuda.syncthreads()
    for cell in range(cuda.threadIdx.x, min(TILE_COLUMNS, d - left) * TILE_ROWS, cuda.blockDim.x):
        j = cell // TILE_ROWS
        i = cell % TILE_ROWS
        if top + i < rows:
            codes[left + j, start + top + i] = tile[j, i]


@jit_cuda
def count_codes(codes, n, share, counts):
    """Add how often each code occurs in each column.

    Grid: (columns, shares of the samples).

    Parameters
    ----------
    codes : (d, n or more) uint8 or int16
    n, share : int
        Samples, and those that a block counts.
    counts : (d, n_bins) int32
    """
    own = cuda.shared.array(MARGIN_BINS, np.int32)
    j = cuda.blockIdx.x
    for code in range(cuda.threadIdx.x, counts.shape[1], cuda.blockDim.x):
        own[code] = 0
    cuda.syncthreads()
    begin = cuda.blockIdx.y * share
    for s in range(begin + cuda.threadIdx.x, min(begin + share, n), cuda.blockDim.x):
        cuda.atomic.add(own, np.int64(codes[j, s]), 1)
    cuda.syncthreads()
    for code in range(cuda.threadIdx.x, counts.shape[1], cuda.blockDim.x):
        if own[code] > 0:
            cuda.atomic.add(counts, (j, code), own[code])


@cache
def make_count_pairs(patch):
    """The kernel that counts patches of ``patch`` x ``patch`` pairs in shared memory.

    Parameters
    ----------
    patch : int
        Columns of each side.
    """

    @jit_cuda
    def count_pairs(
        words_x,
        words_y,
        xs,
        ys,
        tops,
        lefts,
        n,
        share,
        bins_x,
        bins_y,
        copies,
        step_x,
        step_y,
        step_row,
        flat,
    ):
        """Add the joint counts of patches of pairs of coded columns.

        Grid: (patches, shares of the samples).

        Parameters
        ----------
        words_x, words_y : (d, words) uint64
            Eight codes a word.
        xs, ys : (a,), (b,) int64
            Columns, by place.
        tops, lefts : (patches,) int64
            Where a patch begins: places of x and of y. Places beyond the last are not counted.
        n, share : int
            Samples, and words that a block counts.
        bins_x, bins_y : int
        copies : int
            Of each table: ``patch**2 * bins_x * bins_y * copies`` is at most ``PRIVATE_CELLS``.
        step_x, step_y, step_row : int
            Cells to the table of the next place of x, to that of the next of y, and to the next row.
        flat : int32
            Grows by the counts.
        """
        own = cuda.shared.array(PRIVATE_CELLS, np.int32)
        of_x = cuda.local.array(patch, np.uint64)
        of_y = cuda.local.array(patch, np.uint64)
        lane = cuda.threadIdx.x
        cells = bins_x * bins_y
        used = patch * patch * cells
        for cell in range(lane, used * copies, cuda.blockDim.x):
            own[cell] = 0
        cuda.syncthreads()

        top = tops[cuda.blockIdx.x]
        left = lefts[cuda.blockIdx.x]
        begin = cuda.blockIdx.y * share
        end = min(begin + share, (n + CODES - 1) // CODES)
        base = np.int32((lane % copies) * used)
        for word in range(begin + lane, end, cuda.blockDim.x):
            for k in range(patch):
                of_x[k] = words_x[xs[min(top + k, xs.size - 1)], word]
                of_y[k] = words_y[ys[min(left + k, ys.size - 1)], word]
            for _ in range(min(CODES, n - CODES * word)):
                for a in range(patch):
                    row = base + np.int32(of_x[a] & _BYTE) * np.int32(bins_y)
                    of_x[a] >>= np.uint64(8)
                    for b in range(patch):
                        table = np.int32((a * patch + b) * cells)
                        cuda.atomic.add(own, row + table + np.int32(of_y[b] & _BYTE), 1)
                for b in range(patch):
                    of_y[b] >>= np.uint64(8)
        cuda.syncthreads()

        for cell in range(lane, used, cuda.blockDim.x):
            a = cell // (patch * cells)
            b = cell // cells % patch
            if top + a < xs.size and left + b < ys.size:
                total = 0
                for k in range(copies):
                    total += own[k * used + cell]
                if total > 0:
                    row = cell % cells // bins_y
                    place = (top + a) * step_x + (left + b) * step_y + row * step_row + cell % bins_y
                    cuda.atomic.add(flat, place, total)

    return count_pairs


@jit_cuda
def count_pairs(codes_x, codes_y, xs, ys, n, share, n_left, step_x, step_y, step_row, flat):
    """Add the joint counts of pairs of coded columns of any number of bins, in the device's memory.

    Grid: (pairs, shares of the samples).

    Parameters
    ----------
    codes_x, codes_y : (d, n or more) uint8 or int16
    xs, ys : int64
        Columns, by place.
    n, share : int
        Samples, and those that a block counts.
    n_left : int
        Pair p is of places ``p // n_left`` and ``p % n_left``; 0: of places p and p.
    step_x, step_y, step_row, flat
        As for :func:`make_count_pairs`.
    """
    pair = cuda.blockIdx.x
    x = pair
    y = pair
    if n_left > 0:
        x = pair // n_left
        y = pair % n_left
    place = x * step_x + y * step_y
    begin = cuda.blockIdx.y * share
    for s in range(begin + cuda.threadIdx.x, min(begin + share, n), cuda.blockDim.x):
        row = np.int64(codes_x[xs[x], s]) * step_row
        cuda.atomic.add(flat, place + row + np.int64(codes_y[ys[y], s]), 1)
