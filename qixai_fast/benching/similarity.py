"""Cases of cosine similarity: all rows with all rows, the nearest of each row, and CKA of two layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import cosine_similarity, cosine_top_k, linear_cka
from .._validate import Array, Float64
from .cases import OURS, Case, Score, constant, entrants_of, largest_error, whole
from .peers import optional

COSINE, TOP_K, CKA = "cosine similarity", "nearest rows by cosine", "CKA of two layers"
K = 10
# n x n matrices of kernels are the textbook's way to CKA, and take 8 n^2 bytes each.
_MOST_GRAM = 2500


def _wide(X: Array) -> Array:
    """float32 of half precision, for tools that have no such type."""
    return X.astype(np.float32) if X.dtype == np.float16 else X


def _unit_rows(X: Array) -> Array:
    return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))


def true_cosines(X: Array, Y: Array) -> Float64:
    """All cosines in float64; 0 for rows of zeros."""
    unit = []
    for rows in (X.astype(np.float64), Y.astype(np.float64)):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit.append(rows / np.where(norms > 0, norms, 1))
    cosines: Float64 = unit[0] @ unit[1].T
    return cosines


def _torch_unit(torch: Any, X: Array) -> Any:
    return torch.nn.functional.normalize(torch.from_numpy(_wide(X)), dim=1)


def cosine_case(X: Array, Y: Array, data: str, *, n_jobs: int, source: str = "") -> Case:
    """Rows of X with all rows of Y."""
    truth = true_cosines(X, Y)
    pairwise, torch = optional("sklearn.metrics.pairwise"), optional("torch")
    calls: dict[str, Any] = {
        OURS: lambda m: lambda: cosine_similarity(X[:m], Y, n_jobs=n_jobs),
        "scikit-learn": pairwise and (lambda m: lambda: pairwise.cosine_similarity(X[:m], Y)),
        "torch recipe": torch
        and (lambda m: lambda: (_torch_unit(torch, X[:m]) @ _torch_unit(torch, Y).T).numpy()),
        "numpy recipe": lambda m: lambda: _unit_rows(X[:m]) @ _unit_rows(Y).T,
    }
    present, absent = entrants_of(calls, set(calls), n_jobs)

    def score(values: Any, units: int) -> Score:
        return largest_error(values, truth[:units])

    return Case(
        COSINE, data, "float64 cosines; error: the largest one", "row", len(X), present, score,
        constant(1e-5), constant(1e-2), first=max(1, len(X) // 10), absent=absent, source=source,
    )  # fmt: skip


def _partition(X: Array, Y: Array) -> Array:
    similarities = _unit_rows(X) @ _unit_rows(Y).T
    best = np.argpartition(similarities, -K, axis=1)[:, -K:]
    order = np.argsort(-np.take_along_axis(similarities, best, axis=1), axis=1)
    return np.asarray(np.take_along_axis(best, order, axis=1))


def _faiss_neighbours(faiss: Any, X: Array, Y: Array) -> Array:
    unit = [np.ascontiguousarray(rows, dtype=np.float32).copy() for rows in (X, Y)]
    for rows in unit:
        faiss.normalize_L2(rows)
    index = faiss.IndexFlatIP(Y.shape[1])
    index.add(unit[1])
    return np.asarray(index.search(unit[0], K)[1])


def _sklearn_neighbours(neighbors: Any, X: Array, Y: Array) -> Array:
    fitted = neighbors.NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(Y)
    return np.asarray(fitted.kneighbors(X, return_distance=False))


def missed(neighbours: Any, truth: Float64) -> float:
    """Share of the neighbours that are not among the true ones; ties with the last true one are no misses."""
    neighbours = np.asarray(neighbours)
    if neighbours.shape != (len(truth), K) or (np.diff(np.sort(neighbours, axis=1)) == 0).any():
        return float("nan")
    last = -np.partition(-truth, K - 1, axis=1)[:, K - 1 : K]
    chosen = np.take_along_axis(truth, neighbours.astype(np.int64), axis=1)
    # Two roundings of float64: equal rows are equally near.
    return float((chosen < last - 4e-16).mean())


def _shortfall(neighbours: Any, truth: Float64) -> str:
    """How much less similar than the true neighbours the chosen ones are: rounding, or another row?"""
    last = -np.partition(-truth, K - 1, axis=1)[:, K - 1]
    chosen = np.take_along_axis(truth, np.asarray(neighbours).astype(np.int64), axis=1)
    return f"their cosines short by {np.max(last - chosen.min(axis=1)):.0e} at most"


def top_k_case(X: Array, Y: Array, data: str, *, n_jobs: int, source: str = "") -> Case:
    """The 10 rows of Y nearest to each row of X."""
    truth = true_cosines(X, Y)
    neighbors, torch, faiss = optional("sklearn.neighbors"), optional("torch"), optional("faiss")

    def torch_neighbours(m: int) -> Array:
        similarities = _torch_unit(torch, X[:m]) @ _torch_unit(torch, Y).T
        return np.asarray(torch.topk(similarities, K, dim=1).indices.numpy())

    calls: dict[str, Any] = {
        OURS: lambda m: lambda: cosine_top_k(X[:m], Y, k=K, n_jobs=n_jobs)[1],
        "faiss IndexFlatIP": faiss and (lambda m: lambda: _faiss_neighbours(faiss, X[:m], Y)),
        "scikit-learn": neighbors and (lambda m: lambda: _sklearn_neighbours(neighbors, X[:m], Y)),
        "torch recipe": torch and (lambda m: lambda: torch_neighbours(m)),
        "numpy recipe": lambda m: lambda: _partition(X[:m], Y),
    }
    present, absent = entrants_of(calls, set(calls), n_jobs)

    def score(neighbours: Any, units: int) -> Score:
        error = missed(neighbours, truth[:units])
        return Score(error, _shortfall(neighbours, truth[:units]) if error > 0 else "")

    return Case(
        TOP_K, data, f"the {K} nearest by float64; error: share of the neighbours that are wrong",
        "row", len(X), present, score, constant(0.01), constant(0.1), first=max(1, len(X) // 10),
        absent=absent, source=source,
    )  # fmt: skip


def true_cka(X: Array, Y: Array) -> float:
    """Linear CKA in float64, about the means."""
    return _features_cka(X.astype(np.float64), Y.astype(np.float64))


def _features_cka(X: Array, Y: Array) -> float:
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    return float(np.linalg.norm(X.T @ Y) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)))


def _gram_cka(X: Array, Y: Array) -> float:
    centred = []
    for K_ in (X @ X.T, Y @ Y.T):
        rows = K_.mean(axis=0)
        centred.append(K_ - rows - rows[:, None] + rows.mean())
    a, b = centred
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def _torch_cka(torch: Any, X: Array, Y: Array) -> float:
    x, y = (torch.from_numpy(_wide(rows)) for rows in (X, Y))
    x, y = x - x.mean(0), y - y.mean(0)
    norm: Callable[[Any], Any] = torch.linalg.norm
    return float(norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


def cka_case(
    X: Array, Y: Array, data: str, *, n_jobs: int, independent: bool = False, source: str = ""
) -> Case:
    """Linear CKA, against float64; of independent layers, whose rows were shuffled, against 0."""
    torch = optional("torch")
    calls: dict[str, Any] = {
        OURS: whole(lambda: linear_cka(X, Y, n_jobs=n_jobs)),
        "numpy recipe (features)": whole(lambda: _features_cka(_wide(X), _wide(Y))),
        "torch recipe (features)": torch and whole(lambda: _torch_cka(torch, X, Y)),
    }
    if len(X) <= _MOST_GRAM:
        calls["numpy recipe (kernels)"] = whole(lambda: _gram_cka(_wide(X), _wide(Y)))
    if independent:
        debiased = whole(lambda: linear_cka(X, Y, debiased=True, n_jobs=n_jobs))
        calls = {OURS: calls.pop(OURS), f"{OURS} (debiased)": debiased, **calls}
    present, absent = entrants_of(calls, set(calls), n_jobs)
    truth = 0.0 if independent else true_cka(X, Y)

    def score(value: Any, units: int) -> Score:
        return Score(abs(float(value) - truth), f"value {float(value):.3f}" if independent else "")

    limits = (0.02, 0.1) if independent else (1e-4, 1e-2)
    words = "0: rows shuffled against each other" if independent else f"float64: {truth:.4f}"
    return Case(
        CKA, data, words, "call", 1, present, score, constant(limits[0]), constant(limits[1]), absent=absent,
        source=source,
    )  # fmt: skip
