"""Statistics that add up over rows: one definition for memory, memmaps, CUDA and a cluster.

A statistic is written once as ``chunk(blocks) -> partial``, ``combine(partial, partial) -> partial``
and ``finalize(partial) -> result``. Rows are cut into leaves of a fixed number of rows, a function of
total width and dtype only, and partials combine in one binary tree fixed by leaf index. So the bits of
a result do not depend on threads, workers, budget or the caller's own chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ._threads import ordered_map
from ._validate import Float64, Matrix

Partial = TypeVar("Partial")

_LEAF_BYTES = 4 * 2**20
_MIN_LEAF_ROWS = 256
_MAX_LEAF_ROWS = 32768


def leaf_rows(width: int, dtype: np.dtype[Any]) -> int:
    """Rows in a leaf: a power of two so that a leaf of ``width`` columns holds about 4 MiB.

    Examples
    --------
    >>> leaf_rows(512, np.dtype("float32"))
    2048
    """
    rows = _LEAF_BYTES // max(1, width * dtype.itemsize)
    power = 1 << max(0, rows.bit_length() - 1)
    return min(_MAX_LEAF_ROWS, max(_MIN_LEAF_ROWS, power))


def leaf_bounds(matrices: Sequence[Matrix]) -> list[tuple[int, int]]:
    """First and last-plus-one row of every leaf of matrices that share their samples."""
    width = sum(matrix.n_features for matrix in matrices)
    dtype = max((matrix.dtype for matrix in matrices), key=lambda dtype: dtype.itemsize)
    rows = leaf_rows(width, dtype)
    n = matrices[0].n_samples
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]


def combine_tree(partials: Iterable[Partial], combine: Callable[[Partial, Partial], Partial]) -> Partial:
    """Combine partials, in leaf order, in the binary tree that leaf indices fix.

    Works like a binary counter: at most log2(leaves) + 1 partials are held at a time. Leaves
    2i and 2i+1 meet first; what is left over at the end combines from the smallest up.
    """
    held: list[tuple[int, Partial]] = []
    for partial in partials:
        level = 0
        while held and held[-1][0] == level:
            partial = combine(held.pop()[1], partial)
            level += 1
        held.append((level, partial))
    if not held:
        raise ValueError("combine_tree: wanted at least one partial")
    _, result = held.pop()
    while held:
        result = combine(held.pop()[1], result)
    return result


class RowStatistic(Protocol[Partial]):
    """The contract: what a statistic over rows has to offer."""

    def chunk(self, blocks: Sequence[Float64]) -> Partial:
        """The partial result of one leaf; ``blocks`` holds the same rows of every matrix."""
        ...

    def combine(self, first: Partial, second: Partial) -> Partial:
        """The partial result of both parts' rows; may reuse the memory of its arguments."""
        ...


def reduce_rows(statistic: RowStatistic[Partial], matrices: Sequence[Matrix], n_jobs: int) -> Partial:
    """Read every matrix once, leaf by leaf, and return the combined partial of all rows.

    Parameters
    ----------
    statistic : RowStatistic
    matrices : sequence of Matrix
        The same samples in each.
    n_jobs : int
        Threads, as ``resolve_n_jobs`` gives them; each holds one leaf. Callers set the limit on
        BLAS threads (``single_threaded_blas``) and check the budget.
    """

    def leaf(bounds: tuple[int, int]) -> Partial:
        return statistic.chunk([matrix.block(*bounds) for matrix in matrices])

    return combine_tree(ordered_map(leaf, leaf_bounds(matrices), n_jobs), statistic.combine)
