"""Distances between the samples of two layers: all pairs tile by tile, or pairs drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ._threads import ordered_map, single_threaded_blas
from ._unit_rows import UnitRows, unit_rows
from ._validate import Array, Float64, Matrix, check_finite
from ._views import Affine, layer_scale
from .statistics import leaf_bounds, leaf_shift

METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean")

Result = TypeVar("Result")
Index = npt.NDArray[np.int64]
# Called with the place of the first pair and the distances in both layers; from several threads.
Chunk = Callable[[int, Float64, Float64], Result]

_TILE_BYTES = 4 * 2**20
_LEAST_TILE_ROWS, _MOST_TILE_ROWS = 64, 512
# Rounding leaves duplicates at about 1e-16 of what is subtracted.
_NOISE = 1e-14


@dataclass(frozen=True)
class Distances:
    """Distances between samples of one layer.

    Attributes
    ----------
    matrix : Matrix
        The layer as it came.
    metric : str
        One of :data:`METRICS`.
    scale, shift : float, ndarray of shape (d,)
        Euclidean distances are those of ``X * scale - shift``, near 0.
    is_zero : ndarray of shape (n_samples,), bool
        Filled in as rows are read: which have no direction; their distance from all others is 1.
    """

    matrix: Matrix
    metric: str
    scale: float
    shift: Float64
    is_zero: npt.NDArray[np.bool_]

    @property
    def angular(self) -> bool:
        """Whether distances depend on directions alone."""
        return self.metric in ("correlation", "cosine")

    def _view(self, data: Array, is_zero: npt.NDArray[np.bool_]) -> Matrix:
        name, home = self.matrix.name, self.matrix.home
        if self.angular:
            return UnitRows(name, data, home, self.metric == "correlation", is_zero)
        return Affine(name, data, home, self.scale, self.shift)

    def rows(self, start: int, stop: int) -> Float64:
        """Samples as distances take them."""
        return self._view(self.matrix.data, self.is_zero).block(start, min(stop, self.matrix.n_samples))

    def drawn(self, index: Index) -> Float64:
        """The same of samples in any order."""
        data = np.array(self.matrix.data[index], dtype=np.float64)
        if not np.isfinite(data).all():
            bad = int(np.argmin(np.isfinite(data).all(axis=1)))
            check_finite(data[bad : bad + 1], self.matrix.name, first_row=int(index[bad]))
        is_zero = np.zeros(len(index), dtype=bool)
        rows = self._view(data, is_zero).block(0, len(index))
        self.is_zero[index[is_zero]] = True
        return rows

    def between(self, left: Float64, right: Float64) -> Float64:
        """Distances of all rows of the one from all of the other."""
        tile: Float64 = left @ right.T
        if self.angular:
            np.subtract(1.0, tile, out=tile)
            tile[tile < _NOISE] = 0.0
            return tile
        tile *= -2.0
        norms = np.einsum("ij,ij->i", left, left)[:, None] + np.einsum("ij,ij->i", right, right)
        tile += norms
        norms *= _NOISE
        tile[tile < norms] = 0.0
        return np.sqrt(tile, out=tile) if self.metric == "euclidean" else tile

    def along(self, left: Float64, right: Float64) -> Float64:
        """Distances of the rows of the one from those of the other, one by one."""
        distances: Float64
        if self.angular:
            distances = 1.0 - np.einsum("ij,ij->i", left, right)
            distances[distances < _NOISE] = 0.0
            return distances
        left -= right
        distances = np.einsum("ij,ij->i", left, left)
        return np.sqrt(distances) if self.metric == "euclidean" else distances


def distances_of(matrix: Matrix, metric: str, n_jobs: int) -> Distances:
    """Prepare the distances between a layer's samples."""
    is_zero = unit_rows(matrix).is_zero
    if metric in ("correlation", "cosine"):
        return Distances(matrix, metric, 1.0, np.zeros(0), is_zero)
    scale = layer_scale(matrix, n_jobs)
    first = matrix.block(*leaf_bounds([matrix])[0])
    first *= scale
    return Distances(matrix, metric, scale, leaf_shift(first), is_zero)


def _rows_of(X: Matrix, Y: Matrix) -> int:
    """Samples a tile: a function of the shapes only, so that neither threads nor budgets change a bit."""
    rows = _TILE_BYTES // (8 * max(X.n_features, Y.n_features))
    most = min(_MOST_TILE_ROWS, X.n_samples)
    return min(most, max(_LEAST_TILE_ROWS, 1 << max(0, rows.bit_length() - 1)))


def pair_memory(X: Matrix, Y: Matrix) -> int:
    """Bytes that :func:`all_pairs` and :func:`drawn_pairs` take for each worker."""
    rows = _rows_of(X, Y)
    leaf = max(leaf_bounds([matrix])[0][1] * matrix.n_features for matrix in (X, Y))
    return 8 * max(4 * rows * (X.n_features + Y.n_features) + 8 * rows * rows, 3 * leaf) + 2**16


def n_pairs_of(n: int) -> int:
    """Pairs of different samples."""
    return n * (n - 1) // 2


def all_pairs(first: Distances, second: Distances, chunk: Chunk[Result], n_jobs: int) -> Iterator[Result]:
    """Hand every pair of samples, once, to ``chunk``; its results come in a fixed order.

    Each thread takes a strip of rows and holds a tile of distances of each layer.
    """
    n = first.matrix.n_samples
    rows = _rows_of(first.matrix, second.matrix)
    above = np.triu(np.ones((rows, rows), dtype=bool), 1)

    def strip(top: int) -> list[Result]:
        place = n_pairs_of(n) - n_pairs_of(n - top)
        lefts = [side.rows(top, top + rows) for side in (first, second)]
        results = []
        for start in range(top, n, rows):
            flat = []
            for side, left in zip((first, second), lefts, strict=True):
                right = left if start == top else side.rows(start, start + rows)
                tile = side.between(left, right)
                own = above[: len(left), : len(left)]
                flat.append(tile[own] if start == top else tile.ravel())
                del right, tile
            results.append(chunk(place, *flat))
            place += len(flat[0])
        return results

    with single_threaded_blas():
        for results in ordered_map(strip, range(0, n, rows), n_jobs):
            yield from results


def drawn_pairs(
    first: Distances, second: Distances, pairs: tuple[Index, Index], chunk: Chunk[Result], n_jobs: int
) -> Iterator[Result]:
    """The same for given pairs of samples, in their order."""
    rows = _rows_of(first.matrix, second.matrix)

    def block(start: int) -> Result:
        some = [index[start : start + rows] for index in pairs]
        flat = [side.along(side.drawn(some[0]), side.drawn(some[1])) for side in (first, second)]
        return chunk(start, *flat)

    yield from ordered_map(block, range(0, len(pairs[0]), rows), n_jobs)


def draw_pairs(n: int, count: int, generator: np.random.Generator) -> tuple[Index, Index]:
    """Pairs of different samples of ``n``, each drawn independently and sorted for reading."""
    i = np.sort(generator.integers(n, size=count))
    j = generator.integers(n - 1, size=count)
    j += j >= i
    return i, j
