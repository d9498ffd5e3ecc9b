"""Estimates of many pairs of variables by nearest neighbours, on one or several GPUs.

Variables are prepared on the CPU, as ever: sorted, scaled, spread over their lattices, split into atoms and
the rest. A GPU gets the sorted values once for all pairs, finds the points that are continuous in both
variables of a pair, lays them out in strips, and counts their neighbours. What atoms add (joint counts,
Ross's estimator) is worked out by threads meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._threads import ordered_map
from .._validate import Float64
from ..kernels import digamma_cuda, ksg_cpu
from ..kernels.axis_cpu import PAD
from ..mutual_info.pairs import (
    Cell,
    Scratch,
    cell_total,
    count_offset,
    digamma_table,
    discrete_total,
    pair_local,
    pair_value,
)
from ..mutual_info.pairwise import Options, Task, Variables
from ..mutual_info.variables import Int32, Variable
from .backend import Backend
from .ksg_points import (
    POINT_BYTES,
    SENT_BYTES,
    VARIABLE_BYTES,
    Places,
    Points,
    Sides,
    Table,
    cell_points,
    most_strips,
    strip_shift,
    whole_points,
)
from .spread import spread

# Points of all pairs in flight on a device: some milliseconds of work, for which launching takes little.
_POINTS = 2**24
# Counts that a thread of the last kernel adds up.
_ADDED = 8
# Bytes of a pair besides its points, and of what has no size.
_PAIR_BYTES = 160
_BASE_BYTES = 2**16


def digamma_words(psi: Float64) -> npt.NDArray[np.int64]:
    """A table of digamma as ``kernels.digamma_cuda.sum_digamma`` takes it; the entry at 0 is 0."""
    units = np.zeros(len(psi), dtype=np.int64)
    units[1:] = np.ldexp(psi[1:], digamma_cuda.UNIT_BITS)
    low = units & ((1 << digamma_cuda.LOW_BITS) - 1)
    words: npt.NDArray[np.int64] = ((units >> digamma_cuda.LOW_BITS) << 32) | low
    return words


def digamma_sums(halves: npt.NDArray[np.int64]) -> Float64:
    """Sums of digamma from those of the words' halves, (pairs, 2)."""
    high, low = halves.T.astype(np.float64)
    sums: Float64 = np.ldexp(high, digamma_cuda.LOW_BITS - digamma_cuda.UNIT_BITS) + np.ldexp(
        low, -digamma_cuda.UNIT_BITS
    )
    return sums


@dataclass(frozen=True)
class _Batch:
    """Pairs under way on a device: their places in a task, and what will have come of them at a mark.

    ``found`` is pinned memory: both halves of a pair's sum of digamma, and its points, (pairs, 3) int64.
    """

    places: Places
    found: torch.Tensor
    backend: Backend
    mark: Any

    def wait(self) -> tuple[npt.NDArray[np.int64], Float64]:
        """Points and sums of digamma of each pair, once they are there."""
        self.backend.block_until(self.mark)
        found = self.found.numpy()
        return found[:, 2], digamma_sums(found[:, :2])


class Engine:
    """Pairs of variables on GPUs; see :class:`qixai_fast.mutual_info.pairwise.Engine`.

    Parameters
    ----------
    backends : sequence of Backend
    n_samples : int
    options : Options
    n_jobs : int
        Threads for what atoms add.
    max_memory : int or None
        Bytes of each device.
    work : str
        Named in the error.

    Raises
    ------
    ValueError
        For 2**31 samples or more.
    MemoryBudgetError
        Where two variables and one pair do not fit a device.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        n_samples: int,
        options: Options,
        n_jobs: int,
        max_memory: int | None,
        work: str,
    ) -> None:
        if n_samples >= 2**31:
            raise ValueError(f"X: wanted fewer than 2**31 samples on a GPU, got {n_samples}")
        variable = VARIABLE_BYTES * n_samples + 1024
        pair = POINT_BYTES * n_samples + _PAIR_BYTES + 16 * self._shares(n_samples)
        spare = []
        for backend in backends:
            budget = backend.budget(max_memory)
            required = (8 + SENT_BYTES) * n_samples + 2 * variable + pair + _BASE_BYTES
            backend.require(budget, required, work)
            spare.append(budget - required)
        self.task_pairs = 1 + int(min(_POINTS // n_samples, min(spare) // 2 // pair))
        self.capacity = 2 + int((min(spare) - (self.task_pairs - 1) * pair) // variable)
        self._backends, self._n, self._options, self._n_jobs = backends, n_samples, options, n_jobs
        self._psi = digamma_table(n_samples)
        self._words: dict[int, torch.Tensor] = {}

    @staticmethod
    def _shares(n: int) -> int:
        """Blocks that add up the counts of a pair."""
        shares: int = -(-n // (_ADDED * digamma_cuda.THREADS))
        return shares

    def values(self, x: Variables, y: Variables, tasks: Iterator[Task]) -> Iterator[tuple[Task, Float64]]:
        """Each task with the estimates of its pairs."""
        sides = Sides(x, y)
        tables: dict[int, Table] = {}

        def start(backend: Backend, task: Task) -> tuple[Task, list[_Batch]]:
            table = tables.get(id(backend))
            if table is None:
                table = tables[id(backend)] = Table(backend, sides.views, self._n)
            return task, self._start(backend, table, sides, task)

        waiting: tuple[Task, list[_Batch]] | None = None
        for started in spread(start, tasks, self._backends):
            # The device is never without work while the host is about what it has finished.
            if waiting is not None:
                yield waiting[0], self._finish(sides, *waiting)
            waiting = started
        if waiting is not None:
            yield waiting[0], self._finish(sides, *waiting)

    def _start(self, backend: Backend, table: Table, sides: Sides, task: Task) -> list[_Batch]:
        rows = np.stack(sides.rows(*sides.of(task[0])))
        live = sides.varies[rows].all(axis=0)
        whole = sides.whole[rows].all(axis=0)
        batches = []
        for places, make, n_strips in (
            (np.flatnonzero(live & whole), whole_points, -(-self._n >> strip_shift(self._n))),
            (np.flatnonzero(live & ~whole), cell_points, most_strips(self._n)),
        ):
            if len(places):
                # Pinned memory both ways: other copies would wait for all that the device has yet to do.
                sent = backend.pinned((2, len(places)), torch.int32)
                sent.numpy()[:] = rows[:, places]
                chosen = sent.to(backend.device, non_blocking=True)
                points = make(backend, table, chosen[0], chosen[1])
                sums = self._digammas(backend, points, n_strips)
                found = backend.pinned((len(places), 3), torch.int64)
                found.copy_(torch.cat([sums, points.sizes[:, None].long()], dim=1), non_blocking=True)
                batches.append(_Batch(places, found, backend, backend.mark()))
        return batches

    def _digammas(self, backend: Backend, points: Points, n_strips: int) -> torch.Tensor:
        """Sums of digamma over the counts of each pair, in halves: (pairs, 2) int64."""
        k, algorithm = self._options.n_neighbors, self._options.algorithm
        n_x, n_y = points.counts(backend, k, algorithm, n_strips)
        words = self._words.get(id(backend))
        if words is None:
            words = torch.from_numpy(digamma_words(self._psi)).to(backend.device)
            self._words[id(backend)] = words
        shares = self._shares(self._n)
        totals = torch.empty((len(points.sizes), shares, 2), dtype=torch.int64, device=backend.device)
        backend.launch(
            digamma_cuda.sum_digamma,
            len(points.sizes) * shares,
            digamma_cuda.THREADS,
            n_x,
            n_y,
            points.sizes,
            k + 1,
            count_offset(algorithm),
            words,
            shares,
            totals,
        )
        return totals.sum(dim=1)

    def _finish(self, sides: Sides, task: Task, batches: list[_Batch]) -> Float64:
        x, y = sides.of(task[0])
        k, algorithm = self._options.n_neighbors, self._options.algorithm
        totals = np.zeros(len(x))
        with_atoms = np.flatnonzero(sides.has_atoms[x] | sides.has_atoms[y])

        def discrete(place: int) -> float:
            return discrete_total(sides.variables[x[place]], sides.variables[y[place]], k, self._psi)

        totals[with_atoms] = list(ordered_map(discrete, with_atoms.tolist(), self._n_jobs))
        for batch in batches:
            sizes, sums = batch.wait()
            large = sizes > k
            totals[batch.places[large]] += cell_total(sizes[large], sums[large], k, algorithm, self._psi)
            for place in batch.places[(sizes > 1) & ~large].tolist():
                # All points are neighbours of all others: too few of them for a device.
                pair = sides.variables[x[place]], sides.variables[y[place]]
                totals[place] = self._n * pair_value(*pair, k, algorithm, self._psi)
        return totals / self._n

    def value(self, x: Variable, y: Variable) -> float:
        """The estimate for one pair: the very bits that it has among many."""
        task = np.zeros((1, 2), dtype=np.int64), None
        return float(next(self.values({0: x}, {0: y}, iter([task])))[1][0])

    def local(self, x: Variable, y: Variable) -> Float64:
        """Each sample's part of the estimate for one pair."""
        k, algorithm = self._options.n_neighbors, self._options.algorithm
        return pair_local(x, y, k, algorithm, self._psi, self._cell_counts)

    def _cell_counts(
        self, cell: Cell, n_neighbors: int, algorithm: int, scratch: Scratch
    ) -> tuple[Int32, Int32, Int32]:
        """Counts of a cell's points, and which of the cell's samples each point is."""
        del scratch
        backend = self._backends[0]
        n = len(cell.samples)
        shift = strip_shift(n)
        with backend.current():
            partners = np.empty((1, n), np.int32)
            partners[0, cell.x_position] = np.arange(n, dtype=np.int32)
            one = [
                torch.from_numpy(array).to(backend.device)
                for array in (
                    cell.x.values[None, PAD : PAD + n],
                    np.zeros(1, np.int32),
                    cell.y.values[None, PAD : PAD + n],
                    np.zeros(1, np.int32),
                    partners,
                    np.full(1, n, np.int32),
                    np.full(1, shift, np.int32),
                )
            ]
            n_x, n_y = Points(*one).counts(backend, n_neighbors, algorithm, -(-n >> shift))
            counts = n_x[0].cpu().numpy(), n_y[0].cpu().numpy()
        order = np.empty(n, np.int32)
        ksg_cpu.strip_order(cell.x_position, 1 << shift, order)
        return *counts, order
