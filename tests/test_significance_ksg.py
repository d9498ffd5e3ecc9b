"""Permutation tests of nearest-neighbour estimates: sorted once, permuted, and as if estimated afresh."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast import (
    MemoryBudgetError,
    mutual_info_ksg,
    mutual_info_mixed,
    mutual_info_test,
    pairwise_mutual_info_ksg,
)
from qixai_fast.mutual_info.pairs import digamma_table, pair_value
from qixai_fast.mutual_info.pairwise import check_options
from qixai_fast.mutual_info.permutations import Exchange
from qixai_fast.mutual_info.variables import Jitter

FIELDS = ("values", "pvalues", "qvalues", "null_mean", "max_pvalues", "n_permutations_used")
hopeless = pytest.mark.filterwarnings("ignore:.*cannot reach q")


def assert_same(first, second):
    for name in FIELDS:
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True), name


SHAPES = {
    "gaussian": lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "sign": np.sign,
    "ties": lambda v: np.round(v, 1),
    "half": lambda v: v.astype(np.float16),
    "constant": np.zeros_like,
}


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(8, 80),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from([1, 2]),
    st.sampled_from(["auto", "none"]),
)
def test_a_permuted_variable_is_the_permuted_data(seed, n, x_shape, y_shape, algorithm, atoms):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    y = SHAPES[y_shape](x + rng.standard_normal(n))
    x = SHAPES[x_shape](x)
    order = rng.permutation(n)
    options = check_options(n, n_neighbors=3, algorithm=algorithm, scale="std", atoms=atoms, seed=0)
    jitter, psi = Jitter(0, n), digamma_table(n)
    first, second = (options.prepare(np.asarray(v, dtype=np.float64), "v", v.dtype, jitter) for v in (x, y))
    moved = second.permuted(order)
    for view, before in zip(moved.views, second.views, strict=True):
        # The sorted values are the same ones, in the same order.
        assert np.array_equal(view.values[view.order], before.values[before.order])
    assert np.array_equal(moved.codes, second.codes[order])
    value = pair_value(first, moved, 3, algorithm, psi)
    if len(second.views) == len(first.views) == 1:
        afresh = mutual_info_ksg(x, y[order], algorithm=algorithm, atoms=atoms)
        assert value == pytest.approx(afresh, abs=1e-12)
    # Jitter belongs to the samples, so permuting both sides changes nothing, whatever the data.
    both = pair_value(first.permuted(order), moved, 3, algorithm, psi)
    assert both == pytest.approx(pair_value(first, second, 3, algorithm, psi), abs=1e-12)


@hopeless
@pytest.mark.parametrize("shape", [(3, 2), (2, 3)])
def test_a_test_done_by_hand(shape):
    """Whichever side moves inside, each round is the estimate of Y in that round's order."""
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((60, shape[0])), np.maximum(rng.standard_normal((60, shape[1])), 0)
    Y[:, 0] += X[:, 0]
    test = mutual_info_test(X, Y, estimator="ksg", n_permutations=19, random_state=3)
    observed = pairwise_mutual_info_ksg(X, Y)
    seeds = np.random.default_rng(3)
    orders = [Exchange(60).draw(int(seeds.integers(2**63))) for _ in range(19)]
    draws = np.array([pairwise_mutual_info_ksg(X, Y[order]) for order in orders])
    np.testing.assert_allclose(test.values, observed, atol=1e-12)
    np.testing.assert_allclose(test.null_mean, draws.mean(axis=0), atol=1e-12)
    assert np.array_equal(test.pvalues, (1 + (draws >= observed - 1e-12).sum(axis=0)) / 20)
    largest = draws.max(axis=(1, 2))
    assert np.array_equal(
        test.max_pvalues, (1 + (largest[:, None, None] >= observed - 1e-9).sum(axis=0)) / 20
    )


@hopeless
def test_values_and_pvalues_of_half_precision_after_a_relu():
    rng = np.random.default_rng(9)
    X = np.maximum(rng.standard_normal((300, 3)), 0.0).astype(np.float16)
    X[:, 1] += X[:, 0]
    options = {"estimator": "ksg", "n_permutations": 59, "random_state": 0, "n_neighbors": 4}
    test = mutual_info_test(X, **options)
    values = pairwise_mutual_info_ksg(X, n_neighbors=4)
    np.testing.assert_allclose(test.values, values, atol=1e-12)
    assert test.pvalues[0, 1] == test.max_pvalues[0, 1] == 1 / 60
    assert min(test.pvalues[0, 2], test.pvalues[1, 2]) > 0.05
    assert abs(test.null_mean[0, 2]) < 0.02
    two = mutual_info_test(X[:, :1], X[:, 1:], **options)
    np.testing.assert_allclose(two.values[0], values[0, 1:], atol=1e-12)
    for n_jobs in (2, 4):
        assert_same(mutual_info_test(X, n_jobs=n_jobs, **options), test)


@hopeless
@pytest.mark.parametrize("rounding", [None, np.float16])
def test_pvalues_are_uniform_under_the_null(rounding):
    rng = np.random.default_rng(10)
    X = rng.standard_normal((60, 300))
    if rounding is not None:
        X = np.maximum(X, 0).astype(rounding)
    pairs = [(i, i + 150) for i in range(150)]
    test = mutual_info_test(X, pairs=pairs, estimator="ksg", n_permutations=39, random_state=0)
    for level in (0.1, 0.5, 0.9):
        assert abs((test.pvalues <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 150)


@hopeless
@pytest.mark.parametrize("second", [False, True])
def test_the_budget_is_kept_and_changes_nothing(second):
    rng = np.random.default_rng(0)
    X = np.maximum(rng.standard_normal((4000, 5)), 0)
    Y = rng.standard_normal((4000, 3)) if second else None

    def call(max_memory=None, n_jobs=2):
        return mutual_info_test(
            X,
            Y,
            estimator="ksg",
            n_permutations=4,
            stop_after=1,
            random_state=0,
            max_memory=max_memory,
            n_jobs=n_jobs,
        )

    expected = call()
    with pytest.raises(MemoryBudgetError, match=r"max_memory=[0-9]+ would do") as caught:
        call(1000)
    for factor in (1.0, 1.4, 2.5):
        budget = int(caught.value.required * factor)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            test = call(budget)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        assert_same(test, expected)
        assert peak <= budget + 6 * test.values.nbytes


@hopeless
@pytest.mark.parametrize("estimator", ["binned", "ksg"])
def test_labels(estimator):
    rng = np.random.default_rng(14)
    names = np.array(["ant", "bee", "cow"])[rng.integers(0, 3, 200)]
    X = np.maximum(rng.standard_normal((200, 4)), 0).astype(np.float32)
    X[:, 2] += names == "bee"
    options = {"estimator": estimator, "n_permutations": 99, "random_state": 0, "n_bins": 6}
    test = mutual_info_test(X, labels=names, **options)
    assert all(getattr(test, name).shape == (4,) for name in FIELDS)
    assert test.pvalues[2] == test.max_pvalues[2] == 0.01
    assert np.delete(test.max_pvalues, 2).min() > 0.05
    if estimator == "ksg":
        np.testing.assert_allclose(test.values, mutual_info_mixed(X, names), atol=1e-12)
    else:
        # Every class is a bin of its own, as in a test of columns of small integers.
        codes = np.unique(names, return_inverse=True)[1]
        columns = [np.linspace(column.min(), column.max(), 7) for column in X.T.astype(float)]
        coded = [np.clip(np.digitize(x, edges) - 1, 0, 5) for x, edges in zip(X.T, columns, strict=True)]
        same = mutual_info_test(
            np.column_stack(coded), codes[:, None], n_permutations=99, random_state=0, n_bins=6
        )
        np.testing.assert_allclose(test.values, same.values[:, 0], atol=1e-12)
        assert np.array_equal(test.pvalues, same.pvalues[:, 0])
        assert np.array_equal(test.max_pvalues, same.max_pvalues[:, 0])
    for n_jobs in (2, 4):
        assert_same(mutual_info_test(X, labels=names, n_jobs=n_jobs, **options), test)
    grouped = mutual_info_test(X, labels=names, groups=np.repeat(np.arange(50), 4), **options)
    assert np.array_equal(grouped.values, test.values)
    assert not np.array_equal(grouped.null_mean, test.null_mean)


@hopeless
@pytest.mark.parametrize("estimator", ["binned", "ksg"])
def test_pvalues_of_labels_are_uniform_under_the_null(estimator):
    pvalues, smallest = [], []
    rng = np.random.default_rng(7)
    for seed in range(150):
        X, labels = np.maximum(rng.standard_normal((50, 3)), 0), rng.integers(0, 3, 50)
        test = mutual_info_test(
            X, labels=labels, estimator=estimator, n_permutations=39, random_state=seed, n_bins=4, n_jobs=1
        )
        pvalues.append(test.pvalues)
        smallest.append(test.max_pvalues.min())
    for level in (0.1, 0.5, 0.9):
        slack = 4 * np.sqrt(level * (1 - level) / 150)
        assert abs((np.array(pvalues) <= level).mean() - level) < slack
        assert abs((np.array(smallest) <= level).mean() - level) < slack


@hopeless
def test_many_classes_and_too_many():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((1000, 2))
    test = mutual_info_test(X, labels=rng.integers(0, 300, 1000), n_permutations=19, random_state=0)
    assert test.pvalues.min() > 0.05
    with pytest.raises(ValueError, match="labels: wanted at most 4096 classes, got 5000"):
        mutual_info_test(np.zeros((5000, 1)), labels=np.arange(5000), n_permutations=1)


@hopeless
def test_labels_under_a_budget():
    rng = np.random.default_rng(6)
    X, labels = rng.standard_normal((20_000, 6)), rng.integers(0, 10, 20_000)
    for estimator in ("binned", "ksg"):

        def call(max_memory=None, estimator=estimator):
            return mutual_info_test(
                X, labels=labels, estimator=estimator, n_permutations=3, random_state=0, max_memory=max_memory
            )

        with pytest.raises(MemoryBudgetError) as caught:
            call(1000)
        expected = call()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            test = call(caught.value.required)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        assert_same(test, expected)
        assert peak <= caught.value.required + 6 * test.values.nbytes
