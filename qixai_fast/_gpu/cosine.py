"""Cosine similarity of rows on devices: the full matrix, or the best k of each row.

For the best k, tensor cores look first, and exact scores decide. Unit vectors x and y are rounded to float16;
cuBLAS multiplies them with sums in float32 and writes scores of 2 bytes. Such a score differs from the cosine
by no more than half a unit of float16 beyond

    E = |x' - x| + |x'| |y' - y| + d 2^-23 |x'| |y'|:

the first two terms by Cauchy and Schwarz, with the errors of these very vectors, the last for d sums that are
rounded down in float32. A list of candidates is kept for each row, longer than k. Whatever may be among the
best k has a score within twice that bound of the k-th best score; it gets its exact score, with sums in
float64, while its panel is on the device, and goes into the best k by the same rule as on the CPU. Where even
the last of the candidates lies within the bound, others may have been lost: such rows are searched again with
products in the dtype of the result. So exact scores decide for any data; only the time depends on how crowded
the best are. At d = 512, E is about 5e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.cosine_cuda import MOST_SHARED, make_rescore, make_update_candidates, make_update_top_k
from .backend import Backend
from .moments import DeviceMatrix
from .precision import exact_products
from .spread import spread
from .tiles import Tiles, multiply
from .unit_rows import UnitRows

Mask = npt.NDArray[np.bool_]
Sides = tuple[DeviceMatrix, DeviceMatrix]

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
# With fewer candidates a look in float16 does not pay.
QUICK_FROM = 2**13
SCAN_THREADS = 64
_SHORT_LIST = 64
_LEAST = -(2**31)
# Half a unit of float16, relative; and what bounds lose where they are computed in float32.
_HALF_UNIT, _SLACK = 2.0**-11, 2e-6


def _units(sides: Sides, *, center: bool, dtype: np.dtype[Any]) -> tuple[UnitRows, UnitRows]:
    """Both sides as unit rows; the same object twice where they are one."""
    kind = torch.float32 if dtype == np.float32 else torch.float64
    first = UnitRows.of(sides[0].rows, center=center, dtype=kind)
    if sides[0] is sides[1]:
        return first, first
    return first, UnitRows.of(sides[1].rows, center=center, dtype=kind)


def _place(result: Any, first_x: int, first_y: int, tile: Any, *, mirrored: bool) -> None:
    """Write a tile, of NumPy or torch as the result is, to its place; and, mirrored, to the other side."""
    rows = slice(first_x, first_x + tile.shape[0])
    columns = slice(first_y, first_y + tile.shape[1])
    result[rows, columns] = tile
    if mirrored:
        result[columns, rows] = tile.T
        low, high = max(rows.start, columns.start), min(rows.stop, columns.stop)
        if low < high:
            # On the diagonal a product and its mirror image are rounded each in its own way: one counts.
            both = tile[low - first_x : high - first_x, low - first_y : high - first_y]
            upper = both.triu() if torch.is_tensor(both) else np.triu(both)
            result[low:high, low:high] = upper
            result[low:high, low:high] += (upper.triu(1) if torch.is_tensor(both) else np.triu(upper, 1)).T


def similarity_matrix(
    sides: Sides, *, center: bool, dtype: np.dtype[Any], out: Any, budget: int | None
) -> tuple[Any, Mask, Mask]:
    """All cosines between the rows of two matrices.

    Parameters
    ----------
    sides : (X, Y)
        The same object twice for a matrix with itself: then only tiles from the diagonal on are computed.
    center : bool
    dtype : dtype
        float32 or float64: of products.
    out : ndarray or None
        None for a new result: on the device where ``X`` lives there, else on the host.
    budget : int or None

    Returns
    -------
    result : Tensor or ndarray of shape (n_x, n_y)
    zero_x, zero_y : ndarray of bool
        Rows with no direction.

    Raises
    ------
    MemoryBudgetError
        Where the device has too little memory.
    """
    X, Y = _units(sides, center=center, dtype=dtype)
    shape = X.rows.n_samples, Y.rows.n_samples
    with X.backend.current(), exact_products():
        tiles = Tiles.within(X, Y, (0, shape[0]), budget)
        result = out
        if out is None and X.rows.resident:
            result = torch.empty(shape, dtype=X.dtype, device=X.backend.device)
        elif out is None:
            result = np.empty(shape, dtype)
        for start, block in tiles.blocks():
            memory = tiles.scores(X.dtype, len(block))
            for at, panel in tiles.panels(start, block, start if tiles.same else 0):
                for row, stop in tiles.tall(len(block)):
                    if tiles.same and start + row >= at + len(panel):
                        continue
                    scores = multiply(block[row:stop], panel, memory)[:, : len(panel)].clamp_(-1, 1)
                    tile = scores if torch.is_tensor(result) else scores.cpu().numpy()
                    _place(result, start + row, at, tile, mirrored=tiles.same)
            del block, memory
    if tiles.same and torch.is_tensor(result):
        result.diagonal().copy_(1 - X.is_zero)
    elif tiles.same:
        np.fill_diagonal(result, np.where(X.zeros(), 0, 1))
    return result, X.zeros(), Y.zeros()


def top_k(
    sides: Sequence[Sides],
    k: int,
    *,
    center: bool,
    dtype: np.dtype[Any],
    tolerance: float,
    budget: int | None,
) -> tuple[torch.Tensor, torch.Tensor, Mask, Mask]:
    """The best ``k`` of each row, each device for a part of the rows.

    Parameters
    ----------
    sides : sequence of (X, Y)
        Both inputs on each device. The same object twice leaves out a row's own index.
    k : int
    center, dtype, budget
        As for :func:`similarity_matrix`.
    tolerance : float
        Scores that differ by no more count as equal: the lower index goes first.

    Returns
    -------
    values, indices : Tensors of shape (n_x, k)
        On the device where there is one, on the host where there are several.
    zero_x, zero_y : ndarray of bool
        Rows with no direction.

    Raises
    ------
    MemoryBudgetError
        Where a device has too little memory.
    """
    units = [_units(both, center=center, dtype=dtype) for both in sides]
    by_backend = {id(X.backend): (X, Y) for X, Y in units}
    n = sides[0][0].n_samples
    each = -(-n // len(sides))
    spans = [(first, min(first + each, n)) for first in range(0, n, each)]

    def search(backend: Backend, span: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        X, Y = by_backend[id(backend)]
        values, indices = _Search(X, Y, span, k, tolerance, budget).run()
        values = values.cummin(dim=1).values.clamp_(-1, 1)
        return (values, indices) if len(spans) == 1 else (values.cpu(), indices.cpu())

    with exact_products():
        parts = list(spread(search, spans, [X.backend for X, _ in units]))
    values, indices = (
        parts[0][i] if len(parts) == 1 else torch.cat([part[i] for part in parts]) for i in (0, 1)
    )
    zero_x, zero_y = (np.any([pair[i].zeros() for pair in units], axis=0) for i in (0, 1))
    return values, indices, zero_x, zero_y


class _Search:
    """Rows ``first:last`` of ``X`` on one device."""

    def __init__(
        self, X: UnitRows, Y: UnitRows, span: tuple[int, int], k: int, tolerance: float, budget: int | None
    ) -> None:
        self._backend, self._dtype, self._width = X.backend, X.dtype, X.rows.n_features
        self._span, self._k = span, k
        self._n_candidates = Y.rows.n_samples - (X is Y)
        # Beside those within the bound of the k-th best, as many again and a few: rows are seldom done twice.
        self._listed = 1 << (2 * k + 11).bit_length()
        self._quick = Y.rows.n_samples >= QUICK_FROM and self._listed <= MOST_SHARED
        self._tolerance = (np.float32 if X.dtype == torch.float32 else np.float64)(tolerance)
        itemsize = X.dtype.itemsize
        # The best k of all rows, twice while they are finished; what is returned as it is does not count.
        best = k * (itemsize + 8)
        fixed = (span[1] - span[0]) * best * (1 if X.rows.resident else 2)
        # Of a block: the best of rows searched again, candidates, vectors in float16, and half of the exact
        # ones a second time.
        each_x, each_y = best + 64, 0
        if self._quick:
            each_x += self._listed * 12 + self._width * (2 + itemsize // 2)
            each_y = self._width * (4 + 2 * itemsize)
        self._tiles = Tiles.within(X, Y, span, budget, fixed=fixed, each_x=each_x, each_y=each_y)

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and indices of the best."""
        values, indices = self._empty(self._span[1] - self._span[0], self._k, self._dtype, -torch.inf)
        for start, block in self._tiles.blocks():
            own = torch.full((len(block),), -1, dtype=torch.int64, device=self._backend.device)
            if self._tiles.same:
                torch.arange(start, start + len(block), out=own)
            at = start - self._span[0]
            best = values[at : at + len(block)], indices[at : at + len(block)]
            again = self._look(start, block, own, best) if self._quick else None
            if again is None or 2 * len(again) > len(block):
                best[0].fill_(-torch.inf)
                self._exact(start, block, block, own, best)
            elif len(again):
                some = self._empty(len(again), self._k, self._dtype, -torch.inf)
                self._exact(start, block, block[again], own[again], some)
                best[0][again], best[1][again] = some
            del block
        return values, indices

    def _empty(self, n: int, k: int, dtype: torch.dtype, low: float) -> tuple[torch.Tensor, torch.Tensor]:
        device = self._backend.device
        return (
            torch.full((n, k), low, dtype=dtype, device=device),
            torch.full((n, k), -1, dtype=torch.int64, device=device),
        )

    def _exact(
        self,
        start: int,
        block: torch.Tensor,
        x: torch.Tensor,
        own: torch.Tensor,
        best: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """Find the best of rows of a block by products in the dtype of the result."""
        memory = self._tiles.scores(self._dtype, len(x))
        capacity = next((most for most in (_SHORT_LIST, MOST_SHARED) if self._k <= most), 0)
        kernel = make_update_top_k(8 * self._dtype.itemsize, capacity)
        tail = best[0].view(_INTEGERS[self._dtype])
        for first, panel in self._tiles.panels(start, block):
            for row, stop in self._tiles.tall(len(x)):
                rows = slice(row, stop)
                scores = multiply(x[rows], panel, memory)
                self._backend.launch(
                    kernel, stop - row, SCAN_THREADS, scores, scores.view(torch.uint64), len(panel), first,
                    own[rows], self._tolerance, best[0][rows], best[1][rows], tail[rows],
                )  # fmt: skip

    def _look(
        self, start: int, block: torch.Tensor, own: torch.Tensor, best: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Find the best of a block by scores in float16 and exact ones of candidates.

        Returns
        -------
        Tensor of shape (m,), int64
            Rows for which that did not decide.
        """
        device, k = self._backend.device, self._k
        x = torch.empty(block.shape, dtype=torch.float16, device=device)
        errors = torch.empty(len(block), dtype=torch.float32, device=device)
        step = min(self._tiles.panel, self._n_candidates)
        for row in range(0, len(block), step):
            rows = slice(row, row + step)
            x[rows], errors[rows] = _rounded(block[rows])
        memory = self._tiles.scores(torch.float16, len(block))
        orders, candidates = self._empty(len(block), self._listed, torch.int32, _LEAST)
        capacity = _SHORT_LIST if self._listed <= _SHORT_LIST else MOST_SHARED
        update = make_update_candidates(capacity)
        rescore = make_rescore(8 * self._dtype.itemsize, capacity)
        largest = torch.zeros((), dtype=torch.float32, device=device)
        least = orders[:, 0]
        for first, panel in self._tiles.panels(start, block):
            y, y_errors = _rounded(panel)
            largest = torch.maximum(largest, y_errors.max())
            for row, stop in self._tiles.tall(len(block)):
                rows = slice(row, stop)
                scores = multiply(x[rows], y, memory)
                self._backend.launch(
                    update, stop - row, SCAN_THREADS, scores.view(torch.int16), scores.view(torch.uint64),
                    len(panel), first, own[rows], 0, orders[rows], candidates[rows], orders[rows],
                )  # fmt: skip
            least = self._least(orders[:, k - 1], errors, largest)
            self._backend.launch(
                rescore, len(block), SCAN_THREADS, block, panel, first, orders, candidates, least,
                self._tolerance, *best,
            )  # fmt: skip
        if self._listed >= self._n_candidates:
            return torch.empty(0, dtype=torch.int64, device=device)
        return torch.nonzero(orders[:, -1] >= least).ravel()

    def _least(self, kth: torch.Tensor, errors: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        """The least order with which a candidate may be among the best k, given that of the k-th."""
        score = _numbers(kth)
        bound = errors + (1 + errors) * (largest + self._width * 2.0**-23 * (1 + largest))
        floor = score - _HALF_UNIT * score.abs() - 2 * bound - (8 * float(self._tolerance) + _SLACK)
        return _orders(floor - 1.01 * _HALF_UNIT * floor.abs())


def _rounded(units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors in float16, and the norm of the error of each."""
    rounded = units.to(torch.float16)
    return rounded, torch.linalg.vector_norm(rounded.to(units.dtype).sub_(units), dim=1).float()


def _numbers(orders: torch.Tensor) -> torch.Tensor:
    """The float16 numbers, as float32, that integers stand for; -inf for the least integer."""
    bits = orders ^ ((orders >> 15) & 0x7FFF)
    numbers = bits.to(torch.int16).view(torch.float16).float()
    return numbers.masked_fill_(orders == _LEAST, -torch.inf)


def _orders(numbers: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the numbers, which are rounded down to float16."""
    halves = numbers.to(torch.float16)
    bits = halves.view(torch.int16).to(torch.int32)
    return (bits ^ ((bits >> 15) & 0x7FFF)) - (halves.float() > numbers).int()
