"""Joint counts of pairs of coded columns on a device, and the entropy sums of their tables.

Three ways count, with the same integers as result; :func:`cheapest` chooses between them.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
import torch

from .._validate import Float64
from ..kernels.entropy_cuda import MOST_THREADS, summarize_tables
from ..kernels.histogram_cuda import CODES, PRIVATE_CELLS, count_pairs, make_count_pairs
from ..kernels.planes_cuda import PATCH, STEP, complete_tables, make_count_planes, split_columns, spread_codes
from .backend import Backend
from .codes import ALIGNED, NO_CODE, DeviceCodes, Index, padded

INCREMENTS, PLANES, PRODUCTS, SCATTER = "increments", "planes", "products", "scatter"

# What a multiprocessor does in a clock, from data sheets, not measured: increments of shared memory
# (32 banks, an eighth of which where lanes meet in cells and banks), words of 32 bits whose ones are counted,
# bytes of the device's memory.
_INCREMENTS = 4.0
_ONES_COUNTED = 16.0
_BYTES = 12.0
# 8-bit multiplications with addition, by major compute capability; half of what a data sheet says.
_MULTIPLICATIONS = {7: 512.0, 8: 1024.0}
_MULTIPLICATIONS_LATER = 2048.0
# Bins that have planes, at most: a code must be left that is none.
_MOST_BINS = NO_CODE

# Rows of a product, at most, and its samples at a time: its two sides take 512 MiB.
_PRODUCT_ROWS = 4096
_PRODUCT_SAMPLES = 65536
# cuBLAS takes integer matrices of more than 16 rows, in eights.
_EVEN_ROWS = 32
_TABLE_BYTES = 2**28
_PAIR_BYTES = 128

_THREADS = 256
_SIDE = 16
# Blocks wanted for each multiprocessor.
_BLOCKS = 16


class Shape(NamedTuple):
    """Columns of each side that are counted together, and samples that a product takes at a time."""

    side: int
    samples: int


def _even(rows: int) -> int:
    return -(-rows // _EVEN_ROWS) * _EVEN_ROWS


def cheapest(
    capability: tuple[int, int], n_samples: int, bins: tuple[int, int], columns: tuple[int, int], n_pairs: int
) -> str:
    """The way that counts ``n_pairs`` of columns x columns in the fewest clocks, on paper.

    Increments count the pairs that are wanted, the others all of both sides.
    """
    fits = bins[0] * bins[1] <= PRIVATE_CELLS and max(bins) <= NO_CODE + 1
    if not fits or max(bins) > _MOST_BINS:
        return INCREMENTS if fits else SCATTER
    rows = [columns[side] * (bins[side] - 1) for side in range(2)]
    costs = {
        INCREMENTS: n_pairs * n_samples / _INCREMENTS,
        PLANES: rows[0] * rows[1] * n_samples / 32 / _ONES_COUNTED + sum(rows) * n_samples / 4 / _BYTES,
    }
    if capability >= (7, 5) and max(rows) <= _PRODUCT_ROWS:
        x, y = (_even(side) for side in rows)
        rate = _MULTIPLICATIONS.get(capability[0], _MULTIPLICATIONS_LATER)
        costs[PRODUCTS] = x * y * n_samples / rate + 2 * (x + y) * n_samples / _BYTES
    return min(costs, key=lambda way: costs[way])


def shape_bytes(shape: Shape, bins: tuple[int, int], column: int = 0) -> int:
    """Bytes of the device that counting and summing up a tile of pairs take, besides codes.

    ``column`` are those that the caller needs for each column of a side.
    """
    tables = 4 * shape.side**2 * bins[0] * bins[1]
    total = tables + _PAIR_BYTES * shape.side**2 + shape.side * column
    if max(bins) > _MOST_BINS:
        return total
    x, y = (_even(shape.side * (own - 1)) for own in bins)
    # Counts, the product of some samples, and its two sides; planes take less.
    return total + 8 * x * y + (x + y) * max(shape.samples, ALIGNED)


def fit_shape(n_samples: int, bins: tuple[int, int], widest: int, room: int, column: int = 0) -> Shape:
    """The largest tile that fits ``room``, by halving; the smallest where nothing does."""
    tables = max(1, _TABLE_BYTES // (4 * bins[0] * bins[1]))
    side = min(isqrt(tables), _PRODUCT_ROWS // (max(bins) - 1), widest)
    # Tiles of one size, as few as they can be.
    side = -(-widest // -(-widest // max(1, side)))
    shape = Shape(side, min(padded(n_samples), _PRODUCT_SAMPLES))
    while shape_bytes(shape, bins, column) > room:
        if shape.samples > 4096:
            shape = Shape(shape.side, -(-shape.samples // (2 * ALIGNED)) * ALIGNED)
        elif shape.side > 1:
            shape = Shape(-(-shape.side // 2), shape.samples)
        elif shape.samples > ALIGNED:
            shape = Shape(shape.side, -(-shape.samples // (2 * ALIGNED)) * ALIGNED)
        else:
            break
    return shape


def _patches(n_x: int, n_y: int, wanted: tuple[Index, Index], patch: int) -> tuple[Index, Index]:
    """Where patches begin that hold any of the wanted pairs of places."""
    across = -(-n_y // patch)
    held = np.unique(wanted[0] // patch * across + wanted[1] // patch)
    return held // across * patch, held % across * patch


def _steps(tables: torch.Tensor) -> tuple[int, int, int]:
    """Cells to the table of the next place of x, of the next of y, and to the next row."""
    _, bins_x, n_y, bins_y = tables.shape
    return bins_x * n_y * bins_y, bins_y, n_y * bins_y


class JointCounter:
    """Counts pairs of coded columns on one device.

    Parameters
    ----------
    backend : Backend
    terms : (size,) float64 array
        Entropy terms of small counts, ``grassberger`` or not.
    grassberger : bool
    shape : Shape
        Columns of each side of the pairs of a call, at most; and samples of a product at a time.
    """

    def __init__(self, backend: Backend, terms: Float64, grassberger: bool, shape: Shape) -> None:
        self.backend = backend
        self.grassberger = grassberger
        self.shape = shape
        self._terms = torch.from_numpy(terms).to(backend.device)

    def _send(self, columns: Index) -> torch.Tensor:
        """Column numbers on the device; from pinned memory, so that the host does not wait for it."""
        host = self.backend.pinned(columns.shape, torch.int64)
        host.numpy()[:] = columns
        return host.to(self.backend.device, non_blocking=True)

    def _shares(self, n_blocks: int, n: int, least: int) -> tuple[int, int]:
        """Blocks that share ``n`` steps, and the steps of each."""
        wanted = -(-_BLOCKS * self.backend.n_multiprocessors // max(1, n_blocks))
        share = max(least, -(-n // max(1, wanted)))
        return -(-n // share), share

    def tables(
        self, x: DeviceCodes, y: DeviceCodes, first: Index, second: Index
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Joint tables of pairs of columns ``first[p]`` of x and ``second[p]`` of y, and where each one is.

        Returns
        -------
        tables : (a, bins_x, b, bins_y) int32
            Those of pairs that were not asked for may be anything.
        places : (g,) int64
            Pair p has table ``places[p]``, those of a place of x one after the other.
        """
        xs, at_x = np.unique(first, return_inverse=True)
        ys, at_y = np.unique(second, return_inverse=True)
        bins = x.n_bins, y.n_bins
        way = cheapest(self.backend.capability, x.n_samples, bins, (len(xs), len(ys)), len(first))
        few = 2 * len(first) < len(xs) * len(ys)
        if few and way in (INCREMENTS, SCATTER):
            tables = self._empty(len(first), 1, bins, zero=True)
            if way == INCREMENTS:
                self._increment(x, y, first, second, None, tables)
            else:
                self._scatter(x, y, first, second, None, tables)
            return tables, torch.arange(len(first), device=self.backend.device)
        count = {INCREMENTS: self._increment, SCATTER: self._scatter}.get(way)
        if count is None:
            tables = self._complete(x, y, xs, ys, way)
        else:
            tables = self._empty(len(xs), len(ys), bins, zero=True)
            count(x, y, xs, ys, (at_x, at_y), tables)
        return tables, self._send(at_x * len(ys) + at_y)

    def _empty(self, n_x: int, n_y: int, bins: tuple[int, int], *, zero: bool) -> torch.Tensor:
        make = torch.zeros if zero else torch.empty
        return make((n_x, bins[0], n_y, bins[1]), dtype=torch.int32, device=self.backend.device)

    def _increment(
        self,
        x: DeviceCodes,
        y: DeviceCodes,
        xs: Index,
        ys: Index,
        wanted: tuple[Index, Index] | None,
        tables: torch.Tensor,
    ) -> None:
        """Count in shared memory; without ``wanted`` places, pairs are ``xs[p]`` and ``ys[p]``."""
        cells = x.n_bins * y.n_bins
        patch = 1
        if wanted is None:
            tops = lefts = np.arange(len(xs))
        else:
            patch = next(side for side in (4, 2, 1) if side * side * cells <= PRIVATE_CELLS)
            tops, lefts = _patches(len(xs), len(ys), wanted, patch)
        copies = max(1, min(32, PRIVATE_CELLS // (patch * patch * cells)))
        step_x, step_y, step_row = _steps(tables)
        shares, share = self._shares(len(tops), -(-x.n_samples // CODES), 4 * _THREADS)
        self.backend.launch(
            make_count_pairs(patch),
            (len(tops), shares),
            _THREADS,
            x.words,
            y.words,
            *(self._send(one) for one in (xs, ys, tops, lefts)),
            x.n_samples,
            share,
            x.n_bins,
            y.n_bins,
            copies,
            step_x,
            step_y if wanted is not None else 0,
            step_row,
            tables.view(-1),
        )

    def _scatter(
        self,
        x: DeviceCodes,
        y: DeviceCodes,
        xs: Index,
        ys: Index,
        wanted: tuple[Index, Index] | None,
        tables: torch.Tensor,
    ) -> None:
        """Count in the device's memory."""
        n_pairs = len(xs) if wanted is None else len(xs) * len(ys)
        step_x, step_y, step_row = _steps(tables)
        shares, share = self._shares(n_pairs, x.n_samples, 4 * _THREADS)
        self.backend.launch(
            count_pairs,
            (n_pairs, shares),
            _THREADS,
            x.data,
            y.data,
            self._send(xs),
            self._send(ys),
            x.n_samples,
            share,
            0 if wanted is None else len(ys),
            step_x,
            step_y if wanted is not None else 0,
            step_row,
            tables.view(-1),
        )

    def _complete(self, x: DeviceCodes, y: DeviceCodes, xs: Index, ys: Index, way: str) -> torch.Tensor:
        """Count all bins but the last of each column, and put that in."""
        columns_x, columns_y = self._send(xs), self._send(ys)
        count = self._multiply if way == PRODUCTS else self._count_planes
        counts = count(x, y, columns_x, columns_y)
        tables = self._empty(len(xs), len(ys), (x.n_bins, y.n_bins), zero=False)
        threads = min(_THREADS, max(32, 1 << (max(x.n_bins, y.n_bins) - 1).bit_length()))
        self.backend.launch(
            complete_tables,
            len(xs) * len(ys),
            threads,
            counts,
            columns_x,
            columns_y,
            x.counts,
            y.counts,
            tables,
        )
        return tables

    def _multiply(
        self, x: DeviceCodes, y: DeviceCodes, columns_x: torch.Tensor, columns_y: torch.Tensor
    ) -> torch.Tensor:
        """Products of bytes of 0 and 1, some samples at a time. A count is at most that of all samples."""
        device = self.backend.device
        words = x.data.shape[1] // CODES
        most = min(words, self.shape.samples // CODES)
        # The rows that make it even stay 0.
        sides = [
            torch.zeros((_even(rows), CODES * most), dtype=torch.int8, device=device)
            for rows in (len(columns_x) * (x.n_bins - 1), len(columns_y) * (y.n_bins - 1))
        ]
        total = product = None
        for start in range(0, words, most):
            size = min(most, words - start)
            # The rows of a shorter last block follow one another as those of a whole one do.
            ones = [side.view(-1)[: len(side) * CODES * size].view(len(side), -1) for side in sides]
            if size < most:
                for side in ones:
                    side.zero_()
            for codes, columns, side in ((x, columns_x, ones[0]), (y, columns_y, ones[1])):
                self.backend.launch(
                    spread_codes,
                    (-(-size // _THREADS), len(columns)),
                    _THREADS,
                    codes.words,
                    columns,
                    start,
                    codes.n_bins - 1,
                    side.view(torch.uint64),
                )
            if total is None:
                total = torch._int_mm(ones[0], ones[1].t())
            else:
                if product is None:
                    product = torch.empty_like(total)
                torch._int_mm(ones[0], ones[1].t(), out=product)
                total += product
        assert total is not None
        return total

    def _count_planes(
        self, x: DeviceCodes, y: DeviceCodes, columns_x: torch.Tensor, columns_y: torch.Tensor
    ) -> torch.Tensor:
        """AND and counting ones, some samples at a time."""
        device = self.backend.device
        tile = PATCH * _SIDE
        rows = [len(columns) * (codes.n_bins - 1) for codes, columns in ((x, columns_x), (y, columns_y))]
        counts = torch.zeros(rows, dtype=torch.int32, device=device)
        words = x.data.shape[1] // 64
        most = max(1, min(words, self.shape.samples // 8))
        blocks = -(-rows[1] // tile), -(-rows[0] // tile)
        for start in range(0, words, most):
            size = min(most, words - start)
            planes = []
            for codes, columns, own in ((x, columns_x, rows[0]), (y, columns_y, rows[1])):
                plane = torch.empty((own, size), dtype=torch.int64, device=device).view(torch.uint64)
                self.backend.launch(
                    split_columns,
                    (-(-size // _THREADS), len(columns)),
                    _THREADS,
                    codes.words,
                    columns,
                    8 * start,
                    codes.n_bins - 1,
                    plane,
                )
                planes.append(plane)
            shares, share = self._shares(blocks[0] * blocks[1], size, 4 * STEP)
            kernel = make_count_planes(_SIDE)
            self.backend.launch(kernel, (*blocks, shares), _SIDE * _SIDE, *planes, share, counts)
        return counts

    def sums(self, tables: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Entropy terms of each pair's cells, summed, (g,) float64; and how many are occupied, (g,) int32."""
        n_x, bins_x, n_y, bins_y = tables.shape
        sums = torch.empty(n_x * n_y, dtype=torch.float64, device=self.backend.device)
        occupied = torch.empty(n_x * n_y, dtype=torch.int32, device=self.backend.device)
        threads = min(MOST_THREADS, max(32, 1 << (bins_x * bins_y // 4).bit_length()))
        self.backend.launch(
            summarize_tables, n_x * n_y, threads, tables, self._terms, self.grassberger, sums, occupied
        )
        return sums[places], occupied[places]
