"""Budgets: what is promised is kept, and values do not depend on how the work was cut."""

import tracemalloc

import numpy as np
import pytest

from qixai_fast import (
    MemoryBudgetError,
    mutual_info_binned,
    mutual_info_discrete,
    mutual_info_test,
    pairwise_mutual_info_binned,
)
from qixai_fast._validate import as_matrix
from qixai_fast.mutual_info.binned_plan import plan_work


def peak_of(function):
    """Bytes that a second call allocates at most, its result included."""
    function()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    """A read-only float32 memmap, 30 columns, 4.8 MB."""
    rng = np.random.default_rng(0)
    X = np.maximum(rng.standard_normal((40_000, 30)) + rng.standard_normal((40_000, 1)), 0)
    path = tmp_path_factory.mktemp("layer") / "x.npy"
    np.save(path, X.astype(np.float32))
    return np.load(path, mmap_mode="r")


def smallest_budget(call):
    with pytest.raises(MemoryBudgetError, match=r"max_memory=[0-9]+ would do") as caught:
        call(max_memory=1000)
    return caught.value.required


@pytest.mark.parametrize("n_bins", [16, 300])
def test_uniform_bins_keep_the_budget(layer, n_bins):
    def call(max_memory=None, n_jobs=2):
        pairs = None if n_bins == 16 else [(0, 1), (2, 5), (5, 5)]
        return pairwise_mutual_info_binned(
            layer, n_bins=n_bins, pairs=pairs, max_memory=max_memory, n_jobs=n_jobs
        )

    expected = call()
    least = smallest_budget(call)
    for factor in (1.0, 1.3, 2.0, 6.0):
        budget = int(least * factor)
        peak, values = peak_of(lambda budget=budget: call(budget))
        assert peak <= budget + values.nbytes
        assert np.array_equal(values, expected)
    assert np.array_equal(call(2 * least, n_jobs=4), expected)
    in_memory = pairwise_mutual_info_binned(np.array(layer), n_bins=n_bins, pairs=[(0, 1), (2, 5), (5, 5)])
    assert np.array_equal(in_memory, expected if n_bins == 300 else expected[[0, 2, 5], [1, 5, 5]])


def test_quantile_bins_keep_the_budget(layer):
    def call(max_memory=None):
        return pairwise_mutual_info_binned(
            layer[:, :12], strategy="quantile", max_memory=max_memory, n_jobs=2
        )

    expected = call()
    least = smallest_budget(call)
    for factor in (1.0, 2.0, 5.0):
        budget = int(least * factor)
        peak, values = peak_of(lambda budget=budget: call(budget))
        assert peak <= budget + values.nbytes
        assert np.array_equal(values, expected)


def test_plans_change_with_the_budget(layer):
    """The budgets above reach both ways of working, or the comparisons would show nothing."""
    matrices = [as_matrix(layer)]

    def plan(budget):
        return plan_work(matrices, 465, n_bins=16, strategy="uniform", n_jobs=2, budget=budget)

    small, large = plan(1_400_000), plan(20_000_000)
    assert not small.cached
    assert large.cached
    assert small.rows < large.rows


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_two_sides_under_a_budget(layer, strategy):
    X, Y = layer[:, :3], layer[:, 3:10]

    def call(max_memory=None):
        return pairwise_mutual_info_binned(
            X, Y, strategy=strategy, bias_correction="miller-madow", max_memory=max_memory
        )

    expected = call()
    least = smallest_budget(call)
    peak, values = peak_of(lambda: call(least))
    assert peak <= least + values.nbytes
    assert np.array_equal(values, expected)


def test_one_pair_and_discrete_under_a_budget(layer):
    x, y = np.array(layer[:, 0]), np.array(layer[:, 1])
    for call in (
        lambda max_memory=None: mutual_info_binned(x, y, max_memory=max_memory),
        lambda max_memory=None: mutual_info_discrete(x, y, max_memory=max_memory),
        lambda max_memory=None: mutual_info_discrete(
            np.round(x, 1), np.round(y), bias_correction="panzeri-treves", max_memory=max_memory
        ),
        lambda max_memory=None: mutual_info_discrete(
            np.round(x).astype(int).astype(str), y, bias_correction="permutation-mean", max_memory=max_memory
        ),
    ):
        least = smallest_budget(call)
        peak, value = peak_of(lambda call=call, least=least: call(least))
        assert peak <= least
        assert value == call()


@pytest.mark.filterwarnings("ignore:.*cannot reach q")
def test_permutation_tests_keep_the_budget(layer):
    def call(max_memory=None):
        return mutual_info_test(
            layer[:8000, :12], n_permutations=9, random_state=0, max_memory=max_memory, n_jobs=2
        )

    expected = call()
    least = smallest_budget(call)
    for factor in (1.0, 3.0):
        budget = int(least * factor)
        peak, test = peak_of(lambda budget=budget: call(budget))
        assert peak <= budget + 5 * test.values.nbytes
        for name in ("values", "pvalues", "qvalues", "null_mean", "max_pvalues"):
            assert np.array_equal(getattr(test, name), getattr(expected, name), equal_nan=True)
