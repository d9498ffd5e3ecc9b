"""KSG of vectors, through a k-d tree: against brute force and closed forms."""

import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast.mutual_info.neighbours import Tree, just_below
from qixai_fast.mutual_info.pairs import digamma_table, pair_local
from qixai_fast.mutual_info.pairwise import Options
from qixai_fast.mutual_info.variables import Jitter
from qixai_fast.mutual_info.vectors import vector_local


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.sampled_from([(1, 2), (2, 1), (3, 2)]),
    st.sampled_from([1, 3, 50, 10**6]),
    st.sampled_from([1, 2]),
)
def test_equals_brute_force(seed, n, widths, levels, algorithm):
    rng = np.random.default_rng(seed)
    x, y = (0.1 * rng.integers(-levels, levels + 1, (n, width)) for width in widths)
    k = int(rng.integers(1, n))
    value, local = qf.mutual_info_ksg(
        x, y, n_neighbors=k, algorithm=algorithm, scale=None, atoms="none", return_local=True
    )
    expected = reference.ksg_local(x, y, k, algorithm)
    np.testing.assert_allclose(local, expected, rtol=0, atol=1e-12)
    assert value == local.mean()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 700), st.integers(1, 6), st.sampled_from([1, 3, 50, 10**6]))
def test_tree_equals_brute_force(seed, n, d, levels):
    rng = np.random.default_rng(seed)
    points = 0.1 * rng.integers(-levels, levels + 1, (n, d))
    points[:, 0] *= rng.choice([0.0, 1.0, 1e-300, 1e300])
    k = int(rng.integers(1, min(n, rng.choice([4, 12, 40, 1000]))))
    distances = reference.max_norm_distances(points)
    tree = Tree.of(points)
    radius = tree.radii(k, 1)
    np.testing.assert_array_equal(radius, np.sort(distances, axis=1)[:, k - 1])
    np.testing.assert_array_equal(tree.counts(radius, 1), (distances <= radius[:, None]).sum(axis=1))
    np.testing.assert_array_equal(
        tree.counts(just_below(radius), 1), (distances < radius[:, None]).sum(axis=1)
    )
    # Radii that hold whole boxes, all points, and none.
    largest = np.finfo(np.float64).max
    for width in (rng.uniform(0, 1, n) * np.ptp(points, axis=0).max(), np.full(n, largest), np.full(n, -1.0)):
        np.testing.assert_array_equal(tree.counts(width, 1), (distances <= width[:, None]).sum(axis=1))
    if d > 1:
        sides = tree.axis_radii(1, radius, 1)
        for side, columns in zip(sides, (points[:, :1], points[:, 1:]), strict=True):
            gaps = np.abs(columns[:, None] - columns[None]).max(axis=2)
            np.testing.assert_array_equal(side, np.where(distances <= radius[:, None], gaps, 0).max(axis=1))


@pytest.mark.parametrize(
    "shape", ["sorted", "organ pipe", "heavy tails", "one line", "half zeros", "clusters"]
)
def test_tree_of_awkward_points(shape):
    rng = np.random.default_rng(0)
    n = 20_000
    points = rng.standard_normal((n, 3))
    if shape == "sorted":
        points = np.sort(points, axis=0)
    elif shape == "organ pipe":
        points[:, 0] = np.minimum(np.arange(n), n - np.arange(n))
    elif shape == "heavy tails":
        points = rng.standard_cauchy((n, 3)) ** 3
    elif shape == "one line":
        points = points[:, :1] * [1.0, 1.0 + 1e-9, -2.0]
    elif shape == "half zeros":
        points = np.maximum(points, 0)
    else:
        points = rng.integers(0, 3, (n, 3)) * 1e9 + points
    tree = Tree.of(points)
    radius = tree.radii(3, 2)
    counts = tree.counts(just_below(radius), 2)
    for i in rng.choice(n, 50):
        distances = np.abs(points - points[i]).max(axis=1)
        distances[i] = np.inf
        assert radius[i] == np.partition(distances, 2)[2]
        assert counts[i] == (distances < radius[i]).sum()


@pytest.mark.parametrize("algorithm", [1, 2])
def test_gaussian_vectors(algorithm):
    covariance = np.eye(4)
    covariance[0, 2] = covariance[2, 0] = 0.7
    covariance[1, 3] = covariance[3, 1] = -0.5
    values = []
    for seed in range(3):
        z = np.random.default_rng(seed).multivariate_normal(np.zeros(4), covariance, 3000)
        values.append(qf.mutual_info_ksg(z[:, :2], 100 * z[:, 2:], algorithm=algorithm))
    truth = -0.5 * np.log(1 - 0.49) - 0.5 * np.log(1 - 0.25)
    assert np.mean(values) == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "atoms", "half"])
def test_one_dimension_agrees_with_scalars(algorithm, kind):
    x, y = np.random.default_rng(1).standard_normal((2, 400))
    x, y = x + y, y
    if kind == "atoms":
        x, y = np.clip(x, 0, 1), np.maximum(y, -0.2)
    elif kind == "half":
        x, y = x.astype(np.float16).astype(float), y.astype(np.float16).astype(float)
    options, jitter, psi = Options(3, algorithm, "std", "auto", 0), Jitter(0, 400), digamma_table(400)
    first, second = (options.prepare(values, "x", values.dtype, jitter) for values in (x, y))
    np.testing.assert_allclose(
        vector_local([first], [second], 3, algorithm, psi, 2),
        pair_local(first, second, 3, algorithm, psi),
        rtol=0,
        atol=1e-12,
    )


def test_atoms_of_each_component():
    # Independent blocks: I((A, B); (C, D)) = I(A; C) + I(B; D), and B is a sign that D shares in part.
    rng = np.random.default_rng(2)
    n = 6000
    a, b, noise, other = rng.standard_normal((4, n))
    c = 0.6 * a + 0.8 * noise
    sign = np.sign(b)
    copied = np.where(other > 0.5, -sign, sign)
    x, y = np.stack([np.maximum(a, 0), sign], axis=1), np.stack([np.maximum(c, 0), copied], axis=1)
    flips = np.mean(other > 0.5)
    truth = 0.1528436781 + np.log(2) + flips * np.log(flips) + (1 - flips) * np.log(1 - flips)
    assert qf.mutual_info_ksg(x, y) == pytest.approx(truth, abs=0.03)


def test_symmetry_threads_and_scale():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1500, 2))
    y = np.maximum(x[:, :1] + rng.standard_normal((1500, 3)), 0)
    for algorithm in (1, 2):
        value = qf.mutual_info_ksg(x, y, algorithm=algorithm, n_jobs=1)
        assert qf.mutual_info_ksg(y, x, algorithm=algorithm, n_jobs=4) == value
        assert qf.mutual_info_ksg(x * [1e-6, 1e6], y, algorithm=algorithm) == pytest.approx(value, abs=1e-12)
    half = x.astype(np.float16)
    assert (
        qf.mutual_info_ksg(half, y)
        == qf.mutual_info_ksg(y, half)
        == qf.mutual_info_ksg(half, y, random_state=0)
    )
    assert qf.mutual_info_ksg(half, y) != qf.mutual_info_ksg(half, y, random_state=1)


def test_constant_vector_is_zero():
    x = np.random.default_rng(0).standard_normal((100, 2))
    for atoms in ("auto", "none"):
        assert qf.mutual_info_ksg(x, np.ones((100, 2)), atoms=atoms) == 0.0


def test_atoms_in_many_components():
    # 2^6 cells on either side: only those that occur are visited.
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((3000, 6)), 0)
    value = qf.mutual_info_ksg(x, np.maximum(rng.standard_normal((3000, 6)), 0))
    assert np.isfinite(value)
    discrete = rng.integers(0, 3, (3000, 2))
    table = reference.joint_counts(3 * discrete[:, 0] + discrete[:, 1], np.sum(discrete, axis=1), (9, 5))
    assert qf.mutual_info_ksg(discrete, discrete.sum(axis=1)) == pytest.approx(
        reference.mutual_info_plugin(table), abs=1e-12
    )


def test_bad_input_and_budget():
    x = np.random.default_rng(0).standard_normal((40_000, 3))
    bad = x.copy()
    bad[7, 1] = np.inf
    with pytest.raises(ValueError, match="x: inf at row 7, column 1"):
        qf.mutual_info_ksg(bad, x)
    y = np.maximum(x, 0).astype(np.float32)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        qf.mutual_info_ksg(x, y, max_memory="1MB")
    expected = qf.mutual_info_ksg(x, y)
    tracemalloc.start()
    assert qf.mutual_info_ksg(x, y, max_memory=caught.value.required) == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < caught.value.required
