"""The null of binned mutual information: all pairs from one set of codes, which permutations only gather."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np

from .._cluster import mapped
from .._memory import workers_within
from .._validate import Float64, Matrix
from ..bins import MAX_BINS, Bins, Codes, check_binning, check_flag, code_dtype, encode, row_blocks
from ..joint_histograms import Index, JointHistograms, counting_bytes, uses_planes
from ..kernels.histogram_cpu import count_codes
from .bias import PluginEstimator
from .binned import bins_of
from .binned_plan import plan_work, tables_per_group
from .pairing import Pairs
from .permutations import inverse, moves_first
from .rounds import PAIR_BYTES
from .variables import Int32

# A round's values of each pair, their standardised form, and which pairs they are: bytes.
_ASKED_BYTES = 72
_TABLE_OVERHEAD = 400
# Pairs counted together, at most, where it is done by planes: those of 32 columns a side.
_TILE_PAIRS = 1024
# Pairs of a task that works out permutation means: milliseconds of it.
_EXPECTED_TOGETHER = 512


def _runs(labels: Index, most: int) -> Iterator[tuple[int, int]]:
    """Where runs of equal labels begin and end, in ascending labels; long runs are cut."""
    cuts = [0, len(labels)]
    if labels[0] != labels[-1]:
        cuts[1:1] = (np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist()
    for begin, end in pairwise(cuts):
        for start in range(begin, end, most):
            yield start, min(start + most, end)


@dataclass(frozen=True)
class NullOptions:
    """Checked options of a null, here and on a device.

    Attributes
    ----------
    n_bins, strategy, zero
        As in :func:`qixai_fast.digitize`.
    complete : PluginEstimator
        Of the values that are reported.
    estimator : PluginEstimator
        Of a round: without the permutation mean, which is the same for every permutation.
    """

    n_bins: int
    strategy: str
    zero: bool
    complete: PluginEstimator
    estimator: PluginEstimator

    @classmethod
    def of(
        cls,
        n_samples: int,
        classes: tuple[Int32, int] | None,
        *,
        n_bins: Any,
        strategy: Any,
        zero_bin: Any,
        bias_correction: str | None,
    ) -> NullOptions:
        """Check them; classes are bins of their own."""
        n_bins = check_binning(n_bins, strategy, n_samples)
        zero = check_flag(zero_bin, "zero_bin")
        complete = PluginEstimator(n_samples, bias_correction)
        if classes is not None and classes[1] > MAX_BINS:
            raise ValueError(f"labels: wanted at most {MAX_BINS} classes, got {classes[1]}")
        estimator = PluginEstimator(n_samples, None) if bias_correction == "permutation-mean" else complete
        return cls(n_bins, strategy, zero, complete, estimator)

    @property
    def subtracts_mean(self) -> bool:
        """Whether a round's values are those of :attr:`estimator`, less their permutation mean."""
        return self.estimator is not self.complete

    def expected(
        self, margins_x: Index, margins_y: Index, first: Index, second: Index, n_jobs: int
    ) -> Float64:
        """Exact permutation mean of every pair, 0 where a column is constant."""

        def means(bounds: tuple[int, int]) -> Float64:
            some = slice(*bounds)
            return self.estimator.expected(margins_x, margins_y, first[some], second[some])

        pieces = row_blocks(len(first), _EXPECTED_TOGETHER)
        return np.concatenate(list(mapped(means, pieces, min(n_jobs, len(pieces)))))

    def centre(self, expected: Float64) -> tuple[Float64, Float64]:
        """Location and scale of every pair, as :class:`BinnedNull` has them."""
        chance = expected > 0.0
        middle = expected if self.complete.bias_correction is None else 0.0
        scale = np.sqrt(np.where(chance, expected, 1.0) / self.complete.n_samples)
        return np.where(chance, middle, np.inf), scale


class BinnedNull:
    """All pairs from one set of codes: codes are permuted, never made again.

    Attributes
    ----------
    location, scale : (n_pairs,) float64
        What a pair's values are centred and divided by before the largest of all pairs is taken. A plug-in
        value under permutation has a mean E, known exactly, and about the spread sqrt(E / n) of a chi-square
        variable; without this, columns with many occupied bins would drown the others. Both depend on the
        marginals alone, which no permutation changes. A pair with a constant column has location inf.
    n_jobs : int
        Permutations evaluated at a time.
    """

    def __init__(
        self,
        matrices: list[Matrix],
        pairs: Pairs,
        classes: tuple[Int32, int] | None,
        options: NullOptions,
        *,
        n_jobs: int,
        budget: int | None,
        held: int,
    ) -> None:
        n, n_bins, strategy, zero = matrices[0].n_samples, options.n_bins, options.strategy, options.zero
        self.n_samples = n
        self.complete, self.estimator = options.complete, options.estimator
        self.subtracts_mean = options.subtracts_mean
        n_classes = 0 if classes is None else classes[1]
        width = sum(matrix.n_features for matrix in matrices)
        itemsize = code_dtype(max(n_bins, n_classes)).itemsize
        cells = n_bins * (n_classes or n_bins)
        table = 4 * cells + _TABLE_OVERHEAD
        column = counting_bytes(n, n_bins, n_classes or n_bins)
        moved_column = column + itemsize * n
        # A thread holds a permutation (and its inverse), a tile of one pair, and values.
        worker = 24 * n + moved_column + column + table + _ASKED_BYTES * len(pairs)
        of_margins = 40 * width * n_bins + 40 * n_classes + 8 * n * (classes is not None)
        extra = held + PAIR_BYTES * len(pairs) + of_margins
        plan = plan_work(
            matrices,
            len(pairs),
            n_bins=n_bins,
            strategy=strategy,
            n_jobs=n_jobs,
            budget=budget,
            extra=extra + worker,
            must_cache=True,
        )
        self.bins = [bins_of(matrix, n_bins, strategy, plan, zero=zero) for matrix in matrices]
        self.codes: list[Any] = [
            encode(matrix, bins, rows=plan.rows, n_jobs=plan.n_jobs)
            for matrix, bins in zip(matrices, self.bins, strict=True)
        ]
        held = plan.fixed + sum(codes.nbytes for codes in self.codes) - worker
        if classes is not None:
            # Classes are numbered already: they are their own bins.
            self.bins.append(Bins(np.arange(n_classes + 1.0)[None], np.zeros(1)))
            self.codes.append(classes[0].astype(code_dtype(n_classes))[None])
        self.n_jobs = workers_within(budget, n_jobs, fixed=held, per_worker=worker, work="mutual_info_test")
        first, second = pairs.columns(0, len(pairs))
        self.side = 0 if moves_first(first, second) else -1
        moving, still = (first, second) if self.side == 0 else (second, first)
        by_planes = uses_planes(n, n_bins, n_classes or n_bins)
        most = _TILE_PAIRS if by_planes else tables_per_group(n, cells)
        rows = min(len(np.unique(moving)), isqrt(most))
        columns = min(len(np.unique(still)), most // rows)
        rows = min(len(np.unique(moving)), most // columns)
        if budget is not None:
            spare = (budget - held) // self.n_jobs - worker
            while (
                rows * columns > 1
                and (rows - 1) * moved_column + (columns - 1) * column + (rows * columns - 1) * table > spare
            ):
                rows, columns = (-(-rows // 2), columns) if rows >= columns else (rows, -(-columns // 2))
        # Tile after tile of few columns; within one, the pairs of a moving column come together.
        self.tile = rows, columns
        self.places = np.lexsort((moving, still // columns, moving // rows))
        self.moving, self.still = moving[self.places], still[self.places]
        margins = [self._margins(side) for side in range(len(self.codes))]
        self.expected = options.expected(margins[0], margins[-1], first, second, self.n_jobs)
        self.location, self.scale = options.centre(self.expected)

    def _margins(self, side: int) -> Index:
        codes = self.codes[side]
        counts = np.zeros((len(codes), self.bins[side].n_bins), dtype=np.int64)
        count_codes(codes, counts)
        return counts

    def parts(self) -> Iterator[BinnedNull]:
        """All pairs at once: codes of all columns are held."""
        yield self

    def whole(self) -> BinnedNull:
        """This null without what its pairs have of their own."""
        bare = copy.copy(self)
        bare.places = bare.moving = bare.still = np.empty(0, dtype=np.int64)
        bare.expected = bare.location = bare.scale = np.empty(0)
        return bare

    def cuts(self, count: int) -> list[Index]:
        """Pairs of each of ``count`` groups of moving columns: each such column is permuted in one group."""
        columns, numbers = np.unique(self.moving, return_inverse=True)
        group = numbers * min(count, len(columns)) // len(columns)
        cuts = []
        for one in range(int(group.max()) + 1):
            chosen = np.flatnonzero(group == one)
            rows, wide = self._tile_of(self.moving[chosen])
            cuts.append(chosen[np.lexsort((self.moving[chosen], self.still[chosen] // wide,
                                           self.moving[chosen] // rows))])  # fmt: skip
        return cuts

    def _tile_of(self, moving: Index) -> tuple[int, int]:
        """The tile for pairs of some moving columns: where these are fewer, more of the others."""
        rows, columns = self.tile
        count = len(np.unique(moving))
        if count >= rows:
            return rows, columns
        return int(moving.max()) + 1, max(columns, rows * columns // count)

    def share(self, chosen: Index) -> tuple[Index, Index, Float64]:
        """Columns and expected values of some pairs, tile after tile of few columns."""
        return self.moving[chosen], self.still[chosen], self.expected[self.places[chosen]]

    def with_share(self, share: tuple[Index, Index, Float64]) -> BinnedNull:
        """:meth:`whole` with some pairs."""
        part = copy.copy(self)
        part.moving, part.still, part.expected = share
        part.tile = self._tile_of(part.moving)
        part.places = np.arange(len(part.moving))
        return part

    def _gather(self, columns: Index, order: Index) -> Codes:
        """Codes of some columns of the side that moves, in ``order``."""
        codes = self.codes[self.side]
        moved = np.empty((len(columns), self.n_samples), dtype=codes.dtype)
        for row, column in enumerate(columns.tolist()):
            # "clip" spares a buffer; a permutation has nothing to clip.
            np.take(codes[column], order, out=moved[row], mode="clip")
        return moved

    def values(self, order: Index | None, chosen: Index) -> Float64:
        """Values of pairs ``chosen``, of :attr:`places`, the second column of each taken in ``order``."""
        out = np.empty(len(chosen))
        if order is not None and self.side == 0:
            order = inverse(order)
        rows, columns = self.tile
        moving, still = self.moving[chosen], self.still[chosen]
        # The moving column comes first: pairs that share it are counted together.
        bins = [self.bins[self.side], self.bins[-1 - self.side]]
        still_codes = self.codes[-1 - self.side]
        moved: Any = None
        for begin, end in _runs(moving // rows, len(chosen)):
            # Let the columns before go first.
            del moved
            if order is None:
                moved, at = self.codes[self.side], moving[begin:end]
            else:
                needed, at = np.unique(moving[begin:end], return_inverse=True)
                moved = self._gather(needed, order)
            for low, high in _runs(still[begin:end] // columns, rows * columns):
                tile = slice(begin + low, begin + high)
                tables = JointHistograms(bins, at[low:high], still[tile]).count(moved, still_codes)
                out[tile] = self.estimator.values(self.estimator.summarize(tables))
        if self.subtracts_mean:
            out -= self.expected[self.places[chosen]]
        return out

    def diagonal(self) -> Float64:
        """Each column with itself."""
        codes = self.codes[0]
        column = np.arange(len(codes), dtype=np.int64)[:, None]
        tables = (JointHistograms(self.bins, one, one).count(codes, codes) for one in column)
        return np.concatenate([self.complete.values(self.complete.summarize(table)) for table in tables])
