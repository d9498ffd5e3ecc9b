"""Options of every CUDA kernel: the only place that has them.

Kernels are compiled at their first launch and kept on disk. No fast mathematics: NaN stays NaN, and sums keep
the order in which they are written.
"""

from numba import cuda

jit_cuda = cuda.jit(cache=True)
jit_device = cuda.jit(device=True, inline="always")
