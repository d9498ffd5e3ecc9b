"""Sums of recorded gradients on a device: the kernels, and ``riemann_accumulate`` through them."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from qixai_fast.kernels import riemann_cuda

import qixai_fast as qf
from qixai_fast._gpu import riemann

THREADS = riemann_cuda.THREADS
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def sample(shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def summed(gpu, steps, weights, **options):
    out = gpu.put(torch.full((steps.shape[1],), torch.nan, dtype=torch.float64))
    flags = gpu.put(torch.zeros(3, dtype=torch.int32))
    riemann.add_weighted(gpu.backend, steps, gpu.put(weights), out, flags, **options)
    return out.cpu().numpy(), flags.tolist()


def expected(gradients, weights, *operands):
    return reference.riemann_accumulate(gradients.cpu().double().numpy(), np.asarray(weights), *operands)


def close(found, wanted, dtype=torch.float64):
    rounding = 1e-6 if dtype == torch.float32 else 1e-14
    np.testing.assert_allclose(found, wanted, rtol=rounding, atol=rounding)


# The kernels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pieces", [0, 1, THREADS - 1, THREADS, THREADS + 1])
@pytest.mark.parametrize("rest", [0, 1])
def test_blocks_of_whole_pieces_and_what_is_left(gpu, dtype, pieces, rest):
    """Pieces of 16 bytes, a block of threads of them, one less, one more; and elements beyond."""
    count = pieces * 16 // dtype.itemsize + rest
    if not count:
        return
    steps = gpu.put(sample((3, count), dtype))
    weights = torch.tensor([0.5, -2.0, 0.3], dtype=torch.float64)
    found, flags = summed(gpu, steps, weights)
    close(found, expected(steps, weights))
    assert flags == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_steps", [1, 3, 4, 5, 9])
def test_any_number_of_steps_goes_on_from_earlier_sums(gpu, dtype, n_steps):
    steps = gpu.put(sample((n_steps, 19), dtype))
    weights = torch.linspace(-1, 1, n_steps + 1, dtype=torch.float64)[1:]
    out, flags = gpu.put(torch.ones(19, dtype=torch.float64)), gpu.put(torch.zeros(3, dtype=torch.int32))
    riemann.add_weighted(gpu.backend, steps, gpu.put(weights), out, flags, more=True)
    close(out.cpu().numpy(), 1 + expected(steps, weights))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "pitch"), [(0, 40), (8, 40), (0, 37), (1, 40), (3, 41)])
def test_steps_that_begin_anywhere(gpu, dtype, offset, pitch):
    memory = gpu.put(sample((5 * pitch,), dtype))
    steps = memory.view(5, pitch)[:, offset : offset + 30]
    weights = torch.arange(1.0, 6, dtype=torch.float64)
    close(summed(gpu, steps, weights)[0], expected(steps, weights))


def test_steps_that_are_one_and_the_same(gpu):
    steps = gpu.put(sample((1, 24), torch.float32)).expand(6, 24)
    weights = torch.arange(6.0, dtype=torch.float64)
    close(summed(gpu, steps, weights)[0], expected(steps, weights))


@pytest.mark.parametrize("more", [False, True])
def test_many_steps_of_few_elements_are_summed_in_ranges(gpu, more):
    steps = gpu.put(sample((100, 21), torch.float16))
    weights = torch.rand(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    n_spans, span = riemann._spans(100, 3)
    assert n_spans > 1
    assert (n_spans - 1) * span < 100 <= n_spans * span
    out, flags = gpu.put(torch.full((21,), 3.0).double()), gpu.put(torch.zeros(3, dtype=torch.int32))
    ends = gpu.put(torch.full((21,), 2.0))
    riemann.add_weighted(gpu.backend, steps, gpu.put(weights), out, flags, more=more, ends=ends)
    close(out.cpu().numpy(), (expected(steps, weights) + 3 * more) * 2)


def test_ranges_are_as_many_as_keep_a_device_busy():
    assert riemann._spans(50, 10**6) == (1, 50)
    assert riemann._spans(20, 1) == (1, 20)
    n_spans, span = riemann._spans(10_000, 1000)
    assert n_spans * 1000 <= 1 << 17
    assert span >= 16


def test_every_half_precision_number_is_widened_exactly(gpu):
    numbers = np.arange(0, 1 << 16, 37 if gpu.simulated else 1, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    for width in (len(numbers) // 8 * 8, len(numbers) // 8 * 8 - 3):  # pieces of 16 bytes, and elements
        steps = gpu.put(torch.from_numpy(np.stack([numbers[:width], numbers[-width:]])))
        found, _ = summed(gpu, steps, torch.tensor([1.0, 3.0], dtype=torch.float64))
        assert found.tobytes() == expected(steps, [1.0, 3.0]).tobytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic is NumPy's
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_flagged(gpu, dtype, value):
    weights = torch.ones(5, dtype=torch.float64)
    for place in (2, 32):  # in a piece of 16 bytes, and beyond the last one
        steps = sample((5, 33), dtype)
        steps[4, place] = value
        assert summed(gpu, gpu.put(steps), weights)[1] == [1, 0, 0]
    steps, good = gpu.put(sample((5, 33), dtype)), gpu.put(torch.ones(33))
    bad = gpu.put(torch.where(torch.arange(33) == 32, value, 1.0))
    assert summed(gpu, steps, weights, ends=bad, starts=good)[1] == [0, 1, 0]
    assert summed(gpu, steps, weights, ends=good, starts=bad)[1] == [0, 0, 1]


# The call


def both(gradients, weights, **options):
    return qf.riemann_accumulate(gradients, weights, device="cuda", **options), qf.riemann_accumulate(
        gradients, weights, device="cpu", **options
    )


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i4", "?"])
@pytest.mark.parametrize("shape", [(5, 3), (1, 1, 1), (4, 2, 3, 5)])
def test_arrays_of_any_dtype_and_shape(gpu, dtype, shape):
    gradients = (np.random.default_rng(0).normal(size=shape) * 3).astype(dtype)
    found, wanted = both(gradients, np.linspace(-1, 2, len(gradients)))
    assert isinstance(found, np.ndarray)
    assert found.dtype == wanted.dtype
    close(found, wanted, torch.float32 if found.dtype == np.float32 else torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_stay_on_the_device(gpu, dtype):
    gradients = gpu.put(sample((4, 3, 5), dtype))
    found = qf.riemann_accumulate(gradients, [0.1, 0.2, 0.3, 0.4], inputs=torch.ones(3, 5), baselines=-1)
    assert found.device == gpu.backend.device
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close(found.cpu(), 2 * expected(gradients, [0.1, 0.2, 0.3, 0.4]), found.dtype)


def test_nothing_is_read_before_the_end_and_one_launch_does_the_work(gpu):
    if not gpu.simulated:
        pytest.skip("counts the stand-in's launches")
    gradients = gpu.put(sample((6, 4, 16), torch.float32))
    qf.riemann_accumulate(gradients, np.ones(6), inputs=gpu.put(torch.ones(4, 16)))
    assert [entry[0] for entry in gpu.backend.log] == ["launch"]


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool])
def test_tensors_of_other_numbers(gpu, dtype):
    gradients = gpu.put(sample((4, 3, 5), torch.float32).mul(3).to(dtype))
    found = qf.riemann_accumulate(gradients, [1, 2, 3, 4])
    assert found.dtype == torch.float64
    close(found.cpu(), expected(gradients, [1, 2, 3, 4]))


@pytest.mark.parametrize("layout", ["transposed", "sliced", "steps apart", "expanded"])
def test_strided_tensors(gpu, layout):
    memory = gpu.put(sample((8, 6, 10), torch.float32))
    gradients = {
        "transposed": memory.permute(0, 2, 1),
        "sliced": memory[:, 1:5, ::2],
        "steps apart": memory[::2, 1:, :],
        "expanded": memory[:, :1].expand(8, 6, 10),
    }[layout]
    weights = np.linspace(0, 1, len(gradients))
    n, d = gradients.shape[1:]
    ends = gpu.put(sample((d, n), torch.float16)).T
    found = qf.riemann_accumulate(gradients, weights, inputs=ends, baselines=gpu.put(torch.ones(1, d)))
    close(found.cpu(), expected(gradients, weights, ends.cpu().numpy(), 1.0), torch.float32)


@pytest.mark.parametrize("layout", ["F", "reversed", "sliced"])
def test_strided_arrays(gpu, layout):
    gradients = np.random.default_rng(0).normal(size=(6, 7, 4, 3))
    gradients = {
        "F": np.asfortranarray(gradients),
        "reversed": gradients[::-1, :, ::-1],
        "sliced": gradients[::2, 1:, :, ::2],
    }[layout]
    shape = gradients.shape[1:]
    inputs = np.random.default_rng(1).normal(size=shape[::-1]).T
    for baselines in (None, 0.25, inputs / 2, inputs[:1].astype(np.float32)):
        found, wanted = both(gradients, np.arange(len(gradients)), inputs=inputs, baselines=baselines)
        close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_out_is_a_tensor_there_or_an_array_here(gpu, dtype):
    gradients = gpu.put(sample((3, 5, 4), torch.float32))
    wanted = expected(gradients, [1, 2, 3])
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float16 else {"rtol": 1e-6, "atol": 1e-6}
    there = gpu.put(torch.zeros((5, 4), dtype=dtype))
    strided = gpu.put(torch.zeros((4, 5), dtype=dtype)).T
    for out in (there, strided):
        assert qf.riemann_accumulate(gradients, [1, 2, 3], out=out) is out
        np.testing.assert_allclose(out.cpu(), wanted, **tolerance)
    for here in (there.cpu().numpy().copy() * 0, np.asfortranarray(strided.cpu().numpy() * 0)):
        assert qf.riemann_accumulate(gradients, [1, 2, 3], out=here) is here
        np.testing.assert_allclose(here, wanted, **tolerance)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_a_memmap_is_streamed_in_blocks_of_steps(gpu, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(riemann, "_BLOCK", 3 * 40 * 5 * np.dtype(dtype).itemsize)
    gradients = np.random.default_rng(0).normal(size=(8, 40, 5)).astype(dtype)
    inputs = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    np.save(tmp_path / "gradients.npy", gradients)
    np.save(tmp_path / "inputs.npy", inputs)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(40, 5))
    returned = qf.riemann_accumulate(
        np.load(tmp_path / "gradients.npy", mmap_mode="r"),
        np.arange(8.0),
        inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"),
        out=out,
        device="cuda",
    )
    assert returned is out
    close(np.load(tmp_path / "out.npy"), reference.riemann_accumulate(gradients, np.arange(8.0), inputs),
          torch.float32)  # fmt: skip
    if gpu.simulated:
        assert [entry[1] for entry in gpu.backend.log if entry[0] == "pinned"] == [(3, 200)] * 2


def test_elements_are_streamed_in_stretches_where_a_step_is_too_much(gpu, monkeypatch):
    monkeypatch.setattr(riemann, "_LEAST_STRETCH", 16)
    monkeypatch.setattr(riemann, "_BLOCK", 4 * 64)
    gradients = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    inputs = gpu.put(torch.from_numpy(np.random.default_rng(1).normal(size=(5, 30))))
    for ends, starts in ((inputs, 0.5), (inputs, inputs[:1]), (inputs.cpu().numpy(), inputs)):
        found = qf.riemann_accumulate(gradients, [1, 2, 3], inputs=ends, baselines=starts, device="cuda")
        begin = starts.cpu().numpy() if torch.is_tensor(starts) else starts
        wanted = reference.riemann_accumulate(gradients, [1, 2, 3], inputs.cpu().numpy(), begin)
        close(found, wanted, torch.float32)
    if gpu.simulated:
        assert all(entry[1][1] <= 64 for entry in gpu.backend.log if entry[0] == "pinned")


def test_a_budget_that_is_too_small_and_the_one_offered(gpu):
    gradients = np.random.default_rng(0).normal(size=(40, 3, 5))
    with pytest.raises(qf.MemoryBudgetError, match="a stretch of gradients needs") as caught:
        qf.riemann_accumulate(gradients, np.ones(40), device="cuda", max_memory=100)
    found = qf.riemann_accumulate(gradients, np.ones(40), device="cuda", max_memory=caught.value.required)
    close(found, gradients.sum(0))
    resident = gpu.put(torch.from_numpy(gradients)).transpose(1, 2)
    with pytest.raises(qf.MemoryBudgetError, match="sums of resident gradients") as caught:
        qf.riemann_accumulate(resident, np.ones(40), max_memory=100)
    found = qf.riemann_accumulate(resident, np.ones(40), max_memory=caught.value.required)
    close(found.cpu(), gradients.sum(0).T)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic is NumPy's
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("resident", [True, False])
def test_the_first_bad_gradient_is_named_as_on_the_cpu(gpu, monkeypatch, dtype, resident):
    monkeypatch.setattr(riemann, "_BLOCK", 2 * 3 * 40 * np.dtype(dtype).itemsize)
    gradients = np.ones((4, 3, 40), dtype=dtype)
    gradients[2, 1, 35] = np.nan
    gradients[3, 0, 5] = np.inf

    def call():
        qf.riemann_accumulate(
            gpu.put(gradients.copy()) if resident else gradients, np.zeros(4), device="cuda"
        )

    with pytest.raises(ValueError, match="gradients: nan at step 2, row 1, column 35; remove non-finite"):
        call()
    gradients[2, 1, 35] = 1
    with pytest.raises(ValueError, match="gradients: inf at step 3, row 0, column 5"):
        call()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the simulator's arithmetic is NumPy's
def test_bad_ends_are_named_and_sums_that_overflow(gpu):
    gradients = gpu.put(torch.ones(2, 3, 4, dtype=torch.float64))
    bad = torch.ones(3, 4)
    bad[1, 2] = torch.nan
    for wrong in (bad, gpu.put(bad), bad.numpy()):
        with pytest.raises(ValueError, match="inputs: nan at row 1, column 2; remove non-finite"):
            qf.riemann_accumulate(gradients, [1, 1], inputs=wrong)
        with pytest.raises(ValueError, match="baselines: nan at row 1, column 2"):
            qf.riemann_accumulate(gradients, [1, 1], inputs=1.0, baselines=wrong)
    with pytest.raises(ValueError, match="overflows float64"):
        qf.riemann_accumulate(gradients * 1e308, [1, 1], device="cuda")


def test_arguments_that_do_not_fit(gpu):
    gradients = gpu.put(torch.ones(3, 2, 4))
    for options, error, message in (
        ({"weights": np.ones(4)}, ValueError, r"weights: wanted one a step of gradients \(3 steps\), got 4"),
        ({"baselines": 0.0}, ValueError, "baselines: wanted together with inputs"),
        ({"inputs": gpu.put(torch.ones(2, 3))}, ValueError, r"inputs: .*shape \(2, 4\).*got \(2, 3\)"),
        ({"inputs": gpu.put(torch.ones(2, 4)) * 1j}, TypeError, "inputs: "),
        ({"out": [[0.0] * 4] * 2}, TypeError, "out: wanted a NumPy array or memmap, or a tensor on"),
        ({"out": gpu.put(torch.ones(2, 4, dtype=torch.int32))}, TypeError, "out: wanted a floating dtype"),
        ({"out": gpu.put(torch.ones(4, 2))}, ValueError, r"out: wanted shape \(2, 4\).*got \(4, 2\)"),
        ({"out": gradients[1]}, ValueError, "out: .*overlaps gradients"),
        ({"device": "cuda:7"}, ValueError, "device: 'cuda:7' cannot be used"),
    ):
        with pytest.raises(error, match=message):
            qf.riemann_accumulate(gradients, **({"weights": np.ones(3)} | options))
    with pytest.raises(ValueError, match=r"gradients: wanted shape .*not empty, got \(3, 0\)"):
        qf.riemann_accumulate(gpu.put(torch.ones(3, 0)), np.ones(3), device="cuda")
    assert (gradients == 1).all()
