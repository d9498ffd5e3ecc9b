"""The only place with numba options.

Kernels are serial and release the GIL; threads are ours, over leaves and pair blocks
(:mod:`qixai_fast._threads`). numba's own threading layers are never started, so their hazards
(workqueue aborting on concurrent launches, OpenMP after fork) cannot reach a user, and the
bits of a result cannot depend on the number of threads.
"""

from numba import njit

# Everything that lets the compiler vectorise a sum, and nothing that lets it assume that NaN
# or inf do not occur ("nnan", "ninf"): those would delete the checks that look for them.
REORDERING = {"reassoc", "contract", "arcp", "nsz"}


def jit(function):
    """Compile with IEEE semantics: comparisons, counts, and sums whose order matters."""
    return njit(cache=True, nogil=True)(function)


def jit_reordering(function):
    """Compile with sums the compiler may reorder, for vectorised reductions."""
    return njit(cache=True, nogil=True, fastmath=REORDERING)(function)


def jit_inlined(function):
    """Compile into the kernels that call it: a call that passes arrays costs more than a small body."""
    return njit(cache=True, nogil=True, forceinline=True)(function)
