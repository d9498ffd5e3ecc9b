"""Nearest-neighbour mutual information on a device: the CPU's counts, and so its values."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from accounting import device_memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qixai_fast.kernels import cells_cuda, digamma_cuda, ksg_cuda

import qixai_fast as qf
from qixai_fast._gpu import ksg, ksg_points
from qixai_fast.mutual_info import pairs
from qixai_fast.mutual_info.pairwise import check_options
from qixai_fast.mutual_info.variables import Jitter, choose_views, plain_variable
from tests import reference

SMALL_BLOCK = 8


@pytest.fixture
def small(gpu, monkeypatch):
    """The device, with small blocks where every thread is one of Python's."""
    if gpu.simulated:
        monkeypatch.setattr(ksg_points, "_THREADS", SMALL_BLOCK)
        monkeypatch.setattr(digamma_cuda, "THREADS", SMALL_BLOCK)
        monkeypatch.setattr(cells_cuda, "THREADS", SMALL_BLOCK)
    return gpu


def counted(gpu, x, y, k, algorithm, shift=None):
    """Counts of every sample, by the kernels."""
    n = len(x)
    shift = ksg_points.strip_shift(n) if shift is None else shift
    x_order, y_order = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    rank = np.empty(n, np.int32)
    rank[y_order] = np.arange(n)
    one = np.zeros(1, np.int32)
    given = x[x_order][None], one, y[y_order][None], one, rank[x_order][None], one + n, one + shift
    points = ksg_points.Points(*map(gpu.put, given))
    n_strips = -(-n >> shift)
    counts = [c[0].cpu().numpy() for c in points.counts(gpu.backend, k, algorithm, n_strips)]
    by_sample = np.empty((2, n), np.int64)
    for strip in range(n_strips):
        members = x_order[strip << shift : (strip + 1) << shift]
        members = members[np.argsort(rank[members])]
        for side in range(2):
            by_sample[side, members] = counts[side][strip << shift : (strip + 1) << shift]
    return by_sample


def on_cpu(x, y, k, algorithm):
    """Counts of every sample, by the CPU's kernels."""
    x, y = plain_variable(x), plain_variable(y)
    scratch = pairs.Scratch(len(x.codes))
    cell = pairs.Cell.of(x, y, *choose_views(x, y), scratch)
    counts = pairs.ksg_counts(cell.x, cell.y, cell.x_position, k, algorithm, scratch)
    by_sample = np.empty((2, len(x.codes)), np.int64)
    by_sample[:, cell.samples[pairs.strip_order(cell.x_position)]] = counts
    return by_sample


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(2, 40),
    k=st.integers(1, 39),
    algorithm=st.sampled_from([1, 2]),
    decimals=st.sampled_from([0, 1, 15]),
    shift=st.integers(1, 5),
    correlation=st.sampled_from([0.0, 0.9, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_counts_equal_brute_force(small, n, k, algorithm, decimals, shift, correlation, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    y = correlation * x + (1 - correlation) * rng.standard_normal(n)
    x, y = np.round(x, decimals), np.round(y, decimals)
    k = min(k, n - 1)
    expected = reference.ksg_counts(x, y, k, algorithm)
    np.testing.assert_array_equal(counted(small, x, y, k, algorithm, shift), expected)


@pytest.mark.parametrize("k", [1, 3, 16, 17, 40])
@pytest.mark.parametrize("algorithm", [1, 2])
def test_counts_equal_the_cpus(small, k, algorithm):
    n = 100 if small.simulated else 30_000
    rng = np.random.default_rng(k)
    x = rng.standard_normal(n).astype(np.float32).astype(np.float64)
    y = (x + rng.standard_normal(n)).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(counted(small, x, y, k, algorithm), on_cpu(x, y, k, algorithm))


@pytest.mark.parametrize("n", [2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65])
def test_sizes_around_strips_and_blocks(small, n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n))
    k = min(3, n - 1)
    for shift in (3, 4):
        expected = reference.ksg_counts(x, y, k, 1)
        np.testing.assert_array_equal(counted(small, x, y, k, 1, shift), expected)


@pytest.mark.parametrize("k", [1, 16, 17, 34, 49])
@pytest.mark.parametrize("algorithm", [1, 2])
def test_many_points_in_few_places(small, k, algorithm):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (2, 50)).astype(float)
    expected = reference.ksg_counts(x, y, k, algorithm)
    np.testing.assert_array_equal(counted(small, x, y, k, algorithm, 3), expected)


def test_differences_decide_where_sums_round(small):
    # The neighbour at the radius itself: v + eps rounds it in or out, v_j - v_i does not.
    x = np.concatenate([np.arange(20) * 0.1, [1e16, 3e-320, 1e-319]])
    y = np.concatenate([np.arange(20)[::-1] * 0.3, [-1e16, 5e-324, 0.0]])
    for algorithm in (1, 2):
        expected = reference.ksg_counts(x, y, 2, algorithm)
        np.testing.assert_array_equal(counted(small, x, y, 2, algorithm, 2), expected)


def test_strips_are_no_more_than_there_are_blocks_for():
    for n in [*range(2, 5000), *(4**i * 3 // 2 + d for i in range(6, 14) for d in (-1, 0, 1)), 2**31 - 1]:
        width = 1 << ksg_points.strip_shift(n)
        assert 8 <= width <= 1024
        assert -(-n // width) <= ksg_points.most_strips(n)
    # A cell of fewer points has no more blocks than a launch has for all.
    assert all(a <= b for a, b in pairwise(map(ksg_points.most_strips, range(2, 5000))))


def test_sums_of_digamma_are_exact(small):
    rng = np.random.default_rng(0)
    n = 90
    psi = pairs.digamma_table(n)
    counts = rng.integers(0, n - 1, (2, 3, n)).astype(np.int32)
    sizes = np.array([n, 2, 50], np.int32)
    words = ksg.digamma_words(psi)
    assert all(
        math.ldexp((int(w) >> 32 << digamma_cuda.LOW_BITS) + (int(w) & 0xFFFFFFFF), -digamma_cuda.UNIT_BITS)
        == value
        for w, value in zip(words[1:], psi[1:], strict=True)
    )
    shares = 3
    totals = small.empty((3, shares, 2), torch.int64)
    put = [small.put(array) for array in (*counts, sizes, words)]
    small.backend.launch(
        digamma_cuda.sum_digamma, 3 * shares, digamma_cuda.THREADS, *put[:3], 4, 1, put[3], shares, totals
    )
    sums = ksg.digamma_sums(totals.sum(dim=1).cpu().numpy())
    for pair, size in enumerate(sizes):
        exact = math.fsum(psi[counts[:, pair, :size] + 1].ravel()) if size >= 4 else 0.0
        assert sums[pair] == exact


def test_largest_sums_do_not_overflow():
    n = 2**31 - 1
    psi = np.array([np.nan, -np.euler_gamma, math.log(n)])
    words = ksg.digamma_words(psi)
    for word, value in zip(words[1:].tolist(), psi[1:], strict=True):
        halves = 2 * n * (word >> 32), 2 * n * (word & 0xFFFFFFFF)
        assert max(map(abs, halves)) < 2**63
        sums = ksg.digamma_sums(np.array([halves]))
        np.testing.assert_allclose(sums, 2 * n * value, rtol=1e-15)


def layer(n=32, d=7, seed=0):
    """Plain, rectified (two of them), half precision (two), quantised and constant columns."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + rng.standard_normal((n, 1))
    X[:, 1:3] = np.maximum(X[:, 1:3], [0, -0.5])
    X[:, 3] = X[:, 3].astype(np.float16)
    X[:, 4:6] = np.round(X[:, 4:6] * 8) / 8
    X[:, 6] = 1.5
    return X


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"algorithm": 2, "n_neighbors": 5, "random_state": 3},
        {"scale": None, "atoms": "none"},
        {"n_neighbors": 20},
    ],
    ids=str,
)
def test_values_equal_the_cpus(small, options):
    X = layer() if small.simulated else layer(5000)
    # Plain, rectified, in half precision, quantised and constant columns, each with itself and some others.
    chosen = [(0, 0), (0, 1), (2, 1), (2, 2), (3, 0), (3, 3), (4, 5), (5, 4), (1, 4), (6, 0)]
    np.testing.assert_allclose(
        qf.pairwise_mutual_info_ksg(X, pairs=chosen, device="cuda", **options),
        qf.pairwise_mutual_info_ksg(X, pairs=chosen, **options),
        rtol=0,
        atol=1e-12,
    )


def test_cells_equal_the_cpus(small):
    n = 40
    X = layer(n)
    X[:, 5] = np.where(X[:, 1] > 0, 0.0, X[:, 5])  # continuous where column 1 is not
    options = check_options(n, n_neighbors=3, algorithm=1, scale=None, atoms="auto", seed=0)
    jitter = Jitter(0, n)
    variables = [options.prepare(X[:, c].copy(), "X", X.dtype, jitter) for c in (0, 1, 2, 5)]
    views = [one.views[0] for one in variables]
    table = ksg_points.Table(small.backend, views, n)
    chosen = np.array([(0, 1), (1, 0), (2, 1), (1, 3), (2, 2)], np.int32)
    points = ksg_points.cell_points(small.backend, table, small.put(chosen[:, 0]), small.put(chosen[:, 1]))
    for p, (i, j) in enumerate(chosen.tolist()):
        cell = pairs.Cell.of(variables[i], variables[j], views[i], views[j], pairs.Scratch(n))
        size = int(points.sizes[p])
        if cell is None:
            assert size == 0
            continue
        assert size == len(cell.samples)
        assert int(points.shifts[p]) == ksg_points.strip_shift(size)
        for values, axis in ((points.x_values, cell.x), (points.y_values, cell.y)):
            np.testing.assert_array_equal(values[p, :size].cpu(), axis.values[8 : 8 + size])
        partners = points.partners[p, :size].cpu().numpy()
        np.testing.assert_array_equal(partners[cell.x_position], np.arange(size))


def test_entries_are_the_bits_of_the_two_column_call(small):
    X, Y = layer(), layer(seed=1)
    chosen = np.array([(5, 0), (2, 1), (2, 1), (4, 5), (6, 0)])
    both = qf.pairwise_mutual_info_ksg(X, Y, pairs=chosen, device="cuda")
    own = qf.pairwise_mutual_info_ksg(X, pairs=chosen, device="cuda")
    for place, (i, j) in enumerate(chosen):
        assert both[place] == qf.mutual_info_ksg(X[:, i], Y[:, j], device="cuda")
        assert own[place] == qf.mutual_info_ksg(X[:, i], X[:, j], device="cuda")
    np.testing.assert_allclose(both, qf.pairwise_mutual_info_ksg(X, Y, pairs=chosen), rtol=0, atol=1e-12)


def test_neither_order_of_samples_nor_of_variables_changes_a_bit(small):
    rng = np.random.default_rng(0)
    x, y = np.round(rng.standard_normal((2, 60)), 1)
    order = rng.permutation(60)
    value = qf.mutual_info_ksg(x, y, atoms="none", device="cuda")
    assert value == qf.mutual_info_ksg(x[order], y[order], atoms="none", device="cuda")
    assert value == qf.mutual_info_ksg(y, x, atoms="none", device="cuda")


@pytest.mark.parametrize("columns", [(0, 3), (1, 2), (4, 5), (0, 6)])
def test_local_parts_and_diagnostics_equal_the_cpus(small, columns):
    x, y = layer()[:, columns].T
    options = {"return_local": True, "return_diagnostics": True, "algorithm": 2}
    value, local, seen = qf.mutual_info_ksg(x, y, device="cuda", **options)
    expected, local_expected, seen_expected = qf.mutual_info_ksg(x, y, **options)
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(local, local_expected)
    assert seen.x == seen_expected.x
    np.testing.assert_allclose(
        list(seen.k_sensitivity.values()), list(seen_expected.k_sensitivity.values()), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_tensors_on_the_device_stay_there(small, dtype):
    X = torch.from_numpy(8 * layer(16, 7)[:, :2]).to(dtype)
    on_device = small.put(X)
    values = qf.pairwise_mutual_info_ksg(on_device)
    assert torch.is_tensor(values)
    assert values.device == on_device.device
    assert values.dtype == torch.float64
    expected = qf.pairwise_mutual_info_ksg(X)
    np.testing.assert_allclose(values.cpu(), expected, rtol=0, atol=1e-12)
    strided = small.put(torch.stack([X, X], dim=1).reshape(16, -1))[:, ::2]
    np.testing.assert_allclose(qf.pairwise_mutual_info_ksg(strided).cpu()[0, 0], expected[0, 0], atol=1e-12)


def test_a_mapped_file_in_tiles_and_batches(small, tmp_path, monkeypatch):
    n, d = (16, 3) if small.simulated else (4000, 30)
    np.save(tmp_path / "X.npy", layer(n, 7)[:, np.arange(d) % 7].astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    full = qf.pairwise_mutual_info_ksg(X, device="cuda")
    with pytest.raises(qf.MemoryBudgetError, match="max_memory"):
        qf.pairwise_mutual_info_ksg(X, device="cuda", max_memory=1000)
    options = check_options(n, n_neighbors=3, algorithm=1, scale="std", atoms="auto", seed=0)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        ksg.Engine([small.backend], n, options, 1, 1000, "work")
    assert ksg.Engine([small.backend], n, options, 1, caught.value.required, "work").task_pairs == 1
    real = small.backend.budget
    for spare in (0, 150 * n):
        budget = caught.value.required + spare
        monkeypatch.setattr(small.backend, "budget", lambda _, budget=budget: budget)
        with device_memory(small) as used:
            values = qf.pairwise_mutual_info_ksg(X, device="cuda")
        np.testing.assert_array_equal(values, full)
        assert used.peak <= budget
    monkeypatch.setattr(small.backend, "budget", real)


def test_pairs_of_few_columns_need_no_more_memory_than_two(small):
    options = check_options(50, n_neighbors=3, algorithm=1, scale="std", atoms="auto", seed=0)
    engine = ksg.Engine([small.backend], 50, options, 1, None, "work")
    assert engine.task_pairs > 1000
    with pytest.raises(ValueError, match=r"2\*\*31"):
        ksg.Engine([small.backend], 2**31, options, 1, None, "work")


def test_two_devices(small, monkeypatch):
    if not small.simulated and torch.cuda.device_count() < 2:
        pytest.skip("one device")
    X = layer(16)[:, [0, 1, 4]]
    one = qf.pairwise_mutual_info_ksg(X, device="cuda:1")
    monkeypatch.setattr(ksg, "_POINTS", 40)
    both = qf.pairwise_mutual_info_ksg(X, devices=["cuda:0", "cuda:1"])
    np.testing.assert_array_equal(both, one)
    if small.simulated:
        from qixai_fast._gpu.backend import open_backend

        launched = [[entry[1] for entry in open_backend(i).log if entry[0] == "launch"] for i in range(2)]
        assert all("marginal_counts" in names for names in launched)


def test_each_column_is_sent_once_for_all_its_pairs(small, monkeypatch):
    sent = []
    make = ksg_points.Table.__init__
    monkeypatch.setattr(
        ksg_points.Table, "__init__", lambda self, *args: (sent.append(len(args[1])), make(self, *args))[1]
    )
    monkeypatch.setattr(ksg, "_POINTS", 40)
    qf.pairwise_mutual_info_ksg(layer(20)[:, [0, 1, 2]], device="cuda")
    assert sent == [3]


@pytest.mark.parametrize("k", [1, 5])
def test_fewest_samples_and_cells(small, k):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((k + 1, 2))
    np.testing.assert_allclose(
        qf.pairwise_mutual_info_ksg(X, n_neighbors=k, device="cuda"),
        qf.pairwise_mutual_info_ksg(X, n_neighbors=k),
        rtol=0,
        atol=1e-12,
    )
    # Cells of 2 to 6 samples.
    n = 12
    X = rng.standard_normal((n, 4))
    for column in range(1, 4):
        X[: n - 2 * column, column] = 0.0
    np.testing.assert_allclose(
        qf.pairwise_mutual_info_ksg(X, n_neighbors=k, device="cuda"),
        qf.pairwise_mutual_info_ksg(X, n_neighbors=k),
        rtol=0,
        atol=1e-12,
    )


def test_what_cannot_run_there_says_so(small):
    x = np.random.default_rng(0).standard_normal((20, 2))
    with pytest.raises(ValueError, match=r"several dimensions have CPU kernels only"):
        qf.mutual_info_ksg(x, x[:, 0], device="cuda")
    on_device = small.put(torch.from_numpy(x))
    assert qf.mutual_info_ksg(on_device, on_device[:, 0]) == qf.mutual_info_ksg(x, x[:, 0])
    with pytest.raises(ValueError, match="wanted without device"):
        qf.pairwise_mutual_info_ksg(x, device="cuda", devices=["cuda:0"])
    x[7, 1] = np.nan
    with pytest.raises(ValueError, match=r"X: .*row 7, column 1"):
        qf.pairwise_mutual_info_ksg(x, device="cuda")


def test_a_kernel_a_number_of_neighbours(small):
    assert ksg_cuda.make_marginal_counts(3, 1) is ksg_cuda.make_marginal_counts(3, 1)
    assert ksg_cuda.make_marginal_counts(3, 1) is not ksg_cuda.make_marginal_counts(3, 2)
