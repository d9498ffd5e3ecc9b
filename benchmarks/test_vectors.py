"""KSG of vectors, and given a third variable: a k-d tree of our own, beside scipy's and whole packages."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import digamma

import qixai_fast as qf
from benchmarks.peers import optional

_npeet = optional("npeet.entropy_estimators")
_ennemi = optional("ennemi")

K = 3
SIZES = [(1_000, 2, 2), (10_000, 2, 2), (10_000, 1, 3), (10_000, 5, 5), (3_000, 10, 10), (100_000, 2, 2)]


def scaled(*variables):
    return [v / v.std(axis=0) for v in variables]


def counts(points, radius):
    """Other points strictly nearer than each point's radius, by the float before it."""
    below = np.nextafter(radius, 0)
    return cKDTree(points).query_ball_point(points, below, p=np.inf, return_length=True) - 1


def tree_radius(*variables):
    joint = np.hstack(variables)
    return cKDTree(joint).query(joint, k=[K + 1], p=np.inf)[0][:, 0]


def tree_ksg(x, y):
    """KSG-1 in a few lines of scipy."""
    x, y = scaled(x, y)
    radius = tree_radius(x, y)
    local = digamma(counts(x, radius) + 1) + digamma(counts(y, radius) + 1)
    return float(digamma(K) + digamma(len(x)) - local.mean())


def tree_conditional(x, y, z):
    """Frenzel and Pompe in a few lines of scipy."""
    x, y, z = scaled(x, y, z)
    radius = tree_radius(x, y, z)
    n_xz, n_yz, n_z = (counts(np.hstack(v), radius) for v in ((x, z), (y, z), (z,)))
    return float(digamma(K) - (digamma(n_xz + 1) + digamma(n_yz + 1) - digamma(n_z + 1)).mean())


def npeet(*variables):
    """NPEET's mi(x, y) or mi(x, y, z); it adds noise from numpy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    return float(_npeet.mi(*scaled(*variables), k=K, base=np.e))


def ennemi_conditional(x, y, z):
    """ennemi, for scalar x and y; it scales, and adds noise."""
    return float(_ennemi.estimate_mi(y[:, 0], x[:, 0], k=K, cond=z, max_threads=1)[0, 0])


def shared_noise(rng, n, *widths):
    """Gaussian vectors whose first components have something in common."""
    common = rng.standard_normal(n)
    variables = [rng.standard_normal((n, width)) for width in widths]
    for variable in variables:
        variable[:, 0] += common
    return variables


def check(results):
    ours = results.pop("ours")
    for theirs in results.values():
        assert theirs == pytest.approx(ours, abs=0.02)


@pytest.mark.parametrize(("n", "d_x", "d_y"), SIZES)
def test_vectors(race, size, rng, n, d_x, d_y):
    x, y = shared_noise(rng, size(n, 200), d_x, d_y)
    theirs = {"scipy cKDTree": lambda: tree_ksg(x, y)}
    if n <= 10_000:  # beyond, NPEET takes minutes
        theirs["NPEET"] = (lambda: npeet(x, y)) if _npeet else None
    results = race(
        f"KSG-1, k={K}, one pair of vectors of {d_x} and {d_y} dimensions, N={len(x):,}",
        lambda: qf.mutual_info_ksg(x, y, n_neighbors=K, n_jobs=1),
        theirs,
        rounds=3,
    )
    check(results)


@pytest.mark.parametrize("d_z", [1, 3])
@pytest.mark.parametrize("n", [1_000, 10_000])
def test_conditional(race, size, rng, n, d_z):
    x, y, z = shared_noise(rng, size(n, 200), 1, 1, d_z)
    results = race(
        f"conditional KSG, k={K}, scalars x and y given z of {d_z} dimension{'s' * (d_z > 1)}, N={len(x):,}",
        lambda: qf.conditional_mutual_info_ksg(x, y, z, n_neighbors=K, n_jobs=1),
        {
            "scipy cKDTree": lambda: tree_conditional(x, y, z),
            "NPEET": (lambda: npeet(x, y, z)) if _npeet else None,
            "ennemi": (lambda: ennemi_conditional(x, y, z)) if _ennemi else None,
        },
        rounds=3,
    )
    check(results)


def test_threads_of_vectors(race, size, rng):
    x, y = shared_noise(rng, size(50_000, 500), 3, 3)
    race(
        f"KSG-1 of vectors of 3 and 3 dimensions, N={len(x):,}, two threads",
        lambda: qf.mutual_info_ksg(x, y, n_jobs=2),
        {"one thread": lambda: qf.mutual_info_ksg(x, y, n_jobs=1)},
        rounds=3,
    )
