"""Rows of one matrix against panels of another on a device: what is in memory when, and products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .unit_rows import UnitRows

LARGEST_TILE, _SMALLEST_TILE = 2**14, 2**6
# Rows of a tile of scores over its columns: longer products, started less often.
_TALL = 2
_FIXED = 2**16


def columns(n: int, itemsize: int) -> int:
    """Scores in a row of memory: whole words of 64 bits."""
    each = 8 // itemsize
    return -(-n // each) * each


def multiply(x: torch.Tensor, panel: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """All products of the rows of two matrices, in a matrix of whole words to a row."""
    width = columns(len(panel), memory.element_size())
    scores = memory[: len(x) * width].view(len(x), width)
    torch.mm(x, panel.T, out=scores[:, : len(panel)])
    return scores


@dataclass(frozen=True)
class Tiles:
    """Rows ``first:last`` of ``X``, a block of them at a time, against all rows of ``Y``, a panel at a time.

    Attributes
    ----------
    X, Y : UnitRows
        The same object where a matrix is compared with itself.
    first, last : int
    panel : int
        Rows of a panel.
    block : int
        Rows of a block.
    """

    X: UnitRows
    Y: UnitRows
    first: int
    last: int
    panel: int
    block: int

    @classmethod
    def within(
        cls,
        X: UnitRows,
        Y: UnitRows,
        span: tuple[int, int],
        budget: int | None,
        *,
        fixed: int = 0,
        each_x: int = 0,
        each_y: int = 0,
    ) -> Tiles:
        """The largest blocks and panels that fit a budget.

        Parameters
        ----------
        X, Y : UnitRows
        span : (first, last)
            Rows of ``X``.
        budget : int or None
            As the caller gave it.
        fixed : int
            Bytes that are taken all the time.
        each_x, each_y : int
            Bytes that a row of a block and a row of a panel take, beside their unit vectors.

        Raises
        ------
        MemoryBudgetError
            Where not even small ones fit.
        """
        first, last = span
        n_x, n_y, backend = last - first, Y.rows.n_samples, X.backend
        fixed += X.rows.n_samples + n_y + _FIXED
        each_x += X.rows.n_features * X.dtype.itemsize

        def beside(size: int) -> int:
            """Bytes for all but a block."""
            meeting = min(size, n_y) * (Y.row_bytes() + each_y)
            scores = min(_TALL * size, n_x) * columns(min(size, n_y), X.dtype.itemsize) * X.dtype.itemsize
            reading = min(size, n_x) * X.row_bytes()
            return max(meeting + scores, reading) + fixed

        size, free = LARGEST_TILE, backend.budget(budget)
        while size > _SMALLEST_TILE and 2 * beside(size) > free:
            size //= 2
        least = beside(size) + min(size, n_x) * each_x
        backend.require(free, least, "cosine between samples")
        rows = min(n_x, (free - beside(size)) // each_x)
        # Whole panels where there are several blocks.
        return cls(X, Y, first, last, size, rows // size * size if size < rows < n_x else rows)

    @property
    def same(self) -> bool:
        """Whether a matrix is compared with itself."""
        return self.X is self.Y

    def tall(self, n: int) -> Iterator[tuple[int, int]]:
        """First and last-plus-one row of each tile of a block of ``n`` rows."""
        return ((row, min(row + _TALL * self.panel, n)) for row in range(0, n, _TALL * self.panel))

    def scores(self, dtype: torch.dtype, n: int) -> torch.Tensor:
        """Memory for a tile of scores of a block of ``n`` rows."""
        width = columns(min(self.panel, self.Y.rows.n_samples), dtype.itemsize)
        return torch.empty(min(_TALL * self.panel, n) * width, dtype=dtype, device=self.X.backend.device)

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and unit vectors of each block."""
        for start in range(self.first, self.last, self.block):
            stop = min(start + self.block, self.last)
            shape = stop - start, self.X.rows.n_features
            units = torch.empty(shape, dtype=self.X.dtype, device=self.X.backend.device)
            for at, panel in self.X.panels(self.panel, first=start, last=stop):
                units[at - start : at - start + len(panel)] = panel
            yield start, units
            del units

    def panels(self, start: int, block: torch.Tensor, first: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and unit vectors of each panel from row ``first`` on that meets a block."""
        n = self.Y.rows.n_samples
        if self.same and len(block) == n:
            yield from ((at, block[at : at + self.panel]) for at in range(first, n, self.panel))
        else:
            # All rows have been checked once the first block has met them, and those of X as it is read.
            checked = start == self.first and not self.same
            yield from self.Y.panels(self.panel, first=first, checked=checked)
