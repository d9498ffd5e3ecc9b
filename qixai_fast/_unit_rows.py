"""Matrices read with every row scaled to unit norm, from any dtype straight to the product's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._memory import release_pages
from ._validate import Array, Float64, Matrix, check_finite, piece_rows
from .kernels.cosine_cpu import unit_rows as scale_rows


@dataclass(frozen=True)
class UnitRows(Matrix):
    """A matrix read with every row scaled to unit norm; rows with no direction stay zeros.

    Attributes
    ----------
    center : bool
        Take each row's own mean away first.
    is_zero : ndarray of shape (n_samples,), bool
        Filled in as rows are read: which have no direction.
    """

    center: bool
    is_zero: npt.NDArray[np.bool_]

    def __getstate__(self) -> dict[str, Any]:
        # Another process fills in its own: a byte a sample need not travel.
        return {**self.__dict__, "is_zero": len(self.is_zero)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, is_zero=np.zeros(state["is_zero"], dtype=bool))

    def block(self, start: int, stop: int) -> Float64:
        rows = np.empty((stop - start, self.n_features))
        self.fill(rows, start, stop)
        return rows

    def fill(self, target: Array, start: int, stop: int) -> None:
        # Narrow floats stay so until a row is in the cache: half of the memory to move.
        narrow = self.dtype.kind == "f" and self.dtype.itemsize <= 4
        step = piece_rows(self.n_features)
        pieces = np.empty((min(step, stop - start), self.n_features), np.float32 if narrow else np.float64)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            view, piece = self.data[first:last], pieces[: last - first]
            np.copyto(piece, view)
            bad = scale_rows(
                piece, self.center, target[first - start : last - start], self.is_zero[first:last]
            )
            if bad >= 0:
                check_finite(piece[bad : bad + 1], self.name, first_row=first + bad)
            release_pages(view)


def unit_rows(matrix: Matrix, *, center: bool = False) -> UnitRows:
    """View a matrix with unit rows, none of them known to be zero yet."""
    return UnitRows(matrix.name, matrix.data, matrix.home, center, np.zeros(matrix.n_samples, dtype=bool))
