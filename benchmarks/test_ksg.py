"""KSG: neighbour search of two scalars, beside the tools that a user would pick."""

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks import peers


def gaussian_features(rng, n, d):
    """Features that all depend on one another: half of each is common."""
    return (rng.standard_normal((n, 1)) + rng.standard_normal((n, d))) / np.sqrt(2)


def test_all_pairs(race, size, rng):
    d = size(64, 4)
    X = gaussian_features(rng, size(10_000, 300), d)
    few = [(0, 1), (1, 2)]
    results = race(
        f"KSG-1, k=3, all {d * (d - 1) // 2:,} pairs of {d} Gaussian features, N={len(X):,}",
        lambda: qf.pairwise_mutual_info_ksg(X, n_jobs=1),
        {name: peers.on_pairs(call, X, few) for name, call in peers.KSG.items()},
        least={"scikit-learn": 100, "cKDTree + searchsorted": 35},
        unit="pair",
        units=d * (d - 1) // 2,
        rounds=3,
    )
    values = results.pop("ours")
    ours = [values[i, j] for i, j in few]
    for theirs in results.values():
        assert theirs == pytest.approx(ours, abs=0.02)
