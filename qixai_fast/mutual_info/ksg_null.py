"""The null of nearest-neighbour mutual information: every column is sorted once, for all permutations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .._memory import require_budget
from .._validate import Float64, Matrix
from ..errors import MemoryBudgetError
from .mixed import label_variable
from .pairing import Index, Pairs
from .pairs import Scratch, digamma_table, pair_value
from .pairwise import Options, Plan, map_columns, plan_memory
from .permutations import inverse, moves_first
from .rounds import PAIR_BYTES
from .variables import VARIABLE_BYTES, Int32, Jitter, Variable, check_matrix_finite

_WORK = "mutual_info_test"
# A round's values of each pair, their standardised form, and which pairs they are: bytes.
_ASKED_BYTES = 72
# A permuted variable, the permutation, and its inverse twice: bytes a sample.
_MOVED_BYTES = VARIABLE_BYTES + 20


def _plan(n_samples: int, n_pairs: int, n_jobs: int, budget: int | None, held: int) -> Plan:
    """As many threads as fit beside two variables."""
    held += PAIR_BYTES * n_pairs
    worker = _MOVED_BYTES * n_samples + _ASKED_BYTES * n_pairs
    if budget is None:
        return plan_memory(n_samples, n_jobs, None, _WORK)
    for jobs in range(n_jobs, 0, -1):
        beside = held + jobs * worker
        try:
            plan = plan_memory(n_samples, jobs, max(1, budget - beside), _WORK)
        except MemoryBudgetError as error:
            if jobs == 1:
                require_budget(budget, beside + error.required, _WORK)
                raise
            continue
        if plan.n_jobs == jobs:
            return plan
    raise AssertionError("one thread is within one thread's budget")


@dataclass(frozen=True)
class _Part:
    """Pairs whose variables are held; ``places`` sorted by the column that moves."""

    null: KSGNull
    places: Index
    moving: dict[int, Variable]
    still: dict[int, Variable]

    def values(self, order: Index | None, chosen: Index) -> Float64:
        """Values of pairs ``chosen``, the second column of each taken in ``order``."""
        null = self.null
        out = np.empty(len(chosen))
        if order is not None and null.side == 0:
            order = inverse(order)
        held, moved = -1, None
        scratch = Scratch(null.matrices[0].n_samples)
        for slot, place in enumerate(self.places[chosen].tolist()):
            column, other = int(null.moving[place]), self.still[int(null.still[place])]
            if column != held:
                # Let the last one go before the next one is made.
                moved = None
                moved = self.moving[column] if order is None else self.moving[column].permuted(order)
                held = column
            assert moved is not None
            x, y = (moved, other) if null.side == 0 else (other, moved)
            out[slot] = pair_value(x, y, null.options.n_neighbors, null.options.algorithm, null.psi, scratch)
        return out


class KSGNull:
    """All pairs by the KSG estimator.

    ``location`` is 0 and ``scale`` 1: the estimate has little bias and much the same spread for all pairs.

    Parameters
    ----------
    matrices : list of Matrix
        X, and Y where there is one.
    pairs : Pairs
    classes : tuple, optional
        Labels, as :func:`label_codes` gives them, in place of Y.
    options : Options
    n_jobs : int
    budget : int or None
    held : int
        Bytes of the budget that the caller holds.
    """

    def __init__(
        self,
        matrices: list[Matrix],
        pairs: Pairs,
        classes: tuple[Int32, int] | None,
        options: Options,
        *,
        n_jobs: int,
        budget: int | None,
        held: int,
    ) -> None:
        self.matrices = matrices
        self.label = None if classes is None else label_variable(*classes)
        self.options = options
        n = matrices[0].n_samples
        self.plan = _plan(n, len(pairs), n_jobs, budget, held)
        self.n_jobs = self.plan.n_jobs
        for matrix in matrices:
            check_matrix_finite(matrix)
        first, second = pairs.columns(0, len(pairs))
        self.side = 0 if moves_first(first, second) else -1
        self.moving, self.still = (first, second) if self.side == 0 else (second, first)
        self.location = np.zeros(len(pairs))
        self.scale = np.ones(len(pairs))
        self.jitter, self.psi = Jitter(options.seed, n), digamma_table(n)

    def _load(self, side: int, columns: Sequence[int]) -> dict[int, Variable]:
        if side and self.label is not None:
            return {0: self.label}
        prepared = map_columns(
            lambda variable: variable, self.matrices[side], columns, self.options, self.jitter, self.n_jobs
        )
        return dict(zip(columns, prepared, strict=True))

    def parts(self) -> Iterator[_Part]:
        """All pairs at once where all variables fit the plan; else tiles, one block of variables a side."""
        order = np.argsort(self.moving, kind="stable")
        moving, still = (np.unique(columns).tolist() for columns in (self.moving, self.still))
        if len(self.matrices) == 1 and self.label is None:
            columns = sorted({*moving, *still})
            if len(columns) <= self.plan.capacity:
                shared = self._load(0, columns)
                yield _Part(self, order, shared, shared)
                return
        elif len(moving) + len(still) <= self.plan.capacity:
            yield _Part(self, order, self._load(self.side, moving), self._load(-1 - self.side, still))
            return
        half = self.plan.capacity // 2
        moved: dict[int, Variable] = {}
        kept: dict[int, Variable] = {}
        for low in range(0, len(moving), half):
            block = moving[low : low + half]
            moved = {}  # let the block before go first
            moved = self._load(self.side, block)
            inside = order[np.isin(self.moving[order], block)]
            for start in range(0, len(still), half):
                other = still[start : start + half]
                places = inside[np.isin(self.still[inside], other)]
                if len(places):
                    kept = self._load(-1 - self.side, other)
                    yield _Part(self, places, moved, kept)
                    kept = {}

    def diagonal(self) -> Float64:
        """Each column with itself."""
        matrix = self.matrices[0]

        def value(variable: Variable) -> float:
            return pair_value(variable, variable, self.options.n_neighbors, self.options.algorithm, self.psi)

        columns = range(matrix.n_features)
        values = map_columns(value, matrix, columns, self.options, self.jitter, self.n_jobs)
        return np.fromiter(values, np.float64, len(columns))
