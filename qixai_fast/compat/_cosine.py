"""Cosine between samples by scikit-learn's conventions: sparse matrices, and no warning of zeros."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .._threads import single_threaded_blas
from .._validate import Array
from ..similarity import cosine_similarity
from ._arguments import check_array_like, check_boolean, check_no_nan, is_sparse
from ._matrices import read_matrix

_FUNCTION = "cosine_similarity"


def similarities(X: Any, Y: Any, dense_output: Any) -> Any:
    """Check the arguments, and compare every row of ``X`` with every row of ``Y``."""
    check_array_like(_FUNCTION, "X", X, sparse=True)
    check_array_like(_FUNCTION, "Y", Y, sparse=True, none=True)
    check_boolean(_FUNCTION, "dense_output", dense_output)
    first = read_matrix(X, "X")
    second = first if Y is None or Y is X else read_matrix(Y, "Y")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            "Incompatible dimension for X and Y matrices: "
            f"X.shape[1] == {first.shape[1]} while Y.shape[1] == {second.shape[1]}"
        )
    single = first.dtype == second.dtype == np.float32
    dtype = np.dtype(np.float32 if single else np.float64)
    if is_sparse(first) or is_sparse(second):
        with single_threaded_blas():
            unit = _unit_rows(first.astype(dtype), "X")
            others = unit if second is first else _unit_rows(second.astype(dtype), "Y")
            products = unit @ others.T
        return products.toarray() if is_sparse(products) and dense_output else products
    if not single:
        # Half precision is computed in double precision there, and mixed precision, too.
        same = second is first
        first = _as_double(first)
        second = first if same else _as_double(second)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*their cosine is set to 0", category=UserWarning)
        result: Array = cosine_similarity(first, None if second is first else second)
    return result


def _as_double(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _unit_rows(matrix: Any, name: str) -> Any:
    """Rows scaled to unit length; zeros as they are."""
    if not is_sparse(matrix):
        check_no_nan(matrix, name)
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        return matrix / np.where(norms == 0, 1, norms)[:, None].astype(matrix.dtype)
    unit = matrix.copy()
    starts, stops = unit.indptr[:-1], unit.indptr[1:]
    filled = starts < stops
    squares = np.add.reduceat(np.append(unit.data.astype(np.float64) ** 2, 0.0), starts) * filled
    norms = np.sqrt(np.where(squares == 0, 1, squares))
    unit.data /= np.repeat(norms, stops - starts).astype(unit.dtype)
    return unit
