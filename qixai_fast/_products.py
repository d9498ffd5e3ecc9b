"""Products of all rows of one matrix with all rows of another, tile by tile.

Cosine between samples and Gram matrices are both this. The tiles depend on the number of features
only, so neither threads nor budgets change a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from ._memory import workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import PIECE_BYTES, Array, Float64, Matrix

_TILE_BYTES = 4 * 2**20
_MIN_TILE_ROWS = 64
_MAX_TILE_ROWS = 1024
_PANEL_BYTES = 16 * 2**20

# Called from worker threads with the first row of each side and the tile of products, which it may
# overwrite: consume(first_x, first_y, tile). Calls that share first_x come in order of first_y.
Consumer = Callable[[int, int, Array], None]
Scratch = tuple[Array, Array]


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


@dataclass(frozen=True)
class RowProducts:
    """``X @ Y.T`` in tiles of a fixed size.

    A panel of ``Y``, many tiles, is read and kept; then every tile of ``X`` is read once and meets
    all of it. So each row is converted and scaled a few times, whatever the number of products.

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
    def _tile(self) -> int:
        return tile_rows(self.X.n_features)

    def _panel_bytes(self, panel_rows: int) -> int:
        return self.dtype.itemsize * self.X.n_features * min(panel_rows, self.Y.n_samples)

    def _most_panel_rows(self) -> int:
        """Tiles of a panel that fit its bytes, in rows; no more than there are."""
        tiles = _PANEL_BYTES // (self.dtype.itemsize * self.X.n_features * self._tile)
        return self._tile * max(1, min(tiles, math.ceil(self.Y.n_samples / self._tile)))

    @property
    def per_worker(self) -> int:
        """Bytes that each worker takes."""
        rows, columns = min(self._tile, self.X.n_samples), min(self._tile, self.Y.n_samples)
        held = self.dtype.itemsize * (rows * self.X.n_features + (0 if self.in_place else rows * columns))
        # One piece as it is read, and one as it is worked on.
        return held + 2 * max(PIECE_BYTES, 8 * self.X.n_features) + 2**16

    @property
    def largest_panel(self) -> int:
        """Bytes of the panel where no budget makes it smaller."""
        return self._panel_bytes(self._most_panel_rows())

    def within(self, budget: int | None, n_jobs: int, *, fixed: int, work: str) -> tuple[int, int]:
        """Workers and rows of a panel that fit a budget; the panel is the first to shrink.

        Raises
        ------
        MemoryBudgetError
            Where not even one worker and a panel of one tile fit.
        """
        one = self._panel_bytes(self._tile)
        workers = workers_within(budget, n_jobs, fixed=fixed + one, per_worker=self.per_worker, work=work)
        if budget is None:
            return workers, self._most_panel_rows()
        spare = budget - fixed - workers * self.per_worker
        tiles = max(1, spare // (self.dtype.itemsize * self.X.n_features * self._tile))
        return workers, min(self._tile * tiles, self._most_panel_rows())

    def run(
        self,
        consume: Consumer,
        *,
        n_jobs: int,
        panel_rows: int | None = None,
        target: Array | None = None,
    ) -> None:
        """Hand every tile to a consumer.

        Parameters
        ----------
        consume : callable
        n_jobs : int
            Threads; each takes tiles of ``X``.
        panel_rows : int, optional
            A multiple of the rows of a tile, as :meth:`within` gives it; None for the most.
        target : ndarray of shape (n_x, n_y), optional
            Where ``in_place``: the whole result, C-contiguous, of the products' dtype. Tiles are views of it.
        """
        step = panel_rows or self._most_panel_rows()
        features, rows, n_y = self.X.n_features, self._tile, self.Y.n_samples
        columns = min(rows, n_y)
        buffers: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(n_jobs):
            left = np.empty((min(rows, self.X.n_samples), features), self.dtype)
            buffers.put((left, np.empty(0 if self.in_place else len(left) * columns, self.dtype)))
        memory = np.empty((min(step, n_y), features), self.dtype)
        with single_threaded_blas():
            for first in range(0, n_y, step):
                last = min(first + step, n_y)
                panel = _Panel(self, rows, first, memory[: last - first], buffers, consume, target)
                for _ in ordered_map(panel.read, range(first, last, rows), n_jobs):
                    pass
                strips = range(0, last if self.symmetric else self.X.n_samples, rows)
                for _ in ordered_map(panel.strip, strips, n_jobs):
                    pass


@dataclass(frozen=True)
class _Panel:
    """Some tiles of Y, from row ``first`` on, and what is done with them."""

    products: RowProducts
    rows: int
    first: int
    memory: Array
    buffers: SimpleQueue[Scratch]
    consume: Consumer
    target: Array | None

    def read(self, start: int) -> None:
        """Read one tile of the panel."""
        part = self.memory[start - self.first :][: self.rows]
        self.products.Y.fill(part, start, start + len(part))

    @contextmanager
    def _scratch(self) -> Iterator[Scratch]:
        held = self.buffers.get()
        try:
            yield held
        finally:
            self.buffers.put(held)

    def strip(self, first_x: int) -> None:
        """Multiply one tile of X with the panel."""
        X, last = self.products.X, self.first + len(self.memory)
        with self._scratch() as (left, flat):
            left = left[: min(self.rows, X.n_samples - first_x)]
            if X is self.products.Y and self.first <= first_x < last:
                # The same memory on both sides: BLAS then makes the tile on the diagonal exactly symmetric.
                left = self.memory[first_x - self.first :][: self.rows]
            else:
                X.fill(left, first_x, first_x + len(left))
            start = max(self.first, first_x) if self.products.symmetric else self.first
            for first_y in range(start, last, self.rows):
                right = self.memory[first_y - self.first :][: self.rows]
                shape = len(left), len(right)
                if self.target is None:
                    tile = flat[: shape[0] * shape[1]].reshape(shape)
                else:
                    tile = self.target[first_x : first_x + shape[0], first_y : first_y + shape[1]]
                np.matmul(left, right.T, out=tile)
                self.consume(first_x, first_y, tile)


def _gram_products(X: Matrix) -> RowProducts:
    return RowProducts(X, X, np.dtype(np.float64), symmetric=True, in_place=True)


def gram_memory(X: Matrix) -> tuple[int, int]:
    """Bytes that :func:`gram` takes: for its result, and for each worker."""
    products = _gram_products(X)
    return 8 * X.n_samples**2, products.largest_panel + products.per_worker


def gram(X: Matrix, n_jobs: int) -> Float64:
    """Return ``X @ X.T`` of a matrix as its blocks are read, exactly symmetric, float64."""
    result = np.empty((X.n_samples, X.n_samples))

    def mirror(first_x: int, first_y: int, tile: Array) -> None:
        if first_x != first_y:
            result[first_y : first_y + tile.shape[1], first_x : first_x + tile.shape[0]] = tile.T

    _gram_products(X).run(mirror, n_jobs=n_jobs, target=result)
    return result
