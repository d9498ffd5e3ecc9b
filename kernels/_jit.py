"""The only place with numba options.

Kernels are serial and release the GIL; threads are ours, over leaves and pair blocks
(:mod:`qixai_fast._threads`). numba's own threading layers are never started, so their hazards
(workqueue aborting on concurrent launches, OpenMP after fork) cannot reach a user, and the
bits of a result cannot depend on the number of threads.

A function whose name begins with an underscore is called by kernels only, never from Python: wrappers for
that are a third of the time it takes to compile.
"""

from numba import njit

# Everything that lets the compiler vectorise a sum, and nothing that lets it assume that NaN
# or inf do not occur ("nnan", "ninf"): those would delete the checks that look for them.
REORDERING = {"reassoc", "contract", "arcp", "nsz"}


def _compiled(function, **options):
    inner = function.__name__.startswith("_")
    return njit(cache=True, nogil=True, no_cpython_wrapper=inner, no_cfunc_wrapper=True, **options)(function)


def jit(function):
    """Compile with IEEE semantics: comparisons, counts, and sums whose order matters."""
    return _compiled(function)


def jit_reordering(function):
    """Compile with sums the compiler may reorder, for vectorised reductions."""
    return _compiled(function, fastmath=REORDERING)


def jit_inlined(function):
    """Compile into the kernels that call it: a call that passes arrays costs more than a small body."""
    return _compiled(function, forceinline=True)
