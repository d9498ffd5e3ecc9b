"""Scores of two labellings hold against scikit-learn's: values, conventions, errors."""

import warnings

import numpy as np
import pytest
import reference
import scipy.sparse as sp
from compat_peers import MEANS, SCORES, both_refuse, same, theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.cluster import contingency_matrix

from qixai_fast.compat import sklearn as ours

labels = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 8), min_size=n, max_size=n) for _ in range(2)])
)


@settings(max_examples=80, deadline=None)
@given(labels, st.sampled_from(MEANS))
def test_scores_equal_theirs(pair, mean):
    x, y = pair
    value = same("mutual_info_score", x, y)
    table = contingency_matrix(x, y)
    assert value == pytest.approx(reference.mutual_info_plugin(table), abs=1e-12)
    same("normalized_mutual_info_score", x, y, average_method=mean)
    # Where a labelling tells all samples apart, theirs is a ratio of rounding errors.
    if len(x) not in (len(set(x)), len(set(y))):
        same("adjusted_mutual_info_score", x, y, average_method=mean, tolerance=1e-10)


@settings(max_examples=40, deadline=None)
@given(labels)
def test_scores_do_not_depend_on_what_labels_are(pair):
    x, y = map(np.array, pair)
    forms = [
        lambda v: v.astype(str),
        lambda v: v.astype("U1") if (v >= 0).all() else v,
        lambda v: np.array([f"a label longer than thirty-two letters, {i}" for i in v]),
        lambda v: np.array([f"{i}-a" for i in v], dtype=object),
        lambda v: v.astype(np.int8),
        lambda v: v.astype(float),
        lambda v: v.astype(np.float16),
        lambda v: v * 10**15,
        lambda v: v.astype(np.uint64) + 2**40,
        lambda v: np.array([chr(0x4E00 + 7000 * abs(i)) + str(i) for i in v]),
        lambda v: v.astype(str).astype(">U5"),
        lambda v: v.astype("M8[D]"),
    ]
    for name in SCORES:
        score = getattr(ours, name)
        plain = score(x, y)
        for form in forms:
            assert score(form(x), y) == pytest.approx(plain, abs=1e-12)
            assert score(y, form(x)) == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("levels", [(2, 3), (16, 16), (300, 7), (3000, 2500)])
def test_scores_of_many_samples(name, levels):
    rng = np.random.RandomState(1)
    x, y = (rng.randint(0, level, 6000) for level in levels)
    same(name, x, y, tolerance=1e-9)
    same(name, x * 12345678901, y, tolerance=1e-9)


@pytest.mark.parametrize("mean", MEANS)
def test_degenerate_labellings(mean):
    one, two, each = [5] * 6, [0, 0, 0, 1, 1, 1], list("abcdef")
    for name in SCORES[1:]:
        for x, y in ((one, one), ([], []), (each, each[::-1]), (two, ["b"] * 3 + ["a"] * 3), (one, two)):
            assert same(name, x, y, average_method=mean) in (0.0, pytest.approx(1.0))
    # The mean over permutations of a labelling of all different samples is the value itself.
    expected = 1.0 if mean == "min" else pytest.approx(0.0, abs=1e-12)
    assert ours.adjusted_mutual_info_score(two, each, average_method=mean) == expected
    for n in (100, 3000):
        assert ours.adjusted_mutual_info_score(np.arange(n), np.arange(n)[::-1], average_method=mean) == 1.0
        assert (
            ours.adjusted_mutual_info_score(np.arange(n), np.arange(n) // 2, average_method=mean) == expected
        )


def test_no_information_is_exactly_zero():
    x, y = np.divmod(np.arange(7 * 11 * 3), 11)
    assert ours.mutual_info_score(x % 7, y) == 0.0
    assert ours.mutual_info_score([1, 1, 1], ["a", "b", "c"]) == 0.0


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda d: st.lists(st.lists(st.integers(0, 9), min_size=d, max_size=d), min_size=1, max_size=6)
    )
)
def test_contingency_equals_theirs(rows):
    table = np.array(rows)
    if table.sum() == 0:
        with pytest.raises(ValueError, match="contingency"):
            ours.mutual_info_score(None, None, contingency=table)
        return
    value = same("mutual_info_score", None, None, contingency=table)
    for form in (sp.csr_matrix, sp.csc_array, sp.coo_array, sp.lil_matrix, lambda t: t + 0.5, list):
        assert ours.mutual_info_score([1], [1, 2], contingency=form(table)) == pytest.approx(value, abs=1e-12)
    doubled = sp.coo_array((np.ones(2, int), ([0, 0], [0, 0])), shape=table.shape) + sp.coo_array(table)
    same("mutual_info_score", None, None, contingency=doubled)


def test_contingency_from_theirs_and_counts_beyond_32_bits():
    rng = np.random.RandomState(0)
    x, y = rng.randint(0, 5, (2, 400))
    expected = ours.mutual_info_score(x, y)
    for sparse in (False, True):
        table = contingency_matrix(x, y, sparse=sparse)
        assert ours.mutual_info_score(None, None, contingency=table) == pytest.approx(expected, rel=1e-12)
    huge = contingency_matrix(x, y) * 10**14
    assert ours.mutual_info_score(None, None, contingency=huge) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_labels_that_are_refused(name):
    cases = [
        (([0, 1], [1, 1, 1]), ValueError, r"inconsistent numbers of samples: \[2, 3\]"),
        (([[0, 1]], [1]), ValueError, r"labels_true must be 1D: shape is \(1, 2\)"),
        (([0, 1], [[1], [0]]), ValueError, r"labels_pred must be 1D"),
        (([0, 1], [0, np.nan]), ValueError, "labels_pred contains NaN, first at 1"),
        (([np.inf, 1], [0, 1]), ValueError, "labels_true contains infinity"),
        (([0, 1], np.array(["a", float("nan")], dtype=object)), ValueError, "NaN"),
        (([0, 1], np.array(["a", 1], dtype=object)), TypeError, "not supported between"),
        (([0, 1], [b"a", b"b"]), TypeError, "bytes"),
        (([0, 1j], [0, 1]), ValueError, "Complex"),
        (("ab", [0, 1]), ValueError, "'labels_true' parameter of"),
        ((sp.csr_matrix([[0], [1]]), [0, 1]), TypeError, "'labels_true' parameter of"),
    ]
    for arguments, error, message in cases:
        both_refuse(name, arguments, {}, error, message)


def test_parameters_that_are_refused():
    with pytest.raises(ValueError, match="average_method"):
        ours.normalized_mutual_info_score([0, 1], [0, 1], average_method="sqrt")
    with pytest.raises(ValueError, match="at least 1 sample"):
        ours.mutual_info_score([], [])
    for table, message in (
        ([[1, -1]], "at least 0"),
        ([1, 2], "2D"),
        ([[np.nan, 1]], "NaN"),
        ([["a", "b"]], "dtype"),
        ([[2.0**61, 2.0**61]], "at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.mutual_info_score(None, None, contingency=table)


def test_labels_with_a_fraction_are_levels_and_a_warning():
    for name in SCORES:
        with pytest.warns(UserWarning, match="expects discrete values.*labels_true") as caught:
            value = getattr(ours, name)([0.5, 1.5, 0.5, 1.0], [0, 1, 0, 1])
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert value == pytest.approx(theirs(name)([0.5, 1.5, 0.5, 1.0], [0, 1, 0, 1]))
