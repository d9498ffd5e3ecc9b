"""Products of all rows of one matrix with all rows of another, tile by tile.

Cosine between samples and Gram matrices are both this. The tiles depend on the number of features
only, so neither threads nor budgets change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from ._memory import workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import PIECE_BYTES, Array, Float64, Matrix

_TILE_BYTES = 4 * 2**20
_MIN_TILE_ROWS = 64
_MAX_TILE_ROWS = 1024
_MAX_TILE_ROWS_IN_PLACE = 2048
_PANEL_BYTES = 16 * 2**20

# Called from worker threads with the first row of each side and the tile of products, which it may
# overwrite: consume(first_x, first_y, tile). Where products are not in place, calls that share first_x
# come in order of first_y.
Consumer = Callable[[int, int, Array], None]


@dataclass(frozen=True)
class RowProducts:
    """``X @ Y.T`` in tiles of a fixed size.

    Panels of both, many tiles each, are read and kept while all their tiles meet. So each row is
    converted and scaled a few times, whatever the number of products.

    Attributes
    ----------
    X, Y : Matrix
        With the same features. They are read with :meth:`Matrix.fill`.
    dtype : dtype
        float32 or float64: what the products are computed in.
    symmetric : bool
        ``X`` and ``Y`` are the same: only tiles on and above the diagonal are computed.
    in_place : bool
        Products go straight to their place in the result, with no tile in between.
    """

    X: Matrix
    Y: Matrix
    dtype: np.dtype[np.floating]
    symmetric: bool = False
    in_place: bool = False

    @property
    def tile_rows(self) -> int:
        """Rows of either side in a tile: a power of two that holds about 4 MiB of them.

        A tile of products between the two has to stay in the cache until it is used; one that is
        in place may be larger, which BLAS likes.
        """
        rows = _TILE_BYTES // (self.dtype.itemsize * self.X.n_features)
        power = 1 << max(0, rows.bit_length() - 1)
        return min(_MAX_TILE_ROWS_IN_PLACE if self.in_place else _MAX_TILE_ROWS, max(_MIN_TILE_ROWS, power))

    @property
    def _tile_bytes(self) -> int:
        return self.dtype.itemsize * self.X.n_features * self.tile_rows

    @property
    def most_tiles(self) -> int:
        """Tiles in a panel where memory does not matter."""
        return max(1, _PANEL_BYTES // self._tile_bytes)

    def panels(self, tiles: int) -> int:
        """Bytes of both panels, of so many tiles each."""
        rows = tiles * self.tile_rows
        held = min(rows, self.Y.n_samples)
        if not self._one_panel(rows):
            held += min(rows, self.X.n_samples)
        return self.dtype.itemsize * self.X.n_features * held

    def _one_panel(self, rows: int) -> bool:
        """Whether one panel holds both sides."""
        return self.X is self.Y and self.X.n_samples <= rows

    @property
    def per_worker(self) -> int:
        """Bytes that each worker takes."""
        rows = self.tile_rows
        tile = 0 if self.in_place else min(rows, self.X.n_samples) * min(rows, self.Y.n_samples)
        # One piece as it is read, and one as it is worked on.
        return self.dtype.itemsize * tile + 2 * max(PIECE_BYTES, 8 * self.X.n_features) + 2**16

    def within(self, budget: int | None, n_jobs: int, *, fixed: int, work: str) -> tuple[int, int]:
        """Workers, and tiles of a panel, that fit a budget; panels are the first to shrink.

        Raises
        ------
        MemoryBudgetError
            Where not even one worker and panels of one tile fit.
        """
        least = fixed + self.panels(1)
        workers = workers_within(budget, n_jobs, fixed=least, per_worker=self.per_worker, work=work)
        tiles = self.most_tiles
        if budget is not None:
            spare = budget - fixed - workers * self.per_worker
            tiles = max(1, min(tiles, spare // (2 * self._tile_bytes)))
        return workers, tiles

    def run(
        self, consume: Consumer, *, n_jobs: int, tiles: int | None = None, target: Array | None = None
    ) -> None:
        """Hand every tile to a consumer.

        Parameters
        ----------
        consume : callable
        n_jobs : int
            Threads.
        tiles : int, optional
            Tiles of a panel, as :meth:`within` gives them; None for the most.
        target : ndarray of shape (n_x, n_y), optional
            Where ``in_place``: the whole result, C-contiguous, of the products' dtype. Tiles are views of it.
        """
        X, Y, rows = self.X, self.Y, self.tile_rows
        step = rows * (tiles or self.most_tiles)
        memory_y = np.empty((min(step, Y.n_samples), X.n_features), self.dtype)
        shared = self._one_panel(step)
        memory_x = memory_y if shared else np.empty((min(step, X.n_samples), X.n_features), self.dtype)
        size = 0 if self.in_place else min(rows, X.n_samples) * min(rows, Y.n_samples)
        scratch: SimpleQueue[Array] = SimpleQueue()
        for _ in range(n_jobs):
            scratch.put(np.empty(size, self.dtype))
        with single_threaded_blas():
            for first_y in range(0, Y.n_samples, step):
                panel_y = _Panel(Y, first_y, memory_y[: Y.n_samples - first_y], rows)
                panel_y.read(n_jobs)
                for first_x in range(0, first_y + 1 if self.symmetric else X.n_samples, step):
                    panel_x = panel_y
                    # On the diagonal, the same memory on both sides: BLAS then makes symmetric products
                    # exactly symmetric.
                    if not (X is Y and first_x == first_y):
                        panel_x = _Panel(X, first_x, memory_x[: X.n_samples - first_x], rows)
                        panel_x.read(n_jobs)
                    self._meet(panel_x, panel_y, consume, scratch, target, n_jobs)

    def _meet(
        self,
        panel_x: _Panel,
        panel_y: _Panel,
        consume: Consumer,
        scratch: SimpleQueue[Array],
        target: Array | None,
        n_jobs: int,
    ) -> None:
        """Multiply all tiles of two panels: one by one where they are in place, else in strips."""

        def wanted(first_x: int) -> list[tuple[int, int]]:
            return [(first_x, y) for y in panel_y.starts if y >= first_x or not self.symmetric]

        def multiply(first_x: int, first_y: int, held: Array) -> None:
            left, right = panel_x.tile(first_x), panel_y.tile(first_y)
            shape = len(left), len(right)
            if target is not None:
                tile = target[first_x : first_x + shape[0], first_y : first_y + shape[1]]
            else:
                tile = held[: shape[0] * shape[1]].reshape(shape)
            np.matmul(left, right.T, out=tile)
            consume(first_x, first_y, tile)

        def strip(places: list[tuple[int, int]]) -> None:
            held = scratch.get()
            try:
                for place in places:
                    multiply(*place, held)
            finally:
                scratch.put(held)

        strips = [wanted(first_x) for first_x in panel_x.starts]
        if target is not None:
            strips = [[place] for places in strips for place in places]
        for _ in ordered_map(strip, strips, n_jobs):
            pass


@dataclass(frozen=True)
class _Panel:
    """Some rows of a matrix, from ``first`` on, in tiles of ``rows``."""

    matrix: Matrix
    first: int
    memory: Array
    rows: int

    @property
    def starts(self) -> range:
        """The first row of every tile."""
        return range(self.first, self.first + len(self.memory), self.rows)

    def tile(self, start: int) -> Array:
        """The rows of one tile; a view."""
        return self.memory[start - self.first :][: self.rows]

    def read(self, n_jobs: int) -> None:
        """Read all tiles."""

        def fill(start: int) -> None:
            tile = self.tile(start)
            self.matrix.fill(tile, start, start + len(tile))

        for _ in ordered_map(fill, self.starts, n_jobs):
            pass


def _gram_products(X: Matrix) -> RowProducts:
    return RowProducts(X, X, np.dtype(np.float64), symmetric=True, in_place=True)


def gram_memory(X: Matrix) -> tuple[int, int]:
    """Bytes that :func:`gram` takes: for its result, and for each worker."""
    products = _gram_products(X)
    return 8 * X.n_samples**2, products.panels(products.most_tiles) + products.per_worker


def gram(X: Matrix, n_jobs: int) -> Float64:
    """Return ``X @ X.T`` of a matrix as its blocks are read, exactly symmetric, float64."""
    result = np.empty((X.n_samples, X.n_samples))

    def mirror(first_x: int, first_y: int, tile: Array) -> None:
        if first_x != first_y:
            result[first_y : first_y + tile.shape[1], first_x : first_x + tile.shape[0]] = tile.T

    _gram_products(X).run(mirror, n_jobs=n_jobs, target=result)
    return result
