"""Rows of a matrix mapped to other rows, block by block: scores on components, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._memory import release_rows, workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import Array, Float64, Matrix
from .pair_products import has_wide_registers
from .shifted_rows import as_stored, frozen
from .statistics import leaf_rows

# Columns of weights in a tile of the kernel, at most, and in a register.
_TILE, _REGISTER = 24, 8


class RowMap:
    """``(x - before) @ weights`` for blocks of rows of matrices; products are float64.

    Parameters
    ----------
    weights : ndarray of shape (d, k)
    before : ndarray of shape (d,), optional
    """

    def __init__(self, weights: Float64, before: Float64 | None = None) -> None:
        self._weights, self._before = weights, before
        self._tiles = has_wide_registers()
        if self._tiles:
            from .kernels.products_cpu import pack

            d, k = weights.shape
            n_panels = -(-k // _TILE)
            width = -(-k // (_REGISTER * n_panels)) * _REGISTER
            self._panels = np.empty((n_panels, d, width))
            self._shift = np.zeros(d) if before is None else before
            pack(np.ascontiguousarray(weights), self._panels)

    def apply(self, matrix: Matrix, start: int, stop: int) -> Float64:
        """Rows ``start:stop`` mapped, as new memory.

        Raises
        ------
        ValueError
            For the first value that is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if not self._tiles:
                block = matrix.block(start, stop)
                if self._before is not None:
                    block -= self._before
                product: Float64 = block @ self._weights
                return product
            from .kernels.products_cpu import map_rows

            mapped: Float64 = np.empty((stop - start, self._weights.shape[1]))
            map_rows(frozen(as_stored(matrix, start, stop)), self._shift, self._panels, mapped)
            if not np.isfinite(mapped.sum()):
                matrix.block(start, stop)
        release_rows(matrix.data, start, stop)
        return mapped


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
    per_worker = 8 * rows * (d + 2 * k) + 8 * 8 * (d + 16) + 2**16
    fixed = 2 * 8 * (d + 2) * (k + _TILE) + 2**16
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    row_map = RowMap(weights, before)

    def chunk(start: int) -> None:
        mapped = row_map.apply(matrix, start, min(start + rows, n))
        with np.errstate(over="ignore", invalid="ignore"):
            if after is not None:
                mapped += after
            out[start : start + rows] = mapped

    with single_threaded_blas():
        for _ in ordered_map(chunk, range(0, n, rows), workers):
            pass
