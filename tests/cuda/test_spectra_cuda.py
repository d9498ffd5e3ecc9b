"""Spectra on a device beside the CPU's, and beside float64 truth at means far larger than spreads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accounting import device_memory

import qixai_fast as qf
from qixai_fast._gpu import moments, spectra
from qixai_fast.errors import MemoryBudgetError


@pytest.fixture
def small_leaves(gpu, monkeypatch):
    """Leaves, parts and strips of a few rows, so that small inputs have many."""
    monkeypatch.setattr(moments, "_LEAF_VALUES", 1)
    monkeypatch.setattr(moments, "_MIN_LEAF_ROWS", 64)
    monkeypatch.setattr(moments, "PART_ROWS", 16)
    monkeypatch.setattr(moments, "_MIN_STRIP", 4)
    monkeypatch.setattr(spectra, "PART_ROWS", 16)
    monkeypatch.setattr(spectra, "_MIN_STRIP", 8)
    monkeypatch.setattr(spectra, "_MAX_STRIP", 8)
    return gpu


def layer(n, d, dtype=np.float64, ratio=0.0, seed=0):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    X = (rng.standard_normal((n, d)) * np.geomspace(1, 1e-2, d)) @ turn
    return (X + ratio * X.std()).astype(dtype)


def same_spectra(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=rtol)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.total_variance, expected.total_variance, rtol=1e-9)
    np.testing.assert_allclose(found.components, expected.components, atol=1e-5)
    assert found.components.dtype == expected.components.dtype


@pytest.mark.parametrize("n", [2, 15, 16, 17, 63, 64, 65, 200])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pca_is_the_cpus(small_leaves, n, dtype):
    X = layer(n, 7, dtype, ratio=3)
    k = min(n - 1, 3)
    same_spectra(qf.pca(X, k, device="cuda"), qf.pca(X, k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize("order", ["rows", "columns", "strided"])
def test_tensors_stay_where_they_are(small_leaves, dtype, order):
    gpu = small_leaves
    X = torch.from_numpy(40 * layer(90, 18, ratio=1)).to(dtype)
    expected = qf.pca((X[:, ::2] if order == "strided" else X).double().numpy(), 3)
    put = gpu.put(X.T.contiguous()).T if order == "columns" else gpu.put(X)
    result = qf.pca(put[:, ::2] if order == "strided" else put, 3)
    assert result.components.device == gpu.backend.device
    wide = dtype in (torch.float64, torch.int32)
    assert result.components.dtype == (torch.float64 if wide else torch.float32)
    np.testing.assert_allclose(result.singular_values.cpu(), expected.singular_values, rtol=1e-10)
    if gpu.simulated:
        assert ("launch", "shift_rows") in {entry[:2] for entry in gpu.backend.log}


@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("ratio", [0, 30, 1000])
def test_means_up_to_a_thousand_standard_deviations(gpu, method, dtype, ratio):
    """1e-6 for values above a thousandth of the first, of the data as they are stored."""
    n, d = (300, 20) if gpu.simulated else (20000, 300)
    X = layer(n, d, dtype, ratio)
    exact = X.astype(np.float64) - X.astype(np.float64).mean(axis=0)
    truth = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    k = min(6, int(np.count_nonzero(truth >= 1e-3 * truth[0])))
    result = qf.pca(X, k, method=method, device="cuda", random_state=0)
    error = np.abs(result.singular_values - truth[:k]) / truth[:k]
    assert error.max() < 1e-6
    assert np.all(error <= result.error_bound + 1e-14)
    assert result.error_bound[0] < 1e-9


@pytest.mark.parametrize("shape", [(150, 12), (20, 70)])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_svd_is_the_cpus(small_leaves, shape, center, dtype):
    X = layer(*shape[:2], dtype, ratio=2) if shape[0] > shape[1] else layer(70, 20, dtype, ratio=2).T
    for given in (X, small_leaves.put(np.ascontiguousarray(X))):
        found = qf.randomized_svd(given, 4, center=center, device="cuda")
        expected = qf.randomized_svd(X, 4, center=center)
        for one, other in zip(found, expected, strict=True):
            one = one.cpu().numpy() if torch.is_tensor(one) else one
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-6 if dtype == np.float16 else 1e-10)


def test_fewer_samples_than_features(small_leaves):
    X = layer(60, 24, np.float32, ratio=5).T
    same_spectra(qf.pca(X, 5, device="cuda"), qf.pca(X, 5))
    same_spectra(qf.pca(X, 5, method="krylov", device="cuda"), qf.pca(X, 5))


def test_a_mapped_file_in_several_blocks(small_leaves, tmp_path):
    X = layer(300, 9, np.float16, ratio=2)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    streamed, held = qf.pca(mapped, 4, device="cuda"), qf.pca(small_leaves.put(X), 4)
    np.testing.assert_array_equal(streamed.singular_values, held.singular_values.cpu().numpy())
    np.testing.assert_array_equal(streamed.components, held.components.cpu().numpy())
    same_spectra(streamed, qf.pca(X, 4))


@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("shape", [(150, 12), (12, 150)])
@pytest.mark.parametrize("resident", [False, True])
def test_the_first_value_that_is_not_finite_is_named(small_leaves, method, shape, resident):
    X = np.ones(shape, np.float32)
    X[11, 9], X[10, 11] = np.nan, np.inf
    with pytest.raises(ValueError, match="X: inf at row 10, column 11"):
        qf.pca(small_leaves.put(X) if resident else X, 2, method=method, device="cuda")


def test_constant_features_and_layers(small_leaves):
    X = layer(100, 5, ratio=1)
    X[:, 2] = 0.1
    result = qf.pca(X, 5, device="cuda")
    assert result.singular_values[4] < 1e-7
    assert result.error_bound[4] == np.inf
    assert result.mean[2] == 0.1
    constant = qf.pca(np.full((40, 3), 0.1), 1, device="cuda")
    assert constant.total_variance == 0


@pytest.mark.filterwarnings("ignore:.*overflow:RuntimeWarning")
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_squares_beyond_float64_are_errors(small_leaves, scale):
    with pytest.raises(ValueError, match="flow float64"):
        qf.pca(layer(100, 4) * scale, 2, device="cuda")


@pytest.mark.parametrize(
    ("shape", "method"), [((150, 12), "auto"), ((12, 150), "auto"), ((150, 12), "krylov")]
)
def test_budgets_that_are_too_small_name_one_that_does(gpu, shape, method):
    X = layer(max(shape), min(shape), np.float32)
    X = X if shape[0] > shape[1] else X.T
    with pytest.raises(MemoryBudgetError) as error:
        qf.pca(X, 2, method=method, device="cuda", max_memory=2000)
    enough = error.value.required
    with pytest.raises(MemoryBudgetError):
        qf.pca(X, 2, method=method, device="cuda", max_memory=enough - 1)
    assert qf.pca(X, 2, method=method, device="cuda", max_memory=enough).n_passes > 0


@pytest.mark.parametrize(
    ("shape", "method"), [((500, 12), "auto"), ((12, 500), "auto"), ((500, 12), "krylov")]
)
@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("call", [qf.pca, qf.randomized_svd])
def test_device_memory_stays_within_what_was_asked_for(
    small_leaves, monkeypatch, shape, method, resident, call
):
    X = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    X = small_leaves.put(X) if resident else X
    asked = []
    monkeypatch.setattr(
        type(small_leaves.backend), "require", lambda self, budget, required, work: asked.append(required)
    )
    options = {"method": method} if call is qf.pca else {}
    if not small_leaves.simulated:
        call(X, 3, device="cuda", **options)  # cuBLAS keeps what its first products take
        asked.clear()
    with device_memory(small_leaves) as used:
        call(X, 3, device="cuda", **options)
    assert 0 < used.peak <= asked[0]
    assert asked[0] < 60 * used.peak


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_scores_are_the_cpus(small_leaves, dtype):
    X = layer(150, 9, dtype, ratio=4)
    result = qf.pca(X, 3)
    expected = result.transform(X)
    np.testing.assert_allclose(result.transform(X, device="cuda"), expected, rtol=1e-6, atol=1e-12)
    held = small_leaves.put(X)
    scores = qf.pca(held, 3).transform(held)
    assert scores.device == small_leaves.backend.device
    np.testing.assert_allclose(scores.cpu(), expected, rtol=1e-4, atol=1e-4)
    out = np.zeros((150, 3))
    assert result.transform(X, out=out, device="cuda") is out
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(MemoryBudgetError):
        result.transform(X, device="cuda", max_memory=1000)
    X[149, 8] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 149, column 8"):
        result.transform(X, device="cuda")


@pytest.mark.parametrize("exponent", [-140, 0, 140])
def test_eigenvectors_of_the_device(small_leaves, monkeypatch, exponent):
    X = layer(100, 12, ratio=2) * 10.0**exponent
    expected = qf.pca(X, 5, device="cuda")
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(spectra, "_LEAST_DEVICE_WIDTH", 12)
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(len(matrix)) or eigh(matrix))
    found = qf.pca(X, 5, device="cuda")
    assert calls == [12]
    np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-11)
    np.testing.assert_allclose(found.components, expected.components, atol=1e-9)
    assert found.error_bound.max() < 1e-8


def test_krylov_counts_its_reads(small_leaves):
    X = layer(200, 40, np.float32)
    result = qf.pca(X, 2, method="krylov", tol=1e-8, device="cuda", random_state=0)
    assert 1 <= result.n_passes <= 6
    assert result.error_bound.max() <= 1e-8
    np.testing.assert_allclose(result.singular_values, qf.pca(X, 2).singular_values, rtol=1e-8)


def test_arguments_are_checked_as_on_the_cpu(gpu):
    X = gpu.put(np.ones((5, 3)))
    with pytest.raises(ValueError, match="n_components: wanted 1 to 3"):
        qf.pca(X, 4)
    with pytest.raises(ValueError, match="at least 2 sample"):
        qf.pca(X[:1], 1, device="cuda")
