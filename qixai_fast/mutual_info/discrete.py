"""Mutual information of variables that are codes already: labels, clusters, atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._device import resolve_device, to_numpy
from .._memory import parse_memory, require_budget
from .._threads import resolve_n_jobs
from .._validate import check_finite
from .bias import TERM_TABLE_BYTES, PluginEstimator


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


def mutual_info_discrete(
    x: Any,
    y: Any,
    *,
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
        For other shapes, different lengths, no samples, NaN or infinite values, an unknown correction.
    TypeError
        For dtypes that are neither numbers nor strings.
    MemoryBudgetError
        Where ``max_memory`` is too small; says what would do.

    Examples
    --------
    >>> from qixai_fast import mutual_info_discrete
    >>> round(mutual_info_discrete(["a", "b", "a", "b"], [0, 1, 0, 1]), 6)  # ln 2
    0.693147
    """
    resolve_device(device)
    resolve_n_jobs(n_jobs)
    arrays = [to_numpy(x, "x"), to_numpy(y, "y")]
    n = arrays[0].shape[0] if arrays[0].ndim else 0
    # Sorting one side copies it and holds its order; fused codes and their cells are as long at most.
    required = TERM_TABLE_BYTES + 2**17 + n * (120 + 2 * max(array.dtype.itemsize for array in arrays))
    require_budget(parse_memory(max_memory), required, "discrete mutual information")
    rows = _levels(arrays[0], "x")
    columns = _levels(arrays[1], "y")
    if len(rows) != len(columns):
        raise ValueError(f"x and y: wanted the same number of samples, got {len(rows)} and {len(columns)}")
    estimator = PluginEstimator(n, bias_correction)
    n_columns = int(columns.max()) + 1
    cells, counts = np.unique(rows * n_columns + columns, return_counts=True)
    summary = estimator.summarize_cells(cells // n_columns, cells % n_columns, counts.astype(np.int64))
    return float(estimator.values(summary)[0])
