"""Mutual information of binned variables: a pair, or all pairs of columns from one set of codes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from .._cluster import current, mapped
from .._dask_arrays import dask_inputs
from .._device import backends_for, gpu_tensor, home_of, to_numpy
from .._memory import parse_memory
from .._threads import ordered_map, resolve_n_jobs
from .._validate import Float64, Matrix, as_input, check_same_samples
from ..bins import Bins, Codes, check_binning, check_flag, code_dtype, encode, make_bins
from ..code_files import CodeFile
from ..joint_histograms import Index, JointHistograms, Tables
from .bias import PluginEstimator
from .binned_elsewhere import TILE_COLUMNS, TilesElsewhere
from .binned_plan import Plan, plan_work
from .pairing import Pairs, Tile
from .variables import check_matrix_finite

# Codes of some columns, and of samples from one to another.
Reader = Callable[[Index, int, int], Codes]


def bins_of(matrix: Matrix, n_bins: int, strategy: str, plan: Plan, *, zero: bool = False) -> Bins:
    """Bins of every column, by one of the two strategies."""
    return make_bins(
        matrix,
        n_bins,
        strategy,
        zero=zero,
        rows=plan.rows,
        sort_columns=plan.sort_columns,
        n_jobs=plan.n_jobs,
    )


def _counts_in_memory(matrices: list[Matrix], bins: list[Bins], plan: Plan) -> Callable[[Tile], Tables]:
    """What counts a tile of pairs, all codes being held."""
    codes = [
        encode(matrix, own, rows=plan.rows, n_jobs=plan.n_jobs)
        for matrix, own in zip(matrices, bins, strict=True)
    ]

    def count(tile: Tile) -> Tables:
        return JointHistograms(bins, tile.first, tile.second).count(codes[0], codes[-1])

    return count


def _counts_from_files(
    matrices: list[Matrix], bins: list[Bins], plan: Plan, stack: ExitStack
) -> Callable[[Tile], Tables]:
    """What counts a tile of pairs, its codes being read from files that close with ``stack``."""
    files = [
        stack.enter_context(CodeFile(matrix, own, rows=plan.rows, together=plan.together, n_jobs=plan.n_jobs))
        for matrix, own in zip(matrices, bins, strict=True)
    ]
    dtype = code_dtype(bins[0].n_bins)

    def reader(file: CodeFile) -> Reader:
        def read(columns: Index, start: int, stop: int) -> Codes:
            codes: Codes = np.empty((len(columns), stop - start), dtype=dtype)
            file.read(columns, start, stop, codes)
            return codes

        return read

    return counts_by_stretches([reader(file) for file in files], bins, matrices[0].n_samples, plan.stretch)


def counts_by_stretches(
    readers: list[Reader], bins: list[Bins], n: int, stretch: int
) -> Callable[[Tile], Tables]:
    """What counts a tile of pairs, some samples of its columns at a time; a reader has codes of one side."""

    def count(tile: Tile) -> Tables:
        if len(readers) == 1:
            columns, places = np.unique(np.concatenate([tile.first, tile.second]), return_inverse=True)
            wanted = [columns]
            first, second = places[: len(tile.first)], places[len(tile.first) :]
        else:
            (columns, first), (others, second) = (
                np.unique(side, return_inverse=True) for side in (tile.first, tile.second)
            )
            wanted = [columns, others]
        statistic = JointHistograms(bins, first, second)
        total: Tables | None = None
        for start in range(0, n, stretch):
            stop = min(start + stretch, n)
            codes = [read(own, start, stop) for read, own in zip(readers, wanted, strict=True)]
            tables = statistic.count(codes[0], codes[-1])
            total = tables if total is None else statistic.combine(total, tables)
            # Let the codes go before the next ones are read.
            del codes, tables
        assert total is not None
        return total

    return count


def values_of_tiles(
    count: Callable[[Tile], Tables], pairs: Pairs, estimator: PluginEstimator, plan: Plan
) -> Float64:
    """Mutual information of all pairs, tile by tile."""
    out = np.full(pairs.shape, np.nan)

    def evaluate(tile: Tile) -> tuple[Tile, Float64]:
        return tile, estimator.values(estimator.summarize(count(tile)))

    for tile, values in ordered_map(evaluate, pairs.tiles(*plan.tile), min(plan.n_jobs, len(pairs))):
        pairs.put(out, tile, values)
    return out


def _pairwise(
    matrices: list[Any],
    pairs: Pairs,
    backends: list[Any] | None,
    *,
    n_bins: Any,
    strategy: Any,
    zero_bin: Any,
    bias_correction: Any,
    normalize: Any,
    n_jobs: int | None,
    max_memory: int | float | str | None,
) -> Float64:
    """Values of all pairs: of matrices here or on a cluster, of rows of devices there."""
    n = matrices[0].n_samples
    n_bins = check_binning(n_bins, strategy, n)
    zero = check_flag(zero_bin, "zero_bin")
    estimator = PluginEstimator(n, bias_correction, normalize)
    if backends is not None:
        from .._gpu.binned import pairwise_values

        return pairwise_values(
            matrices,
            pairs,
            estimator,
            n_bins=n_bins,
            strategy=strategy,
            zero=zero,
            n_jobs=resolve_n_jobs(n_jobs),
            max_memory=parse_memory(max_memory),
            backends=backends,
        )
    cluster = current()
    if cluster is not None and cluster.reaches(*matrices):
        return values_elsewhere(matrices, pairs, TilesElsewhere(matrices, estimator, n_bins, strategy, zero))
    plan = plan_work(
        matrices,
        len(pairs),
        n_bins=n_bins,
        strategy=strategy,
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
        # Chosen pairs are put in an order of their own.
        extra=0 if pairs.chosen is None else 5 * pairs.chosen.nbytes,
    )
    bins = [bins_of(matrix, n_bins, strategy, plan, zero=zero) for matrix in matrices]
    with ExitStack() as stack:
        if plan.cached:
            count = _counts_in_memory(matrices, bins, plan)
        else:
            count = _counts_from_files(matrices, bins, plan, stack)
        return values_of_tiles(count, pairs, estimator, plan)


def values_elsewhere(matrices: list[Matrix], pairs: Pairs, values_of: TilesElsewhere) -> Float64:
    """All pairs on the workers of a cluster; counts are integers, so the values are those counted here."""
    for matrix in matrices:
        check_matrix_finite(matrix)
    tiles = list(pairs.tiles(TILE_COLUMNS, TILE_COLUMNS))
    out = np.full(pairs.shape, np.nan)
    for tile, values in zip(tiles, mapped(values_of, tiles, 1), strict=True):
        pairs.put(out, tile, values)
    return out


def _as_column(x: Any, name: str) -> Any:
    """One variable, (n,) or (n, 1), as an array or tensor of one column; a memmap stays one."""
    tensor = gpu_tensor(x)
    array = to_numpy(x, name) if tensor is None else tensor
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != 1:
        raise ValueError(f"{name}: wanted shape (n_samples,), got {tuple(array.shape)}")
    return array


def mutual_info_binned(
    x: Any,
    y: Any,
    *,
    n_bins: int = 16,
    strategy: str = "uniform",
    zero_bin: bool = False,
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
    zero_bin : bool
        Give zeros (0.0 and -0.0) a bin of their own, as for activations behind a ReLU: the other
        ``n_bins - 1`` bins cover the values that are not 0, by the same strategy. See :func:`digitize`.
    bias_correction : None or str
        ``"miller-madow"`` (Miller 1955), ``"panzeri-treves"`` (1996, averaged over both directions),
        ``"grassberger"`` (2003) or ``"permutation-mean"`` (subtracts the exact mean over all permutations;
        Vinh, Epps and Bailey 2010). The plug-in estimate of independent variables is about
        ``(n_bins - 1)**2 / (2 * n_samples)`` too high; corrected ones scatter around 0 and are never clipped.
    n_jobs : int, optional
        Threads; all usable cores by default.
    device : None, "cpu", "cuda" or "cuda:1"
        None: that of x or y where one lives on a GPU, else the CPU.
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates, on a GPU of its memory.

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
    backends = backends_for(device, x, y)
    matrices = [as_input(_as_column(one, name), name, backends) for one, name in ((x, "x"), (y, "y"))]
    check_same_samples(*matrices)
    pairs = Pairs.of(None, 1, 1, symmetric=False)
    values = _pairwise(
        matrices,
        pairs,
        backends,
        n_bins=n_bins,
        strategy=strategy,
        zero_bin=zero_bin,
        bias_correction=bias_correction,
        normalize=None,
        n_jobs=n_jobs,
        max_memory=max_memory,
    )
    return float(values[0, 0])


@dask_inputs("X", "Y", access="columns")
def pairwise_mutual_info_binned(
    X: Any,
    Y: Any = None,
    *,
    n_bins: int = 16,
    strategy: str = "uniform",
    zero_bin: bool = False,
    bias_correction: str | None = None,
    normalize: str | None = None,
    pairs: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    devices: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Binned mutual information of all pairs of columns, or of some.

    Every column is binned once, and all pairs count the same integer codes. Where the codes do not fit
    ``max_memory``, they go into a nameless temporary file (in ``TMPDIR``; a byte a value up to 256 bins),
    from which tiles of pairs are read; counts are integers, so the values are the same.

    Parameters
    ----------
    X : array_like, shape (n_samples, d_x)
    Y : array_like, shape (n_samples, d_y), optional
        X itself by default.
    n_bins, strategy, zero_bin, bias_correction
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
    device : None, "cpu", "cuda" or "cuda:1"
        None: that of X or Y where one lives on a GPU, else the CPU. Counts are integers on both; values agree
        to 1e-12. On a GPU codes are held as far as they fit, and made again for each block of columns where
        they do not.
    devices : sequence of devices, optional
        Several GPUs, in place of ``device``: pairs are shared among them, and each holds all codes.
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates besides the result; on a GPU, the most of each device.

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
    OSError
        Where codes must go into a file and the disk has no room for them.

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
    backends = backends_for(device, X, Y, devices=devices)
    matrices = [as_input(X, "X", backends)]
    if Y is not None:
        matrices.append(as_input(Y, "Y", backends))
        check_same_samples(*matrices)
    first, last = matrices[0], matrices[-1]
    wanted = Pairs.of(pairs, first.n_features, last.n_features, symmetric=Y is None)
    values = _pairwise(
        matrices,
        wanted,
        backends,
        n_bins=n_bins,
        strategy=strategy,
        zero_bin=zero_bin,
        bias_correction=bias_correction,
        normalize=normalize,
        n_jobs=n_jobs,
        max_memory=max_memory,
    )
    return home_of(X).bring(values)
