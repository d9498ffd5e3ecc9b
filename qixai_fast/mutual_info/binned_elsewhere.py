"""Tiles of binned pairs in other processes, which read and code the columns they need."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from .._validate import Float64, Matrix
from ..bins import Bins, Codes, block_dtype, code_dtype, encode, make_bins
from ..joint_histograms import Index, JointHistograms
from .bias import PluginEstimator
from .binned_plan import tables_per_group
from .pairing import Tile
from .variables import read_columns

# Columns a side of a tile: few enough for many tasks, many enough to be worth coding.
TILE_COLUMNS = 32
# Columns read and coded together, rows coded together, and bytes of codes that are kept.
_TOGETHER = 8
_ROWS = 32768
_KEPT_BYTES = 2**29


class TilesElsewhere:
    """Values of a tile of pairs: a function that travels as the names of the files.

    Parameters
    ----------
    matrices : list of Matrix
    estimator : PluginEstimator
    n_bins, strategy, zero
        As :func:`qixai_fast.bins.make_bins` takes them; with strategy "codes", values are bins already.
    """

    def __init__(
        self, matrices: list[Matrix], estimator: PluginEstimator, n_bins: int, strategy: str, zero: bool
    ) -> None:
        self.matrices, self.estimator = matrices, estimator
        self.binning = n_bins, strategy, zero
        self._kept: OrderedDict[tuple[int, int], tuple[Codes, Float64, Float64]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return TilesElsewhere, (self.matrices, self.estimator, *self.binning)

    def __call__(self, tile: Tile) -> Float64:
        n_bins, _, zero = self.binning
        sides = [np.unique(tile.first, return_inverse=True), np.unique(tile.second, return_inverse=True)]
        wanted = [
            (min(side, len(self.matrices) - 1), column)
            for side, (columns, _) in enumerate(sides)
            for column in columns.tolist()
        ]
        self._code(wanted)
        coded: list[Any] = []
        bins: list[Bins] = []
        for side, (columns, _) in enumerate(sides):
            own = min(side, len(self.matrices) - 1)
            found = [self._kept[own, column] for column in columns.tolist()]
            coded.append(np.stack([codes for codes, _, _ in found]))
            bins.append(Bins(np.stack([e for _, e, _ in found]), np.stack([s for _, _, s in found]), zero))
        values = np.empty(len(tile.first))
        first, second = (places.astype(np.int64) for _, places in sides)
        group = max(TILE_COLUMNS, tables_per_group(self.matrices[0].n_samples, n_bins * n_bins))
        for start in range(0, len(values), group):
            some = slice(start, start + group)
            values[some] = self._count(bins, first[some], second[some], coded)
        self._shrink(keep=len(wanted))
        return values

    def _count(self, bins: list[Bins], first: Index, second: Index, coded: list[Any]) -> Float64:
        tables = JointHistograms(bins, first, second).count(*coded)
        values: Float64 = self.estimator.values(self.estimator.summarize(tables))
        return values

    def _code(self, wanted: list[tuple[int, int]]) -> None:
        """Read and code the columns that are not kept."""
        n_bins, strategy, zero = self.binning
        for key in wanted:
            if key in self._kept:
                self._kept.move_to_end(key)
        missing = [key for key in dict.fromkeys(wanted) if key not in self._kept]
        for side, matrix in enumerate(self.matrices):
            columns = [column for own, column in missing if own == side]
            for start in range(0, len(columns), _TOGETHER):
                some = columns[start : start + _TOGETHER]
                values = read_columns(matrix, some)
                if strategy == "codes":
                    for place, column in enumerate(some):
                        self._kept[side, column] = (
                            values[place].astype(code_dtype(n_bins)),
                            np.zeros(n_bins + 1),
                            np.zeros(()),
                        )
                    continue
                values = values.astype(block_dtype(matrix), copy=False).T
                part = Matrix(matrix.name, values, matrix.home)
                rows = min(_ROWS, matrix.n_samples)
                bins = make_bins(part, n_bins, strategy, zero=zero, rows=rows, sort_columns=1, n_jobs=1)
                coded = encode(part, bins, rows=rows, n_jobs=1)
                for place, column in enumerate(some):
                    self._kept[side, column] = coded[place].copy(), bins.edges[place], bins.steps[place]

    def _shrink(self, keep: int) -> None:
        """Let go of the columns used longest ago."""
        size = sum(codes.nbytes for codes, _, _ in self._kept.values())
        while size > _KEPT_BYTES and len(self._kept) > keep:
            _, (codes, _, _) = self._kept.popitem(last=False)
            size -= codes.nbytes
