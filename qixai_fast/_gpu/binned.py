"""Binned mutual information on devices: codes that stay there, tiles of pairs, sums that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._threads import ordered_map
from .._validate import Float64
from ..bins import Bins, row_blocks
from ..mutual_info.bias import TERM_TABLE_BYTES, Margins, PluginEstimator
from ..mutual_info.pairing import Pairs, Tile
from .backend import Backend
from .codes import (
    DeviceCodes,
    Index,
    bins_on_device,
    block_rows,
    code_bytes,
    encode_on_device,
    padded,
    row_bytes,
    some_columns,
    sort_bytes,
)
from .joint_counts import JointCounter, Shape, fit_shape, shape_bytes
from .rows import DeviceRows
from .spread import spread

_SORT_BYTES = 2**32
# Corrections that threads of the host work out, and how many pairs each takes at a time.
_HOST_WORK = ("panzeri-treves", "permutation-mean")
_TOGETHER = 512
# Entropy terms, what cuBLAS works in, and small arrays.
_OVERHEAD = TERM_TABLE_BYTES + 2**25


@dataclass(frozen=True)
class Plan:
    """How the work fits a device's budget.

    Attributes
    ----------
    rows : int
        Rows of a block of the input.
    sort_columns : int
        Columns sorted at a time (quantile).
    held : int or None
        Columns of each side whose codes are held at a time; None for all of both.
    shape : Shape
        Columns of each side whose pairs are counted together.
    """

    rows: int
    sort_columns: int
    held: int | None
    shape: Shape


def plan_work(
    sides: Sequence[DeviceRows],
    bins: tuple[int, int],
    strategy: str,
    max_memory: int | None,
    backends: Sequence[Backend],
    *,
    extra: int = 0,
    gathered: int = 0,
    must_hold: bool = False,
) -> Plan:
    """Choose rows, columns and tiles; raise MemoryBudgetError where nothing fits.

    ``extra`` are bytes that the caller needs besides, ``gathered`` those for each column of a side of a tile;
    ``must_hold`` refuses to make codes more than once.
    """
    n = sides[0].n_samples
    width = sum(side.n_features for side in sides)
    column = padded(n) * code_bytes(max(bins)) + 40 * max(bins)
    fixed = _OVERHEAD + extra + 16 * width * max(bins)
    sort = max(sort_bytes(side) for side in sides) if strategy == "quantile" else 0
    row = max(row_bytes(side) for side in sides)
    least = shape_bytes(Shape(1, 64), bins, gathered)
    budget = min(backend.budget(max_memory) for backend in backends)

    def needed(columns: int) -> int:
        return fixed + max(columns * column + max(least, row), sort + row)

    required = needed(width if must_hold else min(2, width))
    backends[0].require(budget, required, "binned mutual information")
    held = None
    if budget < needed(width):
        # Codes of two blocks of columns, and a fourth of the room for the tiles.
        held = max(1, int(0.75 * (budget - fixed - row - least)) // (2 * column))
    free = budget - fixed - column * (width if held is None else 2 * held)
    rows = min(block_rows(side, min(free, budget - fixed - sort)) for side in sides)
    return Plan(
        rows=rows,
        sort_columns=max(1, min(budget - fixed - rows * row, _SORT_BYTES) // max(1, sort)),
        held=held,
        shape=fit_shape(n, bins, max(side.n_features for side in sides), free, gathered),
    )


def margins_of(codes: DeviceCodes, estimator: PluginEstimator) -> Margins:
    """Marginal counts of coded columns, and their entropy terms."""
    return estimator.margins(codes.counts.cpu().numpy().astype(np.int64))


class _Columns:
    """Codes of columns of the inputs on one device: all of them, or those of the tile at hand."""

    def __init__(
        self, sides: Sequence[DeviceRows], bins: Sequence[Bins], rows: int, held: Sequence[DeviceCodes] | None
    ) -> None:
        self._sides, self._bins, self._rows, self._all = sides, bins, rows, held
        self._kept: dict[int, tuple[Index, DeviceCodes]] = {}

    def of(self, tile: Tile, backend: Backend) -> tuple[DeviceCodes, DeviceCodes, Index, Index]:
        """Codes of both sides of a tile's pairs, and where in them the columns of each pair are."""
        if self._all is not None:
            return self._all[0], self._all[-1], tile.first, tile.second
        xs, first = np.unique(tile.first, return_inverse=True)
        ys, second = np.unique(tile.second, return_inverse=True)
        if self._sides[0] is self._sides[-1] and np.array_equal(xs, ys):
            codes = self._made(0, xs, backend)
            return codes, codes, first, second
        return self._made(0, xs, backend), self._made(-1, ys, backend), first, second

    def _made(self, side: int, columns: Index, backend: Backend) -> DeviceCodes:
        kept = self._kept.get(side)
        if kept is not None and np.array_equal(kept[0], columns):
            return kept[1]
        # Let those go that are kept before others are made.
        del kept
        self._kept.pop(side, None)
        bins = self._bins[side]
        own = Bins(bins.edges[columns], bins.steps[columns], bins.zero)
        codes = encode_on_device(some_columns(self._sides[side], columns, backend), own, self._rows)
        self._kept[side] = columns, codes
        return codes


class _Sums:
    """Entropy sums of the tables of some pairs, and tables that are needed, on their way to the host."""

    def __init__(
        self, counter: JointCounter, x: DeviceCodes, y: DeviceCodes, first: Index, second: Index, tables: bool
    ) -> None:
        backend = counter.backend
        counted, places = counter.tables(x, y, first, second)
        results = list(counter.sums(counted, places))
        if tables:
            _, bins_x, _, bins_y = counted.shape
            results.append(counted.permute(0, 2, 1, 3).reshape(-1, bins_x, bins_y)[places])
        self._backend = backend
        self._parts = [backend.pinned(tuple(one.shape), one.dtype) for one in results]
        for part, one in zip(self._parts, results, strict=True):
            part.copy_(one, non_blocking=True)
        self._mark = backend.mark()

    def arrays(self) -> list[Any]:
        """Wait for them."""
        self._backend.block_until(self._mark)
        return [part.numpy() for part in self._parts]


class PairValues:
    """Values of pairs of coded columns on one device, at most ``shape.side`` columns of each side a call."""

    def __init__(self, backend: Backend, estimator: PluginEstimator, shape: Shape, n_jobs: int) -> None:
        self._estimator = estimator
        # Where the host has little to do with a pair, threads only cost.
        self._n_jobs = n_jobs if estimator.bias_correction in _HOST_WORK else 1
        self._counter = JointCounter(backend, estimator.terms, estimator.grassberger, shape)

    def start(
        self,
        codes: tuple[DeviceCodes, DeviceCodes],
        margins: tuple[Margins, Margins],
        first: Index,
        second: Index,
    ) -> Callable[[], Float64]:
        """Begin; what is returned waits for the device and gives the values."""
        estimator = self._estimator
        sums = _Sums(self._counter, *codes, first, second, estimator.needs_tables)

        def values() -> Float64:
            arrays = sums.arrays()

            def some(bounds: tuple[int, int]) -> Float64:
                part = slice(*bounds)
                own = (one[part] for one in arrays)
                return estimator.values(estimator.summarize_sums(*margins, first[part], second[part], *own))

            if self._n_jobs == 1:
                return some((0, len(first)))
            pieces = row_blocks(len(first), _TOGETHER)
            return np.concatenate(list(ordered_map(some, pieces, min(self._n_jobs, len(pieces)))))

        return values


def digitize_rows(
    rows: DeviceRows, n_bins: int, strategy: str, *, zero: bool, max_memory: int | None
) -> tuple[torch.Tensor, Float64]:
    """Codes of all columns, (d, n) on the device, uint8 or uint16, and their edges on the host."""
    backend, n = rows.backend, rows.n_samples
    # Of one input, with a copy of the codes that has nothing behind the last sample.
    copied = n * rows.n_features * code_bytes(n_bins)
    plan = plan_work([rows], (n_bins, n_bins), strategy, max_memory, [backend], extra=copied, must_hold=True)
    with backend.current():
        bins = bins_on_device(
            rows, n_bins, strategy, zero=zero, size=plan.rows, sort_columns=plan.sort_columns
        )
        codes = encode_on_device(rows, bins, plan.rows).data[:, :n].contiguous()
    return codes if codes.dtype == torch.uint8 else codes.view(torch.uint16), bins.edges


def at_once(values: Callable[[], Float64]) -> Callable[[], Float64]:
    """Values that need no more memory than themselves until they are asked for."""
    made = values()
    return lambda: made


def small_tiles(first: Index, second: Index, side: int) -> Iterator[Index]:
    """Which pairs are of the same ``side`` columns of each side."""
    key = first // side * (int(second.max()) // side + 1) + second // side
    order = np.argsort(key, kind="stable")
    cuts = np.flatnonzero(np.diff(key[order])) + 1
    yield from np.split(order, cuts)


def pairwise_values(
    sides: Sequence[DeviceRows],
    pairs: Pairs,
    estimator: PluginEstimator,
    *,
    n_bins: int,
    strategy: str,
    zero: bool,
    n_jobs: int,
    max_memory: int | None,
    backends: Sequence[Backend],
) -> Float64:
    """Mutual information of all pairs, (d_x, d_y) or one a pair.

    Options are checked; values of the inputs are not.
    """
    plan = plan_work(sides, (n_bins, n_bins), strategy, max_memory, backends)
    with backends[0].current():
        bins = [
            bins_on_device(side, n_bins, strategy, zero=zero, size=plan.rows, sort_columns=plan.sort_columns)
            for side in sides
        ]
        held = None
        if plan.held is None:
            held = [encode_on_device(side, own, plan.rows) for side, own in zip(sides, bins, strict=True)]
            margins = [margins_of(codes, estimator) for codes in held]
    workers: dict[Backend, tuple[_Columns, PairValues]] = {}

    def begin(backend: Backend, tile: Tile) -> list[tuple[Tile, Callable[[], Float64]]]:
        if backend not in workers:
            own = held
            if held is not None and backend is not backends[0]:
                own = [codes.to(backend) for codes in held]
            workers[backend] = (
                _Columns(sides, bins, plan.rows, own),
                PairValues(backend, estimator, plan.shape, n_jobs),
            )
        columns, values_of = workers[backend]
        x, y, first, second = columns.of(tile, backend)
        if held is not None:
            return [(tile, values_of.start((x, y), (margins[0], margins[-1]), first, second))]
        both = margins_of(x, estimator), margins_of(y, estimator)
        begun: list[tuple[Tile, Callable[[], Float64]]] = []
        for chosen in small_tiles(first, second, plan.shape.side):
            values = values_of.start((x, y), both, first[chosen], second[chosen])
            where = None if tile.where is None else tile.where[chosen]
            part = Tile(tile.first[chosen], tile.second[chosen], where)
            begun.append((part, at_once(values) if estimator.needs_tables else values))
        return begun

    out = np.full(pairs.shape, np.nan)

    def finish(begun: list[tuple[Tile, Callable[[], Float64]]]) -> None:
        for tile, values in begun:
            pairs.put(out, tile, values())

    width = plan.shape.side if plan.held is None else plan.held
    before: list[tuple[Tile, Callable[[], Float64]]] = []
    for begun in spread(begin, pairs.tiles(width, width), backends):
        # The device has the next tile while the host works on this one.
        finish(before)
        before = begun
    finish(before)
    return out
