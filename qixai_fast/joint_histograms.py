"""Joint histograms of pairs of columns: a statistic that adds up over rows.

Two kernels count, with the same integers as result, and :func:`uses_planes` chooses between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._validate import Float64
from .bins import Bins, Codes, code_dtype
from .kernels._bits import BLOCK, counts_ones_in_vectors
from .kernels.histogram_cpu import count_pairs
from .kernels.planes_cpu import RARE, complete_tables, count_planes, most_frequent

Index = npt.NDArray[np.int64]
Tables = npt.NDArray[np.int32]

# Planes of a column that are made at a time: those of a pair stay in L1 and L2.
_PLANE_BYTES = 30 * 2**10
# Measured, in ns: a scattered increment; a sample of a cell, with an instruction that counts the ones of a
# vector and without; and what a cell and a pair cost besides.
_INCREMENT = 0.26
_SAMPLE_OF_CELL = 0.0004
_SAMPLE_OF_CELL_WITHOUT = 0.0024
_CELL = 1.2
_PAIR = 170.0
# What the planes of a column cost, a sample and bin, and a call besides.
_PLANE = 0.01
_CALL = 15_000.0


def uses_planes(n_samples: int, bins_x: int, bins_y: int) -> bool:
    """Whether AND and counting ones (:mod:`qixai_fast.kernels.planes_cpu`) beats incrementing tables.

    All cells but a row and a column are counted, each in a time that grows with the samples; an increment
    takes the same time for any number of cells. With AVX-512 that favours planes up to 25 bins a side from
    some 2,000 samples on, elsewhere up to 10 bins.
    """
    return max(bins_x, bins_y) <= 255 and _saved(n_samples, bins_x, bins_y) > 0


def _saved(n_samples: int, bins_x: int, bins_y: int) -> float:
    """What planes that are made already save a pair, in ns."""
    cells = (bins_x - 1) * (bins_y - 1)
    sample = _SAMPLE_OF_CELL if counts_ones_in_vectors() else _SAMPLE_OF_CELL_WITHOUT
    return n_samples * (_INCREMENT - cells * sample) - cells * _CELL - _PAIR


def _planes_pay(n_samples: int, bins_x: int, bins_y: int, n_pairs: int, n_columns: int) -> bool:
    """Whether enough pairs share the columns of a call for their planes to be worth making."""
    if not uses_planes(n_samples, bins_x, bins_y):
        return False
    making = n_columns * n_samples * max(bins_x, bins_y) * _PLANE + _CALL
    return n_pairs * _saved(n_samples, bins_x, bins_y) > making


def _plane_samples(n_samples: int, bins: int) -> int:
    """Samples whose planes are made at a time: whole vectors."""
    return min(-(-n_samples // 512) * 512, max(1, _PLANE_BYTES // (64 * (bins - 1))) * 512)


def counting_bytes(n_samples: int, bins_x: int, bins_y: int) -> int:
    """Bytes that :meth:`JointHistograms.count` takes for each different column, besides the tables."""
    if not uses_planes(n_samples, bins_x, bins_y):
        return 0
    bins = max(bins_x, bins_y)
    samples = _plane_samples(n_samples, bins)
    rare = samples // int(RARE) + 1
    return (bins - 1) * (samples // 8) + bins * (4 * rare + 2 + 8) + int(BLOCK) + 120


class _Planes:
    """Room for the planes of some columns, and how many samples each of their bins has."""

    def __init__(self, n_samples: int, bins: int, places: int) -> None:
        self.samples = _plane_samples(n_samples, bins)
        self.left = np.empty(places, dtype=np.int64)
        self.margins = np.zeros((places, bins), dtype=np.int64)
        self._room = (
            np.empty(places * (bins - 1) * (self.samples // 64), dtype=np.uint64),
            np.zeros((places, bins + BLOCK), dtype=np.uint8),
            np.empty((places, bins), dtype=np.bool_),
            np.empty((places, bins * (self.samples // RARE + 1)), dtype=np.int32),
            np.empty((2, places), dtype=np.int64),
            np.empty(BLOCK * BLOCK, dtype=np.int64),
        )

    def count(
        self, sides: Sequence[tuple[Codes, Index]], first: Index, second: Index, tables: Tables
    ) -> None:
        """Add the joint counts of pairs of places to tables of zeros."""
        (codes_x, columns_x), (codes_y, columns_y) = sides
        most_frequent(codes_x, columns_x, self.margins.shape[1], self.left[: len(columns_x)])
        most_frequent(codes_y, columns_y, self.margins.shape[1], self.left[len(columns_x) :])
        flat, cells, width = tables.reshape(-1), tables.shape[1] * tables.shape[2], tables.shape[2]
        count_planes(
            codes_x,
            columns_x,
            codes_y,
            columns_y,
            first,
            second,
            self.left,
            self.margins,
            flat,
            cells,
            width,
            self.samples,
            *self._room,
        )
        complete_tables(first, second, self.left, self.margins, tables)


@dataclass(frozen=True)
class JointHistograms:
    """Joint counts of pairs of columns: chunk -> combine, over rows.

    Partials are (pairs, n_bins_x, n_bins_y) int32 tables. They are integers, so the result is exact and the
    same for any cut of the rows and any order of combining.

    Attributes
    ----------
    bins : sequence of Bins
        Those of each input; one input is paired with itself.
    first, second : (g,) int64
        Pairs: column ``first[p]`` of the first input with column ``second[p]`` of the last.
    """

    bins: Sequence[Bins]
    first: Index
    second: Index

    def chunk(self, blocks: Sequence[Float64]) -> Tables:
        """Tables of one block of rows; ``blocks`` holds the same rows of every input."""
        coded: list[Any] = []
        for block, bins in zip(blocks, self.bins, strict=True):
            codes = np.empty((block.shape[1], block.shape[0]), dtype=code_dtype(bins.n_bins))
            bins.encode(block, codes)
            coded.append(codes)
        return self.count(coded[0], coded[-1])

    def count(self, codes_x: Codes, codes_y: Codes) -> Tables:
        """Tables of rows that are coded already."""
        bins_x, bins_y = self.bins[0].n_bins, self.bins[-1].n_bins
        tables = np.zeros((len(self.first), bins_x, bins_y), dtype=np.int32)
        n = codes_x.shape[1]
        # Two columns at least: where those are too many already, nothing needs looking up.
        if not _planes_pay(n, bins_x, bins_y, len(self.first), 2):
            count_pairs(codes_x, codes_y, self.first, self.second, tables)
            return tables
        if codes_x is codes_y:
            columns_x, places = np.unique(np.concatenate([self.first, self.second]), return_inverse=True)
            first, second = places[: len(self.first)], places[len(self.first) :]
            columns_y = columns_x[:0]
        else:
            columns_x, first = np.unique(self.first, return_inverse=True)
            columns_y, second = np.unique(self.second, return_inverse=True)
            second += len(columns_x)
        if not _planes_pay(n, bins_x, bins_y, len(self.first), len(columns_x) + len(columns_y)):
            count_pairs(codes_x, codes_y, self.first, self.second, tables)
            return tables
        planes = _Planes(n, max(bins_x, bins_y), len(columns_x) + len(columns_y))
        planes.count([(codes_x, columns_x), (codes_y, columns_y)], first, second, tables)
        return tables

    def combine(self, first: Tables, second: Tables) -> Tables:
        """The tables of both parts' rows, in the memory of the first."""
        first += second
        return first
