"""Cells of many pairs of variables with atoms: the samples that are continuous in both."""

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda, jit_device

# Threads of a block, which makes one pair's cell.
THREADS = 256


@jit_device
def place_among(chosen, sums):
    """How many of the block's threads are chosen (1, else 0), up to this one and with it; all in ``sums``."""
    thread = cuda.threadIdx.x
    sums[thread] = chosen
    reach = 1
    while reach < cuda.blockDim.x:
        cuda.syncthreads()
        before = sums[thread - reach] if thread >= reach else 0
        cuda.syncthreads()
        sums[thread] += before
        reach += reach
    cuda.syncthreads()
    return sums[thread]


@jit_cuda
def common_cell(
    values,
    orders,
    ranks,
    filled,
    x_rows,
    y_rows,
    max_shift,
    cells_x,
    cells_y,
    y_places,
    partners,
    sizes,
    shifts,
):
    """Sort the samples that are continuous in both variables of each pair, from the order of each alone.

    Parameters
    ----------
    values : (variables, n) float64
        Continuous values of each, ascending.
    orders : (variables, n) int32
        The samples that they belong to.
    ranks : (variables, n) int32
        Where in ``orders`` a sample is; less than 0 for an atom's.
    filled : (variables,) int32
        How many samples are continuous.
    x_rows, y_rows : (pairs,) int32
        Variables of each pair, one a block.
    max_shift : int
    cells_x, cells_y : (pairs, n) float64, written
        Sorted values of the common samples.
    y_places : (pairs, n) int32
        Scratch.
    partners : (pairs, n) int32, written
        Rank in ``cells_y`` of the sample with the r-th smallest x.
    sizes : (pairs,) int32, written
        Number of common samples; 0 for fewer than two, or where one variable has but one value there.
    shifts : (pairs,) int32, written
        Of the width of strips for so many points.
    """
    sums = cuda.shared.array(THREADS, np.int32)
    pair = cuda.blockIdx.x
    thread = cuda.threadIdx.x
    x, y = x_rows[pair], y_rows[pair]
    size = 0
    for begin in range(0, filled[y], cuda.blockDim.x):
        i = begin + thread
        chosen = 0
        if i < filled[y] and ranks[x, orders[y, i]] >= 0:
            chosen = 1
        place = size + place_among(chosen, sums) - 1
        if chosen:
            cells_y[pair, place] = values[y, i]
            y_places[pair, i] = place
        size += sums[cuda.blockDim.x - 1]
        cuda.syncthreads()
    at = 0
    for begin in range(0, filled[x], cuda.blockDim.x):
        i = begin + thread
        chosen = 0
        if i < filled[x] and ranks[y, orders[x, i]] >= 0:
            chosen = 1
        place = at + place_among(chosen, sums) - 1
        if chosen:
            cells_x[pair, place] = values[x, i]
            partners[pair, place] = y_places[pair, ranks[y, orders[x, i]]]
        at += sums[cuda.blockDim.x - 1]
        cuda.syncthreads()
    if thread == 0:
        if (
            size < 2
            or cells_x[pair, 0] == cells_x[pair, size - 1]
            or cells_y[pair, 0] == cells_y[pair, size - 1]
        ):
            size = 0
        sizes[pair] = size
        shift = 3
        while shift < max_shift and (2 << 2 * shift) < 3 * size:
            shift += 1
        shifts[pair] = shift
