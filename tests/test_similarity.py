"""Cosine similarity: against the definition, scikit-learn, and the edges of the input."""

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


def test_bytes_in_foreign_order_and_flags():
    X = relu_layer(30, 5)
    expected = qf.cosine_similarity(X)
    assert np.array_equal(qf.cosine_similarity(X.astype(">f8")), expected)
    single = X.astype(np.float32)
    assert np.array_equal(qf.cosine_similarity(single.astype(">f4")), qf.cosine_similarity(single))
    flags = X > 0.5
    flags[:, 0] = True
    np.testing.assert_allclose(qf.cosine_similarity(flags), sklearn_cosine(flags.astype(float)), atol=1e-14)
