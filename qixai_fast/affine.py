"""Rows of a matrix mapped to other rows, block by block: scores on components, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._memory import workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import Array, Float64, Matrix
from .statistics import leaf_rows


def output_array(out: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """New memory for a result, or the caller's own once it is found fit.

    Raises
    ------
    TypeError, ValueError
        For other than a writable floating-point array of that shape.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: wanted a NumPy array or memmap, got {type(out).__name__}")
    if out.shape != shape or out.dtype.kind != "f" or not out.flags.writeable:
        raise ValueError(
            f"out: wanted a writable floating-point array of shape {shape}, "
            f"got shape {out.shape}, dtype {out.dtype}{'' if out.flags.writeable else ', read-only'}"
        )
    return out


def affine_rows(
    matrix: Matrix,
    weights: Float64,
    out: Array,
    *,
    before: Float64 | None = None,
    after: Float64 | None = None,
    n_jobs: int,
    budget: int | None,
    work: str,
) -> None:
    """Write ``(x - before) @ weights + after`` for every row ``x``; products are float64.

    Parameters
    ----------
    matrix : Matrix
        Shape (n, d); read in blocks of rows, each once.
    weights : ndarray of shape (d, k)
    out : ndarray of shape (n, k)
    before : ndarray of shape (d,), optional
    after : ndarray of shape (k,), optional
    n_jobs : int
    budget : int or None
    work : str
        Named in the error where the budget is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast._validate import as_matrix
    >>> out = np.empty((2, 1))
    >>> X, weights = as_matrix(np.array([[1.0, 2.0], [3.0, 4.0]])), np.array([[1.0], [1.0]])
    >>> affine_rows(X, weights, out, before=np.ones(2), n_jobs=1, budget=None, work="sums")
    >>> out.ravel()
    array([1., 5.])
    """
    n, d = matrix.data.shape
    k = weights.shape[1]
    rows = min(n, leaf_rows(max(d, k), np.dtype(np.float64)))
    per_worker = 8 * rows * (d + 2 * k) + 2**16
    workers = workers_within(budget, n_jobs, fixed=8 * (d + 2) * k + 2**16, per_worker=per_worker, work=work)

    def chunk(start: int) -> None:
        block = matrix.block(start, min(start + rows, n))
        with np.errstate(over="ignore", invalid="ignore"):
            if before is not None:
                block -= before
            mapped = block @ weights
            if after is not None:
                mapped += after
            out[start : start + rows] = mapped

    with single_threaded_blas():
        for _ in ordered_map(chunk, range(0, n, rows), workers):
            pass
