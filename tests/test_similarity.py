"""Cosine similarity and its top k: against the definition, scikit-learn, and the edges of the input."""

import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

import qixai_fast as qf

TOLERANCE = {np.float16: 1e-6, np.float32: 1e-6, np.float64: 1e-12}


def relu_layer(n=60, d=7, seed=0):
    """Positive part of noise, and a little more, so that no row is constant."""
    return np.maximum(np.random.default_rng(seed).standard_normal((n, d)), 0.0) + np.linspace(0.01, 0.02, d)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agrees_with_the_definition(axis, center, dtype):
    X, Y = relu_layer(seed=1).astype(dtype), relu_layer(seed=2).astype(dtype)
    vectors = (X, Y) if axis == 1 else (X.T, Y.T)
    expected = reference.cosine_similarity(*vectors, center=center)
    actual = qf.cosine_similarity(X, Y, axis=axis, center=center)
    assert actual.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE[dtype])
    alone = qf.cosine_similarity(X, axis=axis, center=center)
    expected = reference.cosine_similarity(vectors[0], vectors[0], center=center)
    np.testing.assert_allclose(alone, expected, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scikit_learn_over_many_tiles(dtype):
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((1300, 20)).astype(dtype), rng.standard_normal((2100, 20)).astype(dtype)
    np.testing.assert_allclose(qf.cosine_similarity(X, Y), sklearn_cosine(X, Y), atol=TOLERANCE[dtype])
    alone = qf.cosine_similarity(X)
    np.testing.assert_allclose(alone, sklearn_cosine(X), atol=TOLERANCE[dtype])
    assert np.array_equal(alone, alone.T)
    assert np.array_equal(np.diagonal(alone), np.ones(len(X)))
    assert np.abs(alone).max() <= 1


def test_centred_maps_are_pearsons_correlation():
    X = relu_layer(5000, 12)
    np.testing.assert_allclose(
        qf.cosine_similarity(X, axis=0, center=True), np.corrcoef(X, rowvar=False), atol=1e-13
    )
    raw = qf.cosine_similarity(X, axis=0)[~np.eye(12, dtype=bool)]
    centred = qf.cosine_similarity(X, axis=0, center=True)[~np.eye(12, dtype=bool)]
    assert raw.min() > 0.25
    assert np.abs(centred).max() < 0.1


def test_centred_maps_far_from_zero_keep_their_correlation():
    rng = np.random.default_rng(4)
    spread = rng.standard_normal((4000, 6)) @ rng.standard_normal((6, 6))
    X = np.round(spread * 2**20) / 2**20  # so that adding the offset is exact
    expected = np.corrcoef(X, rowvar=False)
    np.testing.assert_allclose(
        qf.cosine_similarity(X + 2.0**30, axis=0, center=True), expected, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e307, 1e-315])
def test_extreme_values_neither_overflow_nor_vanish(axis, center, scale):
    X = np.random.default_rng(5).standard_normal((30, 5))
    expected = qf.cosine_similarity(X, axis=axis, center=center)
    scaled = X * scale
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        actual = qf.cosine_similarity(scaled, axis=axis, center=center)
    np.testing.assert_allclose(actual, expected, atol=1e-12 if scale > 1e-300 else 1e-6)


def test_extreme_and_ordinary_columns_together():
    X = np.random.default_rng(6).standard_normal((400, 4))
    scaled = X * np.array([1e-250, 1.0, 1e250, 1e-20])
    np.testing.assert_allclose(
        qf.cosine_similarity(scaled, axis=0), qf.cosine_similarity(X, axis=0), atol=1e-12
    )


@pytest.mark.parametrize(
    ("axis", "center", "kind"),
    [
        (1, False, "zero row"),
        (1, True, "constant row"),
        (0, False, "zero column"),
        (0, True, "constant column"),
    ],
)
def test_vectors_without_direction_give_zero_and_one_warning(axis, center, kind):
    X = np.random.default_rng(7).standard_normal((9, 6))
    value = 0.1 if center else 0.0
    if axis == 1:
        X[[2, 5]] = value
    else:
        X[:, [2, 5]] = value
    with pytest.warns(UserWarning, match=f"X has 2 {kind}.*first at 2") as caught:
        result = qf.cosine_similarity(X, axis=axis, center=center)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not result[[2, 5]].any()
    assert not result[:, [2, 5]].any()
    assert result[1, 1] == 1
    with pytest.warns(UserWarning, match="X has 2 .*; Y has 2") as caught:
        qf.cosine_similarity(X, X.copy(), axis=axis, center=center)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=kind) as caught:
        similarities, _ = qf.cosine_top_k(X, k=2, axis=axis, center=center)
    assert len(caught) == 1
    assert not similarities[[2, 5]].any()


def test_no_warning_without_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qf.cosine_similarity(relu_layer())
        qf.cosine_top_k(relu_layer(), k=3)


def test_result_goes_to_a_memmap(tmp_path):
    X = np.random.default_rng(8).standard_normal((1100, 5)).astype(np.float32)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(1100, 1100))
    assert qf.cosine_similarity(X, out=out) is out
    assert np.array_equal(out, qf.cosine_similarity(X))
    half = np.empty((1100, 1100), np.float16, order="F")
    qf.cosine_similarity(X, out=half)
    np.testing.assert_allclose(half, out, atol=1e-3)
    for axis, shape in ((1, (1100, 300)), (0, (5, 5))):
        Y = X[:300] if axis == 1 else X
        out = np.empty(shape)
        assert qf.cosine_similarity(X, Y, axis=axis, out=out) is out
        np.testing.assert_allclose(out, qf.cosine_similarity(X, Y, axis=axis), atol=1e-7)


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (np.empty((3, 4)), ValueError, r"out: wanted shape \(4, 4\), got \(3, 4\)"),
        (np.empty((4, 4), int), TypeError, "out: wanted a float dtype"),
        (np.broadcast_to(np.zeros(()), (4, 4)), ValueError, "out: is read-only"),
        ([[0.0] * 4] * 4, TypeError, "out: wanted a NumPy array"),
    ],
)
def test_a_bad_out_is_refused(out, error, match):
    with pytest.raises(error, match=match):
        qf.cosine_similarity(np.eye(4), out=out)


def test_out_may_not_be_the_input():
    X = np.eye(4)
    with pytest.raises(ValueError, match="out: shares memory with X"):
        qf.cosine_similarity(X, out=X)


@pytest.mark.parametrize("axis", [0, 1])
def test_every_kind_of_input(tmp_path, axis):
    X = relu_layer(40, 6).astype(np.float32)
    expected = qf.cosine_similarity(X, axis=axis)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.flags.writeable = False
    strided = np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    for same in (mapped, frozen, np.asfortranarray(X), strided, X.tolist()):
        np.testing.assert_allclose(qf.cosine_similarity(same, axis=axis), expected, atol=1e-6)
    tensor = qf.cosine_similarity(torch.from_numpy(X), axis=axis)
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), expected)
    coarse = torch.from_numpy(X).to(torch.bfloat16)
    tensor = qf.cosine_similarity(coarse, axis=axis)
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor.numpy(), qf.cosine_similarity(coarse.float().numpy(), axis=axis))
    assert all(
        isinstance(part, torch.Tensor) for part in qf.cosine_top_k(torch.from_numpy(X), k=2, axis=axis)
    )
    integers = (X * 10).astype(np.int32) + 1
    result = qf.cosine_similarity(integers, axis=axis)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, qf.cosine_similarity(integers.astype(float), axis=axis), atol=1e-15)


@pytest.mark.parametrize("call", [qf.cosine_similarity, lambda *a, **k: qf.cosine_top_k(*a, k=1, **k)])
def test_bad_input_is_named(call):
    X = np.ones((5, 3))
    with pytest.raises(ValueError, match="same number of features to compare rows, got 3 and 2"):
        call(X, np.ones((5, 2)))
    with pytest.raises(ValueError, match="same number of samples, got 5 and 4"):
        call(X, np.ones((4, 3)), axis=0)
    with pytest.raises(ValueError, match=r"X: wanted shape \(n_samples, n_features\)"):
        call(np.ones(3))
    with pytest.raises(ValueError, match="Y: wanted at least 1 sample"):
        call(X, np.ones((0, 3)))
    with pytest.raises(TypeError, match="Y: dtype complex128"):
        call(X, X.astype(complex))
    with pytest.raises(ValueError, match="axis: wanted one of 0, 1, got 2"):
        call(X, axis=2)
    with pytest.raises(ValueError, match="center: wanted one of"):
        call(X, center="rows")
    with pytest.raises(ValueError, match="device"):
        call(X, device="tpu")
    for axis in (0, 1):
        bad = X.copy()
        bad[3, 1] = np.nan
        bad[4, 0] = np.inf
        with pytest.raises(ValueError, match="X: nan at row 3, column 1"):
            call(bad, axis=axis)
        with pytest.raises(ValueError, match="Y: nan at row 3, column 1"):
            call(X, bad, axis=axis)


def test_one_sample_and_one_feature():
    assert qf.cosine_similarity([[2.0, 1.0]]).tolist() == [[1.0]]
    assert qf.cosine_similarity([[2.0], [-3.0]]).tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    with pytest.warns(UserWarning, match="constant column"):
        assert qf.cosine_similarity([[2.0, 1.0]], axis=0, center=True).tolist() == [[0.0, 0.0]] * 2


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([0, 1]), st.booleans()
)
def test_invariances(n, d, seed, axis, center):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + 0.1
    factors = np.exp(rng.standard_normal((n, 1) if axis == 1 else (1, d)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # single features and samples are constant once centred
        base = qf.cosine_similarity(X, axis=axis, center=center)
        scaled = qf.cosine_similarity(X * factors, axis=axis, center=center)
        flipped = qf.cosine_similarity(X[::-1, ::-1], axis=axis, center=center)
    np.testing.assert_allclose(scaled, base, atol=1e-12)
    np.testing.assert_allclose(flipped[::-1, ::-1], base, atol=1e-12)
    assert np.array_equal(base, base.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_top_k_is_the_top_of_the_full_matrix(dtype, k):
    rng = np.random.default_rng(9)
    X, Y = rng.standard_normal((1030, 8)).astype(dtype), rng.standard_normal((2060, 8)).astype(dtype)
    similarities, indices = qf.cosine_top_k(X, Y, k=k)
    full = qf.cosine_similarity(X, Y)
    assert similarities.dtype == dtype
    assert indices.dtype == np.int64
    np.testing.assert_allclose(similarities, -np.sort(-full, axis=1)[:, :k], atol=TOLERANCE[dtype] * 2)
    np.testing.assert_allclose(
        np.take_along_axis(full, indices, axis=1), similarities, atol=TOLERANCE[dtype] * 2
    )
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
@pytest.mark.parametrize("n", [63, 64, 65, 200, 1100])
def test_top_k_wherever_the_best_stand(dtype, order, n):
    """Vectors at known angles: every place of a word of 64, and the rest beyond whole words."""
    angles = np.linspace(0.01, 1.5, n)
    place = {"rising": np.arange(n)[::-1], "falling": np.arange(n)}.get(order)
    place = np.random.default_rng(n).permutation(n) if place is None else place
    Y = np.stack([np.cos(angles[place]), np.sin(angles[place])], axis=1).astype(dtype)
    similarities, indices = qf.cosine_top_k(np.array([[1.0, 0.0]], dtype), Y, k=7)
    assert place[indices[0]].tolist() == list(range(7))
    np.testing.assert_allclose(similarities[0], np.cos(angles[:7]), atol=TOLERANCE[dtype])


@pytest.mark.parametrize("skip_self", [False, True])
def test_top_k_agrees_with_the_reference(skip_self):
    X = relu_layer(25, 4)
    Y = X if skip_self else relu_layer(30, 4, seed=1)
    expected = reference.cosine_top_k(X, Y, 6, skip_self=skip_self)
    _, indices = qf.cosine_top_k(X, None if skip_self else Y, k=6)
    assert indices.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [3, 33, 100])
def test_ties_go_to_the_lowest_index(dtype, d):
    X = np.random.default_rng(10).standard_normal((301, d)).astype(dtype)
    copies = np.concatenate([X * 2.0**i for i in range(7)])
    _, indices = qf.cosine_top_k(X, copies, k=7)
    assert np.array_equal(indices, np.arange(301)[:, None] + 301 * np.arange(7))
    _, indices = qf.cosine_top_k(X, copies, k=3)
    assert np.array_equal(indices, np.arange(301)[:, None] + 301 * np.arange(3))


def test_a_vector_is_not_its_own_neighbour():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    similarities, indices = qf.cosine_top_k(X, k=2)
    assert indices.tolist() == [[2, 1], [0, 2], [0, 1]]
    np.testing.assert_allclose(similarities, [[1, 0], [0, 0], [1, 0]], atol=1e-15)
    assert qf.cosine_top_k(X, X, k=1)[1].tolist() == [[0], [1], [0]]
    assert qf.cosine_top_k(X.T, k=2, axis=0)[1].tolist() == indices.tolist()


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (3, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_bad_k(k, error):
    with pytest.raises(error, match="k: wanted"):
        qf.cosine_top_k(np.eye(3), k=k)


def test_top_k_of_a_single_vector():
    with pytest.raises(ValueError, match="at least two rows to compare"):
        qf.cosine_top_k([[1.0, 2.0]], k=1)
    with pytest.raises(ValueError, match="at least two columns to compare"):
        qf.cosine_top_k([[1.0], [2.0]], k=1, axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_panels_have_the_bits_of_one(dtype):
    """A small budget keeps one tile of each side at a time; BLAS sees the same products."""
    X = np.random.default_rng(12).standard_normal((2300, 300)).astype(dtype)
    for Y in (None, X[:1500] + 1):
        free, best = qf.cosine_similarity(X, Y), qf.cosine_top_k(X, Y, k=3)
        for call in (qf.cosine_similarity, lambda *a, **o: qf.cosine_top_k(*a, k=3, **o)[0]):
            with pytest.raises(qf.MemoryBudgetError) as caught:
                call(X, Y, max_memory=1)
            small = call(X, Y, max_memory=caught.value.required)
            assert np.array_equal(small, free if call is qf.cosine_similarity else best[0])


def test_products_in_place_and_from_tiles_agree():
    X = np.random.default_rng(13).standard_normal((2100, 40)).astype(np.float32)
    straight = qf.cosine_similarity(X, X[::-1])
    for out in (np.empty((2100, 2100), np.float32, order="F"), np.empty((2100, 4200), np.float32)[:, ::2]):
        assert qf.cosine_similarity(X, X[::-1], out=out) is out
        np.testing.assert_allclose(out, straight, atol=1e-6)
    assert np.abs(straight).max() <= 1
    assert (np.diagonal(straight[:, ::-1]) > 1 - 1e-6).all()


def test_a_matrix_is_symmetric_across_panels():
    X = np.random.default_rng(14).standard_normal((7500, 600)).astype(np.float32)
    # more tiles than one panel holds
    alone = qf.cosine_similarity(X)
    assert np.array_equal(alone[:200], alone[:, :200].T)
    assert np.array_equal(alone[6900:7100, 50:400], alone[50:400, 6900:7100].T)
    np.testing.assert_allclose(alone[6990:7010], sklearn_cosine(X[6990:7010], X), atol=1e-6)


def test_maps_of_two_layers_take_no_table_of_all_columns():
    X = np.random.default_rng(15).standard_normal((64, 3000)).astype(np.float32)
    tracemalloc.start()
    result = qf.cosine_similarity(X, X[:, :20], axis=0, center=True, n_jobs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 3020**2 / 8
    np.testing.assert_allclose(result, np.corrcoef(X, X[:, :20], rowvar=False)[:3000, 3000:], atol=1e-6)


def test_bytes_in_foreign_order_and_flags():
    X = relu_layer(30, 5)
    expected = qf.cosine_similarity(X)
    assert np.array_equal(qf.cosine_similarity(X.astype(">f8")), expected)
    single = X.astype(np.float32)
    assert np.array_equal(qf.cosine_similarity(single.astype(">f4")), qf.cosine_similarity(single))
    flags = X > 0.5
    flags[:, 0] = True
    np.testing.assert_allclose(qf.cosine_similarity(flags), sklearn_cosine(flags.astype(float)), atol=1e-14)


_BITS = """
import hashlib, numpy as np, qixai_fast as qf
X = np.random.default_rng(0).standard_normal((2500, 150)).astype(np.float32)
for n_jobs in (1, 2, 4, None):
    digest = hashlib.sha256()
    for axis in (0, 1):
        for center in (False, True):
            digest.update(qf.cosine_similarity(X, axis=axis, center=center, n_jobs=n_jobs).tobytes())
    for part in qf.cosine_top_k(X, X[:1500], k=4, n_jobs=n_jobs):
        digest.update(part.tobytes())
    print(digest.hexdigest())
"""


def test_same_bits_for_any_number_of_threads():
    run = subprocess.run(
        [sys.executable, "-c", _BITS],
        env={**os.environ, "NUMBA_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    digests = run.stdout.split()
    assert len(digests) == 4
    assert len(set(digests)) == 1


CALLS = {
    "rows": lambda X, **options: qf.cosine_similarity(X, X[:1500], **options),
    "rows of one": lambda X, **options: qf.cosine_similarity(X[:1500], **options),
    "maps": lambda X, **options: qf.cosine_similarity(X, X[:, :200], axis=0, **options),
    "maps of one": lambda X, **options: qf.cosine_similarity(X, axis=0, center=True, **options),
    "top k": lambda X, **options: qf.cosine_top_k(X, k=3, **options)[0],
    "top k of maps": lambda X, **options: qf.cosine_top_k(X, k=3, axis=0, **options)[0],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_budget_is_kept(call, dtype):
    X = np.random.default_rng(11).standard_normal((2600, 300)).astype(dtype)
    free = call(X)
    with pytest.raises(qf.MemoryBudgetError, match="would do") as caught:
        call(X, max_memory=1000)
    for budget in (caught.value.required, 2 * caught.value.required):
        tracemalloc.start()
        result = call(X, max_memory=budget)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        returned = result.nbytes * 3  # the top k's indices count too
        assert peak - returned <= budget
        np.testing.assert_allclose(result, free, atol=1e-12 if dtype is np.float64 else 1e-6)
