"""Entropy sums over joint tables on a GPU, so that tables need not leave it.

Terms of small counts come from the table that the CPU uses. Sums are of float64, in an order that depends on
the shape of a table alone.
"""

import math

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda, jit_device

# Threads of a block, at most.
MOST_THREADS = 256


@jit_device
def _term(count, terms, grassberger):
    if count < terms.size:
        return terms[count]
    if not grassberger:
        return count * math.log(float(count))
    half = float(count // 2)
    return count * (math.log(2.0 * half) + 1.0 / (24.0 * half * half))


@jit_cuda
def summarize_tables(tables, terms, grassberger, sums, occupied):
    """Sum the terms of the cells of joint tables, and count the occupied cells.

    Grid: pairs, those of a place of x one after the other; a power of two of threads.

    Parameters
    ----------
    tables : (a, bins_x, b, bins_y) int32
    terms : (size,) float64
        Terms of counts below ``size``, as :mod:`qixai_fast.kernels.entropy_cpu` fills them.
    grassberger : bool
        Which term that is.
    sums : (a * b,) float64, written
    occupied : (a * b,) int32, written
    """
    part = cuda.shared.array(MOST_THREADS, np.float64)
    found = cuda.shared.array(MOST_THREADS, np.int32)
    _, bins_x, n_y, bins_y = tables.shape
    pair = cuda.blockIdx.x
    i = pair // n_y
    j = pair % n_y
    lane = cuda.threadIdx.x
    total = 0.0
    cells = 0
    for cell in range(lane, bins_x * bins_y, cuda.blockDim.x):
        count = tables[i, cell // bins_y, j, cell % bins_y]
        if count > 0:
            total += _term(count, terms, grassberger)
            cells += 1
    part[lane] = total
    found[lane] = cells
    step = cuda.blockDim.x >> 1
    while step > 0:
        cuda.syncthreads()
        if lane < step:
            part[lane] += part[lane + step]
            found[lane] += found[lane + step]
        step >>= 1
    if lane == 0:
        sums[pair] = part[0]
        occupied[pair] = found[0]
