"""Products of all rows of one matrix with all rows of another, tile by tile.

Cosine between samples and Gram matrices are both this. The tiles depend on the number of features
only, so neither threads nor budgets change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ._threads import ordered_map, single_threaded_blas
from ._validate import Array, Float64, Matrix

_TILE_BYTES = 4 * 2**20
_MIN_TILE_ROWS = 64
_MAX_TILE_ROWS = 1024

# Called from worker threads with the first row of each side and the tile of products, which it may
# overwrite: consume(first_x, first_y, tile). Calls that share first_x come in order of first_y.
Consumer = Callable[[int, int, Array], None]


def tile_rows(n_features: int) -> int:
    """Rows in a tile: a power of two so that a tile of float64 rows holds about 4 MiB.

    Examples
    --------
    >>> tile_rows(512), tile_rows(100_000)
    (1024, 64)
    """
    rows = _TILE_BYTES // (8 * n_features)
    power = 1 << max(0, rows.bit_length() - 1)
    return min(_MAX_TILE_ROWS, max(_MIN_TILE_ROWS, power))


def row_products_memory(X: Matrix, Y: Matrix, dtype: npt.DTypeLike) -> int:
    """Bytes that :func:`row_products` takes for each worker."""
    rows = tile_rows(X.n_features)
    rows_x, rows_y = min(rows, X.n_samples), min(rows, Y.n_samples)
    itemsize = np.dtype(dtype).itemsize
    # One side is held in the product's dtype while the other is read as float64 and converted.
    reading = 8 if itemsize == 8 else 8 + itemsize
    sides = X.n_features * max(itemsize * rows_x + reading * rows_y, reading * rows_x)
    return sides + itemsize * rows_x * rows_y + 2**16


def row_products(
    X: Matrix, Y: Matrix, consume: Consumer, *, dtype: npt.DTypeLike, symmetric: bool, n_jobs: int
) -> None:
    """Hand every tile of ``X @ Y.T`` to a consumer.

    Parameters
    ----------
    X, Y : Matrix
        With the same features; blocks are read as float64.
    consume : callable
    dtype : dtype
        float32 or float64: what the products are computed in.
    symmetric : bool
        ``X`` and ``Y`` are the same: only tiles on and above the diagonal are computed.
    n_jobs : int
        Threads; each takes a strip of rows of ``X``.
    """
    rows = tile_rows(X.n_features)

    def tile_of(matrix: Matrix, start: int) -> Array:
        block = matrix.block(start, min(start + rows, matrix.n_samples))
        return block.astype(dtype, copy=False)

    def strip(first_x: int) -> None:
        left = tile_of(X, first_x)
        for first_y in range(first_x if symmetric else 0, Y.n_samples, rows):
            right = left if symmetric and first_y == first_x else tile_of(Y, first_y)
            tile = left @ right.T
            del right
            consume(first_x, first_y, tile)
            del tile

    with single_threaded_blas():
        for _ in ordered_map(strip, range(0, X.n_samples, rows), n_jobs):
            pass


def gram_memory(X: Matrix) -> tuple[int, int]:
    """Bytes that :func:`gram` takes: for its result, and for each worker."""
    return 8 * X.n_samples**2, row_products_memory(X, X, np.float64)


def gram(X: Matrix, n_jobs: int) -> Float64:
    """Return ``X @ X.T`` of a matrix as its blocks are read, exactly symmetric, float64."""
    products = np.empty((X.n_samples, X.n_samples))

    def keep(first_x: int, first_y: int, tile: Array) -> None:
        rows = slice(first_x, first_x + tile.shape[0])
        columns = slice(first_y, first_y + tile.shape[1])
        products[rows, columns] = tile
        if first_x != first_y:
            products[columns, rows] = tile.T

    row_products(X, X, keep, dtype=np.float64, symmetric=True, n_jobs=n_jobs)
    return products
