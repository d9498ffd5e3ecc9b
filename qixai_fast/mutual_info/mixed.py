"""Mutual information of a continuous variable with class labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from .._cluster import current, mapped
from .._device import home_of, resolve_device, to_numpy
from .._memory import parse_memory
from .._threads import resolve_n_jobs
from .._validate import Matrix, check_finite
from .ksg import variable_matrix
from .pairs import digamma_table, pair_value
from .pairwise import Options, check_options, map_columns, plan_memory
from .variables import Int32, Jitter, Variable, View, seed_of

# Columns that a worker of a cluster reads together.
_TOGETHER = 4


def label_codes(labels: Any, n_samples: int) -> tuple[Int32, int]:
    """Number the distinct labels in order: the number of each sample's, and how many there are.

    Raises
    ------
    TypeError
        For values that are no classes: complex numbers, times, records, and what cannot be sorted.
    ValueError
        For another shape, and NaN or infinite labels.
    """
    array = to_numpy(labels, "labels")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"labels: wanted shape (n_samples,), got {array.shape}")
    if len(array) != n_samples:
        raise ValueError(f"labels: wanted one for each of the {n_samples} samples of x, got {len(array)}")
    if array.dtype.kind not in "buifSUTO":
        raise TypeError(
            f"labels: dtype {array.dtype} is not supported; wanted classes (integers, text, booleans or real "
            "numbers): number them first, as numpy.unique(labels, return_inverse=True) does"
        )
    check_finite(array, "labels")
    try:
        missing = np.flatnonzero(array != array)  # NaN among objects
        distinct, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise TypeError(f"labels: wanted values that can be sorted ({error})") from None
    if len(missing):
        raise ValueError(f"labels: {array[missing[0]]} at row {missing[0]}; remove such samples first")
    return codes.reshape(-1).astype(np.int32), len(distinct)


def label_variable(codes: Int32, n_labels: int) -> Variable:
    """Labels, as :func:`label_codes` numbers them, as a variable that is all atoms."""
    nothing = View(np.zeros(len(codes)), np.zeros(0, dtype=np.int32))
    return Variable(
        codes=codes + np.int32(1),
        atoms=tuple(map(float, range(n_labels))),
        lattice=None,
        tie_fraction=1.0,
        views=(nothing,),
        key=(0, 0),
    )


@dataclass(frozen=True)
class _ColumnsElsewhere:
    """Estimates of some columns, in another process."""

    matrix: Matrix
    label: Variable
    options: Options

    def __call__(self, columns: range) -> list[float]:
        n, options = self.matrix.n_samples, self.options
        psi = digamma_table(n)

        def estimate(variable: Variable) -> float:
            return pair_value(variable, self.label, options.n_neighbors, options.algorithm, psi)

        return list(map_columns(estimate, self.matrix, columns, options, Jitter(options.seed, n), 1))


def mutual_info_mixed(
    x: Any,
    labels: Any,
    *,
    n_neighbors: int = 3,
    atoms: str = "auto",
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Mutual information of a continuous variable, or of each column of a layer, with discrete labels.

    Ross's estimator: psi(n) - <psi(n_label)> + psi(k) - <psi(m)>, where m counts the other samples
    within the distance of the k-th neighbour of the same label. Atoms (ReLU zeros) are split off first,
    by the chain rule I(X;L) = I(b;L) + I(X;L|b), and lattice values are spread within their cells, as in
    :func:`mutual_info_ksg`.

    Parameters
    ----------
    x : array_like, shape (n,) or (n, d)
        Samples of one variable, or a layer; each column is estimated on its own.
    labels : array_like, shape (n,)
        Class of each sample: integers, text, booleans, real numbers, or objects that can be sorted.
    n_neighbors : int, default 3
        Neighbours k within the same label, 1 to n - 1. Labels with k samples or fewer use all of theirs;
        a label's only sample adds 0.
    atoms : {"auto", "none"}, default "auto"
        "none" is Ross's plain estimator on values as given; where values tie at the k-th distance, k
        counts them all.
    random_state : int, Generator, RandomState or None, default None
        Seed of the lattice jitter; None is seed 0.
    n_jobs, device, max_memory
        Threads (over columns), device, and budget in bytes or as "2GB".

    Returns
    -------
    float, or (d,) float64 for a layer
        In nats, where x lived; may be slightly negative. Invariant to scale and shift of x.

    Raises
    ------
    TypeError, ValueError, MemoryBudgetError
        As :func:`mutual_info_ksg`.

    References
    ----------
    Ross, "Mutual information between discrete and continuous data sets", PLoS ONE 9, e87357 (2014),
    equation (2).

    Examples
    --------
    >>> import numpy as np, qixai_fast as qf
    >>> labels = np.arange(1000) % 2
    >>> x = np.random.default_rng(0).standard_normal(1000) + 100 * labels
    >>> round(qf.mutual_info_mixed(x, labels), 2)          # the label is known: ln 2
    0.69
    """
    resolve_device(device)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    seed = seed_of(random_state)
    matrix = variable_matrix(x, "x")
    n = matrix.n_samples
    options = check_options(n, n_neighbors=n_neighbors, algorithm=1, scale=None, atoms=atoms, seed=seed)
    label = label_variable(*label_codes(labels, n))
    plan = plan_memory(n, threads, budget, f"mutual_info_mixed of {n} samples")
    jitter, psi = Jitter(seed, n), digamma_table(n)

    def estimate(variable: Variable) -> float:
        return pair_value(variable, label, options.n_neighbors, options.algorithm, psi)

    cluster = current()
    found: Iterator[float]
    if cluster is not None and cluster.reaches(matrix):
        d = matrix.n_features
        groups = [range(i, min(i + _TOGETHER, d)) for i in range(0, d, _TOGETHER)]
        found = chain.from_iterable(mapped(_ColumnsElsewhere(matrix, label, options), groups, 1))
    else:
        found = map_columns(estimate, matrix, range(matrix.n_features), options, jitter, plan.n_jobs)
    values = np.fromiter(found, np.float64)
    if to_numpy(x, "x").ndim == 1:
        return float(values[0])
    return home_of(x).bring(values)
