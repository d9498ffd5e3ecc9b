"""Values of all tested pairs, for the data as they are and for permuted ones, by either estimator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._memory import require_budget, workers_within
from .._threads import ordered_map
from .._validate import Float64, Matrix
from ..errors import MemoryBudgetError
from ..joint_histograms import Codes, Index, JointHistograms, code_dtype, encode
from ..kernels.histogram_cpu import count_codes
from .bias import PluginEstimator
from .binned import bins_of, check_binning, plan_work, tables_per_group
from .pairing import Pairs

# Pairs' column numbers, order, location, spread, and what the test sums up for each: bytes.
PAIR_BYTES = 240
# A round's values, and their standardised form, of each pair.
_ROUND_BYTES = 48
_TABLE_OVERHEAD = 400
_TILE_BYTES = 2**26


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
        *,
        n_bins: Any,
        strategy: Any,
        bias_correction: str | None,
        n_jobs: int,
        budget: int | None,
    ) -> None:
        n = matrices[0].n_samples
        n_bins = check_binning(n_bins, strategy, n)
        self.n_samples = n
        self.complete = PluginEstimator(n, bias_correction)
        # The permutation mean is the same for every permutation, so it is worked out once.
        self.subtracts_mean = bias_correction == "permutation-mean"
        self.estimator = PluginEstimator(n, None) if self.subtracts_mean else self.complete
        width = sum(matrix.n_features for matrix in matrices)
        itemsize = code_dtype(n_bins).itemsize
        table = 4 * n_bins * n_bins + _TABLE_OVERHEAD
        # A thread holds a permutation (and its random numbers), a permuted column, a table, and values.
        worker = (16 + itemsize) * n + table + _ROUND_BYTES * len(pairs)
        margins = 40 * width * n_bins
        extra = PAIR_BYTES * len(pairs) + margins
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
        self.bins = [bins_of(matrix, n_bins, strategy, plan) for matrix in matrices]
        self.codes: list[Any] = [
            encode(matrix, bins, rows=plan.rows, n_jobs=plan.n_jobs)
            for matrix, bins in zip(matrices, self.bins, strict=True)
        ]
        held = plan.fixed + sum(codes.nbytes for codes in self.codes) - worker
        self.n_jobs = workers_within(budget, n_jobs, fixed=held, per_worker=worker, work="mutual_info_test")
        spare = 2 * _TILE_BYTES if budget is None else (budget - held) // self.n_jobs - worker
        room = min(_TILE_BYTES, spare // 2)
        self.tile = max(1, min(len(self.codes[-1]), room // (itemsize * n)))
        self.group = max(1, min(tables_per_group(n, n_bins * n_bins), room // table))

        # Sorted by the column that moves: a tile of permuted columns serves consecutive pairs.
        first, second = pairs.columns(0, len(pairs))
        self.order = np.argsort(second, kind="stable")
        self.still = first[self.order]
        self.moving = second[self.order]
        self.expected = self._expected(first, second)
        chance = self.expected > 0.0
        if bias_correction is None:
            self.location = np.where(chance, self.expected, np.inf)
        else:
            self.location = np.where(chance, 0.0, np.inf)
        self.scale = np.sqrt(np.where(chance, self.expected, 1.0) / n)

    def _margins(self, codes: Codes) -> list[Index]:
        counts = np.zeros((len(codes), self.bins[0].n_bins), dtype=np.int64)
        count_codes(codes, counts)
        return list(counts)

    def _expected(self, first: Index, second: Index) -> Float64:
        """Exact permutation mean of every pair, 0 where a column is constant."""
        margins_x = self._margins(self.codes[0])
        margins_y = margins_x if len(self.codes) == 1 else self._margins(self.codes[1])

        def mean(pair: tuple[int, int]) -> float:
            x, y = margins_x[pair[0]], margins_y[pair[1]]
            if x.max() == self.n_samples or y.max() == self.n_samples:
                return 0.0
            return self.estimator.expected(x, y)

        return np.fromiter(
            ordered_map(mean, zip(first.tolist(), second.tolist(), strict=True), self.n_jobs),
            dtype=np.float64,
            count=len(first),
        )

    def _groups(self) -> Iterator[tuple[int, int, int, int]]:
        """Tiles of moving columns, and within each its runs of pairs: (column, column, pair, pair)."""
        n_columns = len(self.codes[-1])
        for low in range(0, n_columns, self.tile):
            high = min(low + self.tile, n_columns)
            begin, end = np.searchsorted(self.moving, [low, high]).tolist()
            for start in range(begin, end, self.group):
                yield low, high, start, min(start + self.group, end)

    def values(self, order: Index | None = None) -> Float64:
        """Values of all pairs, the second column of each taken in ``order``; (n_pairs,)."""
        out = np.empty(len(self.moving))
        held: int = -1
        moved: Any = None
        for low, high, start, stop in self._groups():
            if low != held:
                # Let the last tile go before the next one is made.
                del moved
                tile = self.codes[-1][low:high]
                moved = tile if order is None else np.take(tile, order, axis=1)
                held = low
            # The moving column comes first: runs of pairs that share it are counted together.
            moving = self.moving[start:stop] - low
            statistic = JointHistograms(self.bins[::-1], moving, self.still[start:stop])
            tables = statistic.count(moved, self.codes[0])
            out[self.order[start:stop]] = self.estimator.values(self.estimator.summarize(tables))
        if self.subtracts_mean:
            out -= self.expected
        return out

    def diagonal(self) -> Float64:
        """Each column with itself."""
        codes = self.codes[0]
        column = np.arange(len(codes), dtype=np.int64)[:, None]
        tables = (JointHistograms(self.bins, one, one).count(codes, codes) for one in column)
        return np.concatenate([self.complete.values(self.complete.summarize(table)) for table in tables])


class KSGNull:
    """All pairs by the KSG estimator, each permutation as a data set of its own.

    ``location`` is 0 and ``scale`` 1: the estimate has little bias and much the same spread for all pairs.
    """

    n_jobs = 1

    def __init__(
        self, matrices: list[Matrix], pairs: Pairs, *, n_jobs: int, budget: int | None, **options: Any
    ) -> None:
        # As they came: the dtype tells the estimator about lattices.
        self.data = [matrix.data for matrix in matrices]
        n, last = matrices[0].n_samples, self.data[-1]
        # A permuted copy of Y, the permutation, and what the test keeps of every pair.
        self.held = n * (last.shape[1] * last.itemsize + 16) + (PAIR_BYTES + _ROUND_BYTES) * len(pairs)
        self.budget = budget
        rest = None if budget is None else max(1, budget - self.held)
        self.options = options | {"n_jobs": n_jobs, "max_memory": rest}
        self.pairs = np.column_stack(pairs.columns(0, len(pairs)))
        self.location = np.zeros(len(pairs))
        self.scale = np.ones(len(pairs))

    def _call(self, Y: Any, pairs: Any) -> Float64:
        from .ksg import pairwise_mutual_info_ksg

        try:
            return np.asarray(pairwise_mutual_info_ksg(self.data[0], Y, pairs=pairs, **self.options))
        except MemoryBudgetError as error:
            require_budget(self.budget, self.held + error.required, "mutual_info_test")
            raise

    def values(self, order: Index | None = None) -> Float64:
        """Values of all pairs, the second column of each taken in ``order``; (n_pairs,)."""
        Y = self.data[-1]
        return self._call(Y if order is None else Y[order], self.pairs)

    def diagonal(self) -> Float64:
        """Each column with itself."""
        columns = np.arange(self.data[0].shape[1])
        return self._call(self.data[0], np.column_stack([columns, columns]))
