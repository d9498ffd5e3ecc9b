"""Sums of digamma over counts, exact: they depend on which counts there are, and on nothing else.

A float64 digamma of an integer is a multiple of 2**-54, so a sum of them is one of integers. Each comes as a
word of two halves that add up without overflow over 2**31 points.
"""

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda

# Threads of a block, and the least bits that a word's upper half counts.
THREADS = 128
LOW_BITS = 28
UNIT_BITS = 54


@jit_cuda
def sum_digamma(n_x, n_y, sizes, least, offset, words, n_blocks, totals):
    """Sum psi(count + offset) over the counts of both axes of each pair, a share in each block.

    Parameters
    ----------
    n_x, n_y : (pairs, n) int32
    sizes : (pairs,) int32
        Points; the sum is 0 where they are fewer than ``least``.
    least, offset : int
    words : (n + 1,) int64
        psi(i) / 2**-54: its lower ``LOW_BITS`` bits in the lower half, the rest in the upper.
    n_blocks : int
        Blocks of ``THREADS`` for each pair.
    totals : (pairs, n_blocks, 2) int64, written
        Sums of the upper and of the lower halves.
    """
    sums = cuda.shared.array((2, THREADS), np.int64)
    pair = cuda.blockIdx.x // n_blocks
    block = cuda.blockIdx.x % n_blocks
    thread = cuda.threadIdx.x
    counts_x, counts_y = n_x[pair], n_y[pair]
    size = sizes[pair] if sizes[pair] >= least else 0
    high, low = np.int64(0), np.int64(0)
    for i in range(block * THREADS + thread, size, n_blocks * THREADS):
        word = words[np.uint32(counts_x[np.uint32(i)] + offset)]
        high += word >> 32
        low += word & 0xFFFFFFFF
        word = words[np.uint32(counts_y[np.uint32(i)] + offset)]
        high += word >> 32
        low += word & 0xFFFFFFFF
    sums[0, thread], sums[1, thread] = high, low
    half = THREADS >> 1
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            sums[0, thread] += sums[0, thread + half]
            sums[1, thread] += sums[1, thread + half]
        half >>= 1
    if thread == 0:
        totals[pair, block, 0], totals[pair, block, 1] = sums[0, 0], sums[1, 0]
