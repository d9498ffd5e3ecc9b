"""Cosine between feature maps, from cross moments: one read, or one for each pair of column tiles."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ._memory import workers_within
from ._validate import Float64, Matrix
from ._views import columns_of, within_range
from .statistics import CrossMoments, cross_moments, cross_moments_memory

Mask = npt.NDArray[np.bool_]

_MIN_TILE_COLUMNS = 64


def cosine_of_moments(moments: CrossMoments, i: int, j: int, *, center: bool) -> tuple[Float64, Mask, Mask]:
    """Cosine between the columns of inputs ``i`` and ``j`` of cross moments.

    Returns
    -------
    cosine : ndarray of shape (d_i, d_j)
        Clipped to [-1, 1]; 0 for columns with no direction.
    zero_i, zero_j : ndarray of bool
        Which columns have none: all zero, or constant where ``center``.
    """
    cosine = moments.block(i, j).copy() if center else moments.raw_block(i, j)
    norms = []
    for which in (i, j):
        squares = np.diagonal(moments.block(which, which))
        if not center:
            squares = squares + moments.n * moments.mean_of(which) ** 2
        norms.append(np.sqrt(np.maximum(squares, 0.0)))
    zero_i, zero_j = norms[0] == 0, norms[1] == 0
    cosine /= np.outer(np.where(zero_i, 1.0, norms[0]), np.where(zero_j, 1.0, norms[1]))
    cosine[zero_i] = 0.0
    cosine[:, zero_j] = 0.0
    np.clip(cosine, -1.0, 1.0, out=cosine)
    return cosine, zero_i, zero_j


def _memory(X: Matrix, Y: Matrix, columns: int, same: bool) -> tuple[int, int]:
    """Bytes that a tile of at most ``columns`` columns of each takes: once, and for each worker."""
    width_x, width_y = min(columns, X.n_features), min(columns, Y.n_features)
    parts = [columns_of(X, 0, width_x)]
    if not (same and columns >= X.n_features):
        parts.append(columns_of(Y, 0, width_y))
    fixed, per_worker = cross_moments_memory(parts)
    return fixed + 8 * (3 * width_x * width_y + X.n_features + Y.n_features), per_worker


def cosine_of_maps(
    X: Matrix,
    Y: Matrix,
    consume: Callable[[int, int, Float64], None],
    *,
    center: bool,
    symmetric: bool,
    n_jobs: int,
    budget: int | None,
) -> tuple[Mask, Mask]:
    """Hand tiles of the cosine between the columns of ``X`` and of ``Y`` to a consumer.

    One tile holds everything where the budget allows; smaller ones mean more reads.

    Parameters
    ----------
    X, Y : Matrix
        With the same samples; the same object where ``X`` is compared with itself.
    consume : callable
        ``consume(first_x, first_y, tile)``, in order of ``first_y`` for each ``first_x``.
    center, symmetric, n_jobs, budget
        ``symmetric``: only tiles on and above the diagonal.

    Returns
    -------
    zero_x, zero_y : ndarray of bool
        Columns with no direction.
    """
    same = X is Y
    columns = max(X.n_features, Y.n_features)
    while columns > _MIN_TILE_COLUMNS and budget is not None and sum(_memory(X, Y, columns, same)) > budget:
        columns = math.ceil(columns / 2)
    fixed, per_worker = _memory(X, Y, columns, same)
    work = "cosine between feature maps"
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    zero_x, zero_y = np.zeros(X.n_features, dtype=bool), np.zeros(Y.n_features, dtype=bool)
    for first_x in range(0, X.n_features, columns):
        part_x = columns_of(X, first_x, first_x + columns)
        for first_y in range(first_x if symmetric else 0, Y.n_features, columns):
            part_y = columns_of(Y, first_y, first_y + columns)
            parts = [part_x] if same and first_x == first_y else [part_x, part_y]
            parts = [within_range(part, workers) for part in parts]
            moments = cross_moments(parts, n_jobs=workers)
            tile, of_x, of_y = cosine_of_moments(moments, 0, len(parts) - 1, center=center)
            del moments
            zero_x[first_x : first_x + columns] = of_x
            zero_y[first_y : first_y + columns] = of_y
            consume(first_x, first_y, tile)
            del tile
    return zero_x, zero_y
