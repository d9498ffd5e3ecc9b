"""Mutual information of continuous variables by nearest neighbours, right on atoms and lattices, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._dask_arrays import dask_inputs
from .._device import Home, backends_for, home_of, to_numpy
from .._memory import parse_memory, require_budget
from .._threads import resolve_n_jobs
from .._validate import Float64, Matrix, as_matrix, check_choice, check_same_samples
from .pairing import Pairs
from .pairs import digamma_table
from .pairwise import Engine, Options, ThreadEngine, check_options, pairwise_values, plan_memory
from .variables import Jitter, Variable, check_matrix_finite, read_columns, seed_of
from .vectors import vector_bytes, vector_local


@dataclass(frozen=True)
class VariableDiagnostics:
    """What one variable (one column of x or y) looks like.

    Attributes
    ----------
    tie_fraction : float
        Share of the samples whose value another sample has, too.
    lattice : str or None
        "float16", "bfloat16" or "uniform", where the continuous part lies on such a lattice.
    jittered : bool
        Whether it was spread within the lattice's cells: only where its values repeat, and atoms="auto".
    atoms : tuple of float
        The values treated as atoms.
    atom_fraction : float
        Share of the samples that have one of them.
    """

    tie_fraction: float
    lattice: str | None
    jittered: bool
    atoms: tuple[float, ...]
    atom_fraction: float


@dataclass(frozen=True)
class KSGDiagnostics:
    """How far a KSG estimate can be trusted.

    Attributes
    ----------
    n_samples : int
    x, y : tuple of VariableDiagnostics
        One for each column.
    seed : int
        Of the lattice jitter.
    k_sensitivity : dict of int to float
        The estimate at half, once, twice and four times n_neighbors (as far as the samples allow), with
        the same atoms and jitter. Values that drift apart mean that the sample is too small for the
        dependence.
    """

    n_samples: int
    x: tuple[VariableDiagnostics, ...]
    y: tuple[VariableDiagnostics, ...]
    seed: int
    k_sensitivity: dict[int, float]


def _describe(variable: Variable) -> VariableDiagnostics:
    return VariableDiagnostics(
        tie_fraction=variable.tie_fraction,
        lattice=variable.lattice.name if variable.lattice else None,
        jittered=len(variable.views) > 1,
        atoms=variable.atoms,
        atom_fraction=float(np.count_nonzero(variable.codes) / len(variable.codes)),
    )


def variable_matrix(x: Any, name: str) -> Matrix:
    """One variable, shape (n,) or (n, d), as a checked finite matrix of its columns."""
    array = to_numpy(x, name)
    home: Home = home_of(x)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    matrix = as_matrix(array, name, min_samples=2)
    check_matrix_finite(matrix)
    return Matrix(name, matrix.data, home)


@dataclass(frozen=True)
class _Estimator:
    """What estimates one pair: of scalars, on the CPU or a GPU, or of vectors."""

    options: Options
    n_samples: int
    n_jobs: int
    budget: int | None
    backends: list[Any] | None

    def value(self, x: Sequence[Variable], y: Sequence[Variable]) -> float:
        """The estimate: for two scalars, the very bits that it has among many pairs."""
        if len(x) == len(y) == 1:
            return self._engine().value(x[0], y[0])
        return float(self.local(x, y).mean())

    def local(self, x: Sequence[Variable], y: Sequence[Variable]) -> Float64:
        """Local parts, from the estimator that fits the dimensions."""
        if len(x) == len(y) == 1:
            return self._engine().local(x[0], y[0])
        k, algorithm, psi = self.options.n_neighbors, self.options.algorithm, digamma_table(self.n_samples)
        return vector_local(x, y, k, algorithm, psi, self.n_jobs)

    def _engine(self) -> Engine:
        if self.backends is None:
            return ThreadEngine(self.n_samples, self.options, 1, 2)
        work = f"mutual_info_ksg of {self.n_samples} samples"
        return open_engine(self.backends, self.n_samples, self.options, self.n_jobs, self.budget, work)


def open_engine(
    backends: list[Any], n_samples: int, options: Options, n_jobs: int, budget: int | None, work: str
) -> Engine:
    """What estimates pairs on GPUs; see :class:`qixai_fast._gpu.ksg.Engine`."""
    from .._gpu import ksg

    engine: Engine = ksg.Engine(backends, n_samples, options, n_jobs, budget, work)
    return engine


def mutual_info_ksg(
    x: Any,
    y: Any,
    *,
    n_neighbors: int = 3,
    algorithm: int = 1,
    scale: str | None = "std",
    atoms: str = "auto",
    random_state: Any = None,
    return_local: bool = False,
    return_diagnostics: bool = False,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Mutual information of two continuous variables, by nearest neighbours.

    The estimators KSG-1 and KSG-2 of Kraskov, Stögbauer and Grassberger, in the maximum norm, exactly:
    marginal neighbours are counted by comparing differences, ties included. With ``atoms="auto"`` the
    estimate is also right for variables with atoms (ReLU zeros, sign, clipping) and on lattices (half
    precision, quantised), where the plain estimators are not.

    Parameters
    ----------
    x, y : array_like, shape (n,) or (n, d)
        Samples of both variables; finite real numbers. The dimensions may differ.
    n_neighbors : int, default 3
        Neighbours k, from 1 to n - 1. Fewer: less bias; more: less variance.
    algorithm : {1, 2}, default 1
        KSG-1 counts strictly within the k-th joint distance on both axes, KSG-2 within a radius an axis.
    scale : {"std", None}, default "std"
        "std" divides each column by its standard deviation (of its continuous part), which makes the
        value invariant to scale and shift; None takes values as given.
    atoms : {"auto", "none"}, default "auto"
        "auto" splits each column into atoms and a continuous part, and spreads a continuous part with
        repeated values over the cells of its lattice. "none" is the plain estimator: values as given, no
        jitter.
    random_state : int, Generator, RandomState or None, default None
        Seed of the lattice jitter; None is seed 0. Nothing else is random.
    return_local, return_diagnostics : bool, default False
        Return a tuple with these after the estimate, in this order.
    n_jobs
        Threads, for vectors; one pair of scalars runs on one.
    device : None, "cpu", "cuda" or "cuda:1"
        None: where x or y lives. Variables of several dimensions run on the CPU.
    max_memory : int, str or None
        Budget in bytes or as "2GB", of the host's memory and of the device's.

    Returns
    -------
    float
        The estimate in nats; may be slightly negative. Alone, unless asked for more:
    local : (n,) float64
        With ``return_local``: each sample's part, whose mean is the estimate. Where x lived.
    diagnostics : KSGDiagnostics
        With ``return_diagnostics``: ties, lattices, atoms, sensitivity to n_neighbors.

    Raises
    ------
    TypeError
        For dtypes other than real numbers.
    ValueError
        For wrong shapes, lengths that differ, NaN or inf, and arguments out of range.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Notes
    -----
    KSG-1: psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>, n_x and n_y the other samples
    strictly nearer on each axis than the k-th neighbour is jointly. KSG-2: psi(k) - 1/k + psi(n) -
    <psi(n_x) + psi(n_y)>, n_x and n_y at most as far as the farthest, on that axis, of all points whose
    joint distance is at most the k-th.

    An atom is a value repeated more than max(n_neighbors, 0.01 n) times and 10 times more than its
    lattice neighbours. The labels b (continuous, or which atom) split the information exactly,

    I(X;Y) = I(b_x;b_y) + I(X;b_y|b_x) + I(b_x;Y|b_y) + I(X;Y|b_x,b_y),

    into a plug-in, two Ross (2014) and one KSG estimate. A cell with k samples or fewer uses all of them
    as neighbours; one sample adds 0. A constant variable gives 0. MI(x, x) of distinct values is psi(n)
    - psi(k): it grows with n, as the truth is infinite.

    Lattice jitter depends on the order of the samples; without it, the estimate does not.

    References
    ----------
    Kraskov, Stögbauer, Grassberger, "Estimating mutual information", Phys. Rev. E 69, 066138 (2004),
    equations (8) and (9).

    Ross, "Mutual information between discrete and continuous data sets", PLoS ONE 9, e87357 (2014),
    equation (2).

    Examples
    --------
    >>> import numpy as np, qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal(2000)
    >>> y = 0.6 * x + 0.8 * rng.standard_normal(2000)
    >>> round(qf.mutual_info_ksg(x, y), 1)          # the truth is -0.5 ln(1 - 0.36) = 0.223
    0.2
    >>> value, seen = qf.mutual_info_ksg(np.maximum(x, 0), y, return_diagnostics=True)
    >>> seen.x[0].atoms
    (0.0,)
    """
    backends = backends_for(device, x, y)
    check_choice(return_local, "return_local", (False, True))
    check_choice(return_diagnostics, "return_diagnostics", (False, True))
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    seed = seed_of(random_state)
    first, second = variable_matrix(x, "x"), variable_matrix(y, "y")
    check_same_samples(first, second)
    n = first.n_samples
    options = check_options(
        n, n_neighbors=n_neighbors, algorithm=algorithm, scale=scale, atoms=atoms, seed=seed
    )
    work = f"mutual_info_ksg of {n} samples"
    scalars = first.n_features == second.n_features == 1
    if scalars:
        plan_memory(n, 1, budget, work)
    else:
        if backends is not None and device is not None:
            raise ValueError(
                f"device: {str(device)!r} cannot be used: variables of several dimensions "
                "have CPU kernels only"
            )
        backends = None
        require_budget(budget, vector_bytes(n, first.n_features, second.n_features), work)
    jitter = Jitter(seed, n)
    estimator = _Estimator(options, n, threads, budget, backends)
    x_variables = prepare_columns(first, options, jitter, axis=scalars)
    y_variables = prepare_columns(second, options, jitter, axis=scalars)
    value = estimator.value(x_variables, y_variables)
    extras: list[Any] = []
    if return_local:
        extras.append(first.home.bring(estimator.local(x_variables, y_variables)))
    if return_diagnostics:
        k = options.n_neighbors
        others = sorted({kk for kk in (max(1, k // 2), 2 * k, 4 * k) if kk < n} - {k})
        sensitivity = {k: value}
        for kk in others:
            other = replace(estimator, options=replace(options, n_neighbors=kk))
            sensitivity[kk] = other.value(x_variables, y_variables)
        extras.append(
            KSGDiagnostics(
                n_samples=n,
                x=tuple(map(_describe, x_variables)),
                y=tuple(map(_describe, y_variables)),
                seed=seed,
                k_sensitivity=dict(sorted(sensitivity.items())),
            )
        )
    return (value, *extras) if extras else value


def prepare_columns(
    matrix: Matrix, options: Options, jitter: Jitter, first_dimension: int = 0, axis: bool = False
) -> list[Variable]:
    """All columns of one variable, each with its own jitter; ``axis`` as in :func:`prepare_variable`."""
    return [
        options.prepare(
            read_columns(matrix, [column])[0],
            f"{matrix.name}[:, {column}]",
            matrix.dtype,
            jitter,
            first_dimension + column,
            axis,
        )
        for column in range(matrix.n_features)
    ]


@dask_inputs("X", "Y", access="columns")
def pairwise_mutual_info_ksg(
    X: Any,
    Y: Any = None,
    *,
    n_neighbors: int = 3,
    algorithm: int = 1,
    scale: str | None = "std",
    atoms: str = "auto",
    pairs: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    devices: Sequence[Any] | None = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Mutual information between columns, by nearest neighbours: :func:`mutual_info_ksg` of many pairs.

    Each column is sorted once, for all its pairs; pairs run on threads, in tiles of columns that fit
    ``max_memory``.

    Parameters
    ----------
    X : array_like, shape (n, d_x)
        Columns are variables. A memory-mapped file is read a group of columns at a time: a feature-major copy
        (``store.columns``) reads fastest.
    Y : array_like, shape (n, d_y), optional
        Without it, pairs within X.
    n_neighbors, algorithm, scale, atoms, random_state
        As in :func:`mutual_info_ksg`.
    pairs : array_like of int, shape (m, 2), optional
        Only these pairs: column of X, column of Y (of X again without Y).
    n_jobs : int or None
        Threads; on a GPU they prepare columns, and work out what atoms add.
    device : None, "cpu", "cuda" or "cuda:1"
        None: where X or Y lives. A GPU counts the same neighbours: values agree to rounding.
    devices : sequence of devices, optional
        Several GPUs, in place of ``device``; pairs are shared among them.
    max_memory : int, str or None
        Budget in bytes or as "2GB", of the host's memory and of each device's; the result does not count, and
        does not depend on it.

    Returns
    -------
    (d_x, d_y) float64, or (m,) with ``pairs``
        In nats, where X lived. Entry [i, j] is ``mutual_info_ksg(X[:, i], Y[:, j], ...)``; without Y the
        result is symmetric and its diagonal holds the estimate of MI(x, x).

    Raises
    ------
    TypeError, ValueError, MemoryBudgetError
        As :func:`mutual_info_ksg`; and for pairs that are no columns.

    References
    ----------
    Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), equations (8) and (9).

    Examples
    --------
    >>> import numpy as np, qixai_fast as qf
    >>> X = np.random.default_rng(0).standard_normal((500, 3))
    >>> X[:, 2] = np.tanh(X[:, 0])
    >>> values = qf.pairwise_mutual_info_ksg(X)
    >>> bool(values[0, 2] > 3 > 0.2 > values[0, 1])
    True
    >>> bool(qf.pairwise_mutual_info_ksg(X, pairs=[(0, 2)])[0] == values[0, 2])
    True
    """
    backends = backends_for(device, X, Y, devices=devices)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    seed = seed_of(random_state)
    first = as_matrix(X, "X", min_samples=2)
    second = None if Y is None else as_matrix(Y, "Y", min_samples=2)
    if second is not None:
        check_same_samples(first, second)
    n, d_x = first.n_samples, first.n_features
    d_y = d_x if second is None else second.n_features
    options = check_options(
        n, n_neighbors=n_neighbors, algorithm=algorithm, scale=scale, atoms=atoms, seed=seed
    )
    chosen = Pairs.of(pairs, d_x, d_y, symmetric=second is None).chosen
    work = f"pairwise_mutual_info_ksg of {n} samples"
    plan = plan_memory(n, threads, budget, work)
    engine = None if backends is None else open_engine(backends, n, options, threads, budget, work)
    check_matrix_finite(first)
    if second is not None:
        check_matrix_finite(second)
    return first.home.bring(pairwise_values(first, second, chosen, options, plan, engine))
