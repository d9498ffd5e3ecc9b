"""Mutual information of variables that are codes already, or of a table of how often they occur together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._device import resolve_device, to_numpy
from .._memory import parse_memory, require_budget
from .._threads import resolve_n_jobs
from .._validate import check_finite
from .bias import TERM_TABLE_BYTES, PluginEstimator

Index = npt.NDArray[np.int64]

_OVERHEAD = TERM_TABLE_BYTES + 2**17
_MOST_COUNTED = 2.0**53


def _levels(values: Any, name: str) -> npt.NDArray[np.int64]:
    """Levels 0, 1, ... of one variable, in sorted order."""
    array = to_numpy(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: wanted shape (n_samples,), got {array.shape}")
    if len(array) == 0:
        raise ValueError(f"{name}: wanted at least 1 sample, got none")
    if array.dtype.kind not in "buifUS":
        raise TypeError(f"{name}: dtype {array.dtype} is not supported; wanted integers, booleans or strings")
    check_finite(array, name)
    levels: npt.NDArray[np.int64] = np.unique(array, return_inverse=True)[1].reshape(-1)
    return levels


def _table(contingency: Any) -> npt.NDArray[Any]:
    """Check joint counts, (r, c): whole numbers of at least 0, not all 0."""
    table = to_numpy(contingency, "contingency")
    if table.ndim != 2:
        raise ValueError(f"contingency: wanted shape (levels of x, levels of y), got {table.shape}")
    if table.dtype.kind not in "ui":
        raise TypeError(f"contingency: wanted integer counts, got dtype {table.dtype}")
    if table.size == 0 or not table.any():
        raise ValueError(f"contingency: wanted at least 1 sample, got shape {table.shape} without any")
    if table.min() < 0:
        row, column = (int(place[0]) for place in np.nonzero(table < 0))
        raise ValueError(
            f"contingency: {table[row, column]} at row {row}, column {column}; counts are at least 0"
        )
    if table.sum(dtype=np.float64) > _MOST_COUNTED:
        raise ValueError("contingency: wanted at most 2**53 samples in all")
    return table


def _cells_of_codes(arrays: list[npt.NDArray[Any]]) -> tuple[Index, Index, Index]:
    """Rows, columns and counts of the occupied cells of two variables, by row and then by column."""
    rows = _levels(arrays[0], "x")
    columns = _levels(arrays[1], "y")
    if len(rows) != len(columns):
        raise ValueError(f"x and y: wanted the same number of samples, got {len(rows)} and {len(columns)}")
    n_columns = int(columns.max()) + 1
    cells, counts = np.unique(rows * n_columns + columns, return_counts=True)
    return cells // n_columns, cells % n_columns, counts.astype(np.int64)


def mutual_info_discrete(
    x: Any = None,
    y: Any = None,
    *,
    contingency: Any = None,
    bias_correction: str | None = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    """Mutual information of two discrete variables.

    Parameters
    ----------
    x, y : array_like, shape (n_samples,)
        Codes of any kind: integers, booleans, strings, or floats that repeat. Every distinct value is a
        level, and there may be as many levels as samples.
    contingency : array_like of int, shape (levels of x, levels of y), optional
        How often each level of x occurs with each level of y, instead of x and y.
    bias_correction : None or str
        As in :func:`mutual_info_binned`.
    n_jobs : int, optional
        Accepted as everywhere; one pair is counted on one thread.
    device : None or "cpu"
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates.

    Returns
    -------
    float
        In nats. 0 where a variable has one level.

    Raises
    ------
    ValueError
        For other shapes, different lengths, no samples, NaN or infinite values, negative counts, an unknown
        correction.
    TypeError
        For dtypes that are neither numbers nor strings, counts that are no integers, and calls with neither
        or both of x, y and ``contingency``.
    MemoryBudgetError
        Where ``max_memory`` is too small; says what would do.

    Examples
    --------
    >>> from qixai_fast import mutual_info_discrete
    >>> round(mutual_info_discrete(["a", "b", "a", "b"], [0, 1, 0, 1]), 6)  # ln 2
    0.693147
    >>> round(mutual_info_discrete(contingency=[[2, 0], [0, 2]]), 6)
    0.693147
    """
    resolve_device(device)
    resolve_n_jobs(n_jobs)
    budget = parse_memory(max_memory)
    given = [value is not None for value in (x, y)]
    if any(given) if contingency is not None else not all(given):
        raise TypeError("mutual_info_discrete: wanted x and y, or contingency alone")
    if contingency is not None:
        table = _table(contingency)
        occupied = int(np.count_nonzero(table))
        require_budget(budget, _OVERHEAD + table.size + 120 * occupied, "discrete mutual information")
        rows, columns = np.nonzero(table)
        counts = table[rows, columns].astype(np.int64)
    else:
        arrays = [to_numpy(x, "x"), to_numpy(y, "y")]
        n = arrays[0].shape[0] if arrays[0].ndim else 0
        # Sorting one side copies it and holds its order; fused codes and their cells are as long at most.
        required = _OVERHEAD + n * (120 + 2 * max(array.dtype.itemsize for array in arrays))
        require_budget(budget, required, "discrete mutual information")
        rows, columns, counts = _cells_of_codes(arrays)
    estimator = PluginEstimator(int(counts.sum()), bias_correction)
    summary = estimator.summarize_cells(rows, columns, counts)
    return float(estimator.values(summary)[0])
