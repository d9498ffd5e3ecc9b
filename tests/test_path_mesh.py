"""Intervals of paths: splits, and what is split, beside slow and obvious references."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast._path_mesh import SPLITTING, Intervals, Nodes, first_mesh, split, to_split, unexplained

METHODS = sorted(SPLITTING)
quick = settings(max_examples=40, deadline=None)


class Mesh:
    """A mesh of some samples that is split at random."""

    def __init__(self, method, n_samples, n_intervals):
        self.splitting = SPLITTING[method]
        self.intervals, self.sample, self.place = first_mesh(self.splitting, n_samples, n_intervals)

    def split(self, chosen):
        parts, sample, place = split(self.splitting, self.intervals.take(chosen), len(self.place))
        self.intervals = self.intervals.take(~chosen) + parts
        self.sample, self.place = np.append(self.sample, sample), np.append(self.place, place)

    def integral(self, values, weights):
        """For every sample, with the weights of one interval's three nodes."""
        each = (values[self.intervals.slots] * weights).sum(1) * self.intervals.length
        return np.bincount(self.intervals.sample, each)


@st.composite
def meshes(draw):
    n_samples = draw(st.integers(1, 4))
    mesh = Mesh(draw(st.sampled_from(METHODS)), n_samples, draw(st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(0, 6))):
        mesh.split(rng.random(len(mesh.intervals)) < rng.random())
    return mesh


@quick
@given(meshes())
def test_intervals_of_each_sample_cover_its_path_once(mesh):
    for sample in np.unique(mesh.sample):
        own = mesh.intervals.take(mesh.intervals.sample == sample)
        order = np.argsort(own.start)
        start, stop = own.start[order], (own.start + own.length)[order]
        assert start[0] == 0
        np.testing.assert_allclose(start[1:], stop[:-1], atol=1e-14)
        assert stop[-1] == pytest.approx(1, abs=1e-14)


@quick
@given(meshes())
def test_each_node_is_computed_once_and_is_where_its_intervals_want_it(mesh):
    slots = mesh.intervals.slots
    assert np.array_equal(np.unique(slots), np.arange(len(mesh.place)))  # each in use, none left out
    assert (mesh.sample[slots] == mesh.intervals.sample[:, None]).all()
    wanted = mesh.intervals.start[:, None] + np.array(mesh.splitting.nodes) * mesh.intervals.length[:, None]
    np.testing.assert_allclose(mesh.place[slots], wanted, atol=1e-14)
    for sample in np.unique(mesh.sample):
        own = np.sort(mesh.place[mesh.sample == sample])
        shortest = mesh.intervals.length[mesh.intervals.sample == sample].min()
        assert (np.diff(own) > shortest / 4).all()


@quick
@given(meshes())
def test_weights_sum_to_one_and_to_nothing(mesh):
    ones = np.ones(len(mesh.place))
    np.testing.assert_allclose(mesh.integral(ones, mesh.splitting.fine), 1, rtol=1e-13)
    np.testing.assert_allclose(mesh.integral(ones, mesh.splitting.change), 0, atol=1e-14)


@quick
@given(meshes(), st.integers(0, 2**32 - 1))
def test_the_fine_value_of_an_interval_is_the_coarse_one_of_its_parts(mesh, seed):
    """So that a split changes sums by the parts' own changes, whatever the gradients are."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=len(mesh.place))
    fine, change = mesh.splitting.fine, mesh.splitting.change
    before = mesh.integral(values, fine)
    everything = np.ones(len(mesh.intervals), bool)
    mesh.split(everything)
    values = np.append(values, rng.normal(size=len(mesh.place) - len(values)))
    np.testing.assert_allclose(mesh.integral(values, fine - change), before, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_an_interval_of_one_step_and_its_parts(method):
    """The coarse value is that of the plain rule; of its degree, so that lines are exact."""
    rule = SPLITTING[method]
    coarse = rule.fine - rule.change
    nodes = np.array(rule.nodes)
    expected = [0, 1, 0] if method == "riemann_middle" else [1 / 2, 0, 1 / 2]
    np.testing.assert_allclose(coarse, expected, atol=1e-15)
    for weights in (coarse, rule.fine):
        assert weights @ nodes == pytest.approx(1 / 2)
    error = [abs(weights @ nodes**2 - 1 / 3) for weights in (coarse, rule.fine)]
    assert error[0] / error[1] == pytest.approx({"riemann_middle": 9, "riemann_trapezoid": 4}[method])


# What the gradients do not account for


def unexplained_slowly(intervals, nodes, ends):
    found = np.zeros(len(intervals))
    for sample in np.unique(intervals.sample):
        own = sorted(np.flatnonzero(intervals.sample == sample), key=lambda i: intervals.start[i])
        row = [(nodes.place[slot], slot, i) for i in own for slot in intervals.slots[i]]
        for (a, left, i), (b, right, j) in itertools.pairwise(row):
            touching = abs(intervals.start[i] + intervals.length[i] - intervals.start[j]) < 1e-9
            if i == j or touching:
                gap = abs(
                    nodes.value[right]
                    - nodes.value[left]
                    - (b - a) * (nodes.slope[left] + nodes.slope[right]) / 2
                )
                for owner in {i, j}:
                    found[owner] += gap
        first, last = row[0], row[-1]
        if intervals.start[first[2]] < 1e-9:
            found[first[2]] += abs(ends[0][sample] - nodes.value[first[1]] + first[0] * nodes.slope[first[1]])
        if intervals.start[last[2]] + intervals.length[last[2]] > 1 - 1e-9:
            found[last[2]] += abs(
                ends[1][sample] - nodes.value[last[1]] - (1 - last[0]) * nodes.slope[last[1]]
            )
    return found


@quick
@given(meshes(), st.integers(0, 2**32 - 1), st.booleans())
def test_unexplained_is_the_sum_over_neighbouring_nodes(mesh, seed, some):
    rng = np.random.default_rng(seed)
    value, slope = rng.normal(size=(2, len(mesh.place)))
    nodes = Nodes(mesh.place, value, slope)
    n = mesh.sample.max() + 1
    ends = rng.normal(size=n), rng.normal(size=n)
    intervals = mesh.intervals.take(rng.permutation(len(mesh.intervals)))
    if some:  # those of samples that are done, or at the limit, are not asked about
        intervals = intervals.take(rng.random(len(intervals)) < 0.7)
    if len(intervals):
        result = unexplained(intervals, nodes, ends)
        np.testing.assert_allclose(result, unexplained_slowly(intervals, nodes, ends), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_quadratic_is_explained_and_a_step_is_not(method):
    mesh = Mesh(method, 1, 5)
    for step, where in ((0.0, None), (2.0, 0.1), (2.0, 0.4), (2.0, 0.999), (2.0, 0.62)):
        value = 3 * mesh.place**2 + step * (mesh.place > (where or 0))
        ends = np.array([0.0]), np.array([3.0 + step])
        nodes = Nodes(mesh.place, value, 6 * mesh.place)
        found = unexplained(mesh.intervals, nodes, ends)
        if where is None and method == "riemann_trapezoid":
            assert found.max() < 1e-14
        elif where is None:  # beyond the outermost nodes there is one slope only
            assert found.max() < 3 / 30**2 + 1e-14
        else:
            at = int(where * 5)
            assert found[at] == pytest.approx(step, abs=0.01)
            assert np.delete(found, [max(at - 1, 0), at, min(at + 1, 4)]).max() < 0.01


# What is split


def to_split_slowly(sample, score):
    chosen = np.zeros(len(sample), bool)
    for one in np.unique(sample):
        own = np.flatnonzero(sample == one)
        left = 0.0
        for i in own[np.argsort(score[own], kind="stable")]:
            left += min(score[i], 1e3) ** 2
            chosen[i] = np.sqrt(left) > 0.8
        chosen[own[np.argsort(score[own], kind="stable")[-1]]] = True
    return chosen


@quick
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.floats(0, 2) | st.sampled_from([0.0, 1e-9, 5e2, 1e12, 1e200, np.inf])
        ),
        min_size=1,
        max_size=60,
    )
)
def test_the_largest_scores_are_split_until_the_others_are_little_enough(pairs):
    sample, score = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    result = to_split(sample, score)
    for one in np.unique(sample):
        own = sample == one
        split_scores, others = score[own & result], score[own & ~result]
        assert len(split_scores) >= 1
        if len(others):
            assert others.max() <= split_scores.min()
            assert np.sqrt((others**2).sum()) <= 0.8 + 1e-6
    assert result.sum() == to_split_slowly(sample, score).sum()


def test_one_sample_does_not_decide_for_another():
    score = np.array([1e3, 0.5, 0.1, 0.1])
    alone = to_split(np.zeros(2, int), score[2:])
    assert np.array_equal(to_split(np.array([0, 0, 1, 1]), score)[2:], alone)


def test_intervals_are_renumbered_by_place():
    intervals = Intervals(
        np.zeros(2, int), np.array([0.0, 0.5]), np.full(2, 0.5), np.array([[4, 9, 12], [12, 2, 30]])
    )
    known = np.array([2, 4, 9, 12, 30])
    assert intervals.renumbered(known).slots.tolist() == [[1, 2, 3], [3, 0, 4]]
