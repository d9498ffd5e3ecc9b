"""Kernels of moments, sums over leaves, and what follows from them: cosine of feature maps, linear CKA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accounting import device_memory
from qixai_fast.kernels.moments_cuda import CHUNK_ROWS, shift_rows

import qixai_fast as qf
from qixai_fast._gpu import moments
from qixai_fast._gpu.moments import DeviceMatrix, device_sums
from qixai_fast.errors import MemoryBudgetError


@pytest.fixture
def small_leaves(gpu, monkeypatch):
    """Leaves, parts and strips of a few rows, so that small inputs have many."""
    monkeypatch.setattr(moments, "_LEAF_VALUES", 1)
    monkeypatch.setattr(moments, "_MIN_LEAF_ROWS", 64)
    monkeypatch.setattr(moments, "PART_ROWS", 16)
    monkeypatch.setattr(moments, "_MIN_STRIP", 4)
    return gpu


@pytest.mark.parametrize("m", [1, 3, 4, 5, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS + 7])
@pytest.mark.parametrize("d", [1, 31, 32, 33])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_about_a_shift(gpu, m, d, dtype):
    rng = np.random.default_rng(m)
    rows = rng.normal(1000, 1, (m, d)).astype(dtype)
    scale, shift = 2.0 ** rng.integers(-3, 3, d), rng.normal(1000, 1, d)
    out, sums = (
        gpu.empty((m + 2, d + 3), torch.float64),
        gpu.empty((-(-m // CHUNK_ROWS), 2, d), torch.float64),
    )
    out.fill_(-7.0)
    gpu.backend.launch(
        shift_rows, (2, len(sums)), 32, gpu.put(rows), gpu.put(scale), gpu.put(shift), out, sums
    )
    expected = rows.astype(np.float64) * scale - shift
    np.testing.assert_array_equal(out[:m, :d].cpu(), expected)
    assert (out[m:] == -7).all()
    assert (out[:, d:] == -7).all()
    np.testing.assert_allclose(sums.sum(0)[0].cpu(), expected.sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(sums.sum(0)[1].cpu(), (expected**2).sum(axis=0), rtol=1e-13)


@pytest.mark.parametrize("n", [1, 16, 17, 64, 65, 150])
@pytest.mark.parametrize("norm", [False, True])
def test_sums_of_two_matrices(small_leaves, n, norm):
    gpu = small_leaves
    rng = np.random.default_rng(n)
    X, Y = rng.standard_normal((n, 9)).astype(np.float32), rng.standard_normal((n, 5))
    shifts = [rng.standard_normal(9), rng.standard_normal(5)]
    pair = [DeviceMatrix.of(gpu.put(X), "X", gpu.backend), DeviceMatrix.of(Y, "Y", gpu.backend)]
    found = device_sums(pair, shifts, [1.0, 0.5], [(0, 0), (0, 1)], norm=norm)
    x, y = X - shifts[0], 0.5 * Y - shifts[1]
    if norm:
        x, y = (np.column_stack([one, (one**2).sum(axis=1)]) for one in (x, y))
    np.testing.assert_allclose(found.products[0, 0], x.T @ x, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found.products[0, 1], x.T @ y, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(found.products[0, 0], found.products[0, 0].T)
    for sums, one in zip(found.sums, (x, y), strict=True):
        np.testing.assert_allclose(sums, [one.sum(axis=0), (one**2).sum(axis=0)], rtol=1e-11, atol=1e-11)


def test_bits_do_not_depend_on_what_lies_where(small_leaves, tmp_path):
    """Nor on the budget: leaves follow from the width alone."""
    gpu = small_leaves
    X = np.random.default_rng(0).standard_normal((150, 6)).astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    results = [
        qf.cosine_similarity(np.load(tmp_path / "x.npy", mmap_mode="r"), axis=0, device="cuda"),
        qf.cosine_similarity(gpu.put(X), axis=0).cpu().numpy(),
        qf.cosine_similarity(X, axis=0, device="cuda", max_memory="1GB"),
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("both", [False, True])
def test_cosine_of_maps_is_the_cpus(small_leaves, center, dtype, both):
    rng = np.random.default_rng(0)
    X = (50 * rng.standard_normal((130, 9)) + 20).astype(dtype)
    X[:, 4] = 0
    Y = (50 * rng.standard_normal((130, 6)) + X[:, :6]).astype(dtype) if both else None
    for given in (X, small_leaves.put(X)):
        with pytest.warns(UserWarning, match=r"X has 1 .* the first at 4"):
            found = qf.cosine_similarity(given, Y, axis=0, center=center, device="cuda")
        with pytest.warns(UserWarning, match="the first at 4"):
            expected = qf.cosine_similarity(X, Y, axis=0, center=center)
        assert torch.is_tensor(found) == torch.is_tensor(given)
        found = found.cpu().numpy() if torch.is_tensor(found) else found
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(
            found, expected, rtol=1e-6 if found.dtype == np.float32 else 1e-12, atol=1e-13
        )


def test_best_maps_are_the_cpus(small_leaves):
    X = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    values, indices = qf.cosine_top_k(X, k=3, axis=0, device="cuda")
    expected_values, expected_indices = qf.cosine_top_k(X, k=3, axis=0)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(values, expected_values, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-200, 200])
def test_cosine_of_maps_of_extreme_values(small_leaves, exponent):
    X = np.random.default_rng(2).standard_normal((100, 4))
    X[:, 1:3] *= 10.0**exponent
    np.testing.assert_allclose(
        qf.cosine_similarity(X, axis=0, device="cuda"), qf.cosine_similarity(X, axis=0), rtol=1e-12
    )


def test_maps_in_tiles_where_the_budget_is_small(gpu, monkeypatch):
    from qixai_fast import _map_cosine

    monkeypatch.setattr(_map_cosine, "_MIN_TILE_COLUMNS", 4)
    X = np.random.default_rng(3).standard_normal((70, 21)).astype(np.float32)
    with pytest.raises(MemoryBudgetError) as error:
        qf.cosine_similarity(X, axis=0, device="cuda", max_memory=1000)
    found = qf.cosine_similarity(X, axis=0, device="cuda", max_memory=error.value.required)
    np.testing.assert_allclose(found, qf.cosine_similarity(X, axis=0), atol=1e-6)


@pytest.mark.parametrize("n", [12, 150])
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_linear_cka_is_the_cpus(small_leaves, n, debiased, dtype):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((n, 11)).astype(dtype)
    Y = (X[:, :7] + rng.standard_normal((n, 7))).astype(dtype)
    expected = qf.linear_cka(X, Y, debiased=debiased)
    assert abs(qf.linear_cka(X, Y, debiased=debiased, device="cuda") - expected) < 1e-12
    assert abs(qf.linear_cka(small_leaves.put(X), Y, debiased=debiased) - expected) < 1e-12
    assert abs(qf.linear_cka(X, small_leaves.put(Y), debiased=debiased) - expected) < 1e-12


@pytest.mark.parametrize("n", [12, 100])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_linear_cka_of_extreme_values(small_leaves, n, scale):
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((n, 9)), rng.standard_normal((n, 8))
    assert abs(qf.linear_cka(X * scale, Y, device="cuda") - qf.linear_cka(X, Y)) < 1e-12


def test_linear_cka_of_a_constant_layer(small_leaves):
    X = np.random.default_rng(6).standard_normal((60, 3))
    with pytest.warns(UserWarning, match="Y: every feature is constant"):
        assert qf.linear_cka(X, np.full((60, 2), 0.1), device="cuda") == 0


def test_the_first_value_that_is_not_finite_is_named(small_leaves):
    X, Y = np.ones((100, 4)), np.ones((100, 3))
    Y[71, 2] = np.inf
    with pytest.raises(ValueError, match="Y: inf at row 71, column 2"):
        qf.cosine_similarity(X, Y, axis=0, device="cuda")
    with pytest.raises(ValueError, match="Y: inf at row 71, column 2"):
        qf.linear_cka(X, small_leaves.put(Y), device="cuda")


def test_different_samples_are_an_error(gpu):
    with pytest.raises(ValueError, match="the same number of samples"):
        qf.linear_cka(np.ones((5, 2)), gpu.put(np.ones((6, 2))))


@pytest.mark.parametrize("n", [20, 300])
def test_device_memory_of_cka_stays_within_what_was_asked_for(small_leaves, monkeypatch, n):
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((n, 20)).astype(np.float32), rng.standard_normal((n, 10)).astype(np.float32)
    asked = []
    monkeypatch.setattr(
        type(small_leaves.backend), "require", lambda self, budget, required, work: asked.append(required)
    )
    if not small_leaves.simulated:
        qf.linear_cka(X, Y, device="cuda")  # cuBLAS keeps what its first products take
        asked.clear()
    with device_memory(small_leaves) as used:
        qf.linear_cka(X, Y, device="cuda")
    assert 0 < used.peak <= asked[0] < 60 * used.peak


def test_a_device_without_memory_is_an_error(small_leaves, monkeypatch):
    if small_leaves.simulated:
        monkeypatch.setattr(small_leaves.backend, "memory", 5000)
    else:
        monkeypatch.setattr(type(small_leaves.backend), "free_memory", lambda self: 5000)
    X = np.ones((100, 20))
    for call in (
        lambda: qf.pca(X, 2, device="cuda"),
        lambda: qf.linear_cka(X, X, device="cuda"),
        lambda: qf.cosine_similarity(X, axis=0, device="cuda"),
    ):
        with pytest.raises(MemoryBudgetError, match="max_memory"):
            call()
