"""Many pairs of variables: each variable is prepared once, and pairs run in tiles that fit the budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .._cluster import current, mapped
from .._memory import workers_within
from .._threads import ordered_map
from .._validate import Float64, Matrix, check_choice, check_int
from .pairing import Index
from .pairs import PAIR_BYTES, Scratch, digamma_table, pair_local, pair_value
from .variables import PREPARE_BYTES, VARIABLE_BYTES, Jitter, Variable, prepare_variable, read_columns

Variables = dict[int, Variable]
# Some pairs of columns, and their places in the result where it is a vector.
Task = tuple[Index, npt.NDArray[np.intp] | None]
Result = TypeVar("Result")

# Columns read together for each worker, and pairs in a task: enough that reading and scheduling cost little.
_READ_GROUP = 4
_TASK_PAIRS = 32
# Row blocks in flight while columns are read and checked.
_READ_BYTES = 2 * 2**20
# Chosen pairs that are sent to a cluster; fewer take less time than reading their columns on every worker.
_SENT_PAIRS = 64
# Variables that a worker of a cluster keeps.
_KEPT_BYTES = 2**29
# Objects, whatever the number of samples.
_BASE_BYTES = 2**18


@dataclass(frozen=True)
class Options:
    """What defines an estimate; see :func:`qixai_fast.mutual_info_ksg`."""

    n_neighbors: int
    algorithm: int
    scale: str | None
    atoms: str
    seed: int

    def prepare(
        self,
        values: Float64,
        name: str,
        dtype: np.dtype[Any],
        jitter: Jitter,
        dimension: int = 0,
        axis: bool = True,
    ) -> Variable:
        return prepare_variable(
            values,
            name,
            dtype,
            n_neighbors=self.n_neighbors,
            scale=self.scale,
            atoms=self.atoms,
            jitter=jitter,
            dimension=dimension,
            axis=axis,
        )


def check_options(
    n_samples: int, *, n_neighbors: Any, algorithm: Any, scale: Any, atoms: Any, seed: int
) -> Options:
    """Check the estimator's arguments against the number of samples."""
    k = check_int(
        n_neighbors, "n_neighbors", low=1, high=n_samples - 1, why=f"fewer than the {n_samples} samples"
    )
    check_choice(algorithm, "algorithm", (1, 2))
    check_choice(scale, "scale", ("std", None))
    check_choice(atoms, "atoms", ("auto", "none"))
    return Options(k, int(algorithm), scale, atoms, seed)


@dataclass(frozen=True)
class Plan:
    """How many threads run, and how many variables are held at a time."""

    n_jobs: int
    capacity: int


def plan_memory(n_samples: int, n_jobs: int, budget: int | None, work: str) -> Plan:
    """Fit threads and variables into a budget; two variables at least."""
    variable = VARIABLE_BYTES * n_samples + 2048
    worker = (max(PREPARE_BYTES, PAIR_BYTES) + 8 * _READ_GROUP) * n_samples
    fixed = 24 * n_samples + 2 * variable + _READ_BYTES + _BASE_BYTES
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=worker, work=work)
    if budget is None:
        return Plan(workers, 2**62)
    return Plan(workers, 2 + (budget - fixed - workers * worker) // variable)


def map_columns(
    function: Callable[[Variable], Result],
    matrix: Matrix,
    columns: Sequence[int],
    options: Options,
    jitter: Jitter,
    n_jobs: int,
) -> Iterator[Result]:
    """Prepare columns of a checked matrix, a group at a time, and apply a function to each, in order."""

    def run(item: tuple[int, Float64]) -> Result:
        return function(options.prepare(item[1], f"{matrix.name}[:, {item[0]}]", matrix.dtype, jitter))

    group = _READ_GROUP * n_jobs
    for start in range(0, len(columns), group):
        chosen = columns[start : start + group]
        yield from ordered_map(run, zip(chosen, read_columns(matrix, chosen), strict=True), n_jobs)


def _column_blocks(columns: Sequence[int], size: int) -> list[Sequence[int]]:
    return [columns[start : start + size] for start in range(0, len(columns), size)]


def _tiles(
    x_columns: Sequence[int], y_columns: Sequence[int] | None, capacity: int
) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Blocks of columns for both sides, so that one block of each fits ``capacity`` variables."""
    if y_columns is None:
        size = len(x_columns) if len(x_columns) <= capacity else capacity // 2
        blocks = _column_blocks(x_columns, size)
        return blocks, blocks
    y_size = min(len(y_columns), max(capacity // 2, capacity - len(x_columns)))
    return _column_blocks(x_columns, capacity - y_size), _column_blocks(y_columns, y_size)


class Engine(Protocol):
    """What estimates pairs of prepared variables."""

    task_pairs: int
    capacity: int

    def values(self, x: Variables, y: Variables, tasks: Iterator[Task]) -> Iterator[tuple[Task, Any]]:
        """Each task with the estimates of its pairs: of a column of ``x`` with a column of ``y``.

        A task has ``task_pairs`` pairs at most, and ``x`` and ``y`` together ``capacity`` variables.
        """
        ...

    def value(self, x: Variable, y: Variable) -> float:
        """The estimate for one pair: the very bits that it has among many."""
        ...

    def local(self, x: Variable, y: Variable) -> Float64:
        """Each sample's part of the estimate for one pair."""
        ...


class ThreadEngine:
    """Threads of this machine."""

    task_pairs = _TASK_PAIRS

    def __init__(self, n_samples: int, options: Options, n_jobs: int, capacity: int) -> None:
        self.capacity = capacity
        self._n_samples, self._n_jobs = n_samples, n_jobs
        self._how = options.n_neighbors, options.algorithm, digamma_table(n_samples)

    def values(self, x: Variables, y: Variables, tasks: Iterator[Task]) -> Iterator[tuple[Task, Any]]:
        def run(task: Task) -> tuple[Task, list[float]]:
            scratch = Scratch(self._n_samples)
            return task, [pair_value(x[i], y[j], *self._how, scratch) for i, j in task[0].tolist()]

        yield from ordered_map(run, tasks, self._n_jobs)

    def value(self, x: Variable, y: Variable) -> float:
        return pair_value(x, y, *self._how)

    def local(self, x: Variable, y: Variable) -> Float64:
        return pair_local(x, y, *self._how)


def pairwise_values(
    first: Matrix,
    second: Matrix | None,
    pairs: Index | None,
    options: Options,
    plan: Plan,
    engine: Engine | None = None,
) -> Float64:
    """Estimates of all pairs of columns, or of the given ones.

    Parameters
    ----------
    first, second : Matrix
        Checked, with the same samples; second None for the pairs within first.
    pairs : (m, 2) int64, optional
    options : Options
    plan : Plan
    engine : Engine, optional
        In place of this machine's threads, or of a cluster's.

    Returns
    -------
    (d_x, d_y) float64, or (m,) with pairs.
    """
    cluster = current()
    few = pairs is not None and len(pairs) < _SENT_PAIRS
    if engine is None and cluster is not None and not few and cluster.reaches(first, second):
        return pairwise_elsewhere(first, second, pairs, options)
    engine = engine or ThreadEngine(first.n_samples, options, plan.n_jobs, plan.capacity)
    jitter = Jitter(options.seed, first.n_samples)
    other = first if second is None else second

    def load(matrix: Matrix, columns: Sequence[int]) -> Variables:
        prepared = map_columns(lambda variable: variable, matrix, columns, options, jitter, plan.n_jobs)
        return dict(zip(columns, prepared, strict=True))

    x_columns: Sequence[int] = range(first.n_features)
    y_columns: Sequence[int] | None = None if second is None else range(second.n_features)
    result: npt.NDArray[Any]
    if pairs is None:
        result = np.empty((first.n_features, other.n_features))
    else:
        result = np.empty(len(pairs))
        x_columns = np.unique(pairs if second is None else pairs[:, 0]).tolist()
        y_columns = None if second is None else np.unique(pairs[:, 1]).tolist()
    x_blocks, y_blocks = _tiles(x_columns, y_columns, min(plan.capacity, engine.capacity))
    kept = load(other, y_blocks[0]) if second is not None and len(y_blocks) == 1 else None

    for a, x_block in enumerate(x_blocks):
        x_variables = load(first, x_block)
        for b, y_block in enumerate(y_blocks):
            if second is None and pairs is None and b < a:
                continue
            if kept is not None:
                y_variables = kept
            elif second is None and a == b:
                y_variables = x_variables
            else:
                y_variables = {}  # let the block before go first
                y_variables = load(other, y_block)

            tasks: Iterator[Task]
            if pairs is None:
                tasks = _all_tasks(x_block, y_block, engine.task_pairs, upper=second is None)
            else:
                tasks = _chosen_tasks(pairs, x_block, y_block, engine.task_pairs)
            for (chosen, slots), values in engine.values(x_variables, y_variables, tasks):
                if slots is not None:
                    result[slots] = values
                    continue
                result[chosen[:, 0], chosen[:, 1]] = values
                if second is None:
                    result[chosen[:, 1], chosen[:, 0]] = values
    return result


class _PairsElsewhere:
    """Pairs of columns, in another process: it prepares the columns it needs, and keeps the latest."""

    def __init__(self, first: Matrix, second: Matrix | None, options: Options) -> None:
        self.sides, self.options = (first, second), options
        self._kept: OrderedDict[tuple[int, int], Variable] = OrderedDict()
        self._shared: tuple[Jitter, Float64] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _PairsElsewhere, (*self.sides, self.options)

    def _common(self) -> tuple[Jitter, Float64]:
        if self._shared is None:
            n = self.sides[0].n_samples
            self._shared = Jitter(self.options.seed, n), digamma_table(n)
        return self._shared

    def _variable(self, side: int, column: int) -> Variable:
        if self.sides[side] is None:
            side = 0
        matrix = self.sides[side]
        assert matrix is not None, "the first side is always there"
        found = self._kept.pop((side, column), None)
        if found is None:
            values = read_columns(matrix, [column])[0]
            name = f"{matrix.name}[:, {column}]"
            found = self.options.prepare(values, name, matrix.dtype, self._common()[0])
        self._kept[side, column] = found
        most = max(4, _KEPT_BYTES // (VARIABLE_BYTES * matrix.n_samples))
        while len(self._kept) > most:
            self._kept.popitem(last=False)
        return found

    def __call__(self, pair: tuple[int, int]) -> float:
        x, y = self._variable(0, pair[0]), self._variable(1, pair[1])
        return pair_value(x, y, self.options.n_neighbors, self.options.algorithm, self._common()[1])


def pairwise_elsewhere(
    first: Matrix, second: Matrix | None, pairs: Index | None, options: Options
) -> Float64:
    """As :func:`pairwise_values`, on the workers of a cluster; pairs that share a column come together."""
    d_x, d_y = first.n_features, (first if second is None else second).n_features
    if pairs is not None:
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        values = np.empty(len(pairs))
        chosen = [(int(i), int(j)) for i, j in pairs[order]]
        values[order] = list(mapped(_PairsElsewhere(first, second, options), chosen, 1))
        return values
    chosen = [(i, j) for i in range(d_x) for j in range(i if second is None else 0, d_y)]
    result: Float64 = np.empty((d_x, d_y))
    for (i, j), value in zip(chosen, mapped(_PairsElsewhere(first, second, options), chosen, 1), strict=True):
        result[i, j] = value
        if second is None:
            result[j, i] = value
    return result


def _all_tasks(x_block: Sequence[int], y_block: Sequence[int], size: int, *, upper: bool) -> Iterator[Task]:
    """All pairs of a tile, ``size`` a task; with ``upper``, those on and above the diagonal."""
    y_columns = np.asarray(y_block, dtype=np.int64)
    held: list[Index] = []
    n_held = 0
    for i in x_block:
        js = y_columns[y_columns >= i] if upper else y_columns
        held.append(np.stack([np.full_like(js, i), js], axis=1))
        n_held += len(js)
        if n_held >= size:
            rows = np.concatenate(held)
            n_held = len(rows) % size
            for start in range(0, len(rows) - n_held, size):
                yield rows[start : start + size], None
            held = [rows[len(rows) - n_held :]]
    if n_held:
        yield np.concatenate(held), None


def _chosen_tasks(pairs: Index, x_block: Sequence[int], y_block: Sequence[int], size: int) -> Iterator[Task]:
    """The given pairs that lie in a tile, ``size`` a task, with their places in the result."""
    inside = np.flatnonzero(np.isin(pairs[:, 0], x_block) & np.isin(pairs[:, 1], y_block))
    for start in range(0, len(inside), size):
        slots = inside[start : start + size]
        yield pairs[slots], slots
