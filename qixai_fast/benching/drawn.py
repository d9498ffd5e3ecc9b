"""Data that are drawn here, with a truth that is known: what a bench without a store runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .._validate import Array, Float64
from .attributions import gradients_case
from .cases import Case
from .information import binned_case, ksg_case
from .similarity import cka_case, cosine_case, top_k_case
from .spectrum import spectrum_case
from .truths import block_pairs, cut_gaussian, normals

Step = Callable[[], Case | None]

BLOCKS = [(6, 0.6), (6, 0.9)]
_PAIRS = 45
_OFFSET = 100.0


def _after(kind: str, X: Float64) -> Array:
    """Standard normal columns as activations come: plain, rectified, in half precision, far from zero."""
    if kind == "after ReLU":
        return np.asarray(np.maximum(X, 0), dtype=np.float32)
    if kind == "float16":
        return np.asarray(X, dtype=np.float16)
    if kind == "offset of 100 spreads":
        return np.asarray(X + _OFFSET * X.std(), dtype=np.float32)
    return np.asarray(X, dtype=np.float32)


KINDS = ("plain", "after ReLU", "float16", "offset of 100 spreads")


def _layer(rng: np.random.Generator, n: int, d: int) -> Float64:
    """A layer: 60 directions of variance 1 / i^2, and noise, scaled to an overall spread of 1."""
    mix = rng.standard_normal((60, d)) / np.arange(1, 61)[:, None]
    X = rng.standard_normal((n, 60)) @ mix + 0.1 * rng.standard_normal((n, d))
    scaled: Float64 = X / X.std()
    return scaled


def sizes(seconds: float) -> tuple[list[int], tuple[int, int], int]:
    """Numbers of samples for mutual information, the shape of a layer, and rows for cosines, by the time."""
    if seconds < 5:
        return [300], (1000, 32), 200
    if seconds < 30:
        return [1000], (2000, 64), 500
    if seconds < 240:
        return [1000, 10_000], (20_000, 128), 2000
    return [1000, 10_000, 100_000], (50_000, 512), 4000


def steps(seconds: float, *, n_jobs: int, seed: int) -> Iterator[Step]:
    """All cases, each made when it is called for."""
    many, (n, d), rows = sizes(seconds)
    pairs, rhos = block_pairs(BLOCKS, _PAIRS)

    def pairs_data(kind: str, size: int) -> tuple[Array, Float64]:
        share = 0.5 if kind == "after ReLU" else 0.0
        truths = np.array([cut_gaussian(rho, share, share) for rho in rhos])
        return _after(kind, normals(np.random.default_rng([seed, size]), size, BLOCKS)), truths

    def information(kind: str, size: int, make: Callable[..., Case]) -> Step:
        def step() -> Case:
            X, truths = pairs_data(kind, size)
            truth = "closed form, correlations 0, 0.6 and 0.9; error: root mean square over the pairs"
            return make(X, pairs, truths, f"{kind}, N={size:,}", truth, n_jobs=n_jobs)

        return step

    def layer(kind: str) -> Array:
        return _after(kind, _layer(np.random.default_rng([seed, 1]), n, d))

    for make in (ksg_case, binned_case):
        for kind in KINDS:
            for size in many:
                yield information(kind, size, make)
    for kind in KINDS:
        yield lambda kind=kind: spectrum_case(layer(kind), f"{kind}, {n:,} x {d}", n_jobs=n_jobs, seed=seed)  # type: ignore[misc]
    for compare in (cosine_case, top_k_case):
        for kind in KINDS:
            yield lambda kind=kind, compare=compare: _rows_case(compare, layer(kind), rows, kind, n_jobs)  # type: ignore[misc]
    for kind in KINDS:
        yield lambda kind=kind: _two_layers(kind, n // 4, d, n_jobs, seed)  # type: ignore[misc]
    yield lambda: gradients_case(64, 64, n_jobs=n_jobs, seed=seed)


def _rows_case(compare: Callable[..., Case], X: Array, rows: int, kind: str, n_jobs: int) -> Case:
    rows = min(rows, len(X) // 2)
    data = f"{kind}, {rows:,} x {rows:,} rows of {X.shape[1]}"
    return compare(X[:rows], X[rows : 2 * rows], data, n_jobs=n_jobs)


def _two_layers(kind: str, n: int, d: int, n_jobs: int, seed: int) -> Case:
    rng = np.random.default_rng([seed, 2])
    first = _layer(rng, n, d)
    second = first @ rng.standard_normal((d, d)) / np.sqrt(d) + 0.5 * rng.standard_normal((n, d))
    data = f"{kind}, {n:,} samples of {d} and {d} features"
    return cka_case(_after(kind, first), _after(kind, second), data, n_jobs=n_jobs)
