"""How far rounding may have moved the eigenvalues of streamed products.

Rounding errors of one sum are taken to be independent with mean zero (Higham and Mary, "A new approach to
probabilistic rounding error analysis", 2019), and bounds are several standard deviations of what follows.
For float32 products the assumption is made true: pairs of rows are turned by random angles first
(:func:`qixai_fast.kernels.moments_cpu.copy_rotated`), so that even a constant is a new number each time.
"""

from __future__ import annotations

import math

import numpy as np

from ._validate import Float64
from .shifted_rows import PRODUCT_ROWS

_UNIT_DOUBLE = float(np.finfo(np.float64).eps) / 2
_UNIT_SINGLE = float(np.finfo(np.float32).eps) / 2
_LEAST_SINGLE = float(np.finfo(np.float32).smallest_subnormal)


def relative_bound(squares: Float64, rounding: Float64, truncation: Float64) -> Float64:
    """Bound on the relative error of singular values, from errors of their squares.

    Parameters
    ----------
    squares : ndarray of shape (k,)
    rounding : ndarray of shape (k,)
        The true squares are below by no more than this.
    truncation : ndarray of shape (k,)
        They are above by no more than this and the rounding: Ritz values never exceed the truth.

    Returns
    -------
    ndarray of shape (k,)
        Grows as ``(sigma_1 / sigma_i) ** 2``, as rounding is in proportion to ``sigma_1 ** 2``; infinite
        where the true value may be zero.
    """
    sigma = np.sqrt(squares)
    low = np.sqrt(np.maximum(squares - rounding, 0.0))
    high = np.sqrt(squares + rounding + truncation)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(rounding > 0, rounding / ((sigma + low) * low), 0.0)
        above = np.where(high > 0, (rounding + truncation) / ((high + sigma) * high), 0.0)
    return np.maximum(below, above)


def double_rounding(length: int, width: int, parts: int, trace: float) -> float:
    """Bound on the 2-norm error of float64 products of ``width`` columns with this trace.

    Parameters
    ----------
    length : int
        Rows of one part.
    width, parts : int
    trace : float

    Returns
    -------
    float
        Errors of sums grow as the root of their length; four times that is exceeded with negligible
        probability.
    """
    growth = math.sqrt(length) + math.sqrt(width) + parts.bit_length()
    return 4 * _UNIT_DOUBLE * growth * trace


def single_rounding(
    values: Float64, vectors: Float64, squares: Float64, peak: Float64, n_samples: int
) -> Float64:
    """Bounds on the errors of the leading eigenvalues of products summed in float32.

    Products of up to L rows are float32, and the sum over them is exact beside that. With S_t the sum
    after t of the L steps, element (i, j) of one product has an error of variance at most
    (u^2 / 3) sum_t S_t,ij^2, about (u^2 L / 9) P_ij^2 for the whole product P. Squares of P_ij are at most
    P_ii P_jj. For a unit vector v, then, v^T E v has a variance of at most
    (2 u^2 L / 9) (w . peak) (w . squares) with w = v^2, and the norm of E is about (Bandeira and van Handel,
    "Sharp nonasymptotic bounds on the norm of random matrices with independent entries", 2016) twice the
    root of the largest sum of variances of a row. An eigenvalue moves by what E does among the
    leading vectors, and by 2 |E|^2 / (gap + sqrt(gap^2 + 4 |E|^2)) for what couples these to the rest
    (Li and Li, "A note on eigenvalues of perturbed Hermitian matrices", 2005, theorem 2).

    Parameters
    ----------
    values : ndarray of shape (m,)
        Leading eigenvalues of the products, largest first.
    vectors : ndarray of shape (d, m)
    squares, peak : ndarray of shape (d,)
        Sum of squares of each column: of all rows, and the largest of one product.
    n_samples : int

    Returns
    -------
    ndarray of shape (m,)
        Bounds for the values; those of the last few are larger than they need be.
    """
    step = _UNIT_SINGLE / 3 * math.sqrt(PRODUCT_ROWS)
    weights = vectors**2
    deviation = step * np.sqrt(2 * (peak @ weights) * (squares @ weights))
    norm = 4 * step * math.sqrt(float(peak.max()) * float(squares.sum()))
    norm += n_samples * len(peak) * _LEAST_SINGLE
    bound = np.full(len(values), norm)
    for j in range(1, len(values)):
        among = (2 * math.sqrt(j) + 5) * float(deviation[:j].max())
        gap = np.maximum(values[:j] - values[j] - 2 * norm, 0.0)
        coupled = 2 * norm**2 / (gap + np.hypot(gap, 2 * norm)) if norm > 0 else 0.0
        np.minimum(bound[:j], among + coupled, out=bound[:j])
    return bound


def single_image_rounding(
    spread: Float64, vectors: Float64, squares: Float64, peak: Float64, rows: int, n_samples: int
) -> Float64:
    """Bounds on the errors of v^T X^T (X v) for vectors whose images were computed in float32.

    Two sums are rounded. Those over the rows of a product, of variance at most
    (u^2 L / 9) (w . peak) s with w = v^2 as in :func:`single_rounding`, s the spread. And the scores X v,
    sums over d columns whose partial sums are at most |x| |v|: (u^2 d / 18) s |X|^2 / n.

    Parameters
    ----------
    spread : ndarray of shape (m,)
        v^T X^T X v, as a mean over the vectors that were applied.
    vectors : ndarray of shape (d, m)
    squares, peak : ndarray of shape (d,)
        As in :func:`single_rounding`.
    rows : int
        Of one product.
    n_samples : int

    Returns
    -------
    ndarray of shape (m,)
    """
    d, m = vectors.shape
    over_rows = rows * (peak @ vectors**2)
    over_columns = d / 2 * float(squares.sum()) / n_samples
    deviation = _UNIT_SINGLE / 3 * np.sqrt(spread * (over_rows + over_columns))
    bound: Float64 = (2 * math.sqrt(m) + 5) * deviation + n_samples * d * _LEAST_SINGLE
    return bound
