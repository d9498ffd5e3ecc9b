"""Block Krylov for the largest eigenvalues of a matrix that can only be applied to vectors.

Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value
Decomposition" (2015), algorithm 2, as a block Lanczos iteration with full reorthogonalisation: the basis
and its image are both kept, so that Ritz values and their residuals cost no further application.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ._validate import Array, Float64

# Residuals enter bounds multiplied by this: in flat spectra, values of a basis that is still
# far from converged were seen to be off by up to 1.2 times the bound without it.
_SAFETY = 2.0
_MAX_BLOCKS = 8
_KEPT_BLOCKS = 4
# Directions below this part of the operator's norm are rounding, not signal.
_NEGLIGIBLE = 1e-14


@dataclass(frozen=True)
class RitzPairs:
    """Approximate leading eigenpairs of a positive semidefinite matrix, largest first.

    Attributes
    ----------
    values : ndarray of shape (m,)
        As many as the vectors that the iteration began with.
    vectors : ndarray of shape (width, m)
        Orthonormal columns.
    truncation : ndarray of shape (k,)
        For the wanted ones, a bound on how far each value is from the eigenvalue of its rank, rounding aside.
    spread : ndarray of shape (m,)
        Mean of v^T A v over the basis vectors that make up each vector: where products are rounded, errors
        are proportional to its root.
    n_passes : int
        Applications of the matrix.
    """

    values: Float64
    vectors: Float64
    truncation: Float64
    spread: Float64
    n_passes: int


def column_norms(columns: Float64) -> Float64:
    """Euclidean norm of each column; the elements are squares themselves, whose squares may overflow."""
    largest = float(np.max(np.abs(columns)))
    norms: Float64 = np.linalg.norm(columns / largest, axis=0) * largest if largest > 0 else columns[0] * 0.0
    return norms


def truncation_bound(values: Float64, residuals: Float64, trace: float, outside: float, k: int) -> Float64:
    """How far the leading Ritz values may be from the eigenvalues of the same rank.

    Two bounds, the smaller of which holds. All eigenvalues are at least their Ritz values, so none can
    exceed its own by more than what the basis leaves of the trace. And the leading j Ritz vectors are
    coupled to the rest of the space by their residuals only (norm E), so that a value at distance ``gap``
    from the spectrum of that rest moves by at most 2 E^2 / (gap + sqrt(gap^2 + 4 E^2)) (Li and Li, "A note
    on eigenvalues of perturbed Hermitian matrices", 2005, theorem 2). The top of that rest is taken to be
    Ritz value j + 1 and three times its residual, or what is left of the trace where that is less.

    Parameters
    ----------
    values, residuals : ndarray of shape (m,)
        Ritz values, largest first, and the norms of their residuals.
    trace : float
        Of the whole matrix.
    outside : float
        The trace less the sum of all Ritz values of the basis.
    k : int
        Values to bound; ``k <= m``.
    """
    coupling = _SAFETY * np.sqrt(np.cumsum(residuals**2))
    bound = np.full(k, max(outside, 0.0))
    summed = np.cumsum(values)
    for j in range(1, len(values)):
        top = min(values[j] + 3.0 * residuals[j], trace - summed[j - 1])
        ranks = slice(0, min(j, k))
        gap = np.maximum(values[ranks] - top, 0.0)
        e = coupling[j - 1]
        if e == 0.0:
            bound[ranks] = 0.0
            continue
        np.minimum(bound[ranks], 2 * e * e / (gap + np.hypot(gap, 2 * e)), out=bound[ranks])
    return bound


def _orthonormal(block: Float64) -> Float64:
    """An orthonormal basis of the columns of ``block``."""
    basis: Float64 = np.asarray(scipy.linalg.qr(block, mode="economic", check_finite=False)[0], np.float64)
    return basis


def _new_directions(block: Float64, basis: Float64, negligible: float) -> Float64:
    """Orthonormal columns for what ``block`` has outside ``basis``; fewer, or none, where it has less."""
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    q, r, _ = scipy.linalg.qr(block, mode="economic", pivoting=True, check_finite=False)
    rank = int(np.count_nonzero(np.abs(np.diag(r)) > negligible))
    rank = min(rank, basis.shape[0] - basis.shape[1])
    q = q[:, :rank]
    # Columns that were almost nothing lose their orthogonality to the basis when they are scaled up.
    q = q - basis @ (basis.T @ q)
    return _orthonormal(q) if rank else q


def krylov_memory(width: int, block: int, n_passes: int) -> int:
    """Bytes that :func:`block_krylov` holds beside one application of the matrix."""
    columns = min(width, block * min(n_passes, _MAX_BLOCKS))
    return 8 * (3 * width * columns + 8 * width * block + 8 * columns * columns) + 2**16


def block_krylov(
    apply: Callable[[Array], Float64],
    start: Float64,
    n_components: int,
    trace: Callable[[], float],
    enough: Callable[[RitzPairs], bool],
    single: bool = False,
) -> RitzPairs:
    """Leading eigenpairs of a symmetric positive semidefinite matrix.

    Parameters
    ----------
    apply : callable
        Maps (width, b) to the matrix times it.
    start : ndarray of shape (width, b)
        Random, or near the vectors that are wanted; ``b >= n_components``.
    n_components : int
    trace : callable
        The matrix's trace; asked for after the first application.
    enough : callable
        Told what there is after each application; True to stop.
    single : bool
        The matrix takes vectors in float32: all that is applied is rounded to it. The basis is then not
        orthonormal to the last digit, which the small eigenproblem takes into account.

    Returns
    -------
    RitzPairs
    """
    width, wanted = start.shape
    precision = np.float32 if single else np.float64

    def applied(vectors: Float64) -> tuple[Float64, Float64, Float64]:
        rounded = vectors.astype(precision)
        image = apply(rounded)
        kept = rounded.astype(np.float64)
        return kept, image, np.maximum(np.einsum("ij,ij->j", kept, image), 0.0)

    basis, image, spread = applied(_orthonormal(start))
    newest = image
    n_passes = 1
    while True:
        small, overlap = basis.T @ image, basis.T @ basis
        values, rotation = scipy.linalg.eigh((small + small.T) / 2, overlap, check_finite=False)
        values, rotation = np.maximum(values[::-1], 0.0), rotation[:, ::-1]
        vectors = basis @ rotation[:, :wanted]
        leading = values[:wanted]
        residuals = column_norms(image @ rotation[:, :wanted] - vectors * leading)
        whole = trace()
        outside = whole - float(values.sum())
        complete = basis.shape[1] == width
        truncation = np.zeros(n_components)
        if not complete:
            # A power of two leaves the bits as they are, and squares of the residuals within range.
            unit = math.ldexp(1.0, math.frexp(whole)[1] - 1) if whole > 0 else 1.0
            truncation = unit * truncation_bound(
                leading / unit, residuals / unit, whole / unit, outside / unit, n_components
            )
        spreads = spread @ rotation**2
        pairs = RitzPairs(leading, vectors, truncation, spreads[:wanted], n_passes)
        if complete or enough(pairs):
            return pairs
        directions = _new_directions(newest, basis, _NEGLIGIBLE * float(values[0]))
        if directions.shape[1] == 0:
            return pairs
        if basis.shape[1] >= _MAX_BLOCKS * wanted:
            kept = rotation[:, : _KEPT_BLOCKS * wanted]
            basis, image, spread = basis @ kept, image @ kept, spreads[: _KEPT_BLOCKS * wanted]
        directions, newest, more = applied(directions)
        basis, image = np.hstack([basis, directions]), np.hstack([image, newest])
        spread = np.concatenate([spread, more])
        n_passes += 1
