"""Leading eigenpairs of the products of all pairs of features, in float32 where that is exact enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from ._validate import Float64, Matrix
from .krylov import column_norms
from .rounding import double_rounding, relative_bound, single_rounding
from .shifted_rows import PRODUCT_ROWS
from .statistics import (
    CrossMoments,
    ShiftedMoments,
    combine_tree,
    cross_moments,
    finalize_moments,
    first_means,
    leaf_bounds,
)

if TYPE_CHECKING:
    from ._gpu.spectra import DevicePasses

# What singular values are promised to.
PROMISE = 1e-6
# Narrower products spend their time in reading; those of fewer rows are quick in float64, too.
_LEAST_WIDTH = 96
_LEAST_ROWS_A_FEATURE = 16
_SAMPLES, _SAMPLE_ROWS = 4, 256
_SPARE_PAIRS = 8


@dataclass(frozen=True)
class FeaturePairs:
    """Leading eigenpairs of X^T X, or of the scatter about the mean.

    Attributes
    ----------
    values : ndarray of shape (k,)
    vectors : ndarray of shape (d, k)
    errors : ndarray of shape (k,)
        Bounds on the errors of the values.
    trace : float
    mean : ndarray of shape (d,)
    n_passes : int
    moments : CrossMoments
        What they were computed from.
    """

    values: Float64
    vectors: Float64
    errors: Float64
    trace: float
    mean: Float64
    n_passes: int
    moments: CrossMoments


def leading_eigenpairs(products: Float64, k: int) -> tuple[Float64, Float64, Float64]:
    """Values, vectors and residual norms of the ``k`` largest eigenvalues of a symmetric matrix."""
    width = len(products)
    few = 4 * k < width
    values, vectors = scipy.linalg.eigh(
        products,
        driver="evr" if few else "evd",
        subset_by_index=[width - k, width - 1] if few else None,
        check_finite=False,
    )
    return with_residuals(products, values[: -k - 1 : -1], vectors[:, : -k - 1 : -1])


def with_residuals(products: Float64, values: Float64, vectors: Float64) -> tuple[Float64, Float64, Float64]:
    """Eigenvalues of a positive semidefinite matrix, none below 0, their vectors and residual norms."""
    values = np.maximum(values, 0.0)
    return values, vectors, column_norms(products @ vectors - vectors * values)


def _rough_eigenpairs(products: Float64, k: int) -> tuple[Float64, Float64]:
    """A few steps of subspace iteration: values are a little low, and cost little."""
    # A power of two keeps everything within the range of float32.
    unit = 2.0 ** math.frexp(float(np.trace(products)))[1]
    rough = (products / unit).astype(np.float32)
    vectors = np.random.default_rng(0).standard_normal((len(rough), k), dtype=np.float32)
    for _ in range(3):
        vectors = np.linalg.qr(rough @ vectors)[0]
    small = (vectors.T @ (rough @ vectors)).astype(np.float64)
    values, rotation = np.linalg.eigh((small + small.T) / 2)
    return np.maximum(values[::-1], 0.0) * unit, vectors.astype(np.float64) @ rotation[:, ::-1]


def single_may_do(matrix: Matrix, k: int, goal: float) -> bool:
    """Whether float32 products look exact enough for ``k`` singular values within ``goal``.

    A guess from a thousand rows in four places of the data: a wrong one costs time, nothing else.
    """
    n, d = matrix.n_samples, matrix.n_features
    half_or_single = matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4
    if not half_or_single or d < max(_LEAST_WIDTH, 4 * k) or n < _LEAST_ROWS_A_FEATURE * d:
        return False
    statistic = ShiftedMoments(first_means([matrix]), single=True)
    starts = [(n - _SAMPLE_ROWS) * i // (_SAMPLES - 1) for i in range(_SAMPLES)]
    parts = (statistic.chunk_of([matrix], start, start + _SAMPLE_ROWS) for start in starts)
    sums = combine_tree(parts, statistic.combine)
    peak = 1.25 * PRODUCT_ROWS / _SAMPLE_ROWS * sums.peak
    squares = sums.sums[1] * (n / sums.n)
    scatter = finalize_moments(sums, statistic.shift, [d]).scatter
    if not np.isfinite(scatter).all():
        return False
    values, vectors = _rough_eigenpairs(scatter, k + _SPARE_PAIRS)
    values *= n / sums.n
    errors = single_rounding(values, vectors, squares, peak, n)
    return bool(np.all(relative_bound(values, errors, np.zeros_like(errors))[:k] <= 0.8 * goal))


def _double_errors(matrix: Matrix, raw: float) -> float:
    bounds = leaf_bounds([matrix])
    return double_rounding(bounds[0][1] - bounds[0][0], matrix.n_features, len(bounds), raw)


def feature_pairs(
    matrix: Matrix,
    k: int,
    *,
    center: bool,
    tol: float | None,
    n_jobs: int,
    device: DevicePasses | None = None,
) -> FeaturePairs:
    """Leading eigenpairs of the products of features: one read, two where a guess was wrong.

    Parameters
    ----------
    matrix : Matrix
    k : int
    center : bool
    tol : float or None
        Relative error wanted of singular values, where it is less than what is promised.
    n_jobs : int
    device : DevicePasses, optional
        Reads the matrix in place of threads, for float64 products.
    """
    goal = min(tol or PROMISE, PROMISE)
    single = device is None and single_may_do(matrix, k, goal)
    n_passes = 0
    while True:
        if device is None:
            moments = cross_moments([matrix], single=single, n_jobs=n_jobs)
        else:
            moments = device.moments()
        n_passes += 1 + int(single and not moments.single)
        products = moments.scatter if center else moments.raw_block(0, 0)
        trace = float(np.trace(products))
        n_pairs = k + _SPARE_PAIRS if moments.single else k
        solve = leading_eigenpairs if device is None else device.leading_eigenpairs
        values, vectors, errors = solve(products, n_pairs)
        if not moments.single:
            raw = moments.raw_trace + (0.0 if center else trace)
            errors += _double_errors(matrix, raw) if device is None else device.rounding(raw)
            break
        errors += single_rounding(values, vectors, moments.squares, moments.peak, matrix.n_samples)
        values, vectors, errors = values[:k], vectors[:, :k], errors[:k]
        if np.all(relative_bound(values, errors, np.zeros(k)) <= goal):
            break
        single = False
    return FeaturePairs(values, vectors, errors, trace, moments.mean, n_passes, moments)
