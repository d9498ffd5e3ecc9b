"""Overlap of the orthonormal bases of two layers: from their cross moments, or Gram matrices of wide ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ._centred import centred_view, centred_view_memory
from ._layer_products import layer_moments
from ._memory import workers_within
from ._products import gram, gram_memory
from ._threads import ordered_map, single_threaded_blas
from ._validate import Float64, Matrix
from ._views import Affine, Centred, within_range
from .statistics import combine_tree, leaf_bounds, leaf_shift

# From the squared singular values of a layer, largest first: how many directions are kept.
Keep = Callable[[Float64], int]


def above_tolerance(tol: float) -> Keep:
    """Keep directions whose singular value is above a share of the largest."""

    def keep(squares: Float64) -> int:
        return int(np.count_nonzero(squares > tol**2 * squares[0]))

    return keep


def share_of_variance(share: float, tol: float) -> Keep:
    """Keep as few directions as have a share of all variance, and none at or below a tolerance."""

    def keep(squares: Float64) -> int:
        running = np.cumsum(np.maximum(squares, 0.0))
        enough = int(np.searchsorted(running, share * running[-1])) + 1
        return min(enough, above_tolerance(tol)(squares))

    return keep


def _leading(products: Float64, keep: Keep) -> tuple[Float64, Float64]:
    """Kept eigenvalues and eigenvectors (columns) of a symmetric matrix, largest first."""
    values, vectors = np.linalg.eigh(products)
    values = values[::-1]
    kept = keep(values) if values[0] > 0 else 0
    return values[:kept], vectors[:, ::-1][:, :kept]


def _whitener(products: Float64, keep: Keep, standardise: bool) -> Float64:
    """W (d, rank) such that the columns of X W are orthonormal, from the centred products of X."""
    scales = np.ones(len(products))
    if standardise:
        spread = np.sqrt(np.maximum(np.diagonal(products), 0.0))
        np.divide(1.0, spread, out=scales, where=spread > 0)
    # Two outer products would square the scales.
    scaled = products * scales[:, None]
    scaled *= scales
    values, vectors = _leading(scaled, keep)
    whitener: Float64 = vectors * scales[:, None]
    whitener /= np.sqrt(values)
    return whitener


def overlap_of_moments(
    X: Matrix, Y: Matrix, keep: Keep, *, standardise: bool, n_jobs: int, budget: int | None
) -> Float64:
    """``Q_x.T @ Q_y`` of shape (rank_x, rank_y), in one read of each layer.

    Parameters
    ----------
    X, Y : Matrix
        With the same samples.
    keep : callable
    standardise : bool
        Scale features to unit variance before directions are kept; a feature whose values are extreme is
        scaled by itself as it is read, else the whole layer is by one number.
    n_jobs : int
    budget : int or None
    """
    # The scaled products, their vectors, the work space of the eigenproblem, both whiteners, the overlap.
    products = layer_moments(X, Y, n_jobs=n_jobs, budget=budget, each=standardise, squares=8)
    with single_threaded_blas():
        of_x, of_y = (_whitener(products.block(i, i)[:-1, :-1], keep, standardise) for i in (0, 1))
        overlap: Float64 = of_x.T @ products.block(0, 1)[:-1, :-1] @ of_y
    return overlap


def overlap_of_grams(
    X: Matrix, Y: Matrix, keep: Keep, *, standardise: bool, n_jobs: int, budget: int | None
) -> Float64:
    """The same from (n, n) Gram matrices of the centred layers, one after the other.

    Parameters
    ----------
    X, Y, keep, standardise, n_jobs, budget
        As in :func:`overlap_of_moments`.
    """
    n = X.n_samples
    (square, of_x), (_, of_y) = gram_memory(X), gram_memory(Y)
    workers = workers_within(
        budget,
        n_jobs,
        # A Gram matrix, its vectors, the work space of the eigenproblem; the other layer's; the overlap.
        fixed=7 * square + 64 * (X.n_features + Y.n_features) + 2**16,
        per_worker=max(of_x, of_y, centred_view_memory(X), centred_view_memory(Y)),
        work=f"canonical correlations of {n} samples",
    )
    view = _standardised_view if standardise else centred_view

    def basis(matrix: Matrix) -> Float64:
        products = gram(view(matrix, workers), workers)
        with single_threaded_blas():
            return np.ascontiguousarray(_leading(products, keep)[1])

    of_first, of_second = basis(X), basis(Y)
    with single_threaded_blas():
        overlap: Float64 = of_first.T @ of_second
    return overlap


def _standardised_view(matrix: Matrix, n_jobs: int) -> Centred:
    """View a layer with every feature centred and scaled to the same sum of squares; constant ones zero."""
    ranged = within_range(matrix, n_jobs)
    bounds = leaf_bounds([matrix])
    shift = leaf_shift(ranged.block(*bounds[0]))

    def leaf(interval: tuple[int, int]) -> Float64:
        rows = ranged.block(*interval)
        rows -= shift
        return np.stack([rows.sum(axis=0), np.einsum("ij,ij->j", rows, rows)])

    total, squares = combine_tree(ordered_map(leaf, bounds, n_jobs), partial(np.add))
    squares -= total**2 / matrix.n_samples
    spread = np.sqrt(np.maximum(squares, 0.0))
    scale = np.zeros_like(spread)
    np.divide(1.0, spread, out=scale, where=spread > 0)
    mean = total / matrix.n_samples * scale
    own_scale = ranged.scale if isinstance(ranged, Affine) else 1.0
    return Centred(matrix.name, matrix.data, matrix.home, own_scale * scale, shift * scale, mean)
