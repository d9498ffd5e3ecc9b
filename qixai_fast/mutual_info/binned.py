"""Mutual information of binned variables: a pair, or all pairs of columns from one set of codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._device import resolve_device, to_numpy
from .._memory import parse_memory, require_budget
from .._threads import ordered_map, resolve_n_jobs
from .._validate import Float64, Matrix, as_matrix, check_choice, check_int, check_same_samples
from ..joint_histograms import (
    Bins,
    Codes,
    JointHistograms,
    accumulate,
    code_dtype,
    encode,
    quantile_bins,
    uniform_bins,
)
from .bias import TERM_TABLE_BYTES, PluginEstimator
from .pairing import Pairs

STRATEGIES = ("uniform", "quantile")
MAX_BINS = 4096
MAX_SAMPLES = 2**31 - 1

_BLOCK_BYTES = 4 * 2**20
_SORT_BYTES = 256 * 2**20
_TABLE_BYTES = 2**20
# With less than this for tables, too many passes over the data would be made to be of use.
_LEAST_TABLE_BYTES = 2**16
_LEAST_ROWS = 256
_MOST_ROWS = 32768
# The table of entropy terms, threads, and small objects.
_OVERHEAD = TERM_TABLE_BYTES + 2**18
# Edges, their temporaries and slopes: bytes an edge.
_EDGE_BYTES = 40
# Column numbers, sums, occupied cells and values of a pair while it is summarised.
_PAIR_BYTES = 400


def tables_per_group(n_samples: int, cells: int) -> int:
    """Pairs counted by one call: tables stay in L2, and short columns still give a thread enough to do."""
    return max(1, min(_TABLE_BYTES // (4 * cells), max(16, 2**21 // n_samples)))


@dataclass(frozen=True)
class Plan:
    """How the work fits a budget.

    Attributes
    ----------
    n_jobs : int
        Threads.
    rows : int
        Rows read at a time by each.
    sort_columns : int
        Columns sorted at a time (quantile).
    group : int
        Pairs counted at a time.
    cached : bool
        Whether all codes are held; otherwise every group reads and codes the data again.
    fixed : int
        Bytes held besides codes, blocks and tables.
    """

    n_jobs: int
    rows: int
    sort_columns: int
    group: int
    cached: bool
    fixed: int


def plan_work(
    matrices: list[Matrix],
    n_pairs: int,
    *,
    n_bins: int,
    strategy: str,
    n_jobs: int,
    budget: int | None,
    extra: int = 0,
    must_cache: bool = False,
) -> Plan:
    """Choose rows, threads and groups; raise MemoryBudgetError where nothing fits.

    ``extra`` are bytes that the caller needs besides. ``must_cache`` refuses the plan without codes.
    """
    n = matrices[0].n_samples
    width = sum(matrix.n_features for matrix in matrices)
    cell_bytes = 4 * n_bins * n_bins
    code_bytes = code_dtype(n_bins).itemsize
    row_bytes = width * (8 + code_bytes)
    most_rows = min(n, _MOST_ROWS, max(_LEAST_ROWS, _BLOCK_BYTES // (8 * width)))
    least_rows = min(n, _LEAST_ROWS)
    fixed = _OVERHEAD + extra + _EDGE_BYTES * width * (n_bins + 1)
    table = cell_bytes + _PAIR_BYTES
    group = min(n_pairs, tables_per_group(n, n_bins * n_bins))
    sort_row = 8 * n if strategy == "quantile" else 0

    with_codes = fixed + width * n * code_bytes
    sort_least = fixed + sort_row + least_rows * row_bytes
    cache_least = max(with_codes + max(least_rows * row_bytes, table), sort_least)
    least_group = min(n_pairs, max(1, _LEAST_TABLE_BYTES // table))
    stream_least = max(fixed + least_rows * row_bytes + 3 * least_group * table, sort_least)
    require_budget(
        budget, cache_least if must_cache else min(cache_least, stream_least), "binned mutual information"
    )
    cached = budget is None or budget >= cache_least
    free = 0 if budget is None else budget - (with_codes if cached else fixed)

    def most(available: int, cost: int, wanted: int) -> int:
        return max(1, min(wanted, available // max(cost, 1)))

    sort_columns = 1
    if sort_row:
        room = _SORT_BYTES if budget is None else budget - fixed - most_rows * row_bytes
        sort_columns = most(min(room, _SORT_BYTES), sort_row, max(m.n_features for m in matrices))
    if budget is None:
        return Plan(n_jobs, most_rows, sort_columns, group, True, fixed)
    if cached:
        jobs = most(free, max(least_rows * row_bytes, table), n_jobs)
        rows = max(least_rows, most(free // jobs, row_bytes, most_rows))
        return Plan(jobs, rows, sort_columns, most(free // jobs, table, group), True, fixed)
    # Half for the tables (n_jobs + 2 sets of them), half for the blocks; one thread where that is too little.
    jobs = n_jobs if free >= 2 * (n_jobs + 2) * max(table, least_rows * row_bytes) else 1
    rows = max(least_rows, most((free - 3 * table) // (2 * jobs), row_bytes, most_rows))
    rows = min(rows, most_rows)
    group = most(free - jobs * rows * row_bytes, (jobs + 2) * table, n_pairs)
    return Plan(jobs, rows, sort_columns, group, False, fixed)


def bins_of(matrix: Matrix, n_bins: int, strategy: str, plan: Plan) -> Bins:
    """Bins of every column, by one of the two strategies."""
    if strategy == "uniform":
        return uniform_bins(matrix, n_bins, rows=plan.rows, n_jobs=plan.n_jobs)
    return quantile_bins(matrix, n_bins, columns=plan.sort_columns, rows=plan.rows, n_jobs=plan.n_jobs)


def values_of_pairs(
    count: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.int32]],
    pairs: Pairs,
    estimator: PluginEstimator,
    *,
    group: int,
    n_jobs: int,
) -> Float64:
    """Values of all pairs, group by group, in the shape of the result."""
    out = np.full(pairs.shape, np.nan)

    def evaluate(bounds: tuple[int, int]) -> tuple[int, Float64]:
        tables = count(*pairs.columns(*bounds))
        return bounds[0], estimator.values(estimator.summarize(tables))

    workers = min(n_jobs, -(-len(pairs) // group))
    for start, values in ordered_map(evaluate, pairs.groups(group), workers):
        pairs.place(out, start, values)
    return out


def check_binning(n_bins: Any, strategy: Any, n_samples: int) -> int:
    """Check ``n_bins`` and ``strategy``; return n_bins."""
    check_choice(strategy, "strategy", STRATEGIES)
    if n_samples > MAX_SAMPLES:
        raise ValueError(f"X: wanted at most {MAX_SAMPLES} samples, got {n_samples}")
    return check_int(n_bins, "n_bins", low=2, high=MAX_BINS)


def _pairwise(
    matrices: list[Matrix],
    pairs: Pairs,
    *,
    n_bins: Any,
    strategy: Any,
    bias_correction: Any,
    normalize: Any,
    n_jobs: int | None,
    device: Any,
    max_memory: int | float | str | None,
) -> Float64:
    n = matrices[0].n_samples
    n_bins = check_binning(n_bins, strategy, n)
    estimator = PluginEstimator(n, bias_correction, normalize)
    resolve_device(device)
    plan = plan_work(
        matrices,
        len(pairs),
        n_bins=n_bins,
        strategy=strategy,
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
        extra=0 if pairs.chosen is None else pairs.chosen.nbytes,
    )
    bins = [bins_of(matrix, n_bins, strategy, plan) for matrix in matrices]
    if not plan.cached:

        def stream(first: Any, second: Any) -> npt.NDArray[np.int32]:
            statistic = JointHistograms(bins, first, second)
            return accumulate(statistic, matrices, rows=plan.rows, n_jobs=plan.n_jobs)

        return values_of_pairs(stream, pairs, estimator, group=plan.group, n_jobs=1)

    codes: list[Codes] = [
        encode(matrix, own, rows=plan.rows, n_jobs=plan.n_jobs)
        for matrix, own in zip(matrices, bins, strict=True)
    ]

    def count(first: Any, second: Any) -> npt.NDArray[np.int32]:
        return JointHistograms(bins, first, second).count(codes[0], codes[-1])

    return values_of_pairs(count, pairs, estimator, group=plan.group, n_jobs=plan.n_jobs)


def _as_column(x: Any, name: str) -> Matrix:
    """One variable, (n,) or (n, 1), as a matrix of one column; a memmap stays one."""
    array = to_numpy(x, name)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != 1:
        raise ValueError(f"{name}: wanted shape (n_samples,), got {array.shape}")
    return as_matrix(array, name)


def mutual_info_binned(
    x: Any,
    y: Any,
    *,
    n_bins: int = 16,
    strategy: str = "uniform",
    bias_correction: str | None = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    """Mutual information of two variables from their binned joint histogram.

    Parameters
    ----------
    x, y : array_like, shape (n_samples,)
        Real numbers: array, memmap or torch tensor.
    n_bins : int
        Bins of each variable, 2 to 4096.
    strategy : {"uniform", "quantile"}
        ``"uniform"``: edges ``numpy.linspace(min, max, n_bins + 1)`` in float64. ``"quantile"``: edges
        ``numpy.quantile(values, numpy.linspace(0, 1, n_bins + 1))``, which sorts the values. Membership is
        that of ``numpy.digitize``, and the maximum belongs to the last bin.
    bias_correction : None or str
        ``"miller-madow"`` (Miller 1955), ``"panzeri-treves"`` (1996, averaged over both directions),
        ``"grassberger"`` (2003) or ``"permutation-mean"`` (subtracts the exact mean over all permutations;
        Vinh, Epps and Bailey 2010). The plug-in estimate of independent variables is about
        ``(n_bins - 1)**2 / (2 * n_samples)`` too high; corrected ones scatter around 0 and are never clipped.
    n_jobs : int, optional
        Threads; all usable cores by default.
    device : None or "cpu"
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates.

    Returns
    -------
    float
        In nats. 0 where a variable is constant.

    Raises
    ------
    ValueError
        For other shapes, different lengths, NaN or infinite values, and options out of range.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small; says what would do.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast import mutual_info_binned
    >>> x = np.arange(8.0)
    >>> round(mutual_info_binned(x, x**2, n_bins=2, strategy="quantile"), 6)  # ln 2
    0.693147
    """
    matrices = [_as_column(x, "x"), _as_column(y, "y")]
    check_same_samples(*matrices)
    pairs = Pairs.of(None, 1, 1, symmetric=False)
    values = _pairwise(
        matrices,
        pairs,
        n_bins=n_bins,
        strategy=strategy,
        bias_correction=bias_correction,
        normalize=None,
        n_jobs=n_jobs,
        device=device,
        max_memory=max_memory,
    )
    return float(values[0, 0])


def pairwise_mutual_info_binned(
    X: Any,
    Y: Any = None,
    *,
    n_bins: int = 16,
    strategy: str = "uniform",
    bias_correction: str | None = None,
    normalize: str | None = None,
    pairs: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Binned mutual information of all pairs of columns, or of some.

    Every column is binned once, and all pairs count the same integer codes. Where the codes do not fit
    ``max_memory``, blocks of rows are read and binned again for each group of pairs; counts are integers,
    so the values are the same.

    Parameters
    ----------
    X : array_like, shape (n_samples, d_x)
    Y : array_like, shape (n_samples, d_y), optional
        X itself by default.
    n_bins, strategy, bias_correction
        As in :func:`mutual_info_binned`.
    normalize : {None, "sqrt", "min", "max", "arithmetic", "joint"}
        Divide by sqrt(H(X_i) H(Y_j)), the smaller, the larger or the mean of both entropies, or the joint
        entropy: 1 for a column with itself. Entropies are corrected as the mutual information is; with
        ``"permutation-mean"`` the permutation mean is subtracted from the denominator too (adjusted mutual
        information). 0 where the denominator is 0.
    pairs : array_like of int, shape (n_pairs, 2), optional
        Column of X and column of Y of the pairs that are wanted, instead of all.
    n_jobs : int, optional
        Threads; all usable cores by default. The result has the same bits for any number.
    device : None or "cpu"
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates besides the result.

    Returns
    -------
    array, float64
        (d_x, d_y) in nats, or (n_pairs,) with ``pairs``; NumPy, or torch on the device of X. Entry [i, j] is
        ``mutual_info_binned(X[:, i], Y[:, j])``. Without Y the matrix is symmetric and its diagonal is the
        entropy H(X_i) (its mutual information with itself, corrected likewise).

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`mutual_info_binned`.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast import pairwise_mutual_info_binned
    >>> x = np.repeat([0.0, 1.0], 50)
    >>> X = np.column_stack([x, 1 - x, np.tile([0.0, 1.0], 50)])
    >>> pairwise_mutual_info_binned(X, n_bins=2, normalize="sqrt").round(6) + 0.0
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    matrices = [as_matrix(X, "X")]
    if Y is not None:
        matrices.append(as_matrix(Y, "Y"))
        check_same_samples(*matrices)
    first, last = matrices[0], matrices[-1]
    wanted = Pairs.of(pairs, first.n_features, last.n_features, symmetric=Y is None)
    values = _pairwise(
        matrices,
        wanted,
        n_bins=n_bins,
        strategy=strategy,
        bias_correction=bias_correction,
        normalize=normalize,
        n_jobs=n_jobs,
        device=device,
        max_memory=max_memory,
    )
    return first.home.bring(values)
