"""Matrices as scikit-learn takes them, dense or sparse, and errors of the kinds that it raises."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validate import Array
from ._arguments import check_no_nan, is_sparse, read_array


def read_matrix(value: Any, name: str) -> Any:
    """A real matrix with rows and columns: an array, or a sparse matrix by rows.

    Only values of sparse matrices and objects are checked to be finite.
    """
    if is_sparse(value):
        matrix = value.tocsr()
        if matrix.dtype.kind == "c":
            raise ValueError(f"Complex data not supported: {name} has dtype {matrix.dtype}")
        check_no_nan(matrix.data, name)
    else:
        matrix = read_array(value, name)
        if matrix.dtype.kind in "OUS":
            matrix = _as_numbers(matrix, name)
            check_no_nan(matrix, name)
        if matrix.dtype.kind not in "buif":
            raise ValueError(f"dtype {matrix.dtype} of {name} is not numeric; convert it to numbers first")
        if matrix.dtype.itemsize > 8:
            matrix = matrix.astype(np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {matrix.ndim}D array instead, of shape {matrix.shape}; "
            f"reshape a single sample with {name}.reshape(1, -1)"
        )
    for length, what in zip(matrix.shape, ("sample", "feature"), strict=True):
        if length == 0:
            raise ValueError(f"Found array with 0 {what}(s) (shape={matrix.shape}) while 1 is required.")
    return matrix


def _as_numbers(array: Array, name: str) -> Array:
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be converted to numbers ({error})") from None
