"""Corrections of the plug-in estimate, and mutual information of discrete variables."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from qixai_fast.kernels.entropy_cpu import fill_grassberger_terms, fill_log_terms, sum_terms

from qixai_fast import mutual_info_binned, mutual_info_discrete
from qixai_fast.mutual_info.bias import PluginEstimator

CORRECTIONS = (None, "miller-madow", "panzeri-treves", "grassberger", "permutation-mean")


def reference_value(table, bias_correction):
    """A table's value through columns of bin numbers, which the reference bins to themselves."""
    i, j = np.indices(table.shape)
    a, b = np.repeat(i.ravel(), table.ravel()), np.repeat(j.ravel(), table.ravel())
    n_bins = max(table.shape)
    # The ends of the range are occupied, so that n_bins uniform bins are the levels themselves.
    assert {a.min(), b.min()} == {0}
    assert {a.max(), b.max()} == {n_bins - 1}
    return a, b, reference.mutual_info_binned(a, b, n_bins, bias_correction=bias_correction)


@pytest.mark.parametrize("bias_correction", CORRECTIONS[:-1])
def test_discrete_tables_agree_with_the_reference(bias_correction):
    rng = np.random.default_rng(0)
    for _ in range(5):
        table = rng.poisson(rng.uniform(0, 3, (5, 5)))
        table[0, 0] = table[4, 4] = 1
        a, b, expected = reference_value(table, bias_correction)
        value = mutual_info_discrete(a, b, bias_correction=bias_correction)
        assert value == pytest.approx(expected, abs=1e-12)
        dense = PluginEstimator(len(a), bias_correction)
        tables = table[None].astype(np.int32)
        assert dense.values(dense.summarize(tables))[0] == pytest.approx(expected, abs=1e-12)


def test_closed_forms_of_discrete_tables():
    # Independent by construction: the product of its marginals.
    x, y = np.repeat([0, 1, 2], 12), np.tile(np.repeat([0, 1], [4, 8]), 3)
    assert mutual_info_discrete(x, y) == pytest.approx(0.0, abs=1e-12)
    # A binary symmetric channel that flips 1 of 10: ln 2 - H(0.1).
    x = np.repeat([0, 1], 10)
    y = np.concatenate([[1], [0] * 9, [0], [1] * 9])
    expected = np.log(2) + 0.1 * np.log(0.1) + 0.9 * np.log(0.9)
    assert mutual_info_discrete(x, y) == pytest.approx(expected, abs=1e-12)
    # One determines the other.
    assert mutual_info_discrete(np.arange(12) % 4, np.arange(12) % 2) == pytest.approx(np.log(2), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6),
)
def test_permutation_mean_is_that_of_all_permutations(points):
    x, y = np.array(points).T
    corrected = mutual_info_discrete(x, y, bias_correction="permutation-mean")
    constant = len(set(x)) == 1 or len(set(y)) == 1
    expected = 0.0 if constant else mutual_info_discrete(x, y) - reference.permutation_mean(x, y, (4, 3))
    assert corrected == pytest.approx(expected, abs=1e-12)


def test_permutation_mean_of_larger_tables_agrees_with_scikit_learn():
    cluster = pytest.importorskip("sklearn.metrics.cluster")
    rng = np.random.default_rng(1)
    for n, levels in ((30, 4), (1000, 16), (30_000, 5)):
        x, y = rng.integers(0, levels, n) ** 2, rng.integers(0, levels, n)
        contingency = cluster.contingency_matrix(x, y)
        expected = cluster.expected_mutual_information(contingency, n)
        estimator = PluginEstimator(n, "permutation-mean")
        value = estimator.expected_of_margins(contingency.sum(axis=1), contingency.sum(axis=0))
        assert value == pytest.approx(expected, rel=1e-8, abs=1e-12)
        adjusted = estimator_value(contingency, n)
        assert adjusted == pytest.approx(cluster.adjusted_mutual_info_score(x, y), abs=1e-7)


@pytest.mark.parametrize(
    ("counts_x", "counts_y"),
    [((2000, 2000), (1500, 2500)), ((1000, 1000, 1000), (999, 1001, 1000)), ((3990, 10), (2500, 1500, 0)),
     ((1100, 1900), (1300, 1700)), ((7, 3), (5, 5)), ((10,), (4, 6))],
)  # fmt: skip
def test_permutation_mean_of_large_counts_is_exact(counts_x, counts_y):
    """Cells with means on both sides of where moments take the place of the sum."""
    expected = reference.expected_information(counts_x, counts_y)
    value = PluginEstimator(sum(counts_x), None).expected_of_margins(np.array(counts_x), np.array(counts_y))
    assert value == pytest.approx(expected, rel=2e-11, abs=1e-18)
    assert value > 0.0 or len(counts_x) == 1


def estimator_value(table, n):
    estimator = PluginEstimator(n, "permutation-mean", "arithmetic")
    return estimator.values(estimator.summarize(table[None].astype(np.int32)))[0]


@pytest.mark.parametrize("bias_correction", CORRECTIONS)
def test_corrected_estimates_scatter_around_the_truth(bias_correction):
    """Independent variables, 10 samples a cell: the plug-in estimate is too high, the others are not."""
    rng = np.random.default_rng(5)
    n, n_bins = 640, 8
    values = []
    for _ in range(200):
        x, y = rng.integers(0, n_bins, (2, n))
        values.append(mutual_info_discrete(x, y, bias_correction=bias_correction))
    bias = (n_bins - 1) ** 2 / (2 * n)
    if bias_correction is None:
        assert np.mean(values) == pytest.approx(bias, rel=0.15)
    else:
        assert abs(np.mean(values)) < 0.2 * bias
        assert min(values) < 0.0


def test_panzeri_treves_finds_cells_that_were_missed():
    """Few samples a condition: cells that stayed empty by chance count, so more bias comes off."""
    rng = np.random.default_rng(2)
    errors = {None: [], "miller-madow": [], "panzeri-treves": []}
    for _ in range(200):
        x, y = rng.integers(0, 8, (2, 64))
        for bias_correction, found in errors.items():
            found.append(mutual_info_discrete(x, y, bias_correction=bias_correction))
    mean = {key: abs(np.mean(found)) for key, found in errors.items()}
    assert mean["panzeri-treves"] < mean["miller-madow"] < mean[None]


def test_terms_beyond_the_table_are_the_same_function():
    sizes = np.array([5, 6, 65_535, 65_536, 65_537, 1_000_001, 2**31 - 1])
    for fill, grassberger in ((fill_log_terms, False), (fill_grassberger_terms, True)):
        long = np.empty(1_000_002)
        fill(long)
        short = long[:65_536].copy()
        for size in sizes[:-1]:
            found = sum_terms(np.array([size]), short, grassberger)
            assert found == pytest.approx(long[size], rel=1e-13)
    digamma = pytest.importorskip("scipy.special").digamma
    for size in sizes:
        k = float(size)
        expected = k * (digamma(k) + (-1) ** size * (digamma((k + 1) / 2) - digamma(k / 2)) / 2)
        assert sum_terms(np.array([size]), short, True) == pytest.approx(expected, rel=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40),
    st.permutations(range(5)),
    st.sampled_from(CORRECTIONS),
)
def test_names_of_levels_and_sides_do_not_matter(points, names, bias_correction):
    x, y = np.array(points).T
    value = mutual_info_discrete(x, y, bias_correction=bias_correction)
    renamed = mutual_info_discrete(np.array(names)[x], y, bias_correction=bias_correction)
    assert renamed == pytest.approx(value, abs=1e-12)
    assert mutual_info_discrete(y, x, bias_correction=bias_correction) == pytest.approx(value, abs=1e-12)
    words = np.array(["ant", "bee", "cat", "dog", "elk"])[x]
    assert mutual_info_discrete(words, y, bias_correction=bias_correction) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("bias_correction", CORRECTIONS)
def test_as_many_levels_as_samples(bias_correction):
    ids = np.arange(3000)
    value = mutual_info_discrete(ids, ids % 10, bias_correction=bias_correction)
    assert np.isfinite(value)
    if bias_correction is None:
        assert value == pytest.approx(np.log(10), abs=1e-12)
    if bias_correction == "permutation-mean":
        assert value == pytest.approx(0.0, abs=1e-12)


def test_discrete_equals_binned_codes():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, 500))
    codes = [reference.bin_codes(v, 10) for v in (x, y)]
    for bias_correction in CORRECTIONS:
        value = mutual_info_binned(x, y, n_bins=10, bias_correction=bias_correction)
        assert mutual_info_discrete(*codes, bias_correction=bias_correction) == pytest.approx(
            value, abs=1e-12
        )


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((4, 2)), ValueError, r"x: wanted shape \(n_samples,\)"),
        ([], ValueError, "x: wanted at least 1 sample"),
        ([0.0, np.nan, 1.0], ValueError, "x: nan at row 1"),
        ([0, 1], ValueError, "x and y: .* got 2 and 3"),
        ([1j, 2j, 0], TypeError, "x: dtype complex128"),
        (np.array([None, 1, 2], dtype=object), TypeError, "x: dtype object"),
        (5, ValueError, r"x: wanted shape \(n_samples,\), got \(\)"),
    ],
)
def test_bad_discrete_input_is_named(x, error, words):
    with pytest.raises(error, match=words):
        mutual_info_discrete(x, [0, 1, 2])


def test_torch_labels():
    torch = pytest.importorskip("torch")
    assert mutual_info_discrete(torch.tensor([0, 1, 0, 1]), [True, False, True, False]) == pytest.approx(
        np.log(2)
    )
