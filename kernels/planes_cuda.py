"""Joint counts of columns with few bins on a GPU: from bit planes, or as products of columns of 0 and 1.

A plane of a column is the set of samples in one bin. A cell of a joint table is the number of samples that
two planes share. One bit a sample: AND, count the ones, add. One byte a sample: a product of integer
matrices, which tensor cores take. The last bin of a column has no plane: what the others leave of the
marginal counts is its share, put in by :func:`complete_tables`.

On paper, for 16 bins (225 cells of a pair) on an H200 (132 multiprocessors, 1.8 GHz): counting ones, 16
words of 32 samples a clock and multiprocessor, gives 132 * 1.8e9 * 16 * 32 / 225 = 5.4e11 sample-pairs a
second, and AND and add fit beside it (2 of 64 a clock). Products of 8-bit integers, 1.98e15 operations a
second, two for each sample and cell, give 4.4e12, of which a large product reaches perhaps two thirds: five
times the 5e11 that are wanted of an H200, which counting ones only just reaches.
"""

from functools import cache

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda, jit_device

# Words of a plane (64 samples each) that a block holds of each of its planes at a time.
STEP = 16
_STEP_STRIDE = STEP + 1
# Planes of each side that a thread takes.
PATCH = 4

_ONES = np.uint64(0x0101010101010101)
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)


@jit_device
def _equal(word, pattern):
    """Which of eight codes equal those of a pattern: 1 in each such byte."""
    other = word ^ pattern
    return (~((other & _LOW) + _LOW | other | _LOW)) >> np.uint64(7)


@jit_cuda
def spread_codes(words, columns, first, planes, out):
    """Write one byte a sample and bin: 1 where the sample is in the bin.

    Grid: (groups of words, columns).

    Parameters
    ----------
    words : (d, words) uint64
        Eight codes a word; codes that are no bin stand behind the last sample.
    columns : (a,) int64
    first : int
        Word at which to begin.
    planes : int
        Bins of a column that are written.
    out : (rows, words) uint64
        Rows ``planes * k`` on are those of column k.
    """
    at = cuda.grid(1)
    k = cuda.blockIdx.y
    if at < out.shape[1]:
        word = words[columns[k], first + at]
        pattern = np.uint64(0)
        for code in range(planes):
            out[k * planes + code, at] = _equal(word, pattern)
            pattern += _ONES


@jit_cuda
def split_columns(words, columns, first, planes, out):
    """Write one bit a sample and bin: 64 samples a word, in an order that is the same for all columns.

    Grid: (groups of words, columns).

    Parameters
    ----------
    words : (d, 8 * words) uint64
        Eight codes a word; codes that are no bin stand behind the last sample.
    columns : (a,) int64
    first : int
        Word of codes at which to begin.
    planes : int
        Bins of a column that are written.
    out : (rows, words) uint64
        Rows ``planes * k`` on are those of column k.
    """
    at = cuda.grid(1)
    k = cuda.blockIdx.y
    if at < out.shape[1]:
        own = cuda.local.array(8, np.uint64)
        for i in range(8):
            own[i] = words[columns[k], first + 8 * at + i]
        pattern = np.uint64(0)
        for code in range(planes):
            plane = np.uint64(0)
            for i in range(8):
                plane |= _equal(own[i], pattern) << np.uint64(i)
            out[k * planes + code, at] = plane
            pattern += _ONES


@cache
def make_count_planes(side):
    """The kernel that counts what planes share, by ``side`` x ``side`` threads a block.

    Parameters
    ----------
    side : int
        Each block takes ``PATCH * side`` planes of each side.
    """
    tile = PATCH * side

    @jit_cuda
    def count_planes(planes_x, planes_y, share, counts):
        """Add how many samples each plane of x shares with each of y.

        Grid: (tiles of planes of y, tiles of planes of x, shares of the words).

        Parameters
        ----------
        planes_x, planes_y : (rows, words) uint64
        share : int
            Words that a block counts.
        counts : (rows of x, rows of y) int32
        """
        own_x = cuda.shared.array((tile, _STEP_STRIDE), np.uint64)
        own_y = cuda.shared.array((tile, _STEP_STRIDE), np.uint64)
        sums = cuda.local.array((PATCH, PATCH), np.int32)
        of_x = cuda.local.array(PATCH, np.uint64)
        lane = cuda.threadIdx.x
        row = lane // side
        column = lane % side
        top = cuda.blockIdx.y * tile
        left = cuda.blockIdx.x * tile
        n_x, words = planes_x.shape
        n_y = planes_y.shape[0]
        for a in range(PATCH):
            for b in range(PATCH):
                sums[a, b] = 0
        begin = cuda.blockIdx.z * share
        end = min(begin + share, words)
        for start in range(begin, end, STEP):
            for cell in range(lane, tile * STEP, side * side):
                i = cell // STEP
                w = cell % STEP
                inside = start + w < end
                own_x[i, w] = planes_x[top + i, start + w] if inside and top + i < n_x else np.uint64(0)
                own_y[i, w] = planes_y[left + i, start + w] if inside and left + i < n_y else np.uint64(0)
            cuda.syncthreads()
            for w in range(STEP):
                for a in range(PATCH):
                    of_x[a] = own_x[row + a * side, w]
                for b in range(PATCH):
                    of_y = own_y[column + b * side, w]
                    for a in range(PATCH):
                        sums[a, b] += np.int32(cuda.popc(of_x[a] & of_y))
            cuda.syncthreads()
        for a in range(PATCH):
            for b in range(PATCH):
                i = top + row + a * side
                j = left + column + b * side
                if i < n_x and j < n_y and sums[a, b] > 0:
                    cuda.atomic.add(counts, (i, j), sums[a, b])

    return count_planes


@jit_cuda
def complete_tables(counts, xs, ys, margins_x, margins_y, tables):
    """Write joint tables from the counts of all bins but the last of each column.

    Grid: pairs, those of a place of x one after the other.

    Parameters
    ----------
    counts : (rows, columns) int32
        Cell (a, b) of places i and j is ``counts[i * (bins_x - 1) + a, j * (bins_y - 1) + b]``.
    xs, ys : int64
        Columns, by place.
    margins_x, margins_y : (d, bins) int32
        How many samples each bin of each column has.
    tables : (a, bins_x, b, bins_y) int32, written
    """
    _, bins_x, n_y, bins_y = tables.shape
    i = cuda.blockIdx.x // n_y
    j = cuda.blockIdx.x % n_y
    x = xs[i]
    y = ys[j]
    top = i * (bins_x - 1)
    left = j * (bins_y - 1)
    for a in range(cuda.threadIdx.x, bins_x - 1, cuda.blockDim.x):
        rest = margins_x[x, a]
        for b in range(bins_y - 1):
            rest -= counts[top + a, left + b]
        tables[i, a, j, bins_y - 1] = rest
    for b in range(cuda.threadIdx.x, bins_y - 1, cuda.blockDim.x):
        rest = margins_y[y, b]
        for a in range(bins_x - 1):
            count = counts[top + a, left + b]
            tables[i, a, j, b] = count
            rest -= count
        tables[i, bins_x - 1, j, b] = rest
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        corner = margins_x[x, bins_x - 1]
        for b in range(bins_y - 1):
            corner -= tables[i, bins_x - 1, j, b]
        tables[i, bins_x - 1, j, bins_y - 1] = corner
