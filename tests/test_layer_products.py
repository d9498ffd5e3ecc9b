"""Products of layers: what follows from one read, in any order, in any groups, within a budget."""

import itertools
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast._layer_products import (
    LEAF_ROWS,
    blocks_of,
    chunk_sums,
    combine_sums,
    finalize_products,
    layer_products,
    layer_view,
)
from qixai_fast._moment_measures import cosines_of, entropy_of, schmidt_shares_of, spectrum_of
from qixai_fast._validate import as_matrix
from qixai_fast._views import WithSquaredNorm
from qixai_fast.alignment import terms_of_products
from qixai_fast.auditing import layer_stages, pair_stages
from qixai_fast.auditing.layer_moments import LayerMoments


def related(n, widths, seed=0, dtype=np.float32, mean=3.0):
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, 4))
    return [
        (source @ rng.standard_normal((4, d)) + rng.standard_normal((n, d)) + mean).astype(dtype)
        for d in widths
    ]


def all_pairs(count):
    return list(itertools.combinations_with_replacement(range(count), 2))


def products_of(layers, pairs=None):
    views = {i: layer_view(as_matrix(layer), 1) for i, layer in enumerate(layers)}
    return layer_products(views, blocks_of(pairs or all_pairs(len(layers))), 1)


@pytest.mark.parametrize("n", [3, 700, 2 * LEAF_ROWS, 3 * LEAF_ROWS + 5])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_one_read_gives_what_the_public_functions_give(n, mean):
    layers = related(n, (5, 8, 3), mean=mean, dtype=np.float64)
    layers[1][:, 2] = mean + 1
    products = products_of(layers)
    for i, layer in enumerate(layers):
        k = min(n, layer.shape[1])
        found, expected = spectrum_of(products, i, k), qf.pca(layer, k)
        squares, theirs = found.singular_values**2, expected.singular_values**2
        np.testing.assert_allclose(squares, theirs, rtol=1e-9, atol=1e-12 * theirs[0])
        true = np.linalg.svd(layer - layer.mean(axis=0), compute_uv=False)[:k]
        assert (np.abs(found.singular_values - true) <= found.error_bound * true + 1e-300).all()
        assert found.total_variance == pytest.approx(expected.total_variance, rel=1e-11)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(
            found.explained_variance_ratio, expected.explained_variance_ratio, atol=1e-12
        )
        first = found.components[0]
        np.testing.assert_allclose(first, expected.components[0], atol=1e-9)
    for i, j in all_pairs(3):
        maps = np.arange(layers[i].shape[1]), np.arange(layers[j].shape[1])[::-1]
        for center in (False, True):
            other = None if i == j else layers[j]
            with (
                pytest.warns(UserWarning, match="constant column")
                if center and 1 in (i, j)
                else nullcontext()
            ):
                expected = qf.cosine_similarity(layers[i], other, axis=0, center=center)
            found = cosines_of(products, i, j, maps, center=center)
            np.testing.assert_allclose(found, expected[:, ::-1], atol=1e-9)
            if i == j:
                assert set(np.diagonal(found[:, ::-1])) <= {0.0, 1.0}
    for i, j in itertools.combinations(range(3), 2):
        terms = terms_of_products(products, i, j)
        if n >= layers[i].shape[1] + layers[j].shape[1]:
            assert terms.biased() == qf.linear_cka(layers[i], layers[j])
            assert terms.debiased() == qf.linear_cka(layers[i], layers[j], debiased=True)
        shares = schmidt_shares_of(products, i, j)
        expected = qf.schmidt_spectrum(layers[i], layers[j])
        np.testing.assert_allclose(shares, expected, atol=1e-10)
        entropy = qf.entanglement_entropy(layers[i], layers[j])
        assert entropy_of(shares) == pytest.approx(entropy, abs=1e-9)


def test_no_dependence_has_no_schmidt_spectrum():
    a = np.repeat([1.0, -1.0], 4)[:, None]
    b = np.tile([1.0, -1.0], 4)[:, None]
    for layers in ([a, b], [a, np.ones((8, 2))]):
        with pytest.raises(ValueError, match="cross-covariance is zero"):
            schmidt_shares_of(products_of(layers), 0, 1)
    assert entropy_of(np.array([1.0, 0.0])) == 0
    assert entropy_of(np.full(4, 0.25)) == pytest.approx(np.log(4))


def statistics_of(products):
    """All that follows from the products of two layers, each to be right to 1e-12 of 1."""
    for i in (0, 1):
        spectrum = spectrum_of(products, i, 3)
        yield f"singular values of {i}", spectrum.singular_values / spectrum.singular_values[0]
        yield f"total variance of {i}", np.log(spectrum.total_variance)
        yield f"shares of {i}", spectrum.explained_variance_ratio
        yield f"first component of {i}", np.outer(spectrum.components[0], spectrum.components[0])
        yield f"mean of {i}", spectrum.mean / np.abs(spectrum.mean).max()
    for i, j in all_pairs(2):
        maps = tuple(np.arange(len(products.means(which)) - 1) for which in (i, j))
        for center in (False, True):
            yield f"cosine of {i} and {j}", cosines_of(products, i, j, maps, center=center)
    terms = terms_of_products(products, 0, 1)
    yield "CKA", terms.biased()
    yield "debiased CKA", terms.debiased()
    yield "null of CKA", np.array(terms.null_biased())
    shares = schmidt_shares_of(products, 0, 1)
    yield "Schmidt spectrum", shares
    yield "entanglement entropy", entropy_of(shares)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_partials_merge_in_any_order(data):
    n = data.draw(st.integers(30, 120))
    mean = data.draw(st.sampled_from([0.0, 3.0, 1e4]))
    layers = related(n, (3, 5), seed=data.draw(st.integers(0, 2**32 - 1)), mean=mean, dtype=np.float64)
    views = {i: layer_view(as_matrix(layer), 1) for i, layer in enumerate(layers)}
    blocks = blocks_of([(0, 1)])
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=6)))
    parts = [chunk_sums(views, blocks, rows) for rows in itertools.pairwise([0, *cuts, n])]
    order = data.draw(st.permutations(range(len(parts))))
    parts = [parts[k] for k in order]
    while len(parts) > 1:
        k = data.draw(st.integers(0, len(parts) - 2))
        parts[k : k + 2] = [combine_sums(parts[k], parts[k + 1])]
    merged, straight = finalize_products(views, parts[0]), products_of(layers, [(0, 1)])
    assert merged.sums.n == n
    for (name, found), (_, expected) in zip(statistics_of(merged), statistics_of(straight), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=name)


def moments_of(layers, n_jobs=1, budget=None):
    matrices = {f"layer {i}": as_matrix(layer, f"layer {i}") for i, layer in enumerate(layers)}
    return LayerMoments(matrices, n_jobs, budget)


def every_block(moments, count):
    """In the order in which an audit asks."""
    wanted = [(i, i) for i in range(count)] + list(itertools.combinations(range(count), 2))
    found = {}
    for i, j in wanted:
        products, a, b = moments.products(f"layer {i}", f"layer {j}")
        found[i, j] = products.block(a, b).copy(), products.means(a).copy()
    return found


def test_groups_keep_the_budget_and_change_no_bit(monkeypatch):
    layers = related(9000, (40, 60, 30, 50))
    whole = moments_of(layers)
    free = every_block(whole, 4)
    assert (len(whole.groups), whole.n_reads) == (1, 1)
    counts = []
    for budget in (120e6, 40e6, 20e6, 12e6):
        for n_jobs in (1, 3):
            tracemalloc.start()
            moments = moments_of(layers, n_jobs, int(budget))
            found = every_block(moments, 4)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            held = sum(array.nbytes for pair in found.values() for array in pair)
            assert peak - held <= max(budget / 4, 9e6)
            assert moments.n_reads == len(moments.groups)
            for pair, arrays in free.items():
                for array, again in zip(arrays, found[pair], strict=True):
                    np.testing.assert_array_equal(array, again)
        counts.append(len(moments.groups))
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] > 1
    with pytest.raises(qf.MemoryBudgetError) as caught:
        moments_of(layers, 1, 10_000).products("layer 0", "layer 1")
    assert moments_of(layers, 1, caught.value.required).products("layer 0", "layer 1") is not None


def test_what_is_better_computed_otherwise():
    layers = related(50, (20, 40, 60))
    moments = moments_of(layers)
    assert moments.products("layer 0", "layer 0") is not None
    assert moments.products("layer 2", "layer 2") is None
    assert moments.products("layer 0", "layer 1") is None
    assert moments_of(related(2100, (1030, 3))).products("layer 0", "layer 0") is None
    assert moments_of(related(2100, (1030, 3))).products("layer 0", "layer 1") is not None


@pytest.fixture
def store(tmp_path):
    layers = dict(zip("abc", related(2500, (12, 20, 7)), strict=True))
    specs = {name: qf.LayerSpec(shape=data.shape[1:], dtype="float32") for name, data in layers.items()}
    with qf.create_store(tmp_path / "store", specs) as writer:
        writer.append(layers)
    return tmp_path / "store"


def test_an_audit_reads_each_layer_once_for_all_moments(store, monkeypatch):
    rows = {}
    read = WithSquaredNorm.block

    def counted(self, start, stop):
        rows[self.name] = rows.get(self.name, 0) + stop - start
        return read(self, start, stop)

    def refused(*args, **kwargs):
        raise AssertionError("another read")

    monkeypatch.setattr(WithSquaredNorm, "block", counted)
    monkeypatch.setattr(pair_stages, "linear_cka_test", _small_test)
    for module, names in (
        (layer_stages, ("pca", "cosine_similarity")),
        (pair_stages, ("cosine_similarity", "linear_cka", "schmidt_spectrum")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refused)
    plan = qf.AuditPlan(n_permutations=19, n_bins=4, null_samples=200)
    report = qf.audit(store, plan=plan, progress=False)
    assert rows == {f"layer {name!r}": 2500 for name in "abc"}
    assert report.timings["moments"] == {"groups": 1, "reads": 1}
    layers = qf.open_store(store)
    for pair in report.results["pairs"]:
        if not pair["within"]:
            a, b = layers[pair["layer_a"]], layers[pair["layer_b"]]
            monkeypatch.setattr(WithSquaredNorm, "block", read)
            assert pair["cka"]["value"] == qf.linear_cka(a, b)
            assert pair["cka"]["debiased"] == qf.linear_cka(a, b, debiased=True)
            expected = qf.schmidt_spectrum(a, b)[:10]
            np.testing.assert_allclose(pair["schmidt"]["spectrum"], expected, atol=1e-10)
            assert pair["schmidt"]["entropy"] == pytest.approx(qf.entanglement_entropy(a, b), abs=1e-9)


def test_an_audit_says_how_often_it_reads(store, capsys):
    plan = qf.AuditPlan(n_permutations=19, n_bins=4, null_samples=200, n_jobs=1)
    qf.audit(store, plan=plan)
    assert "moments" not in capsys.readouterr().err
    wide = related(3000, (150, 200, 100))
    with qf.create_store(
        store.parent / "wide",
        {name: qf.LayerSpec(w.shape[1:], "float32") for name, w in zip("abc", wide, strict=True)},
    ) as writer:
        writer.append(dict(zip("abc", wide, strict=True)))
    data = qf.open_store(store.parent / "wide")
    moments = moments_of([data[name] for name in "abc"], budget=64_000_000)
    assert moments.plan().startswith(f"moments of 3 layers in {len(moments.groups)} groups, up to ")
    enough = int(moments.plan().split("max_memory=")[1].split()[0])
    assert len(moments_of([data[name] for name in "abc"], budget=enough).groups) == 1
    assert len(moments_of([data[name] for name in "abc"], budget=enough - 4).groups) == 2
    qf.audit(store.parent / "wide", plan=replace(plan, max_memory=64_000_000))
    assert moments.plan() in capsys.readouterr().err


def _small_test(X, Y, **options):
    """The permutation test reads its few samples by another way."""
    return qf.LinearCKATest(0.5, 0.01, 0.1, 0.01, 19)


def test_a_stage_of_an_audit_names_what_cannot_be_read(store):
    data = qf.open_store(store)
    broken = np.array(data["b"])
    broken[2100, 3] = np.nan
    moments = LayerMoments(
        {"a": as_matrix(data["a"], "layer 'a'"), "b": as_matrix(broken, "layer 'b'")}, 2, None
    )
    with pytest.raises(ValueError, match="layer 'b': nan at row 2100, column 3"):
        moments.products("a", "a")
