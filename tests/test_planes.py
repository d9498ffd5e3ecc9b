"""Joint counts, however they are counted, are those of every sample looked at."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from qixai_fast.kernels import _bits

from qixai_fast import joint_histograms
from qixai_fast.bins import Bins, code_dtype
from qixai_fast.joint_histograms import JointHistograms, counting_bytes, uses_planes
from qixai_fast.mutual_info.pairing import Pairs


def bins_of(n_bins):
    return Bins(np.arange(n_bins + 1.0)[None], np.zeros(1))


def fused_counts(a, b, shape):
    fused = a.astype(np.int64) * shape[1] + b
    return np.bincount(fused, minlength=shape[0] * shape[1]).reshape(shape)


def columns_of_codes(kind, d, n, n_bins, seed):
    rng = np.random.default_rng(seed)
    if kind == "even":
        codes = rng.integers(0, n_bins, (d, n))
    elif kind == "rare":
        codes = np.minimum(rng.geometric(0.6, (d, n)) - 1, n_bins - 1)
    elif kind == "sorted":
        codes = np.sort(rng.integers(0, n_bins, (d, n)), axis=1)
        codes[1::2] = codes[1::2, ::-1]
    else:
        codes = np.repeat(rng.integers(0, n_bins, (d, 1)), n, axis=1)
    codes[-1] = codes[0]
    return codes.astype(code_dtype(n_bins))


@pytest.fixture
def always_planes(monkeypatch):
    monkeypatch.setattr(joint_histograms, "uses_planes", lambda *_: True)
    monkeypatch.setattr(joint_histograms, "_planes_pay", lambda *_: True)


@pytest.mark.usefixtures("always_planes")
@pytest.mark.parametrize("kind", ["even", "rare", "sorted", "constant"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 511, 513, 5000, 40_000])
def test_planes_count_every_sample_once(kind, n):
    for bins_x, bins_y in ((2, 2), (3, 16), (16, 3), (16, 16), (25, 40)):
        x = columns_of_codes(kind, 5, n, bins_x, seed=n)
        y = columns_of_codes("even", 4, n, bins_y, seed=n + 1)
        bins = [bins_of(bins_x), bins_of(bins_y)]
        first, second = np.array([4, 0, 0, 2, 0]), np.array([1, 1, 3, 3, 3])
        tables = JointHistograms(bins, first, second).count(x, y)
        for i, j, table in zip(first, second, tables, strict=True):
            assert np.array_equal(table, fused_counts(x[i], y[j], (bins_x, bins_y)))
        own = JointHistograms(bins[:1], first, first[::-1].copy()).count(x, x)
        for i, j, table in zip(first, first[::-1], own, strict=True):
            assert np.array_equal(table, fused_counts(x[i], x[j], (bins_x, bins_x)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(1, 3000),
    st.sampled_from(["even", "rare", "sorted", "constant"]),
    st.integers(0, 2**32 - 1),
)
def test_both_ways_of_counting_agree(n_bins, n, kind, seed):
    codes = columns_of_codes(kind, 3, n, n_bins, seed)
    first, second = np.array([0, 0, 0, 0, 1, 2]), np.array([0, 1, 2, 1, 2, 2])
    statistic = JointHistograms([bins_of(n_bins)], first, second)
    found = []
    for chosen in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joint_histograms, "_planes_pay", lambda *_, chosen=chosen: chosen)
            found.append(statistic.count(codes, codes))
    assert np.array_equal(*found)
    assert np.array_equal(found[0][1], reference.joint_counts(codes[0], codes[1], (n_bins, n_bins)))


def test_the_rule_knows_the_processor(monkeypatch):
    for vectors, most in ((True, 25), (False, 10)):
        monkeypatch.setattr(joint_histograms, "counts_ones_in_vectors", lambda vectors=vectors: vectors)
        assert uses_planes(10**6, most, most)
        assert not uses_planes(10**6, most + 2, most + 2)
        assert not uses_planes(300, most, most)
        assert not uses_planes(10**6, 300, 2)
        # Planes of many columns are not worth making for few pairs.
        assert joint_histograms._planes_pay(10**5, most // 2, most // 2, 1000, 64)
        assert not joint_histograms._planes_pay(10**5, most // 2, most // 2, 2, 64)
        # Planes of many columns are not worth making for few pairs.
        assert joint_histograms._planes_pay(10**5, most // 2, most // 2, 1000, 64)
        assert not joint_histograms._planes_pay(10**5, most // 2, most // 2, 2, 64)
    assert isinstance(_bits.counts_ones_in_vectors(), bool)


@pytest.mark.usefixtures("always_planes")
def test_room_for_planes_is_known(monkeypatch):
    kept = []
    plain = joint_histograms._Planes.__init__

    def remember(self, *arguments):
        plain(self, *arguments)
        kept.append(sum(array.nbytes for array in (*self._room, self.left, self.margins)))

    monkeypatch.setattr(joint_histograms._Planes, "__init__", remember)
    for n_bins, n in ((2, 100), (16, 10_000), (16, 100_000), (40, 20_000)):
        codes = columns_of_codes("even", 6, n, n_bins, 0)
        statistic = JointHistograms([bins_of(n_bins)], np.arange(6), np.arange(6))
        statistic.count(codes, codes)
        assert kept[-1] <= 6 * counting_bytes(n, n_bins, n_bins) + 1000


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 4),
    st.data(),
)
def test_tiles_hold_every_pair_once(n_x, n_y, symmetric, diagonal, rows, columns, data):
    n_y = n_x if symmetric else n_y
    pairs = None
    if data.draw(st.booleans()):
        pair = st.tuples(st.integers(0, n_x - 1), st.integers(0, n_y - 1))
        pairs = data.draw(st.lists(pair, min_size=1, max_size=30))
    wanted = Pairs.of(pairs, n_x, n_y, symmetric=symmetric, diagonal=diagonal)
    out = np.full(wanted.shape, np.nan)
    seen = 0
    for tile in wanted.tiles(rows, columns):
        assert 0 < len(tile.first) <= rows * columns
        assert len(set(tile.first)) <= rows
        assert len(set(tile.second)) <= columns
        wanted.put(out, tile, 100.0 * tile.first + tile.second)
        seen += len(tile.first)
    assert seen == len(wanted)
    i, j = np.indices((n_x, n_y)) if pairs is None else np.array(pairs).T
    expected = 100.0 * i + j
    if pairs is None and symmetric:
        expected = np.where(i <= j, expected, expected.T)
        if not diagonal:
            np.fill_diagonal(expected, np.nan)
    assert np.array_equal(out, expected, equal_nan=True)
