"""Permutation tests: calibrated under the null, powerful under dependence, the same for any threads."""

import numpy as np
import pytest
import reference

from qixai_fast import (
    MutualInfoTest,
    mutual_info_binned,
    mutual_info_test,
    pairwise_mutual_info_binned,
)
from qixai_fast.mutual_info.permutations import Exchange
from qixai_fast.mutual_info.significance import _benjamini_hochberg

FIELDS = ("values", "pvalues", "qvalues", "null_mean", "max_pvalues", "n_permutations_used")
hopeless = pytest.mark.filterwarnings("ignore:.*cannot reach q")


def assert_same(first, second):
    for name in FIELDS:
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True), name


@hopeless
def test_pvalues_are_uniform_under_the_null():
    """600 tests of independent data; the correlation among columns of one side must not matter."""
    pvalues, smallest = [], []
    rng = np.random.default_rng(11)
    for seed in range(200):
        X = rng.exponential(size=(60, 1))
        Y = rng.standard_normal((60, 3)) + rng.standard_normal((60, 1))
        test = mutual_info_test(X, Y, n_bins=5, n_permutations=99, random_state=seed, n_jobs=1)
        pvalues.append(test.pvalues.ravel())
        smallest.append(test.max_pvalues.min())
    pvalues = np.concatenate(pvalues)
    for level in (0.05, 0.2, 0.5, 0.8):
        # Three columns a data set are dependent: four standard errors of 200 independent ones.
        slack = 4 * np.sqrt(level * (1 - level) / 200)
        assert abs((pvalues <= level).mean() - level) < slack
        assert abs((np.array(smallest) <= level).mean() - level) < slack
    assert pvalues.min() >= 0.01


@hopeless
@pytest.mark.parametrize("bias_correction", [None, "miller-madow", "grassberger", "permutation-mean"])
def test_dependence_is_found_and_noise_is_not(bias_correction):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 1))
    Y = rng.standard_normal((500, 8))
    Y[:, [2]] = 0.5 * Y[:, [2]] + np.abs(x)
    test = mutual_info_test(
        x,
        Y,
        n_bins=8,
        n_permutations=400,
        bias_correction=bias_correction,
        random_state=0,
        strategy="quantile",
    )
    assert test.pvalues[0, 2] == 1 / 401
    assert test.qvalues[0, 2] < 0.05
    assert test.max_pvalues[0, 2] == 1 / 401
    noise = np.delete(test.max_pvalues[0], 2)
    assert noise.min() > 0.05
    assert test.values[0, 2] > 3 * np.abs(np.delete(test.values[0], 2)).max()
    expected = pairwise_mutual_info_binned(
        x, Y, n_bins=8, bias_correction=bias_correction, strategy="quantile"
    )
    np.testing.assert_allclose(test.values, expected, atol=1e-12)
    if bias_correction is None:
        assert test.null_mean == pytest.approx(np.full((1, 8), 49 / 1000), rel=0.15)
    else:
        assert np.abs(test.null_mean).max() < 0.01


@pytest.mark.parametrize("bias_correction", [None, "panzeri-treves", "permutation-mean"])
def test_a_small_test_done_by_hand(bias_correction):
    """Three pairs; every round redone from the drawn orders."""
    rng = np.random.default_rng(2)
    X = np.round(rng.standard_normal((30, 3)), 1)
    X[:, 1] += X[:, 0]
    options = {"n_bins": 4, "bias_correction": bias_correction}
    test = mutual_info_test(X, n_permutations=99, random_state=5, **options)
    seeds = np.random.default_rng(5)
    exchange = Exchange(30)
    pairs = [(0, 1), (0, 2), (1, 2)]
    observed = np.array([mutual_info_binned(X[:, i], X[:, j], **options) for i, j in pairs])
    draws = []
    for _ in range(99):
        order = exchange.draw(int(seeds.integers(2**63)))
        draws.append([mutual_info_binned(X[:, i], X[order, j], **options) for i, j in pairs])
    draws = np.array(draws)
    pvalues = (1 + (draws >= observed - 1e-12).sum(axis=0)) / 100
    for k, (i, j) in enumerate(pairs):
        assert test.pvalues[i, j] == test.pvalues[j, i] == pvalues[k]
        assert test.null_mean[i, j] == pytest.approx(draws[:, k].mean(), abs=1e-12)
    np.testing.assert_allclose(test.qvalues[[0, 0, 1], [1, 2, 2]], reference.benjamini_hochberg(pvalues))
    plain = np.array([mutual_info_binned(X[:, i], X[:, j], n_bins=4) for i, j in pairs])
    less = [
        mutual_info_binned(X[:, i], X[:, j], n_bins=4, bias_correction="permutation-mean") for i, j in pairs
    ]
    mean = plain - less
    centre = mean if bias_correction is None else 0.0
    largest = ((draws - centre) / np.sqrt(mean / 30)).max(axis=1)
    standard = (observed - centre) / np.sqrt(mean / 30)
    expected = (1 + (largest[:, None] >= standard - 1e-9).sum(axis=0)) / 100
    assert np.array_equal(test.max_pvalues[[0, 0, 1], [1, 2, 2]], expected)


@hopeless
def test_shapes_diagonal_and_pairs():
    X = np.random.default_rng(3).standard_normal((100, 5))
    test = mutual_info_test(X, n_permutations=20, random_state=0)
    assert isinstance(test, MutualInfoTest)
    assert np.array_equal(test.n_permutations_used, 20 * (1 - np.eye(5, dtype=int)))
    np.testing.assert_allclose(test.values, pairwise_mutual_info_binned(X), atol=1e-12)
    for name in FIELDS[1:-1]:
        array = getattr(test, name)
        assert array.shape == (5, 5)
        assert np.isnan(np.diag(array)).all()
        assert np.isfinite(array[~np.eye(5, dtype=bool)]).all()
        assert np.array_equal(array, array.T, equal_nan=True)
    chosen = mutual_info_test(X, pairs=[(0, 3), (1, 2)], n_permutations=20, random_state=0)
    assert np.array_equal(chosen.pvalues, test.pvalues[[0, 1], [3, 2]])
    assert np.all(chosen.max_pvalues <= test.max_pvalues[[0, 1], [3, 2]])


@hopeless
def test_a_constant_column_is_never_significant():
    X = np.random.default_rng(4).standard_normal((50, 3))
    X[:, 1] = 2.0
    X[:, 2] += 3 * X[:, 0]
    test = mutual_info_test(X, n_permutations=50, random_state=0, n_bins=4)
    for other in (0, 2):
        assert test.values[1, other] == test.null_mean[1, other] == 0.0
        assert test.pvalues[1, other] == test.qvalues[1, other] == test.max_pvalues[1, other] == 1.0
    assert test.max_pvalues[0, 2] == 1 / 51


@hopeless
def test_rare_and_common_bins_compete_on_equal_terms():
    """A sparse column's strong dependence shows in the family-wise p-value beside dense noise columns."""
    rng = np.random.default_rng(6)
    n = 400
    sparse = np.zeros((n, 2))
    rows = rng.permutation(n)[:20]
    sparse[rows[:16]] = 1.0
    sparse[rows[16:18], 0] = sparse[rows[18:], 1] = 1.0
    X = np.hstack([sparse, rng.uniform(size=(n, 6))])
    test = mutual_info_test(X, n_permutations=200, random_state=0)
    # Its value lies below what chance gives the dense columns.
    assert test.values[0, 1] < test.null_mean[5, 6]
    assert test.max_pvalues[0, 1] == 1 / 201


@hopeless
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_zeros_with_a_bin_of_their_own(strategy):
    X = np.maximum(np.random.default_rng(8).standard_normal((200, 3)), 0)
    options = {"n_bins": 6, "strategy": strategy, "zero_bin": True}
    test = mutual_info_test(X, n_permutations=5, random_state=0, **options)
    np.testing.assert_allclose(test.values, pairwise_mutual_info_binned(X, **options), atol=1e-12)
    assert not np.allclose(test.values, pairwise_mutual_info_binned(X, n_bins=6, strategy=strategy))


@hopeless
@pytest.mark.parametrize("n_jobs", [2, 4])
def test_threads_and_memory_change_nothing(n_jobs):
    X = np.maximum(np.random.default_rng(5).standard_normal((300, 9)), 0)
    one = mutual_info_test(X, n_permutations=30, random_state=7, n_jobs=1)
    assert_same(mutual_info_test(X, n_permutations=30, random_state=7, n_jobs=n_jobs), one)
    assert_same(
        mutual_info_test(X, n_permutations=30, random_state=np.random.default_rng(7), n_jobs=n_jobs), one
    )
    other = mutual_info_test(X, n_permutations=30, random_state=8, n_jobs=n_jobs)
    assert not np.array_equal(other.null_mean, one.null_mean, equal_nan=True)


def autocorrelated_clips(seed, n_clips=20, frames=15):
    """Frames of a clip are near copies of one another; clips are independent."""
    rng = np.random.default_rng(seed)
    base = np.repeat(rng.standard_normal((n_clips, 2)), frames, axis=0)
    return base + 0.05 * rng.standard_normal(base.shape), np.repeat(np.arange(n_clips), frames)


@hopeless
def test_groups_keep_dependent_samples_together():
    """300 frames of 20 clips: taken singly, independent columns look dependent; as groups they do not."""
    single, grouped = [], []
    for seed in range(30):
        X, clips = autocorrelated_clips(seed)
        options = {"n_permutations": 39, "random_state": seed, "n_bins": 4, "n_jobs": 1}
        single.append(mutual_info_test(X, **options).pvalues[0, 1])
        grouped.append(mutual_info_test(X, groups=clips, **options).pvalues[0, 1])
    assert np.mean(np.array(single) <= 0.05) > 0.9
    assert np.mean(np.array(grouped) <= 0.05) < 0.25


def test_groups_move_whole_among_equal_sizes():
    labels = np.array(["c", "a", "a", "b", "b", "c", "d", "d", "d", "e", "f"])
    exchange = Exchange(len(labels), labels)
    # Three groups of two, two of one, and one of three that nothing can replace.
    assert exchange.n_arrangements == pytest.approx(12)
    seen = set()
    for seed in range(200):
        order = exchange.draw(seed)
        assert sorted(order) == list(range(11))
        assert list(order[6:9]) == [6, 7, 8]
        for members in ([1, 2], [3, 4], [0, 5]):
            moved = labels[order[members]]
            assert moved[0] == moved[1]
            assert order[members[0]] < order[members[1]]
        seen.add(tuple(order))
    assert len(seen) == 12


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_permutation_is_as_likely_as_any_other(n):
    exchange, rounds = Exchange(n), 24_000
    orders, counts = np.unique([exchange.draw(seed) for seed in range(rounds)], axis=0, return_counts=True)
    expected = rounds / len(orders)
    assert len(orders) == pytest.approx(exchange.n_arrangements)
    # Chi-square, beyond its mean by five standard deviations at most.
    freedom = len(orders) - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom) + 8


def test_long_permutations_are_even_everywhere():
    n, rounds = 1000, 400
    exchange = Exchange(n)
    orders = np.array([exchange.draw(2**62 + seed) for seed in range(rounds)])
    assert np.array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(n), orders.shape))
    mean, spread = (n - 1) / 2, np.sqrt((n**2 - 1) / 12 / rounds)
    assert np.abs(orders.mean(axis=0) - mean).max() < 5 * spread
    # Neighbours in place, and consecutive rounds, are not related.
    ranks = (orders - mean) / np.sqrt((n**2 - 1) / 12)
    assert abs((ranks[:, 1:] * ranks[:, :-1]).mean()) < 5 / np.sqrt(orders.size)
    assert abs((ranks[1:] * ranks[:-1]).mean()) < 5 / np.sqrt(orders.size)
    # A fixed point a permutation is expected, with variance one.
    assert abs((orders == np.arange(n)).sum(axis=1).mean() - 1) < 5 / np.sqrt(rounds)


def test_too_few_permutations_are_named():
    X = np.random.default_rng(0).standard_normal((40, 4))
    with pytest.warns(
        UserWarning, match="one dependent pair among 6 cannot reach q < 0.05: use n_permutations=120"
    ):
        mutual_info_test(X, n_permutations=100, random_state=0)
    with pytest.warns(UserWarning, match="only 24 ways"):
        mutual_info_test(X, n_permutations=1000, groups=np.repeat(np.arange(4), 10), random_state=0)


@pytest.mark.filterwarnings("error")
def test_enough_permutations_do_not_warn():
    X = np.random.default_rng(0).standard_normal((40, 4))
    mutual_info_test(X, n_permutations=120, random_state=0)


def test_benjamini_hochberg():
    pvalues = np.array([0.01, 0.04, 0.03, 0.2, 0.04, 1.0])
    expected = [0.06, 0.06, 0.06, 0.24, 0.06, 1.0]
    np.testing.assert_allclose(_benjamini_hochberg(pvalues), expected)
    for seed in range(5):
        pvalues = np.random.default_rng(seed).integers(1, 20, 12) / 20
        np.testing.assert_allclose(_benjamini_hochberg(pvalues), reference.benjamini_hochberg(pvalues))


@hopeless
def test_torch_comes_back_as_torch():
    torch = pytest.importorskip("torch")
    X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    test = mutual_info_test(X, n_permutations=10, random_state=0)
    assert all(isinstance(getattr(test, name), torch.Tensor) for name in FIELDS)
    assert test.n_permutations_used.tolist() == [[0, 10, 10], [10, 0, 10], [10, 10, 0]]


X2 = np.random.default_rng(0).standard_normal((6, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((X2[:, :1],), {}, ValueError, "X: wanted at least 2 features where Y is not given"),
        ((X2[:1],), {}, ValueError, "X: wanted at least 2 samples to permute, got 1"),
        ((X2, X2[:3]), {}, ValueError, "X and Y: .* got 6 and 3"),
        ((X2,), {"estimator": "kde"}, ValueError, "estimator: wanted one of 'binned', 'ksg', got 'kde'"),
        ((X2,), {"n_permutations": 0}, ValueError, "n_permutations: wanted at least 1, got 0"),
        ((X2,), {"n_permutations": 9.5}, TypeError, "n_permutations: wanted an integer"),
        ((X2,), {"stop_after": 0}, ValueError, "stop_after: wanted at least 1, got 0"),
        ((X2,), {"stop_after": True}, TypeError, "stop_after: wanted an integer"),
        ((X2, X2), {"labels": np.zeros(6)}, ValueError, "labels: .* leave out Y and pairs"),
        ((X2,), {"labels": np.zeros(6), "pairs": [(0, 1)]}, ValueError, "labels: .* leave out Y and pairs"),
        ((X2,), {"labels": np.zeros(5)}, ValueError, "labels: wanted one for each of the 6 samples"),
        ((X2,), {"labels": np.zeros(6, dtype=complex)}, TypeError, "labels: dtype complex128"),
        ((X2,), {"groups": [0, 1]}, ValueError, r"groups: wanted shape \(6,\), got \(2,\)"),
        (
            (X2,),
            {"groups": [0, 0, 0, 0, 1, 1]},
            ValueError,
            "groups: none of the 2 groups has the size of another",
        ),
        ((X2,), {"groups": np.zeros(6)}, ValueError, "groups: none of the 1 groups"),
        ((X2,), {"random_state": "seed"}, TypeError, "random_state"),
        ((X2,), {"n_bins": 0}, ValueError, "n_bins"),
        ((X2,), {"zero_bin": "yes"}, TypeError, "zero_bin: wanted True or False"),
        ((X2,), {"pairs": [(0, 2)]}, ValueError, "pairs: row 0 asks for column 2"),
        ((X2 * np.nan,), {}, ValueError, "X: nan at row 0, column 0"),
    ],
)
def test_bad_input_is_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        mutual_info_test(*arguments, **options)
