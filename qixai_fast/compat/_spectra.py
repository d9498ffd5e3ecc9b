"""Truncated singular value decomposition by scikit-learn's conventions.

Where nothing prescribes how, :func:`qixai_fast.randomized_svd` decides. A caller who names a number of
power iterations or a normaliser gets that algorithm, from the same random numbers as scikit-learn's: Halko,
Martinsson and Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and 5.1. But iterations that
would cost more than exact products give way to those.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import scipy.linalg

from .._threads import ordered_map, resolve_n_jobs, single_threaded_blas
from .._validate import Array
from ..spectra import randomized_svd
from ..statistics import combine_tree, leaf_rows
from ._arguments import (
    check_boolean,
    check_no_nan,
    check_positive,
    check_random_state,
    check_string,
    is_array_like,
    is_sparse,
    loaded,
    refuse,
)
from ._matrices import read_matrix

_FUNCTION = "randomized_svd"
NORMALIZERS = ("auto", "QR", "LU", "none")
DRIVERS = ("gesdd", "gesvd")
_MIN_ROWS = 512
# Up to as many rows or columns, products of all pairs of them are what qixai_fast.randomized_svd takes.
_NARROW = 1024
# Below this part of the first, singular values of squares have lost digits that float64 data still have.
_LOST = 1e-5

Triplets = tuple[Array, Array, Array]


def _read(M: Any) -> Any:
    """A matrix, dense or sparse; of the sparse ones, in a precision that its products are wanted in."""
    if not is_array_like(M) and not is_sparse(M):
        refuse(_FUNCTION, "M", "an array-like or a sparse matrix", M)
    if is_sparse(M) and M.format in ("lil", "dok"):
        category = loaded("scipy.sparse", "SparseEfficiencyWarning", UserWarning)
        message = f"Calculating SVD of a {type(M).__name__} is expensive. CSR format is more efficient."
        warnings.warn(message, category, stacklevel=4)
    matrix = read_matrix(M, "M")
    return matrix.astype(_precision(matrix.dtype), copy=False) if is_sparse(M) else matrix


def _precision(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 for half and single precision, float64 for all else."""
    single = dtype.kind == "f" and dtype.itemsize <= 4
    return np.dtype(np.float32 if single else np.float64)


def decompose(
    M: Any,
    n_components: Any,
    n_oversamples: Any,
    n_iter: Any,
    power_iteration_normalizer: Any,
    transpose: Any,
    flip_sign: Any,
    random_state: Any,
    svd_lapack_driver: Any,
) -> Triplets:
    """Check the arguments, choose the way, and orient the vectors."""
    wanted = check_positive(_FUNCTION, "n_components", n_components)
    extra = _check_count("n_oversamples", n_oversamples)
    iterations = None if isinstance(n_iter, str) and n_iter == "auto" else _check_count("n_iter", n_iter)
    check_string(_FUNCTION, "power_iteration_normalizer", power_iteration_normalizer, NORMALIZERS)
    if not (isinstance(transpose, str) and transpose == "auto"):
        check_boolean(_FUNCTION, "transpose", transpose)
    check_boolean(_FUNCTION, "flip_sign", flip_sign)
    check_string(_FUNCTION, "svd_lapack_driver", svd_lapack_driver, DRIVERS)
    draws = check_random_state(_FUNCTION, random_state)
    matrix = _read(M)
    n, d = matrix.shape
    turned = bool(n < d if isinstance(transpose, str) else transpose)
    k = min(wanted, n, d)
    width = min(wanted + extra, n, d)
    free = power_iteration_normalizer == "auto" and not is_sparse(matrix)
    found = None
    if free and (iterations is None or _exact_costs_less(matrix, width, iterations)):
        found = _by_products(matrix, k, extra, draws)
    if found is None:
        if iterations is None:
            iterations = 7 if wanted < 0.1 * min(n, d) else 4
        normalize = _normalizer(power_iteration_normalizer, iterations)
        with single_threaded_blas():
            found = _by_iterations(
                matrix, turned, wanted + extra, iterations, normalize, draws, svd_lapack_driver
            )
    left, sigma, right = found[0][:, :k], found[1][:k], found[2][:k]
    if flip_sign:
        signs = _signs(left)
        left, right = left * signs, right * signs[:, None]
    return left, sigma, right


def _check_count(parameter: str, value: Any) -> int:
    if not isinstance(value, Integral) or int(value) < 0:
        wanted = "an int in the range [0, inf)" + " or 'auto'" * (parameter == "n_iter")
        refuse(_FUNCTION, parameter, wanted, value)
    return int(value)


def _exact_costs_less(matrix: Array, width: int, iterations: int) -> bool:
    """Whether products of all pairs of rows or columns take no more arithmetic than power iterations.

    Per value of the matrix: half of the narrow side for symmetric products, in float64, beside two products
    with every vector in every iteration.
    """
    narrow = min(matrix.shape)
    cost = narrow if _precision(matrix.dtype) == np.float64 else 2 * narrow
    return bool(narrow <= _NARROW and cost <= 4 * width * (iterations + 1))


def _by_products(matrix: Array, k: int, extra: int, draws: np.random.RandomState) -> Triplets | None:
    """Singular triplets by qixai_fast.randomized_svd; None where its squares lose too much."""
    dtype = _precision(matrix.dtype)
    try:
        left, sigma, right = randomized_svd(
            matrix, k, n_oversamples=extra, flip_sign=False, random_state=draws
        )
    except ValueError:
        # Squares that overflow or underflow float64 are no reason to refuse the matrix.
        check_no_nan(matrix, "M")
        return None
    lost = dtype == np.float64 and sigma[-1] < _LOST * sigma[0]
    # Of a zero matrix any vectors will do; iterations give the same ones as LAPACK.
    return None if lost or sigma[0] == 0 else (left, sigma.astype(dtype), right)


def _normalizer(name: str, iterations: int) -> Callable[[Array], Array]:
    if name == "auto":
        name = "none" if iterations <= 2 else "LU"
    if name == "QR":
        return _orthonormal
    if name == "LU":
        return lambda block: scipy.linalg.lu(block, permute_l=True, check_finite=False)[0]
    return lambda block: block


def _orthonormal(block: Array) -> Array:
    basis: Array = scipy.linalg.qr(block, mode="economic", check_finite=False)[0]
    return basis


def _by_iterations(
    matrix: Any,
    turned: bool,
    width: int,
    iterations: int,
    normalize: Callable[[Array], Array],
    draws: np.random.RandomState,
    driver: str,
) -> Triplets:
    """Singular triplets from ``iterations`` power iterations on random vectors."""
    dtype = _precision(matrix.dtype)
    if not is_sparse(matrix):
        check_no_nan(matrix, "M")
    times, back = (_adjoint_times, _times) if turned else (_times, _adjoint_times)
    size = matrix.shape[0 if turned else 1]
    vectors = draws.normal(size=(size, width)).astype(dtype, copy=False)
    for _ in range(iterations):
        vectors = normalize(times(matrix, vectors))
        vectors = normalize(back(matrix, vectors))
    basis = _orthonormal(times(matrix, vectors))
    small = back(matrix, basis).T
    svd: Any = scipy.linalg.svd
    inner, sigma, right = svd(small, full_matrices=False, lapack_driver=driver)
    left = basis @ inner
    return (right.T, sigma, left.T) if turned else (left, sigma, right)


def _blocks(matrix: Array) -> list[slice]:
    rows = max(_MIN_ROWS, leaf_rows(matrix.shape[1], matrix.dtype))
    return [slice(start, start + rows) for start in range(0, len(matrix), rows)]


def _times(matrix: Any, vectors: Array) -> Array:
    """The matrix times some vectors, block of rows by block of rows."""
    if is_sparse(matrix):
        return np.asarray(matrix @ vectors)
    product = np.empty((len(matrix), vectors.shape[1]), vectors.dtype)

    def chunk(rows: slice) -> None:
        np.matmul(matrix[rows].astype(vectors.dtype, copy=False), vectors, out=product[rows])

    for _ in ordered_map(chunk, _blocks(matrix), resolve_n_jobs(None)):
        pass
    return product


def _adjoint_times(matrix: Any, vectors: Array) -> Array:
    """The transposed matrix times some vectors, in the fixed tree of blocks."""
    if is_sparse(matrix):
        return np.asarray(matrix.T @ vectors)

    def chunk(rows: slice) -> Array:
        product: Array = matrix[rows].astype(vectors.dtype, copy=False).T @ vectors[rows]
        return product

    return combine_tree(ordered_map(chunk, _blocks(matrix), resolve_n_jobs(None)), np.add)


def _signs(left: Array) -> Array:
    """What makes the entry of largest absolute value of every left vector positive."""
    largest = left[np.argmax(np.abs(left), axis=0), np.arange(left.shape[1])]
    return np.where(largest < 0, -1, 1).astype(left.dtype)
