"""Matrices read on a device with every row scaled to unit norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..kernels.cosine_cuda import unit_rows
from .backend import Backend
from .rows import DeviceRows

# Of a block that scales a row.
MOST_THREADS, FEWEST_THREADS = 256, 32


@dataclass(frozen=True)
class UnitRows:
    """Unit vectors of the rows of a matrix.

    Attributes
    ----------
    rows : DeviceRows
    center : bool
        Take each row's own mean away first.
    dtype : torch.dtype
        Of the unit vectors: float32 or float64.
    is_zero : Tensor of shape (n_samples,), uint8
        Filled in as rows are read: which have no direction.
    """

    rows: DeviceRows
    center: bool
    dtype: torch.dtype
    is_zero: torch.Tensor

    @classmethod
    def of(cls, rows: DeviceRows, *, center: bool, dtype: torch.dtype) -> UnitRows:
        """Unit vectors, none of them known to be zero yet."""
        is_zero = torch.zeros(rows.n_samples, dtype=torch.uint8, device=rows.backend.device)
        return cls(rows, center, dtype, is_zero)

    @property
    def backend(self) -> Backend:
        return self.rows.backend

    def zeros(self) -> npt.NDArray[np.bool_]:
        """Which rows have no direction, on the host."""
        mask: npt.NDArray[Any] = self.is_zero.cpu().numpy()
        return mask.astype(bool)

    def row_bytes(self) -> int:
        """Bytes of the device that a row of a panel takes while it is read."""
        wide = 8 if self.rows.dtype == torch.float64 else 4
        # The panel before is there until this one is.
        return self.rows.block_bytes(1) + self.rows.n_features * (wide + 2 * self.dtype.itemsize)

    def panels(
        self, size: int, *, first: int = 0, last: int | None = None, checked: bool = True
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and unit vectors of each panel of rows ``first:last``, in order.

        Raises
        ------
        ValueError
            As :meth:`DeviceRows.blocks`.
        """
        wide = torch.float64 if self.rows.dtype == torch.float64 else torch.float32
        width = self.rows.n_features
        threads = min(MOST_THREADS, max(FEWEST_THREADS, 1 << (width // 2).bit_length()))
        for start, block in self.rows.blocks(size, first=first, last=last, checked=checked):
            given = block.to(wide).contiguous()
            units = torch.empty(given.shape, dtype=self.dtype, device=self.backend.device)
            zeros = self.is_zero[start : start + len(block)]
            self.backend.launch(unit_rows, len(block), threads, given, self.center, units, zeros)
            del given
            yield start, units
            del units
