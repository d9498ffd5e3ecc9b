"""What linear CKA and Schmidt spectra need of two layers: cross moments, or Gram matrices of wide ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._cluster import tree
from ._layer_products import LayerProducts
from ._memory import workers_within
from ._products import gram, gram_memory
from ._threads import single_threaded_blas
from ._validate import Float64, Matrix
from ._views import Affine, Centred, layer_scale
from .statistics import leaf_bounds, leaf_shift


@dataclass(frozen=True)
class Grams:
    """Gram matrices of two layers whose columns are centred, each (n, n)."""

    K: Float64
    L: Float64


def prefers_grams(X: Matrix, Y: Matrix) -> bool:
    """Whether (n, n) Gram matrices are smaller than the cross moments of all features."""
    return X.n_samples < X.n_features + Y.n_features


def _column_means(view: Affine, n_jobs: int) -> Float64:
    """Means of the columns of a view, in one read."""

    def leaf(bounds: tuple[int, int]) -> Float64:
        total: Float64 = view.block(*bounds).sum(axis=0)
        return total

    total = tree(leaf, leaf_bounds([view]), np.add, n_jobs)
    means: Float64 = total / view.n_samples
    return means


def centred_view(matrix: Matrix, n_jobs: int) -> Centred:
    """View a layer with the mean of each column taken away, scaled where its values are extreme."""
    scale = layer_scale(matrix, n_jobs)
    first = matrix.block(*leaf_bounds([matrix])[0])
    first *= scale
    shift = leaf_shift(first)
    del first
    about_shift = Affine(matrix.name, matrix.data, matrix.home, scale, shift)
    mean = _column_means(about_shift, n_jobs)
    return Centred(matrix.name, matrix.data, matrix.home, scale, shift, mean)


def centred_view_memory(matrix: Matrix) -> int:
    """Bytes that :func:`centred_view` takes for each worker."""
    return 8 * matrix.n_features * (2 * leaf_bounds([matrix])[0][1] + 4) + 2**16


def grams_memory(X: Matrix, Y: Matrix, squares: int = 0) -> tuple[int, int]:
    """Bytes that :func:`layer_grams` takes, and ``squares`` more matrices: once, and for each worker."""
    (result, of_x), (_, of_y) = gram_memory(X), gram_memory(Y)
    fixed = (2 + squares) * result + 8 * (X.n_features + Y.n_features)
    return fixed, max(of_x, of_y, centred_view_memory(X), centred_view_memory(Y))


def layer_grams(X: Matrix, Y: Matrix, *, n_jobs: int, budget: int | None, squares: int = 0) -> Grams:
    """Gram matrices of two layers; ``squares`` more matrices of their size count in the budget."""
    fixed, per_worker = grams_memory(X, Y, squares)
    work = f"Gram matrices of {X.n_samples} samples"
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    return Grams(gram(centred_view(X, workers), workers), gram(centred_view(Y, workers), workers))


def layer_norms(parts: LayerProducts | Grams) -> tuple[float, float]:
    """Frobenius norms of two centred layers."""
    if isinstance(parts, LayerProducts):
        squares = [parts.trace(i) for i in (0, 1)]
    else:
        squares = [float(np.trace(matrix)) for matrix in (parts.K, parts.L)]
    return math.sqrt(squares[0]), math.sqrt(squares[1])


def cross_singular_values(parts: LayerProducts | Grams) -> tuple[Float64, float]:
    """Singular values of the centred cross-covariance, times n, and the bound on their norm.

    Returns
    -------
    singular_values : ndarray
        Largest first.
    bound : float
        Product of both layers' norms: no norm can be larger, and rounding errors are proportional to it.
    """
    first, second = layer_norms(parts)
    with single_threaded_blas():
        cross: Float64
        if isinstance(parts, LayerProducts):
            cross = parts.block(0, 1)[:-1, :-1]
        else:
            cross = _root(parts.K) @ _root(parts.L).T
        values = np.linalg.svd(cross, compute_uv=False).astype(np.float64, copy=False)
    return values, first * second


def _root(K: Float64) -> Float64:
    """A matrix R of K's size with ``R.T @ R = K``; what rounding left of eigenvalues of zero is zero."""
    eigenvalues, vectors = np.linalg.eigh(K)
    # The root of such a rest would be 1e-8 of the largest, and n of them add up in a nuclear norm.
    rest = len(K) * float(np.finfo(np.float64).eps) * max(float(eigenvalues[-1]), 0.0)
    vectors *= np.sqrt(np.where(eigenvalues > rest, eigenvalues, 0.0))
    root: Float64 = vectors.T
    return root
