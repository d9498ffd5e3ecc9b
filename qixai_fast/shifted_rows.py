"""Blocks of rows, side by side and less a shift, in contiguous memory for a matrix product.

One pass over the data converts, shifts, sums and copies; values that are not finite show in the sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._memory import release_rows
from ._validate import Array, Float64, Matrix, check_finite, piece_rows

# Rows of one product. Rounding errors of float32 sums grow with their length; shorter ones cost
# more in adding the products up: 3 % of the products themselves at this length.
PRODUCT_ROWS = 512
_LINE = 64
_RELEASE_BYTES = 4 * 2**20


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin at a cache line: wide loads and stores across two lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    zeros: Array = memory[first : first + size].view(dtype).reshape(shape)
    return zeros


def as_stored(matrix: Matrix, start: int, stop: int) -> Array:
    """Rows as a C-ordered float32 or float64 array without rounding them; not checked to be finite.

    A view where the input is such an array already.
    """
    if type(matrix).block is not Matrix.block:
        return matrix.block(start, stop)
    view = matrix.data[start:stop]
    small = view.dtype.kind == "f" and view.dtype.itemsize <= 4
    return np.ascontiguousarray(view, np.float32 if small else np.float64)


def frozen(rows: Array) -> Array:
    """A read-only view: then memory that may be written shares compiled code with memory that may not."""
    view = rows.view()
    view.flags.writeable = False
    return view


def copy_less_shift(rows: Array, shift: Float64, out: Array, column: int, sums: Array, key: int) -> None:
    """Copy rows less a shift into columns of ``out`` from ``column`` on, and add up their sums.

    Parameters
    ----------
    rows : ndarray of shape (m, d), float32 or float64, C order
    shift : ndarray of shape (d,)
    out : ndarray of shape (m, width), C order
        float64, or float32: then pairs of rows are turned, see
        :func:`qixai_fast.kernels.moments_cpu.copy_rotated`.
    column : int
    sums : ndarray of shape (2, width), float64
        Sums and sums of squares, added to.
    key : int
        Place of the rows in the whole, from which the turns follow.
    """
    from .kernels.moments_cpu import copy_rotated, copy_shifted

    columns = slice(column, column + len(shift))
    total, squares = sums[0, columns], sums[1, columns]
    if out.dtype == np.float32:
        copy_rotated(frozen(rows), shift, key, out, column, total, squares)
    else:
        copy_shifted(frozen(rows), shift, out, column, total, squares)


class ShiftedReader:
    """Reads the same rows of several matrices, side by side and less a shift.

    Parameters
    ----------
    matrices : sequence of Matrix
    shift : ndarray of shape (width,)
    dtype : dtype
        float32 or float64, of what is read.
    rows : int
        Most rows at a time.
    """

    def __init__(self, matrices: Sequence[Matrix], shift: Float64, dtype: Any, rows: int) -> None:
        self._matrices, self._shift = matrices, shift
        self._buffer = aligned_zeros((rows, len(shift)), dtype)
        self._unreleased: int | None = None

    def read(self, start: int, stop: int, sums: Array) -> Array:
        """Rows ``start:stop``, in memory that the next call uses again; their sums are added to ``sums``."""
        out = self._buffer[: stop - start]
        column = 0
        for matrix in self._matrices:
            rows = as_stored(matrix, start, stop)
            width = rows.shape[1]
            copy_less_shift(rows, self._shift[column : column + width], out, column, sums, start)
            column += width
        self._release(start, stop)
        return out

    def _release(self, start: int, stop: int) -> None:
        """Let pages go every few megabytes; a call for every few rows would cost more than reading them."""
        first = start if self._unreleased is None else self._unreleased
        widest = max(matrix.data.shape[1] * matrix.dtype.itemsize for matrix in self._matrices)
        self._unreleased = first
        if (stop - first) * widest >= _RELEASE_BYTES:
            self.release(stop)

    def release(self, stop: int) -> None:
        """Let the pages of rows before ``stop`` go."""
        if self._unreleased is not None:
            for matrix in self._matrices:
                release_rows(matrix.data, self._unreleased, stop)
        self._unreleased = None

    def check(self, start: int, stop: int, sums: Array) -> None:
        """Raise ValueError for the first value of these rows that is not finite, once their sums are not."""
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(sums.sum()):
                return
        for matrix in self._matrices:
            matrix.block(start, stop)


def mean_of_rows(matrix: Matrix, start: int, stop: int) -> Float64:
    """Mean of some rows, taken about the first of them.

    So a column that is constant there has its own value as mean, to the bit.
    """
    rows = as_stored(matrix, start, stop)
    check_finite(rows, matrix.name, first_row=start)
    first = rows[0].astype(np.float64)
    total = np.zeros(len(first))
    step = piece_rows(len(first))
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(rows), step):
            total += (rows[at : at + step] - first).sum(axis=0)
        mean: Float64 = first + total / len(rows)
    release_rows(matrix.data, start, stop)
    return mean
