"""Quadrature rules, and the accumulation of recorded gradients."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast.quadrature import METHODS, path_nodes

RNG = np.random.default_rng(0)


# The rules


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_steps", [2, 10, 50, 300])
def test_weights_sum_to_one_and_nodes_lie_in_the_interval(method, n_steps):
    nodes, weights = path_nodes(method, n_steps)
    assert len(nodes) == len(weights) == n_steps + (method in ("riemann_trapezoid", "simpson"))
    assert abs(weights.sum() - 1) < 1e-12
    assert (weights > 0).all()
    assert nodes.min() >= 0
    assert nodes.max() <= 1
    assert (np.diff(nodes) > 0).all()


@pytest.mark.parametrize(
    ("method", "degree"),
    [
        ("riemann_left", 0),
        ("riemann_right", 0),
        ("riemann_middle", 1),
        ("riemann_trapezoid", 1),
        ("simpson", 3),
        ("gausslegendre", 11),
    ],
)
def test_rules_are_exact_to_their_degree_and_no_further(method, degree):
    nodes, weights = path_nodes(method, 6)
    for power in range(degree + 1):
        assert (weights * nodes**power).sum() == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs((weights * nodes ** (degree + 1)).sum() - 1 / (degree + 2)) > 1e-10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("boole", 4), "method: wanted one of"),
        (("riemann_middle", 0), "n_steps: wanted at least 1"),
        (("simpson", 5), "n_steps: 'simpson' wants an even number of steps, got 5"),
    ],
)
def test_bad_rules(arguments, message):
    with pytest.raises(ValueError, match=message):
        path_nodes(*arguments)


# Accumulation


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i4", "?"])
@pytest.mark.parametrize("shape", [(5, 3), (1, 1, 1), (4, 2, 3, 5)])
def test_any_dtype_and_shape(dtype, shape):
    gradients = (RNG.normal(size=shape) * 3).astype(dtype)
    weights = RNG.normal(size=len(gradients))
    result = qf.riemann_accumulate(gradients, weights)
    expected = reference.riemann_accumulate(gradients, weights)
    half_or_single = np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize <= 4
    assert result.dtype == (np.float32 if half_or_single else np.float64)
    np.testing.assert_allclose(result, expected, rtol=1e-6 if half_or_single else 1e-14, atol=1e-15)


def test_float32_gradients_are_summed_in_float64():
    """A float32 sum of these loses every small term."""
    gradients = np.concatenate([[[1.0]], np.full((4000, 1), 2.0**-25)]).astype(np.float32)
    out = np.empty(1)
    qf.riemann_accumulate(gradients, np.ones(4001), out=out)
    assert out[0] == 1 + 4000 * 2.0**-25


@pytest.mark.parametrize("n_steps", [1, 4, 5, 11])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_half_precision_number_is_widened_exactly(n_steps, order):
    """Subnormal numbers and both zeros among them; whole groups of steps and what is left of them."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    gradients = np.asarray([np.roll(numbers, step).reshape(-1, 8) for step in range(n_steps)], order=order)
    weights = 1 + np.arange(n_steps) / 7
    out = np.empty(gradients.shape[1:])
    qf.riemann_accumulate(gradients, weights, out=out)
    assert out.tobytes() == reference.riemann_accumulate(gradients, weights).tobytes()


@pytest.mark.parametrize("order", ["C", "F", "reversed", "sliced"])
def test_layouts_and_operands(order):
    gradients = RNG.normal(size=(6, 7, 4, 3))
    if order == "F":
        gradients = np.asfortranarray(gradients)
    elif order == "reversed":
        gradients = gradients[::-1, :, ::-1]
    elif order == "sliced":
        gradients = gradients[::2, 1:, :, ::2]
    weights = RNG.normal(size=len(gradients))
    shape = gradients.shape[1:]
    inputs = RNG.normal(size=shape[::-1]).T
    for baselines in (
        None,
        0.25,
        RNG.normal(size=shape),
        RNG.normal(size=(1, *shape[1:])).astype(np.float32),
    ):
        result = qf.riemann_accumulate(gradients, weights, inputs=inputs, baselines=baselines)
        expected = reference.riemann_accumulate(
            gradients, weights, inputs, 0.0 if baselines is None else baselines
        )
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-13)
    out = np.asfortranarray(np.empty(shape, dtype=np.float32))
    assert qf.riemann_accumulate(gradients, weights, out=out) is out
    np.testing.assert_allclose(out, reference.riemann_accumulate(gradients, weights), rtol=1e-6, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(-8, 8))
def test_linear_in_the_weights(n_steps, n, seed, factor):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(n_steps, n, 3))
    first, second = rng.normal(size=(2, n_steps))
    combined = qf.riemann_accumulate(gradients, first + factor * second)
    parts = qf.riemann_accumulate(gradients, first) + factor * qf.riemann_accumulate(gradients, second)
    np.testing.assert_allclose(combined, parts, rtol=1e-10, atol=1e-12)


def test_same_bits_for_any_number_of_threads_and_as_numpy():
    gradients = RNG.normal(size=(9, 3, 70001)).astype(np.float32)  # several blocks, the last one short
    weights = RNG.normal(size=9)
    total = reference.riemann_accumulate(gradients, weights).astype(np.float32)
    for n_jobs in (1, 2, 4, -1):
        result = qf.riemann_accumulate(gradients, weights, n_jobs=n_jobs)
        assert result.tobytes() == total.tobytes()


def test_memmap_in_and_out(tmp_path):
    gradients = RNG.normal(size=(5, 40, 3000)).astype(np.float16)
    np.save(tmp_path / "gradients.npy", gradients)
    inputs = RNG.normal(size=(40, 3000)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    weights = np.full(5, 0.2)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(40, 3000))
    returned = qf.riemann_accumulate(
        np.load(tmp_path / "gradients.npy", mmap_mode="r"),
        weights,
        inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"),
        out=out,
    )
    assert returned is out
    out.flush()
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"),
        reference.riemann_accumulate(gradients, weights, inputs),
        rtol=1e-6,
        atol=1e-7,
    )


def test_changes_in_a_copy_on_write_mapping_survive(tmp_path):
    """Pages let go would come back from the file, without the caller's changes."""
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 50_000)))
    gradients = np.load(tmp_path / "x.npy", mmap_mode="c")
    gradients[:] = 1.0
    inputs = np.load(tmp_path / "x.npy", mmap_mode="c")[0]
    inputs[:] = 2.0
    for _ in range(2):
        result = qf.riemann_accumulate(gradients, [3.0], inputs=inputs)
        assert (result == 6.0).all()


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    values = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        gradients = values.to(dtype).requires_grad_()
        result = qf.riemann_accumulate(gradients, weights, inputs=torch.ones(3, 5), baselines=-1)
        assert isinstance(result, torch.Tensor)
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        expected = 2 * torch.einsum("s,snd->nd", weights.double(), gradients.detach().double())
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_budget_is_kept_and_the_one_offered_works(dtype):
    gradients = np.ones((3, 400_000), dtype=dtype).reshape(3, 4, 100_000)
    arguments = {"inputs": np.full((4, 100_000), 2.0, dtype=dtype), "baselines": 1.0}
    out = np.empty((4, 100_000))
    with pytest.raises(
        qf.MemoryBudgetError, match="max_memory: a block of sums for one thread needs"
    ) as caught:
        qf.riemann_accumulate(gradients, np.ones(3), **arguments, out=out, max_memory="100kB")
    qf.riemann_accumulate(gradients, np.ones(3), **arguments, out=out)  # compiled before it is measured
    for budget in (caught.value.required, 2 * caught.value.required):
        tracemalloc.start()
        try:
            qf.riemann_accumulate(gradients, np.ones(3), **arguments, out=out, n_jobs=4, max_memory=budget)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak <= budget
    assert (out == 3.0).all()


GOOD = np.ones((3, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (np.ones(3), np.ones(3)),
            ValueError,
            r"gradients: wanted shape \(n_steps, n_samples, ...\).*\(3,\)",
        ),
        ((np.ones((0, 2)), []), ValueError, "gradients: .*not empty"),
        ((np.ones((3, 0)), np.ones(3)), ValueError, "gradients: .*not empty"),
        ((GOOD * 1j, np.ones(3)), TypeError, "gradients: dtype complex128"),
        ((GOOD, np.ones(4)), ValueError, r"weights: wanted one a step of gradients \(3 steps\), got 4"),
        ((GOOD, [1, np.nan, 1]), ValueError, "weights: nan at row 1"),
    ],
)
def test_bad_gradients_and_weights(arguments, error, message):
    with pytest.raises(error, match=message):
        qf.riemann_accumulate(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"baselines": 0.0}, ValueError, "baselines: wanted together with inputs"),
        ({"inputs": np.ones((2, 3))}, ValueError, r"inputs: .*shape \(2, 4\).*got \(2, 3\)"),
        ({"inputs": 1.0, "baselines": np.ones(4)}, ValueError, r"baselines: .*\(1, 4\), got \(4,\)"),
        ({"inputs": np.inf}, ValueError, "inputs: wanted a finite number, got inf"),
        (
            {"inputs": np.array([[1, 2, 3, 4], [1, np.nan, 3, 4]])},
            ValueError,
            "inputs: nan at row 1, column 1",
        ),
        (
            {"inputs": 1.0, "baselines": np.array([[0, 0, 0, np.inf]])},
            ValueError,
            "baselines: inf at row 0, col",
        ),
        ({"out": [[0.0] * 4] * 2}, TypeError, "out: wanted a NumPy array"),
        ({"out": np.ones((2, 4), dtype=int)}, TypeError, "out: wanted a floating dtype, got int64"),
        ({"out": np.ones((4, 2))}, ValueError, r"out: wanted shape \(2, 4\).*got \(4, 2\)"),
        ({"out": np.broadcast_to(1.0, (2, 4))}, ValueError, "out: .*read-only"),
        ({"out": GOOD[1]}, ValueError, "out: .*overlaps gradients"),
        ({"device": "tpu"}, ValueError, "device: 'tpu'"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        qf.riemann_accumulate(GOOD, np.ones(3), **options)
    assert (GOOD == 1).all()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_first_bad_gradient_is_named(dtype):
    gradients = np.ones((4, 3, 70_000), dtype=dtype)
    gradients[2, 1, 65_000] = np.nan
    gradients[3, 0, 5] = np.inf
    with pytest.raises(ValueError, match="gradients: nan at step 2, row 1, column 65000"):
        qf.riemann_accumulate(gradients, np.ones(4), n_jobs=2)
    gradients[2, 1, 65_000] = 1
    with pytest.raises(ValueError, match="gradients: inf at step 3, row 0, column 5"):
        qf.riemann_accumulate(gradients, np.zeros(4), n_jobs=2)


def test_first_call_on_a_fresh_cache_is_quick(tmp_path):
    code = (
        "import time, numpy as np, numba, qixai_fast as qf\n"
        "gradients = np.ones((2, 3, 4), dtype=np.float32)\n"
        "start = time.process_time()\n"
        "assert (qf.riemann_accumulate(gradients, [0.5, 0.5]) == 1).all()\n"
        "assert time.process_time() - start < 3\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
