"""Cosine similarity on a device: kernels against the definition and the CPU's, calls against the CPU path."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from accounting import device_memory
from qixai_fast.kernels import cosine_cpu, cosine_cuda

import qixai_fast as qf
from qixai_fast._gpu import cosine, tiles, unit_rows
from qixai_fast._gpu.precision import exact_products

# The simulator computes with NumPy's scalars, which warn where a square overflows.
overflowing = pytest.mark.filterwarnings("ignore:.*overflow encountered:RuntimeWarning")
TOLERANCE = {np.float16: 1e-6, np.float32: 1e-6, np.float64: 1e-12}
INTEGERS = {np.float32: torch.int32, np.float64: torch.int64}


@pytest.fixture
def small(gpu, monkeypatch):
    """A device whose tiles, blocks and lists are small enough for a test to fill several of each."""
    if gpu.simulated:
        monkeypatch.setattr(cosine, "SCAN_THREADS", 2)
        monkeypatch.setattr(unit_rows, "FEWEST_THREADS", 2)
        monkeypatch.setattr(unit_rows, "MOST_THREADS", 2)
    monkeypatch.setattr(tiles, "LARGEST_TILE", 16)
    return gpu


@pytest.fixture
def quick(small, monkeypatch):
    """The same, with a look in float16 first however few candidates there are."""
    monkeypatch.setattr(cosine, "QUICK_FROM", 1)
    return small


def drawn(n, d, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def similar(actual, expected, dtype):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=TOLERANCE[dtype])


# Kernels


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 3, 4, 5, 9])
@overflowing
def test_unit_rows_are_the_cpus(gpu, d, dtype, center):
    X = drawn(7, d, dtype)
    X[2] = 0
    X[4] = 0.1
    if dtype == np.float64:
        X[5] *= 1e200
        X[6] *= 1e-310
    expected, zero = np.empty_like(X), np.empty(7, bool)
    assert cosine_cpu.unit_rows(X, center, expected, zero) == -1
    target, is_zero = gpu.put(np.empty_like(X)), gpu.put(np.full(7, 9, np.uint8))
    gpu.backend.launch(cosine_cuda.unit_rows, 7, 4, gpu.put(X), center, target, is_zero)
    similar(target.cpu(), expected, dtype)
    assert is_zero.cpu().numpy().tolist() == zero.tolist()
    np.testing.assert_array_equal(target.cpu().numpy()[zero], 0)


def merged(gpu, scores, k, *, capacity, threads, own, tolerance, pieces):
    """The best k by the kernel, candidates cut at ``pieces``, in tiles with garbage at their ends."""
    dtype = scores.dtype.type
    values = gpu.put(np.full((len(scores), k), -np.inf, dtype))
    indices = gpu.put(np.full((len(scores), k), -1))
    kernel = cosine_cuda.make_update_top_k(8 * scores.itemsize, capacity)
    for first, last in zip([0, *pieces], [*pieces, scores.shape[1]], strict=True):
        if first == last:
            continue
        width = tiles.columns(last - first, scores.itemsize)
        tile = np.full((len(scores), width), 2, dtype)
        tile[:, : last - first] = scores[:, first:last]
        held = gpu.put(tile)
        gpu.backend.launch(
            kernel, len(scores), threads, held, held.view(torch.uint64), last - first, first, gpu.put(own),
            dtype(tolerance), values, indices, values.view(INTEGERS[dtype]),
        )  # fmt: skip
    return values.cpu().numpy(), indices.cpu().numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("k", [1, 5])
def test_the_best_are_the_cpus_to_the_bit(gpu, n, k, dtype):
    """Coarse scores: many ties, within the tolerance and exactly, below zero, at it and above."""
    rng = np.random.default_rng(n)
    scores = (rng.integers(-6, 7, (5, n)) / 8 + rng.integers(0, 3, (5, n)) * 0.004).astype(dtype)
    scores[0] = -np.abs(scores[0])
    scores[1] = -0.0
    own = np.array([-1, 0, n - 1, n // 2, n + 5])
    expected = np.full((5, k), -np.inf, dtype), np.full((5, k), -1)
    for i, leave in enumerate(own):
        best = expected[0][i : i + 1], expected[1][i : i + 1]
        cosine_cpu.update_top_k(scores[i : i + 1], leave, 0, leave >= 0, dtype(0.006), *best)
    for capacity, pieces in ((64, ()), (0, (n // 2, n - n // 4)), (1024, (n // 3,))):
        actual = merged(gpu, scores, k, capacity=capacity, threads=2, own=own, tolerance=0.006, pieces=pieces)
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(actual[1], expected[1])


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_candidates_are_the_best_of_scores_in_float16(gpu, n):
    rng = np.random.default_rng(n)
    scores = rng.standard_normal((4, n)).astype(np.float16)
    scores[1] = -np.abs(scores[1])
    scores[2, ::3] = -0.0
    scores[2, 1::3] = 0.0
    k = 6
    tile = np.full((4, tiles.columns(n, 2)), 3, np.float16)
    tile[:, :n] = scores
    held = gpu.put(tile)
    orders, indices = gpu.put(np.full((4, k), -(2**31), np.int32)), gpu.put(np.full((4, k), -1))
    gpu.backend.launch(
        cosine_cuda.make_update_candidates(64), 4, 2, held.view(torch.int16), held.view(torch.uint64), n, 100,
        gpu.put(np.full(4, -1)), 0, orders, indices, orders,
    )  # fmt: skip
    found = min(n, k)
    expected = -np.sort(-scores.astype(np.float32), axis=1)[:, :found]
    np.testing.assert_array_equal(cosine._numbers(orders).cpu().numpy()[:, :found], expected)
    assert (cosine._numbers(orders[:, found:]) == -torch.inf).all()
    taken = indices.cpu().numpy()[:, :found] - 100
    np.testing.assert_array_equal(np.take_along_axis(scores, taken, 1), expected)


def test_orders_are_of_numbers_rounded_down():
    numbers = torch.cat([torch.linspace(-1.1, 1.1, 4001), torch.tensor([-torch.inf, 0.0, -1e-9, 1e-9])])
    below = cosine._numbers(cosine._orders(numbers))
    above = cosine._numbers(cosine._orders(numbers) + 1)
    assert (below <= numbers).all()
    assert (above[numbers.isfinite()] > numbers[numbers.isfinite()]).float().mean() > 0.99
    assert (cosine._orders(numbers.sort().values).diff() >= 0).all()


# Calls


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_matrix_agrees_with_the_definition(small, dtype, center):
    X, Y = drawn(17, 5, dtype), drawn(37, 5, dtype, seed=1)
    actual = qf.cosine_similarity(X, Y, center=center, device="cuda")
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == (np.float64 if dtype is np.float64 else np.float32)
    similar(actual, reference.cosine_similarity(X, Y, center=center), dtype)
    alone = qf.cosine_similarity(Y, center=center, device="cuda")
    similar(alone, reference.cosine_similarity(Y, Y, center=center), dtype)
    assert np.array_equal(alone, alone.T)
    assert np.array_equal(np.diagonal(alone), np.ones(37))
    assert np.abs(alone).max() <= 1
    resident = qf.cosine_similarity(small.put(Y), center=center)
    assert resident.device == small.backend.device
    np.testing.assert_array_equal(resident.cpu().numpy(), alone)


def launches(gpu, name):
    return [entry for entry in gpu.backend.log if entry[:2] == ("launch", name)] if gpu.simulated else []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_top_k_is_the_cpus(small, dtype):
    X, Y = drawn(7, 9, dtype), drawn(37, 9, dtype, seed=1)
    for pair in ((X, Y), (Y, None)):
        expected = qf.cosine_top_k(*pair, k=3)
        actual = qf.cosine_top_k(*pair, k=3, device="cuda")
        np.testing.assert_array_equal(actual[1], expected[1])
        assert actual[1].dtype == np.int64
        assert actual[0].dtype == expected[0].dtype
        similar(actual[0], expected[0], dtype)
    assert not launches(small, "update_candidates")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("alone", [False, True])
def test_a_look_in_float16_finds_the_same(quick, dtype, alone):
    Y = drawn(33, 9, dtype, seed=1)
    pair = (Y[:19], None) if alone else (drawn(5, 9, dtype), Y)
    expected = qf.cosine_top_k(*pair, k=1)
    actual = qf.cosine_top_k(*pair, k=1, device="cuda")
    np.testing.assert_array_equal(actual[1], expected[1])
    similar(actual[0], expected[0], dtype)
    if quick.simulated:
        assert launches(quick, "rescore")
        assert not launches(quick, "update_top_k")


def crowded(n, dtype):
    """Cosines to (1, 0) that float32 can tell apart and float16 cannot; the last is the largest."""
    cosines = 1 - 2e-5 * np.arange(n)[::-1] / n
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(dtype)


def test_rows_that_float16_leaves_open_are_searched_again(quick):
    """Some rows are crowded, others not; then all are."""
    Y = np.concatenate([crowded(40, np.float64), -(drawn(3, 2, np.float64) ** 2)])
    X = np.array([[1.0, 0.0], [-1.0, -0.5], [-1.0, -4.0], [-4.0, -1.0], [-1.0, -1.0]])
    for rows in (X, X[:1]):
        expected = qf.cosine_top_k(rows, Y, k=1)
        actual = qf.cosine_top_k(rows, Y, k=1, device="cuda")
        np.testing.assert_array_equal(actual[1], expected[1])
        similar(actual[0], expected[0], np.float64)
    if quick.simulated:
        again = launches(quick, "update_top_k")
        assert {entry[2] for entry in again} == {1}


@pytest.mark.parametrize("look", [1, 10**9])
def test_ties_go_to_the_lowest_index(small, monkeypatch, look):
    monkeypatch.setattr(cosine, "QUICK_FROM", look)
    X = drawn(9, 33)
    copies = np.concatenate([X * 2.0**i for i in range(4)])
    _, indices = qf.cosine_top_k(X[:4], copies, k=3, device="cuda")
    np.testing.assert_array_equal(indices, np.arange(4)[:, None] + 9 * np.arange(3))


def test_all_candidates_and_none_of_them_oneself(quick):
    X = drawn(6, 4)
    expected, actual = qf.cosine_top_k(X, k=5), qf.cosine_top_k(X, k=5, device="cuda")
    np.testing.assert_array_equal(actual[1], expected[1])
    similar(actual[0], expected[0], np.float32)
    with pytest.raises(ValueError, match="k: wanted 1 to 5"):
        qf.cosine_top_k(X, k=6, device="cuda")
    with pytest.raises(ValueError, match="at least two rows"):
        qf.cosine_top_k(X[:1], k=1, device="cuda")


def test_rows_without_direction_give_zero_and_one_warning(quick):
    X = drawn(9, 6)
    X[[2, 5]] = 0
    with pytest.warns(UserWarning, match="X has 2 zero row.*first at 2") as caught:
        result = qf.cosine_similarity(X, device="cuda")
    assert [one.filename for one in caught] == [__file__]
    assert not result[[2, 5]].any()
    assert result[1, 1] == 1
    with pytest.warns(UserWarning, match=r"X has 2 zero row.*; Y has 2 zero row.*first at 0") as caught:
        values, indices = qf.cosine_top_k(X, X[2:], k=2, device="cuda")
    assert [one.filename for one in caught] == [__file__]
    assert not values[[2, 5]].any()
    assert indices[2].tolist() == [0, 1]


@overflowing
@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-315])
def test_extreme_values_neither_overflow_nor_vanish(small, scale):
    X = drawn(6, 5, np.float64)
    actual = qf.cosine_similarity(X * scale, center=True, device="cuda")
    np.testing.assert_allclose(
        actual, qf.cosine_similarity(X, center=True), atol=1e-12 if scale > 1e-300 else 1e-6
    )


def test_every_kind_of_input(small, tmp_path):
    X = drawn(20, 6)
    expected = qf.cosine_similarity(X, device="cuda")
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    strided = np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    for same in (mapped, np.asfortranarray(X), strided, X.tolist()):
        np.testing.assert_allclose(qf.cosine_similarity(same, device="cuda"), expected, atol=1e-6)
    resident = small.put(np.repeat(X, 2, axis=1))[:, ::2]
    similar(qf.cosine_similarity(resident).cpu(), expected, np.float32)
    coarse = torch.from_numpy(X).to(torch.bfloat16)
    actual = qf.cosine_similarity(small.put(coarse))
    assert actual.dtype == torch.float32
    similar(actual.cpu(), qf.cosine_similarity(coarse.float().numpy()), np.float32)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float16, shape=(20, 20))
    assert qf.cosine_similarity(X, out=out, device="cuda") is out
    np.testing.assert_allclose(out, expected, atol=1e-3)
    similarities, indices = qf.cosine_top_k(small.put(X), k=2)
    assert similarities.device == indices.device == small.backend.device
    mixed = qf.cosine_similarity(X, X[:3].astype(np.float64), device="cuda")
    assert mixed.dtype == np.float64
    similar(mixed, qf.cosine_similarity(X, X[:3].astype(np.float64)), np.float64)


def test_what_is_not_finite_is_named(small):
    X = drawn(20, 3)
    bad = X.copy()
    bad[18, 1] = np.nan
    for call in (qf.cosine_similarity, lambda *given, **how: qf.cosine_top_k(*given, k=1, **how)):
        with pytest.raises(ValueError, match="X: nan at row 18, column 1"):
            call(bad, device="cuda")
        with pytest.raises(ValueError, match="Y: nan at row 18, column 1"):
            call(X[:2], bad, device="cuda")


@pytest.mark.parametrize("look", [1, 10**9])
def test_the_budget_is_kept(small, monkeypatch, look):
    monkeypatch.setattr(cosine, "QUICK_FROM", look)
    monkeypatch.setattr(tiles, "_SMALLEST_TILE", 4)
    if small.simulated:  # a device's own sums and sorts take room, too
        monkeypatch.setattr(tiles, "_FIXED", 2**10)
    X, Y = drawn(21, 150), drawn(40, 150, seed=1)
    calls = (
        lambda **how: qf.cosine_similarity(X, device="cuda", **how),
        lambda **how: qf.cosine_top_k(X[:5], Y, k=3, device="cuda", **how)[0],
    )
    for call in calls:
        free = call()
        with pytest.raises(qf.MemoryBudgetError, match="max_memory: cosine between samples") as caught:
            call(max_memory=1000)
        budget = caught.value.required
        with device_memory(small) as used:
            tight = call(max_memory=budget)
        assert used.peak <= budget
        similar(tight, free, np.float32)


def test_several_devices_share_the_rows(small):
    if not small.simulated and torch.cuda.device_count() < 2:
        pytest.skip("one device")
    X = drawn(9, 5)
    expected = qf.cosine_top_k(X, k=2)
    actual = qf.cosine_top_k(X, k=2, devices=["cuda:0", "cuda:1"])
    np.testing.assert_array_equal(actual[1], expected[1])
    similar(actual[0], expected[0], np.float32)
    X[7] = 0
    with pytest.warns(UserWarning, match="X has 1 zero row"):
        qf.cosine_top_k(X, X[:3], k=1, devices=["cuda:0", "cuda:1"])


def test_products_are_exact_whatever_the_program_has_chosen():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32, matmul.allow_fp16_reduced_precision_reduction
    try:
        matmul.allow_tf32 = True
        with exact_products():
            assert not matmul.allow_tf32
            assert not matmul.allow_fp16_reduced_precision_reduction
            with exact_products():
                pass
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
        assert matmul.allow_fp16_reduced_precision_reduction == before[1]
    finally:
        matmul.allow_tf32 = before[0]
