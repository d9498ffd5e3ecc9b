"""Cases of mutual information between pairs of columns: nearest neighbours (KSG), and bins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import pairwise_mutual_info_binned, pairwise_mutual_info_ksg
from .._validate import Array, Float64
from .cases import OURS, Case, Score, constant, entrants_of
from .peers import Estimator, ksg_peers, optional

N_BINS = 16
N_NEIGHBORS = 3
# The definition of KSG compares every sample with every other one.
MOST_BRUTE = 1000
# Errors are of these at least: as many for each of the three correlations of data drawn here.
_LEAST_PAIRS, _LEAST_LONG_PAIRS, _LONG = 9, 3, 5000
KSG, BINNED = "KSG mutual information", "binned mutual information"

Pairs = list[tuple[int, int]]
Codes = npt.NDArray[np.int64]


def _least_pairs(n: int, pairs: Pairs) -> int:
    return min(len(pairs), _LEAST_PAIRS if n < _LONG else _LEAST_LONG_PAIRS)


def _columns(X: Array, pairs: Pairs) -> dict[int, Float64]:
    """float64 of the columns: peers know no half precision."""
    return {j: np.ascontiguousarray(X[:, j], dtype=np.float64) for pair in pairs for j in pair}


def _one_by_one(estimate: Estimator, X: Array, pairs: Pairs) -> Callable[[int], Callable[[], Any]]:
    columns = _columns(X, pairs)
    return lambda units: lambda: [estimate(columns[i], columns[j]) for i, j in pairs[:units]]


def _against(truths: Float64) -> Callable[[Any, int], Score]:
    def score(values: Any, units: int) -> Score:
        errors = np.asarray(values, dtype=np.float64) - truths[:units]
        if not np.isfinite(errors).all():
            return Score(float("nan"))
        rmse = float(np.sqrt((errors**2).mean()))
        return Score(rmse, f"bias {errors.mean():+.3f}")

    return score


def _limits(truths: Float64, n: int) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """Up to 2 / sqrt(N) is chance, up to a tenth of the truth good enough; three times that is wrong."""

    def right(units: int) -> float:
        return max(2 / math.sqrt(n), 0.1 * float(np.sqrt((truths[:units] ** 2).mean())))

    return right, lambda units: 3 * right(units)


def distinguishable(truths: Float64, n: int) -> bool:
    """Whether an estimator that says 0 whatever the data would be called wrong."""
    _, wrong = _limits(truths, n)
    return float(np.sqrt((truths**2).mean())) > wrong(len(truths))


def ksg_case(
    X: Array, pairs: Pairs, truths: Float64, data: str, truth: str, *, n_jobs: int, source: str = ""
) -> Case:
    """KSG of pairs of columns whose mutual information is known."""

    def ours(units: int) -> Callable[[], Any]:
        return lambda: pairwise_mutual_info_ksg(
            X, pairs=pairs[:units], n_neighbors=N_NEIGHBORS, n_jobs=n_jobs, random_state=0
        )

    calls: dict[str, Any] = {OURS: ours}
    for name, estimate in ksg_peers().items():
        calls[name] = None if estimate is None else _one_by_one(estimate, X, pairs)
    present, absent = entrants_of(calls, set(), n_jobs)
    right, wrong = _limits(truths, len(X))
    return Case(
        KSG, data, truth, "pair", len(pairs), present, _against(truths), right, wrong,
        "nats", first=_least_pairs(len(X), pairs), absent=absent, source=source,
    )  # fmt: skip


def brute_ksg(x: Float64, y: Float64, k: int = N_NEIGHBORS) -> float:
    """KSG-1 (Kraskov et al. 2004, equation 8) by its definition: all distances, each with each."""
    from scipy.special import digamma

    n = len(x)
    dx, dy = np.abs(x[:, None] - x), np.abs(y[:, None] - y)
    joint = np.maximum(dx, dy)
    np.fill_diagonal(joint, np.inf)
    radius = np.partition(joint, k - 1, axis=1)[:, k - 1 : k]
    nx, ny = (dx < radius).sum(axis=1) - 1, (dy < radius).sum(axis=1) - 1
    # Among copies of one point the radius is 0, and nothing lies strictly within.
    local = digamma(np.maximum(nx, 0) + 1) + digamma(np.maximum(ny, 0) + 1)
    return float(digamma(k) + digamma(n) - local.mean())


def definition_case(X: Array, pairs: Pairs, data: str, *, n_jobs: int, source: str = "") -> Case:
    """Who computes KSG as it is defined? ``X`` has at most ``MOST_BRUTE`` rows, and no ties.

    All get the columns scaled to a spread of 1 already, which some tools do of themselves and some do not.
    """
    X = X.astype(np.float64)
    X /= X.std(axis=0)
    truths = np.array([brute_ksg(X[:, i], X[:, j]) for i, j in pairs])

    def ours(units: int) -> Callable[[], Any]:
        return lambda: pairwise_mutual_info_ksg(X, pairs=pairs[:units], n_jobs=n_jobs, random_state=0)

    calls: dict[str, Any] = {OURS: ours}
    for name, estimate in ksg_peers().items():
        calls[name] = None if estimate is None else _one_by_one(estimate, X, pairs)
    present, absent = entrants_of(calls, set(), n_jobs)
    return Case(
        KSG, data, "KSG's definition, by brute force in float64", "pair", len(pairs), present,
        _against(truths), constant(1e-3), constant(0.02), "nats", first=_least_pairs(len(X), pairs),
        absent=absent, source=source,
    )  # fmt: skip


def _information(counts: Array) -> float:
    """Plug-in mutual information of a table of counts."""
    p = counts / counts.sum()
    outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / outer[seen])).sum())


def _codes(column: Float64) -> Codes:
    edges = np.linspace(column.min(), column.max(), N_BINS + 1)
    found: Codes = np.clip(np.digitize(column, edges), 1, N_BINS) - 1
    return found


def _from_codes(
    score: Callable[[Codes, Codes], float], X: Array, pairs: Pairs
) -> Callable[[int], Callable[[], Any]]:
    """Bin each column of the pairs once, then score pair after pair."""
    columns = _columns(X, pairs)

    def make(units: int) -> Callable[[], Any]:
        def call() -> list[float]:
            codes = {j: _codes(columns[j]) for pair in pairs[:units] for j in pair}
            return [float(score(codes[i], codes[j])) for i, j in pairs[:units]]

        return call

    return make


def _bincount(a: Codes, b: Codes) -> float:
    counts = np.bincount(a * N_BINS + b, minlength=N_BINS * N_BINS).reshape(N_BINS, N_BINS)
    return _information(counts)


def _histogram2d(x: Float64, y: Float64) -> float:
    return _information(np.histogram2d(x, y, N_BINS)[0])


def binned_case(
    X: Array, pairs: Pairs, truths: Float64, data: str, truth: str, *, n_jobs: int, source: str = ""
) -> Case:
    """Mutual information of 16 bins a column, of pairs whose mutual information is known."""

    def ours(correction: str | None) -> Callable[[int], Callable[[], Any]]:
        return lambda units: (
            lambda: pairwise_mutual_info_binned(
                X, pairs=pairs[:units], n_bins=N_BINS, bias_correction=correction, n_jobs=n_jobs
            )
        )

    metrics = optional("sklearn.metrics")
    calls: dict[str, Any] = {
        OURS: ours(None),
        f"{OURS} (Miller-Madow)": ours("miller-madow"),
        f"{OURS} (permutation mean)": ours("permutation-mean"),
        "np.bincount recipe": _from_codes(_bincount, X, pairs),
        "np.histogram2d recipe": _one_by_one(_histogram2d, X, pairs),
        "scikit-learn": metrics and _from_codes(metrics.mutual_info_score, X, pairs),
    }
    present, absent = entrants_of(calls, set(), n_jobs)
    right, wrong = _limits(truths, len(X))
    return Case(
        BINNED, data, truth, "pair", len(pairs), present, _against(truths), right, wrong,
        "nats", first=_least_pairs(len(X), pairs), absent=absent, source=source,
    )  # fmt: skip
