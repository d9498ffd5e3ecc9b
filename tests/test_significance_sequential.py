"""Early stopping of permutation tests: valid p-values, family-wise ones too, from few rounds."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast import mutual_info_binned, mutual_info_test
from qixai_fast.mutual_info.permutations import Exchange
from qixai_fast.mutual_info.rounds import FULL_ROUNDS, Rounds

FIELDS = ("values", "pvalues", "qvalues", "null_mean", "max_pvalues", "n_permutations_used")
hopeless = pytest.mark.filterwarnings("ignore:.*cannot reach q")


class Noise:
    """Stands for both the permutations and the null: a round's "order" is a fresh value for each pair."""

    def __init__(self, observed, n_jobs=1, n_parts=1, shared=0.0):
        self.observed = np.asarray(observed)
        self.n_jobs, self.n_parts, self.shared = n_jobs, n_parts, shared
        self.location = np.zeros(len(self.observed))
        self.scale = np.ones(len(self.observed))
        self.asked = 0

    def draw(self, seed):
        generator = np.random.default_rng(seed)
        return generator.standard_normal(len(self.observed)) + self.shared * generator.standard_normal()

    def parts(self):
        for places in np.array_split(np.arange(len(self.observed)), self.n_parts):
            yield NoisePart(self, places)


class NoisePart:
    def __init__(self, noise, places):
        self.noise, self.places = noise, places

    def values(self, order, chosen):
        self.noise.asked += len(chosen)
        return (self.noise.observed if order is None else order)[self.places[chosen]]


def run(noise, n_permutations, stop_after, seed=0):
    seeds = np.random.default_rng(seed).integers(2**62, size=n_permutations)
    return Rounds(noise, seeds, stop_after).run(noise)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 120),
    st.one_of(st.none(), st.integers(1, 8)),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2, 3]),
)
def test_rounds_equal_a_loop(seed, n_permutations, stop_after, n_jobs, n_parts):
    rng = np.random.default_rng(seed)
    noise = Noise(np.round(rng.standard_normal(7) + rng.integers(0, 3, 7), 1), n_jobs, n_parts)
    outcome = run(noise, n_permutations, stop_after, seed)
    seeds = np.random.default_rng(seed).integers(2**62, size=n_permutations)
    draws = np.array([noise.draw(one) for one in seeds])
    n_full = n_permutations if stop_after is None else min(n_permutations, FULL_ROUNDS * stop_after)
    for pair, value in enumerate(noise.observed):
        reached = draws[:, pair] >= value
        pvalue, used = reference.sequential_pvalue(reached, stop_after or n_permutations, n_full)
        assert (outcome.pvalues[pair], outcome.n_used[pair]) == (pvalue, used)
        assert outcome.null_mean[pair] == pytest.approx(draws[:used, pair].mean(), abs=1e-12)
        largest = draws[:n_full].max(axis=1)
        assert outcome.max_pvalues[pair] == (1 + (largest >= value).sum()) / (1 + n_full)


@pytest.mark.parametrize("stop_after", [1, 3, 10])
def test_pvalues_are_valid_at_every_level(stop_after):
    """4,000 independent pairs without any dependence: P(p <= a) <= a, and not far below."""
    n = 4000
    noise = Noise(np.random.default_rng(stop_after).standard_normal(n))
    outcome = run(noise, 2000, stop_after, seed=stop_after)
    for level in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6):
        slack = 4 * np.sqrt(level * (1 - level) / n)
        share = (outcome.pvalues <= level).mean()
        assert share < level + slack
        # Few exceedances leave few p-values to choose from: h / ceil(h / level) is the level in truth.
        assert share > stop_after / np.ceil(stop_after / level) * 0.6 - slack
    assert noise.asked < n * FULL_ROUNDS * stop_after * 1.5


def test_family_wise_level_and_power():
    """The smallest of 20 family-wise p-values is at most a with probability a, not more, despite stopping."""
    smallest, found = [], []
    for seed in range(400):
        observed = np.random.default_rng([5, seed]).standard_normal(20)
        smallest.append(run(Noise(observed), 150, 5, seed).max_pvalues.min())
        observed[0] = 4.5
        found.append(run(Noise(observed), 150, 5, seed).max_pvalues[0])
    for level in (0.02, 0.05, 0.2):
        assert (np.array(smallest) <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / 400)
    assert (np.array(smallest) <= 0.2).mean() > 0.1
    assert (np.array(found) <= 0.05).mean() > 0.99


def test_rounds_end_where_every_pair_is_settled():
    noise = Noise(np.full(5, -9.0))
    outcome = run(noise, 10**6, 2)
    assert outcome.n_used.tolist() == [2 * FULL_ROUNDS] * 5
    assert np.all(outcome.pvalues == 1.0)
    assert noise.asked == 5 * (2 * FULL_ROUNDS + 1)


@hopeless
def test_a_sequential_test_done_by_hand():
    rng = np.random.default_rng(2)
    X = np.round(rng.standard_normal((30, 3)), 1)
    X[:, 1] += 0.7 * X[:, 0]
    test = mutual_info_test(X, n_permutations=300, stop_after=3, random_state=5, n_bins=4)
    seeds = np.random.default_rng(5)
    orders = [Exchange(30).draw(int(seeds.integers(2**63))) for _ in range(300)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        value = mutual_info_binned(X[:, i], X[:, j], n_bins=4)
        draws = np.array([mutual_info_binned(X[:, i], X[order, j], n_bins=4) for order in orders])
        pvalue, used = reference.sequential_pvalue(draws >= value - 1e-12, 3, 60)
        for at in ((i, j), (j, i)):
            assert (test.pvalues[at], test.n_permutations_used[at]) == (pvalue, used)
            assert test.null_mean[at] == pytest.approx(draws[:used].mean(), abs=1e-12)
    assert len({*test.n_permutations_used.ravel().tolist()}) > 2
    # Family-wise p-values are those of a test that ends with the rounds that ask all pairs.
    first = mutual_info_test(X, n_permutations=60, random_state=5, n_bins=4)
    assert np.array_equal(test.max_pvalues, first.max_pvalues, equal_nan=True)


@hopeless
@pytest.mark.parametrize("estimator", ["binned", "ksg"])
def test_threads_change_nothing(estimator):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 6))
    X[:, 0] += X[:, 1]

    def call(n_jobs):
        return mutual_info_test(
            X, estimator=estimator, n_permutations=200, stop_after=2, random_state=1, n_jobs=n_jobs, n_bins=4
        )

    one = call(1)
    for n_jobs in (2, 4):
        many = call(n_jobs)
        for name in FIELDS:
            assert np.array_equal(getattr(one, name), getattr(many, name), equal_nan=True), name
    assert one.n_permutations_used[0, 1] == one.n_permutations_used.max() == 200
    assert one.n_permutations_used[2, 3] < 200
    assert one.pvalues[0, 1] < 0.02


@hopeless
def test_groups_stop_early_too():
    clips = np.repeat(np.arange(30), 10)
    rng = np.random.default_rng(3)
    X = np.repeat(rng.standard_normal((30, 4)), 10, axis=0) + 0.1 * rng.standard_normal((300, 4))
    X[:, 1] = X[:, 0] + 0.1 * rng.standard_normal(300)
    test = mutual_info_test(X, groups=clips, n_permutations=500, stop_after=3, random_state=0, n_bins=4)
    assert test.pvalues[0, 1] == 1 / 501
    assert test.max_pvalues[0, 1] == 1 / 61
    assert test.pvalues[2, 3] > 0.05
    assert test.n_permutations_used[2, 3] < 500


@hopeless
def test_pairs_of_tied_values_are_not_significant():
    """A constant column ties in every round: settled at once, p = 1."""
    X = np.random.default_rng(4).standard_normal((50, 3))
    X[:, 1] = 2.0
    test = mutual_info_test(X, n_permutations=500, stop_after=2, random_state=0, n_bins=4)
    assert test.pvalues[0, 1] == test.max_pvalues[0, 1] == 1.0
    assert test.n_permutations_used[0, 1] == 40
