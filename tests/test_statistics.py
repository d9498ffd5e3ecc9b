"""The leaf tree and the cross moments of several matrices."""

import itertools
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast._validate import as_matrix
from qixai_fast.statistics import (
    ShiftedMoments,
    combine_tree,
    cross_moments,
    finalize_moments,
    leaf_bounds,
    leaf_rows,
    leaf_shift,
)


def fraction_away(actual, expected):
    """Largest difference relative to the largest expected value."""
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-300)


def test_leaf_rows_are_powers_of_two_within_limits():
    for width in (1, 3, 100, 512, 5000, 10**6):
        for dtype in ("float16", "float32", "float64"):
            rows = leaf_rows(width, np.dtype(dtype))
            assert rows & (rows - 1) == 0
            assert 32 <= rows <= 32768
    assert leaf_rows(512, np.dtype("float32")) == 2048
    assert leaf_rows(512, np.dtype("float64")) == 1024


def test_leaf_bounds_cover_every_row_once():
    matrices = [as_matrix(np.zeros((70001, 3), np.float16)), as_matrix(np.zeros((70001, 5)))]
    bounds = leaf_bounds(matrices)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 70001
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
    assert bounds[0][1] == leaf_rows(8, np.dtype("float64"))


@pytest.mark.parametrize(
    ("leaves", "tree"),
    [(1, "0"), (2, "(01)"), (3, "((01)2)"), (4, "((01)(23))"), (7, "(((01)(23))((45)6))")],
)
def test_the_tree_is_fixed_by_leaf_index(leaves, tree):
    assert combine_tree((str(i) for i in range(leaves)), lambda a, b: f"({a}{b})") == tree


def test_the_tree_holds_few_partials():
    alive = []
    most = 0

    class Partial:
        def __init__(self):
            nonlocal most
            alive.append(self)
            most = max(most, len(alive))

    def combine(first, second):
        alive.remove(second)
        return first

    combine_tree((Partial() for _ in range(1000)), combine)
    assert most <= 12
    with pytest.raises(ValueError, match="at least one partial"):
        combine_tree([], combine)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_moments_equal_the_definition(n, widths, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(10 * rng.normal(), 1 + rng.random(), (n, d)) for d in widths]
    moments = cross_moments([as_matrix(a) for a in arrays])
    assert moments.n == n
    for i, first in enumerate(arrays):
        np.testing.assert_allclose(moments.mean_of(i), first.mean(axis=0), rtol=1e-13, atol=1e-13)
        for j, second in enumerate(arrays):
            centred = (first - first.mean(axis=0)).T @ (second - second.mean(axis=0))
            assert np.abs(moments.block(i, j) - centred).max() <= 1e-11 * n
            assert np.abs(moments.raw_block(i, j) - first.T @ second).max() <= 1e-11 * n * 100
    np.testing.assert_array_equal(moments.scatter, moments.scatter.T)


def test_offset_float32_data_keep_their_spread():
    rng = np.random.default_rng(0)
    X = (1000 + rng.normal(size=(40000, 30))).astype(np.float32)
    exact = X.astype(np.longdouble)
    exact = exact - exact.mean(axis=0)
    moments = cross_moments([as_matrix(X)])
    assert fraction_away(moments.block(0, 0), (exact.T @ exact).astype(float)) < 1e-12


def test_constant_and_zero_columns_are_exact():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(5000, 3))
    X[:, 1] = 0.1
    X[:, 2] = 0.0
    moments = cross_moments([as_matrix(X)])
    assert np.all(moments.block(0, 0)[1:] == 0)
    assert moments.mean[1] == 0.1
    assert np.all(moments.raw_block(0, 0)[2] == 0)


def test_the_sum_does_not_depend_on_the_order_of_partials():
    rng = np.random.default_rng(2)
    X = rng.normal(5, 1, size=(6000, 12))
    statistic = ShiftedMoments(leaf_shift(X[:100]))
    cuts = [0, 1, 777, 778, 3000, 6000]
    results = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [3, 4, 1, 0, 2]):
        parts = [statistic.chunk([X[cuts[i] : cuts[i + 1]].copy()]) for i in order]
        total = parts[0]
        for part in parts[1:]:
            total = statistic.combine(total, part)
        results.append(finalize_moments(total, statistic.shift, [12]))
    for other in (*results[1:], cross_moments([as_matrix(X)])):
        assert fraction_away(other.scatter, results[0].scatter) < 1e-12
        assert fraction_away(other.mean, results[0].mean) < 1e-12


BITS = """
import numpy as np
from qixai_fast._validate import as_matrix
from qixai_fast.statistics import cross_moments
rng = np.random.default_rng(3)
X = rng.normal(3, 1, size=(30000, 60)).astype(np.float32)
Y = rng.normal(size=(30000, 40))
for n_jobs in (1, 2, 4, None):
    moments = cross_moments([as_matrix(X), as_matrix(Y)], n_jobs=n_jobs)
    print(hash(moments.scatter.tobytes() + moments.mean.tobytes()))
"""


def test_any_number_of_threads_gives_the_same_bits():
    outputs = set()
    for threads in ("1", "4"):
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        )
        outputs.update(done.stdout.split())
    assert len(outputs) == 1


def test_mapped_files_give_the_same_bits_and_need_little_memory(tmp_path):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60000, 64)).astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    mapped = as_matrix(np.load(tmp_path / "x.npy", mmap_mode="r"))
    with pytest.raises(qf.MemoryBudgetError) as caught:
        cross_moments([mapped, mapped], n_jobs=4, max_memory=10_000)
    budget = caught.value.required
    cross_moments([mapped])
    tracemalloc.start()
    moments = cross_moments([mapped, mapped], n_jobs=4, max_memory=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= budget
    assert budget < 3 * peak
    np.testing.assert_array_equal(moments.scatter, cross_moments([as_matrix(X), as_matrix(X)]).scatter)
    np.testing.assert_array_equal(moments.block(0, 1), moments.block(0, 0))


def test_what_cannot_be_summed_is_named():
    X = np.ones((3000, 4))
    X[2500, 2] = np.nan
    with pytest.raises(ValueError, match=r"Y: nan at row 2500, column 2"):
        cross_moments([as_matrix(np.ones((3000, 2))), as_matrix(X, "Y")])
    with pytest.raises(ValueError, match="X: the squares of the values overflow"):
        cross_moments([as_matrix(np.array([[1e200], [-1e200]]))])
