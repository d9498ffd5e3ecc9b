"""Rows about a shift in float64, with the sums of their columns: what cuBLAS multiplies.

Products are float64 on a device: where data are of a size to need one (A100, H100, H200), its matrix units
multiply float64 as fast as all others multiply float32, and no bound has to be watched. So the shift is
subtracted in float64, which also keeps means of 1,000 standard deviations from costing a digit.

The floor of :func:`shift_rows` is its bytes: for float16, 2 read and 8 written a value, 10,000,000 x 1,024
values in 21 ms at 4.8 TB/s, beside the 310 ms of their products at 67 TFLOP/s (200 ms for those on and above
the diagonal). A warp's store is 256 adjacent bytes. With wider loads a thread would own neighbouring
columns, and the stores, which are four fifths of the bytes, would be torn apart; instead, four rows are
loaded before the first is stored. Four float64 operations a value are 3 ms at 64 a clock and multiprocessor.
"""

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda, jit_device

# Rows that one thread adds up.
CHUNK_ROWS = 64


@jit_device
def _less(value, scale, shift):
    return np.float64(value) * scale - shift


@jit_cuda
def shift_rows(rows, scale, shift, out, sums):
    """Write ``rows * scale - shift``, and each column's sums of that over every 64 rows.

    Blocks: columns along x, one thread each; 64 rows along y.

    Parameters
    ----------
    rows : (m, d) float16, float32 or float64
    scale, shift : (d,) float64
    out : (at least m, at least d) float64
    sums : (ceil(m / 64), 2, d) float64
        Sums and sums of squares.
    """
    j = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    first = cuda.blockIdx.y * CHUNK_ROWS
    if j < rows.shape[1] and first < rows.shape[0]:
        last = min(first + CHUNK_ROWS, rows.shape[0])
        by, less = scale[j], shift[j]
        total = 0.0
        squares = 0.0
        whole = first + (last - first) // 4 * 4
        for i in range(first, whole, 4):
            # Loads first: the compiler must take a store for one that a later load may see.
            a, b, c, d = rows[i, j], rows[i + 1, j], rows[i + 2, j], rows[i + 3, j]
            w = _less(a, by, less)
            x = _less(b, by, less)
            y = _less(c, by, less)
            z = _less(d, by, less)
            out[i, j] = w
            out[i + 1, j] = x
            out[i + 2, j] = y
            out[i + 3, j] = z
            total += (w + x) + (y + z)
            squares += (w * w + x * x) + (y * y + z * z)
        for i in range(whole, last):
            x = _less(rows[i, j], by, less)
            out[i, j] = x
            total += x
            squares += x * x
        sums[cuda.blockIdx.y, 0, j] = total
        sums[cuda.blockIdx.y, 1, j] = squares
