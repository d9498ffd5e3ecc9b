"""Points of many pairs of variables on a GPU: laid out in strips, their neighbours counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..kernels import cells_cuda, ksg_cuda
from ..kernels.axis_cpu import PAD
from ..mutual_info.pairwise import Variables
from ..mutual_info.variables import Variable, View
from .backend import Backend

# Threads of a block.
_THREADS = 128
# Bytes a sample of a variable, with values, orders and ranks of two views; besides, while one is sent.
VARIABLE_BYTES = 2 * 16
SENT_BYTES = 24
# Bytes a point of a pair: strips, counts and partners, and a cell's values and places.
POINT_BYTES = 28 + 20

Places = npt.NDArray[np.intp]


def strip_shift(size: int) -> int:
    """Points go into strips of two to this power: 1.2 to 2.5 square roots of all, as far as a block can sort.

    ``kernels.cells_cuda.common_cell`` says the same.
    """
    shift: int = 3
    while shift < ksg_cuda.MAX_SHIFT and (2 << 2 * shift) < 3 * size:
        shift += 1
    return shift


def most_strips(size: int) -> int:
    """Strips that as many points or fewer have at most."""
    strips: int = max(math.isqrt(size) * 5 // 6 + 2, -(-size >> ksg_cuda.MAX_SHIFT), 4)
    return strips


class Sides:
    """The variables of both sides of a tile, their views numbered one after the other.

    Attributes
    ----------
    variables : list of Variable
    views : list of View
    """

    def __init__(self, x: Variables, y: Variables) -> None:
        self.variables: list[Variable] = []
        self.views: list[View] = []
        first_row: list[int] = []
        number: dict[int, int] = {}
        for variable in (*x.values(), *y.values()):
            if id(variable) not in number:
                number[id(variable)] = len(self.variables)
                self.variables.append(variable)
                first_row.append(len(self.views))
                self.views.extend(variable.views)
        self._first_row = np.array(first_row)
        self._last_view = np.array([len(one.views) - 1 for one in self.variables])
        ordinal = {key: i for i, key in enumerate(sorted({one.key for one in self.variables}))}
        self._ordinal = np.array([ordinal[one.key] for one in self.variables])
        self.has_atoms = np.array([one.n_codes > 1 for one in self.variables])
        self.varies = np.array([view.axis is not None for view in self.views])
        self.whole = np.array([view.rank is not None for view in self.views])
        self._columns = [np.array(list(side)) for side in (x, y)]
        self._numbers = [np.array([number[id(one)] for one in side.values()]) for side in (x, y)]

    def of(self, chosen: npt.NDArray[np.int64]) -> tuple[Places, Places]:
        """Which variables pairs of columns are."""
        places = [
            numbers[np.searchsorted(columns, chosen[:, side])]
            for side, (columns, numbers) in enumerate(zip(self._columns, self._numbers, strict=True))
        ]
        return places[0], places[1]

    def rows(self, x: Places, y: Places) -> tuple[Places, Places]:
        """Which views pairs of variables take: as :func:`qixai_fast.mutual_info.variables.choose_views`."""
        stream = (self._ordinal[x] > self._ordinal[y]).astype(np.intp)
        return (
            self._first_row[x] + np.minimum(stream, self._last_view[x]),
            self._first_row[y] + np.minimum(1 - stream, self._last_view[y]),
        )


class Table:
    """Sorted values of views on a device, with the samples that they belong to, and ranks of the samples."""

    def __init__(self, backend: Backend, views: Sequence[View], n: int) -> None:
        device = backend.device
        shape = (len(views), n)
        self.values = torch.empty(shape, dtype=torch.float64, device=device)
        self.orders = torch.empty(shape, dtype=torch.int32, device=device)
        self.ranks = torch.full(shape, -1, dtype=torch.int32, device=device)
        sizes = [len(view.order) if view.axis is not None else 0 for view in views]
        self.filled = torch.tensor(sizes, dtype=torch.int32, device=device)
        places = torch.arange(n, dtype=torch.int32, device=device)
        for row, (view, size) in enumerate(zip(views, sizes, strict=True)):
            if view.axis is None:
                continue
            self.values[row, :size].copy_(torch.from_numpy(view.axis.values[PAD : PAD + size]))
            self.orders[row, :size].copy_(torch.from_numpy(view.order))
            self.ranks[row].scatter_(0, self.orders[row, :size].long(), places[:size])


@dataclass(frozen=True)
class Points:
    """The points of some pairs, as kernels take them.

    Attributes
    ----------
    x_values, y_values : (rows, n) float64 Tensor
    x_rows, y_rows : (pairs,) int32 Tensor
    partners : (pairs, n) int32 Tensor
    sizes, shifts : (pairs,) int32 Tensor
    """

    x_values: torch.Tensor
    x_rows: torch.Tensor
    y_values: torch.Tensor
    y_rows: torch.Tensor
    partners: torch.Tensor
    sizes: torch.Tensor
    shifts: torch.Tensor

    def counts(
        self, backend: Backend, n_neighbors: int, algorithm: int, n_strips: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Marginal counts, (pairs, n) int32, strip after strip; nothing for pairs of k points or fewer."""
        pairs, n = self.partners.shape
        strips = torch.empty((2, pairs, n), dtype=torch.float64, device=backend.device)
        found = torch.empty((2, pairs, n), dtype=torch.int32, device=backend.device)
        sides = self.x_values, self.x_rows, self.y_values, self.y_rows
        width = 1 << strip_shift(n)
        backend.launch(
            ksg_cuda.into_strips,
            pairs * n_strips,
            min(2 * _THREADS, max(_THREADS // 4, width // 2)),
            *sides,
            self.partners,
            self.sizes,
            self.shifts,
            n_strips,
            n_neighbors + 1,
            strips[0],
            strips[1],
        )
        held = n_neighbors if n_neighbors <= ksg_cuda.MAX_HELD else 0
        blocks = -(-n // _THREADS)
        backend.launch(
            ksg_cuda.make_marginal_counts(held, algorithm),
            pairs * blocks,
            _THREADS,
            *sides,
            self.sizes,
            self.shifts,
            blocks,
            n_neighbors,
            strips[0],
            strips[1],
            found[0],
            found[1],
        )
        return found[0], found[1]


def whole_points(backend: Backend, table: Table, x_rows: torch.Tensor, y_rows: torch.Tensor) -> Points:
    """Points of pairs without atoms: all samples."""
    pairs, n = len(x_rows), table.values.shape[1]
    partners = torch.empty((pairs, n), dtype=torch.int32, device=backend.device)
    blocks = -(-n // _THREADS)
    backend.launch(
        ksg_cuda.partner_ranks,
        pairs * blocks,
        _THREADS,
        table.orders,
        table.ranks,
        x_rows,
        y_rows,
        blocks,
        partners,
    )
    sizes = torch.full_like(x_rows, n)
    shifts = torch.full_like(x_rows, strip_shift(n))
    return Points(table.values, x_rows, table.values, y_rows, partners, sizes, shifts)


def cell_points(backend: Backend, table: Table, x_rows: torch.Tensor, y_rows: torch.Tensor) -> Points:
    """Points of pairs with atoms: the samples that are continuous in both."""
    pairs, n = len(x_rows), table.values.shape[1]
    cells = torch.empty((2, pairs, n), dtype=torch.float64, device=backend.device)
    scratch = torch.empty((2, pairs, n), dtype=torch.int32, device=backend.device)
    sizes, shifts = torch.empty_like(x_rows), torch.empty_like(x_rows)
    backend.launch(
        cells_cuda.common_cell,
        pairs,
        min(_THREADS, cells_cuda.THREADS),
        table.values,
        table.orders,
        table.ranks,
        table.filled,
        x_rows,
        y_rows,
        ksg_cuda.MAX_SHIFT,
        cells[0],
        cells[1],
        scratch[0],
        scratch[1],
        sizes,
        shifts,
    )
    own = torch.arange(pairs, dtype=torch.int32, device=backend.device)
    return Points(cells[0], own, cells[1], own, scratch[1], sizes, shifts)
