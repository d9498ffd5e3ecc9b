"""Sums of trapezoids along a path on a GPU: a thread an element, read and added once.

On paper: of float32, 16 bytes read and 16 of the sum for each element and step, where torch's operations,
which make float64 copies on the way, move some 80.
"""

from numba import cuda, float64

from ._cuda_jit import jit_cuda


@jit_cuda
def add_trapezoid(before, after, gradient_before, gradient_after, total):
    """Add ``(after - before) * (gradient_before + gradient_after) / 2`` to ``total``.

    All are (m,) and contiguous; ``total`` is float64, and so is the arithmetic.
    """
    j = cuda.grid(1)
    if j < len(total):
        change = float64(after[j]) - float64(before[j])
        total[j] += 0.5 * change * (float64(gradient_before[j]) + float64(gradient_after[j]))
