"""Which pairs of columns are asked for, without a list of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._device import to_numpy
from .._validate import Float64

Index = npt.NDArray[np.int64]


class Tile(NamedTuple):
    """Pairs of few columns: column ``first[p]`` of X with ``second[p]`` of Y, and where their values go.

    ``where`` are places in the order of chosen pairs, None where the columns say it.
    """

    first: Index
    second: Index
    where: Index | None


@dataclass(frozen=True)
class Pairs:
    """Pairs of a column of X with a column of Y (of X itself where ``symmetric``).

    Attributes
    ----------
    n_x, n_y : int
        Columns of both sides.
    symmetric : bool
        All pairs i <= j (i < j without the diagonal) stand for the whole matrix.
    chosen : (m, 2) int64 or None
        Explicit pairs, in the order of the result.
    diagonal : bool
        Whether symmetric pairs include i = j.
    """

    n_x: int
    n_y: int
    symmetric: bool
    chosen: Index | None = None
    diagonal: bool = True

    @classmethod
    def of(cls, pairs: Any, n_x: int, n_y: int, *, symmetric: bool, diagonal: bool = True) -> Pairs:
        """Check the ``pairs`` argument, None or shape (m, 2).

        Raises
        ------
        TypeError
            Where pairs are not integers.
        ValueError
            For another shape, no pairs, or columns that do not exist.
        """
        if pairs is None:
            return cls(n_x, n_y, symmetric, diagonal=diagonal)
        array = to_numpy(pairs, "pairs")
        if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
            raise ValueError(f"pairs: wanted shape (n_pairs, 2) with at least one pair, got {array.shape}")
        if array.dtype.kind not in "ui":
            raise TypeError(f"pairs: wanted integer column numbers, got dtype {array.dtype}")
        for side, (limit, owner) in enumerate(((n_x, "X"), (n_y, "X" if symmetric else "Y"))):
            outside = np.flatnonzero((array[:, side] < 0) | (array[:, side] >= limit))
            if len(outside):
                raise ValueError(
                    f"pairs: row {outside[0]} asks for column {array[outside[0], side]} of {owner}, "
                    f"which has columns 0 to {limit - 1}"
                )
        return cls(n_x, n_y, symmetric, array.astype(np.int64), diagonal)

    def _row_starts(self) -> Index:
        """Where each row of the upper triangle begins in the order of pairs."""
        lengths = np.arange(self.n_x, 0, -1, dtype=np.int64) - (not self.diagonal)
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])

    def __len__(self) -> int:
        if self.chosen is not None:
            return len(self.chosen)
        if self.symmetric:
            return self.n_x * (self.n_x + (1 if self.diagonal else -1)) // 2
        return self.n_x * self.n_y

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        if self.chosen is not None:
            return (len(self.chosen),)
        return (self.n_x, self.n_y)

    def columns(self, start: int, stop: int) -> tuple[Index, Index]:
        """Columns of X and of Y of pairs ``start`` to ``stop``."""
        if self.chosen is not None:
            part = self.chosen[start:stop]
            return np.ascontiguousarray(part[:, 0]), np.ascontiguousarray(part[:, 1])
        index = np.arange(start, stop, dtype=np.int64)
        if not self.symmetric:
            return index // self.n_y, index % self.n_y
        starts = self._row_starts()
        first = np.searchsorted(starts, index, side="right").astype(np.int64) - 1
        return first, first + (index - starts[first]) + (not self.diagonal)

    def tiles(self, rows: int, columns: int) -> Iterator[Tile]:
        """All pairs, in groups of few columns: at most ``rows`` of X and ``columns`` of Y.

        A group has at most ``rows * columns`` pairs.
        """
        if self.chosen is not None:
            yield from self._chosen_tiles(self.chosen, rows, columns)
            return
        for top in range(0, self.n_x, rows):
            for left in range(top // columns * columns if self.symmetric else 0, self.n_y, columns):
                shape = min(rows, self.n_x - top), min(columns, self.n_y - left)
                first, second = (grid.ravel() for grid in np.indices(shape, dtype=np.int64))
                first += top
                second += left
                if self.symmetric and left < top + rows:
                    wanted = np.flatnonzero(second - first >= (0 if self.diagonal else 1))
                    first, second = first[wanted], second[wanted]
                if len(first):
                    yield Tile(first, second, None)

    @staticmethod
    def _chosen_tiles(chosen: Index, rows: int, columns: int) -> Iterator[Tile]:
        band = chosen[:, 0] // rows
        order = np.lexsort((chosen[:, 1], band))
        band, second = band[order], chosen[order, 1]
        new_band = np.concatenate([[True], band[1:] != band[:-1]])
        new_column = new_band | np.concatenate([[True], second[1:] != second[:-1]])
        # How many columns of Y came before in the same band.
        number = np.cumsum(new_column)
        number -= np.maximum.accumulate(np.where(new_band, number, 0))
        cuts = np.flatnonzero(new_band | (new_column & (number % columns == 0)))
        for begin, end in zip(cuts.tolist(), [*cuts[1:].tolist(), len(order)], strict=True):
            for start in range(begin, end, rows * columns):
                where = order[start : min(start + rows * columns, end)]
                # Pairs that share the column of X come together.
                where = where[np.argsort(chosen[where, 0], kind="stable")]
                yield Tile(chosen[where, 0], chosen[where, 1], where)

    def put(self, out: Float64, tile: Tile, values: Float64) -> None:
        """Write the values of a tile into a result of :attr:`shape`."""
        if tile.where is not None:
            out[tile.where] = values
            return
        out[tile.first, tile.second] = values
        if self.symmetric:
            out[tile.second, tile.first] = values

    def place(self, out: Float64, start: int, values: Float64) -> None:
        """Write the values of consecutive pairs into a result of :attr:`shape`."""
        if self.chosen is not None:
            out[start : start + len(values)] = values
            return
        first, second = self.columns(start, start + len(values))
        out[first, second] = values
        if self.symmetric:
            out[second, first] = values

    def spread(self, values: Float64) -> Float64:
        """All values at once, in :attr:`shape`; NaN where no pair belongs (the diagonal)."""
        out = np.full(self.shape, np.nan)
        self.place(out, 0, values)
        return out
