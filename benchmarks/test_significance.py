"""Permutation tests: all pairs and rounds from one binning or sort, beside loops over the two-column call."""

import os
import warnings

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks import peers

FEW = [(0, 1), (1, 2)]


@pytest.fixture(autouse=True)
def _few_rounds_are_meant():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cannot reach q")
        yield


def features(rng, n, d):
    """Independent Gaussian features."""
    return rng.standard_normal((n, d))


def n_pairs(X):
    d = X.shape[1]
    return d * (d - 1) // 2


def ours_on(X, n_permutations, **options):
    """Our call, for ``race``: every pair of columns."""
    options = {"n_permutations": n_permutations, "random_state": 0, "n_jobs": 1} | options
    return lambda: qf.mutual_info_test(X, **options)


def looped(estimate, X, n_permutations):
    """What one would write without it, for a few pairs; None for a missing peer."""
    if estimate is None:
        return None
    pairs = FEW if X.shape[1] > 2 else FEW[:1]

    def run():
        generator = np.random.default_rng(0)
        means = []
        for i, j in pairs:
            x, y = X[:, i].copy(), X[:, j].copy()
            observed = estimate(x, y)
            draws = np.array([estimate(x, y[generator.permutation(len(y))]) for _ in range(n_permutations)])
            means.append((draws.mean(), (1 + (draws >= observed).sum()) / (1 + n_permutations)))
        return means

    return run, len(pairs) * n_permutations


def bincount_mutual_info(codes_x, codes_y):
    """Plug-in mutual information of columns that are binned already, 16 bins each."""
    joint = np.bincount(codes_x * 16 + codes_y, minlength=256).reshape(16, 16) / len(codes_x)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / expected[seen])).sum())


def binned_peers(X, n_permutations):
    edges = [np.linspace(column.min(), column.max(), 17)[1:-1] for column in X.T]
    codes = np.column_stack([np.digitize(column, edge) for column, edge in zip(X.T, edges, strict=True)])
    return {
        "loop over mutual_info_binned": looped(
            lambda x, y: qf.mutual_info_binned(x, y, n_jobs=1), X, n_permutations
        ),
        "loop over np.bincount, binned once": looped(bincount_mutual_info, codes, n_permutations),
    }


def same_null(results, abs):
    """The mean of the null tells whether a peer does the same work."""
    ours = results["ours"].null_mean
    for name in set(results) - {"ours"}:
        assert results[name][0][0] == pytest.approx(ours[0, 1], abs=abs)


@pytest.mark.parametrize("d", [2, 64])
def test_binned(race, size, rng, d):
    X = features(rng, size(10_000, 300), min(d, size(64, 4)))
    m = size(1000 if d == 2 else 20, 3)
    results = race(
        f"binned, 16 bins, {n_pairs(X):,} pair(s), N={len(X):,}, {m} permutations",
        ours_on(X, m),
        binned_peers(X, size(20, 3)),
        unit="permutation of a pair",
        units=m * n_pairs(X),
    )
    same_null(results, 0.5 * 225 / (2 * len(X)))


@pytest.mark.parametrize("d", [2, 8])
def test_ksg(race, size, rng, d):
    X = features(rng, size(10_000, 300), min(d, size(8, 4)))
    m = size(40 if d == 2 else 5, 3)
    theirs = {
        "loop over mutual_info_ksg": looped(lambda x, y: qf.mutual_info_ksg(x, y, n_jobs=1), X, size(5, 3)),
        "loop over scikit-learn": looped(peers.KSG["scikit-learn"], X, 2),
    }
    results = race(
        f"KSG-1, k=3, {n_pairs(X):,} pair(s), N={len(X):,}, {m} permutations",
        ours_on(X, m, estimator="ksg"),
        theirs,
        unit="permutation of a pair",
        units=m * n_pairs(X),
        rounds=3,
    )
    same_null(results, 0.1)


def test_early_stopping(race, size, rng):
    """A twentieth of the pairs is dependent."""
    X = features(rng, size(2_000, 200), size(32, 6))
    X[:, 1::8] += X[:, ::8]
    m = size(20 * n_pairs(X), 400)
    results = race(
        f"binned, 16 bins, {n_pairs(X):,} pairs, N={len(X):,}, {m:,} permutations, stop_after=10",
        ours_on(X, m, stop_after=10),
        {"every pair in every round": (ours_on(X, size(200, 100)), size(200, 100) / m)},
        rounds=3,
    )
    used = results["ours"].n_permutations_used
    assert used.max() == m
    assert np.median(used[np.triu_indices(len(used), 1)]) <= m / 2


def test_labels(race, size, rng):
    X, labels = features(rng, size(10_000, 300), size(64, 4)), rng.integers(0, 10, size(10_000, 300))
    m = size(20, 3)
    race(
        f"{X.shape[1]} features against 10 classes, Ross's estimator, N={len(X):,}, {m} permutations",
        ours_on(X, m, labels=labels, estimator="ksg"),
        {
            "loop over mutual_info_mixed": (
                lambda: [
                    qf.mutual_info_mixed(X, labels[np.random.default_rng(i).permutation(len(X))], n_jobs=1)
                    for i in range(2)
                ],
                2 * X.shape[1],
            )
        },
        unit="permutation of a feature",
        units=m * X.shape[1],
        rounds=3,
    )


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_two_threads(race, size, rng):
    X = features(rng, size(10_000, 300), size(32, 4))
    m = size(40, 3)
    results = race(
        f"binned, 16 bins, {n_pairs(X):,} pairs, N={len(X):,}, {m} permutations, on two threads",
        ours_on(X, m, n_jobs=2),
        {"one thread": ours_on(X, m)},
        unit="permutation of a pair",
        units=m * n_pairs(X),
    )
    off_diagonal = ~np.eye(X.shape[1], dtype=bool)
    one, two = (results[name].pvalues[off_diagonal] for name in ("one thread", "ours"))
    assert (one == two).all()
