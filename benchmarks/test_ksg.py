"""KSG: neighbour search of two scalars, beside the tools that a user would pick."""

import math
import os

import numpy as np
import pytest
from scipy.special import ndtr

import qixai_fast as qf
from benchmarks import peers

FEW = [(0, 1), (1, 2)]


def gaussian_features(rng, n, d, correlation=0.5):
    """Features that all have the same correlation with one another."""
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, d))
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own


def n_pairs(X):
    d = X.shape[1]
    return d * (d - 1) // 2


def all_pairs(X, **options):
    """Our call, for ``race``: every pair of columns."""
    pairs = np.stack(np.triu_indices(X.shape[1], 1), axis=1)
    return lambda: qf.pairwise_mutual_info_ksg(X, pairs=pairs, **({"n_jobs": 1} | options))


def same_values(results):
    """Peers do (0, 1) and (1, 2); where those stand among ours depends on the number of features."""
    ours = results.pop("ours")
    d = (1 + math.isqrt(1 + 8 * len(ours))) // 2
    few = [ours[0], ours[d - 1]]
    for theirs in results.values():
        assert theirs == pytest.approx(few, abs=0.02)


def test_all_pairs(race, size, rng):
    X = gaussian_features(rng, size(10_000, 300), size(64, 4))
    theirs = {name: peers.on_pairs(call, X, FEW) for name, call in peers.KSG.items()}
    theirs["scikit-learn, its inner function"] = peers.on_pairs(peers.SKLEARN_INNER, X / X.std(axis=0), FEW)
    results = race(
        f"KSG-1, k=3, all {n_pairs(X):,} pairs of {X.shape[1]} Gaussian features, N={len(X):,}",
        all_pairs(X),
        theirs,
        least={"scikit-learn": 100, "cKDTree + searchsorted": 35},
        unit="pair",
        units=n_pairs(X),
    )
    same_values(results)


def test_long_columns(race, size, rng):
    X = gaussian_features(rng, size(100_000, 1_000), 8)
    results = race(
        f"the same, {n_pairs(X)} pairs, N={len(X):,}",
        all_pairs(X),
        {name: peers.on_pairs(call, X, FEW) for name, call in peers.KSG.items()},
        least={"NPEET": 80},
        unit="pair",
        units=n_pairs(X),
        rounds=3,
    )
    same_values(results)


def test_cost_a_point(race, size, rng):
    X = gaussian_features(rng, size(1_000_000, 3_000), 4)
    lengths = [len(X) // 100, len(X) // 10]
    race(
        f"the same, {n_pairs(X)} pairs, N={len(X):,}: cost a point no more than log N above shorter columns",
        all_pairs(X),
        {f"N={n:,}": (all_pairs(X[:n]), n * n_pairs(X)) for n in lengths},
        least={f"N={lengths[0]:,}": math.log(lengths[0]) / math.log(len(X))},
        unit="point",
        units=X.shape[0] * n_pairs(X),
        rounds=3,
    )


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_two_threads(race, size, rng):
    X = gaussian_features(rng, size(10_000, 300), size(32, 4))
    results = race(
        f"the same on two threads, {n_pairs(X)} pairs, N={len(X):,}",
        all_pairs(X, n_jobs=2),
        {"one thread": all_pairs(X)},
        least={"one thread": 1.8},
        unit="pair",
        units=n_pairs(X),
    )
    assert (results["ours"] == results["one thread"]).all()


def with_ties(rng, X):
    """Each column with a fifth of its values taken from another sample."""
    take = rng.random(X.shape) < 0.2
    return np.where(take, np.take_along_axis(X, rng.integers(len(X), size=X.shape), axis=0), X)


def student(rng, X):
    """Multivariate Student t, one degree of freedom."""
    return X / np.abs(rng.standard_normal((len(X), 1)))


def bfloat16(X):
    """Rounded to bfloat16, as a torch tensor; skips without torch."""
    torch = pytest.importorskip("torch")
    return torch.from_numpy(X).to(torch.bfloat16)


DATA = {
    "Student t, nu=1": student,
    "after ReLU": lambda rng, X: np.maximum(X, 0),
    "20 % ties": with_ties,
    "uniform": lambda rng, X: ndtr(X),
    "correlation .999": lambda rng, X: gaussian_features(rng, *X.shape, correlation=0.999),
}
LATTICES = {
    "float16": lambda X: X.astype(np.float16),
    "bfloat16": bfloat16,
}
OPTIONS = {
    "k=5": ({"n_neighbors": 5}, 1 / 3),
    "k=10": ({"n_neighbors": 10}, 1 / 4),
    "KSG-2": ({"algorithm": 2}, None),
}


STANDARD = "ours on Gaussian features, k=3"


def beside_gaussian(race, size, rng, row, make, least, **options):
    """One row of the other data and options: beside k=3 on float64 Gaussian features, and scikit-learn."""
    gaussian = gaussian_features(rng, size(10_000, 300), size(16, 4))
    X = make(gaussian)
    theirs = {STANDARD: all_pairs(gaussian)}
    if options.get("algorithm") != 2:  # which scikit-learn does not have
        same = (X if isinstance(X, np.ndarray) else X.float().numpy()).astype(np.float64)
        k = options.get("n_neighbors", 3)
        theirs["scikit-learn"] = peers.on_pairs(peers.KSG["scikit-learn"], same, FEW, k=k)
    race(
        f"{row}, {n_pairs(gaussian)} pairs, N={len(X):,}",
        all_pairs(X, **options),
        theirs,
        least={} if least is None else {STANDARD: least},
        unit="pair",
        units=n_pairs(gaussian),
    )


@pytest.mark.parametrize("kind", DATA)
def test_other_data(race, size, rng, kind):
    beside_gaussian(race, size, rng, kind, lambda X: DATA[kind](rng, X), 1 / 3)


@pytest.mark.parametrize("kind", LATTICES)
def test_half_precision(race, size, rng, kind):
    beside_gaussian(race, size, rng, f"{kind}: spread over its lattice", LATTICES[kind], None)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(race, size, rng, name):
    options, least = OPTIONS[name]
    beside_gaussian(race, size, rng, f"Gaussian, {name}", lambda X: X, least, **options)
