"""Binned mutual information on a device: the CPU's values, however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accounting import device_memory

from qixai_fast import digitize, mutual_info_binned, mutual_info_test, pairwise_mutual_info_binned
from qixai_fast._gpu import binned as device_binned
from qixai_fast._gpu import codes as device_codes
from qixai_fast._gpu import joint_counts
from qixai_fast.errors import MemoryBudgetError
from qixai_fast.mutual_info.bias import BIAS_CORRECTIONS


@pytest.fixture(autouse=True)
def few_threads(monkeypatch, gpu):
    """Every thread of a simulated block is one of Python."""
    if gpu.simulated:
        monkeypatch.setattr(joint_counts, "_THREADS", 4)
        monkeypatch.setattr(joint_counts, "_SIDE", 1)
        monkeypatch.setattr(joint_counts, "MOST_THREADS", 32)
        monkeypatch.setattr(device_codes, "_THREADS", 8)


def made(n=90, d=5, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.standard_normal((n, d)), -0.5)
    X[:, 1] += X[:, 0]
    X[:, -1] = 2.0
    return X.astype(dtype)


def same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("correction", BIAS_CORRECTIONS)
def test_corrections(gpu, correction):
    X = made()
    found = pairwise_mutual_info_binned(X, n_bins=5, bias_correction=correction, device="cuda")
    assert isinstance(found, np.ndarray)
    same(found, pairwise_mutual_info_binned(X, n_bins=5, bias_correction=correction))


@pytest.mark.parametrize("normalize", ["sqrt", "joint"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_two_inputs(gpu, strategy, normalize):
    X, Y = made(), made(90, 3, 1, np.float16)
    options = {"n_bins": 6, "strategy": strategy, "zero_bin": True, "normalize": normalize}
    found = pairwise_mutual_info_binned(X, Y, device="cuda", **options)
    same(found, pairwise_mutual_info_binned(X, Y, **options))


@pytest.mark.parametrize("n_bins", [2, 64, 300])
def test_bins(gpu, n_bins):
    X = made(60, 3)
    found = pairwise_mutual_info_binned(X, n_bins=n_bins, device="cuda")
    same(found, pairwise_mutual_info_binned(X, n_bins=n_bins))


def test_chosen_pairs(gpu):
    X, pairs = made(60, 9), [[8, 0], [3, 3], [0, 8], [3, 3], [5, 2]]
    found = pairwise_mutual_info_binned(X, pairs=pairs, n_bins=4, device="cuda")
    same(found, pairwise_mutual_info_binned(X, pairs=pairs, n_bins=4))


def test_a_pair(gpu):
    x, y = made(50, 3).T[:2]
    found = mutual_info_binned(x, y, n_bins=4, device="cuda")
    assert isinstance(found, float)
    assert found == pytest.approx(mutual_info_binned(x, y, n_bins=4), abs=1e-12)
    tensors = gpu.put(torch.from_numpy(x.copy())), gpu.put(torch.from_numpy(y.copy()))
    assert mutual_info_binned(*tensors, n_bins=4) == found
    with pytest.raises(ValueError, match="x: wanted shape"):
        mutual_info_binned(gpu.put(torch.zeros(4, 2)), tensors[1], device="cuda")


def test_a_tensor_of_the_device(gpu):
    X = made(60, 3)
    tensor = gpu.put(X)
    found = pairwise_mutual_info_binned(tensor, n_bins=4)
    assert torch.is_tensor(found)
    assert found.device == tensor.device
    same(found.cpu().numpy(), pairwise_mutual_info_binned(X, n_bins=4))
    if gpu.simulated:
        assert any(entry[0] == "launch" for entry in gpu.backend.log)


def test_the_cpu_where_it_is_wanted(gpu):
    X = made(60, 3)
    pairwise_mutual_info_binned(X, n_bins=4)
    pairwise_mutual_info_binned(gpu.put(X), n_bins=4, device="cpu")
    if gpu.simulated:
        assert gpu.backend.log == []


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("correction", [None, "panzeri-treves"])
def test_codes_that_do_not_fit(gpu, monkeypatch, tmp_path, chosen, correction):
    X = made(100, 7)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    plan_work = device_binned.plan_work
    plans = []

    def cut(*arguments, **options):
        plan = plan_work(*arguments, **options)
        plans.append(device_binned.Plan(30, 2, 3, joint_counts.Shape(2, 64)))
        assert plan.held is None
        return plans[-1]

    monkeypatch.setattr(device_binned, "plan_work", cut)
    options = {"n_bins": 4, "bias_correction": correction}
    if chosen:
        options["pairs"] = [[6, 0], [1, 5], [4, 4], [0, 6], [2, 3]]
    found = pairwise_mutual_info_binned(mapped, device="cuda", **options)
    same(found, pairwise_mutual_info_binned(X, **options))
    assert len(plans) == 1


def test_codes_that_do_not_fit_of_a_tensor(gpu, monkeypatch):
    X, Y = made(100, 5), made(100, 4, 1)
    plan = device_binned.Plan(30, 2, 2, joint_counts.Shape(2, 64))
    monkeypatch.setattr(device_binned, "plan_work", lambda *_, **__: plan)
    found = pairwise_mutual_info_binned(gpu.put(X), gpu.put(Y), n_bins=4, strategy="quantile")
    same(found.cpu().numpy(), pairwise_mutual_info_binned(X, Y, n_bins=4, strategy="quantile"))


def test_budgets(gpu):
    X = made(5000, 80) if gpu.simulated else made(2_000_000, 80)
    from qixai_fast._gpu.rows import DeviceRows

    rows = [DeviceRows.of(X, "X", gpu.backend)]

    def plan(budget, strategy="uniform"):
        return device_binned.plan_work(rows, (4, 4), strategy, budget, [gpu.backend])

    ample = plan(None)
    assert ample.held is None
    assert ample.shape.side == 80
    with pytest.raises(MemoryBudgetError) as error:
        plan(1000)
    for strategy in ("uniform", "quantile"):
        with pytest.raises(MemoryBudgetError) as error:
            plan(1000, strategy)
        least = plan(error.value.required, strategy)
        assert least.held >= 1
        assert least.rows >= 1
        used = 2 * least.held * 5000 + joint_counts.shape_bytes(least.shape, (4, 4))
        assert used <= error.value.required or not gpu.simulated
        with pytest.raises(MemoryBudgetError):
            plan(error.value.required - 1, strategy)
    with pytest.raises(MemoryBudgetError, match="max_memory"):
        pairwise_mutual_info_binned(X, device="cuda", max_memory=1000)


@pytest.mark.parametrize("n_pairs", [None, 3])
def test_two_devices(gpu, monkeypatch, n_pairs):
    if not gpu.simulated and torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    X = made(60, 5)
    monkeypatch.setattr(joint_counts, "_PRODUCT_ROWS", 6)
    pairs = None if n_pairs is None else [[0, 1], [4, 2], [3, 3]]
    found = pairwise_mutual_info_binned(X, n_bins=4, pairs=pairs, devices=["cuda:0", "cuda:1"])
    same(found, pairwise_mutual_info_binned(X, n_bins=4, pairs=pairs))


def test_errors_are_the_cpus(gpu):
    X = made(20, 3)
    X[7, 1] = np.inf
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match="X: inf at row 7, column 1"):
            pairwise_mutual_info_binned(X, device=device)
        with pytest.raises(ValueError, match="n_bins: wanted 2 to 4096"):
            pairwise_mutual_info_binned(X, n_bins=1, device=device)
        with pytest.raises(ValueError, match="same number of samples"):
            pairwise_mutual_info_binned(X, X[1:], device=device)
        with pytest.raises(ValueError, match="pairs: row 0"):
            pairwise_mutual_info_binned(X, pairs=[[0, 3]], device=device)
    with pytest.raises(ValueError, match="devices"):
        pairwise_mutual_info_binned(X, devices=["cpu"])


def test_one_sample(gpu):
    X = np.zeros((1, 2), dtype=np.float32)
    same(pairwise_mutual_info_binned(X, device="cuda"), np.zeros((2, 2)))


def same_test(found, wanted):
    for name in ("values", "null_mean"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-12)
    for name in ("pvalues", "qvalues", "max_pvalues", "n_permutations_used"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@pytest.mark.filterwarnings("ignore:mutual_info_test")
@pytest.mark.parametrize("correction", [None, "permutation-mean", "panzeri-treves"])
def test_permutations_are_the_cpus(gpu, correction):
    X = made(60, 4)
    options = {"n_bins": 4, "n_permutations": 5, "random_state": 3, "bias_correction": correction}
    same_test(mutual_info_test(X, device="cuda", **options), mutual_info_test(X, **options))


@pytest.mark.filterwarnings("ignore:mutual_info_test")
@pytest.mark.parametrize(("n_x", "n_y"), [(2, 4), (4, 2)])
def test_either_side_moves(gpu, monkeypatch, n_x, n_y):
    monkeypatch.setattr(joint_counts, "_PRODUCT_ROWS", 6)
    X, Y = made(60, n_x), made(60, n_y, 1)
    options = {"n_bins": 4, "n_permutations": 4, "random_state": 3, "groups": np.arange(60) // 3}
    same_test(mutual_info_test(X, Y, device="cuda", **options), mutual_info_test(X, Y, **options))


@pytest.mark.filterwarnings("ignore:mutual_info_test")
@pytest.mark.parametrize("n_classes", [3, 300])
def test_labels(gpu, n_classes):
    X = made(600 if n_classes == 300 else 60, 2)
    options = {"labels": np.arange(len(X)) % n_classes, "n_bins": 4, "n_permutations": 3, "random_state": 0}
    same_test(mutual_info_test(X, device="cuda", **options), mutual_info_test(X, **options))


@pytest.mark.filterwarnings("ignore:mutual_info_test")
def test_stopping_early(gpu):
    X, pairs = made(40, 4), [[3, 0], [0, 1], [1, 2]]
    options = {"n_bins": 3, "n_permutations": 21, "stop_after": 1, "random_state": 0, "pairs": pairs}
    found = mutual_info_test(gpu.put(X), **options)
    assert torch.is_tensor(found.values)
    found = type(found)(*(getattr(found, name).cpu().numpy() for name in found.__dataclass_fields__))
    same_test(found, mutual_info_test(X, **options))


def test_a_test_that_does_not_fit(gpu):
    with pytest.raises(MemoryBudgetError):
        mutual_info_test(made(60, 4), device="cuda", max_memory=2000)


@pytest.mark.parametrize("n_bins", [5, 300])
def test_digitize(gpu, tmp_path, n_bins):
    X = made(60, 4)
    wanted = digitize(X, n_bins=n_bins, zero_bin=True)
    options = {"n_bins": n_bins, "zero_bin": True, "device": "cuda"}
    out = np.empty_like(wanted.codes)
    for given in (None, tmp_path / "codes.npy", out):
        found = digitize(X, out=given, **options)
        np.testing.assert_array_equal(found.codes, wanted.codes)
        np.testing.assert_array_equal(found.edges, wanted.edges)
        assert found.codes.dtype == wanted.codes.dtype
    assert found.codes is out
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), wanted.codes)
    tensor = gpu.put(X)
    found = digitize(tensor, n_bins=n_bins, zero_bin=True)
    assert found.codes.device == found.edges.device == tensor.device
    np.testing.assert_array_equal(found.codes.cpu().numpy(), wanted.codes)
    with pytest.raises(ValueError, match="out: wanted shape"):
        digitize(tensor, n_bins=n_bins, out=out.T)
    with pytest.raises(MemoryBudgetError):
        digitize(X, max_memory=1000, **options)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_budget_is_kept(gpu, monkeypatch, strategy, dtype):
    # Besides the fixed parts, which are larger than all else here.
    monkeypatch.setattr(device_binned, "_OVERHEAD", 2**13)
    monkeypatch.setattr(device_binned.PluginEstimator, "terms", np.zeros(600))
    X = made(500 if gpu.simulated else 400_000, 6, dtype=dtype)
    options = {"n_bins": 3, "strategy": strategy, "device": "cuda", "pairs": [[0, 5], [1, 4]]}
    with pytest.raises(MemoryBudgetError) as error:
        pairwise_mutual_info_binned(X, max_memory=1000, **options)
    for budget in (error.value.required, 2 * error.value.required):
        with device_memory(gpu) as used:
            pairwise_mutual_info_binned(X, max_memory=budget, **options)
        assert 0 < used.peak <= budget
