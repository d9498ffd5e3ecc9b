"""Cosine similarity: beside the product of matrices that it cannot do without, and scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

import qixai_fast as qf


def layers(rng, size, dtype):
    """Two layers of 512 features; quick ones are smaller."""
    d = size(512, 32)
    shapes = (size(20_000, 300), d), (size(2_000, 100), d)
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype) for shape in shapes]


def work(X, Y, what):
    return f"{what}, {len(X):,} x {len(Y):,} rows of {X.shape[1]} {X.dtype} features"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_full_matrix(race, size, rng, dtype):
    X, Y = layers(rng, size, dtype)
    results = race(
        work(X, Y, "cosine_similarity"),
        lambda: qf.cosine_similarity(X, Y, n_jobs=1),
        {"X @ Y.T": lambda: X @ Y.T, "scikit-learn": lambda: sklearn_cosine(X, Y)},
        least={"X @ Y.T": 1 / 1.1} if dtype is np.float32 else None,
    )
    np.testing.assert_allclose(results["ours"], results["scikit-learn"], atol=1e-5)


def test_half_precision(race, size, rng):
    X, Y = layers(rng, size, np.float16)
    wide_x, wide_y = X.astype(np.float32), Y.astype(np.float32)
    results = race(
        work(X, Y, "cosine_similarity"),
        lambda: qf.cosine_similarity(X, Y, n_jobs=1),
        {
            "X @ Y.T of float32 copies": lambda: wide_x @ wide_y.T,
            "scikit-learn": lambda: sklearn_cosine(X, Y),
        },
        least={"X @ Y.T of float32 copies": 1 / 1.1, "scikit-learn": 1.7},
    )
    np.testing.assert_allclose(results["ours"], results["scikit-learn"], atol=1e-5)


def test_rows_with_themselves(race, size, rng):
    X = layers(rng, size, np.float32)[0][: size(8_000, 200)]
    race(
        f"cosine_similarity, {len(X):,} rows of {X.shape[1]} float32 features with themselves",
        lambda: qf.cosine_similarity(X, n_jobs=1),
        {"X @ X.T": lambda: X @ X.T, "scikit-learn": lambda: sklearn_cosine(X)},
    )


def partition(similarities, k):
    """The usual recipe for the k best of each row, from the full matrix."""
    best = np.argpartition(similarities, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(similarities, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def test_top_k(race, size, rng):
    X, Y = layers(rng, size, np.float32)
    results = race(
        work(X, Y, "cosine_top_k, k=10"),
        lambda: qf.cosine_top_k(X, Y, k=10, n_jobs=1),
        {
            "X @ Y.T": lambda: X @ Y.T,
            "scikit-learn and argpartition": lambda: partition(sklearn_cosine(X, Y), 10),
        },
        least={"X @ Y.T": 1 / 1.4},
    )
    same = results["ours"][1] == results["scikit-learn and argpartition"]
    assert same.mean() > 0.99
    tracemalloc.start()
    qf.cosine_top_k(X, Y, k=10, n_jobs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    race.bound("megabytes that it takes at most; the full matrix has 160", peak / 1e6, most=40)


def test_feature_maps(race, size, rng):
    X = rng.standard_normal((size(50_000, 500), size(1_024, 24))).astype(np.float32)
    Y = X[:, :: size(8, 2)] + rng.standard_normal((len(X), X.shape[1] // size(8, 2))).astype(np.float32)
    wide_x, wide_y = X.astype(np.float64), Y.astype(np.float64)
    results = race(
        f"cosine_similarity, centred maps: {X.shape[1]:,} and {Y.shape[1]}, N={len(X):,}, float32",
        lambda: qf.cosine_similarity(X, Y, axis=0, center=True, n_jobs=1),
        {
            "X.T @ Y of float64 copies": lambda: wide_x.T @ wide_y,
            "numpy.corrcoef of both": lambda: np.corrcoef(X, Y, rowvar=False),
        },
    )
    both = results["numpy.corrcoef of both"][: X.shape[1], X.shape[1] :]
    np.testing.assert_allclose(results["ours"], both, atol=1e-6)
