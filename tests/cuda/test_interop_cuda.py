"""Arrays of torch, CuPy and others on a GPU, in and out without a copy, on torch's current stream."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest
import torch

import qixai_fast as qf
from qixai_fast import _device
from qixai_fast._gpu.rows import DeviceRows

pytestmark = pytest.mark.usefixtures("small_blocks")
N, D = 24, 3
WEIGHTS = np.array([0.25, 0.5, 0.25])
CALLS = {
    "pca": lambda X: qf.pca(X, 2).components,
    "randomized_svd": lambda X: qf.randomized_svd(X, 2, random_state=0)[1],
    "cosine_similarity": lambda X: qf.cosine_similarity(X, axis=0),
    "cosine_top_k": lambda X: qf.cosine_top_k(X, k=2)[0],
    "binned": lambda X: qf.pairwise_mutual_info_binned(X, n_bins=4),
    "ksg": lambda X: qf.pairwise_mutual_info_ksg(X),
    "riemann": lambda X: qf.riemann_accumulate(X.reshape(3, -1), WEIGHTS),
}


class _CupyLike:
    """What CuPy's arrays have of protocols, over a tensor of the stand-in device."""

    __module__ = "cupy._core.core"

    def __init__(self, tensor):
        self.tensor = tensor

    def reshape(self, *shape):
        return type(self)(self.tensor.reshape(*shape))

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **options):
        raise AssertionError("torch.from_dlpack is what takes it")

    def __array__(self, *rest, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


@pytest.fixture
def cupy(gpu, monkeypatch):
    """CuPy, or a stand-in in the simulator that has what is used of it."""
    if not gpu.simulated:
        return pytest.importorskip("cupy")
    module = types.ModuleType("cupy")
    module.ndarray = _CupyLike
    module.asarray = lambda array: _CupyLike(gpu.put(array))
    module.asnumpy = lambda array: array.tensor.numpy()
    module.from_dlpack = _CupyLike
    module.pointer = lambda array: array.tensor.data_ptr()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(torch, "from_dlpack", lambda value: value.tensor)
    return module


def pointer(array):
    return array.tensor.data_ptr() if isinstance(array, _CupyLike) else array.data.ptr


@pytest.fixture
def values():
    return np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(CALLS))
def test_cupy_in_cupy_out(cupy, values, name):
    result = CALLS[name](cupy.asarray(values))
    assert isinstance(result, cupy.ndarray)
    close(cupy.asnumpy(result), CALLS[name](values))


@pytest.mark.parametrize("name", list(CALLS))
def test_tensors_in_tensors_out(gpu, values, name):
    X = gpu.put(values)
    before = X.clone()
    result = CALLS[name](X)
    assert torch.is_tensor(result)
    assert result.device == X.device
    assert torch.equal(X, before)
    close(result.cpu(), CALLS[name](values))


@pytest.mark.parametrize("name", list(CALLS))
def test_a_gradient_is_left_behind(gpu, values, name):
    X = gpu.put(values).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CALLS[name](X)
    assert not result.requires_grad
    close(result.cpu(), CALLS[name](values))


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("layout", ["columns", "every other"])
def test_strides(gpu, values, name, layout):
    if layout == "columns":
        X = gpu.put(np.ascontiguousarray(values.T)).T
    else:
        wide = np.full((2 * N, 2 * D), np.nan, np.float32)
        wide[::2, 1::2] = values
        X = gpu.put(wide)[::2, 1::2]
    assert not X.is_contiguous()
    close(CALLS[name](X).cpu(), CALLS[name](values))


def test_nothing_is_copied_on_the_way_in(gpu, cupy, values):
    array = cupy.asarray(values)
    tensor = _device.gpu_tensor(array)
    assert tensor.data_ptr() == pointer(array)
    rows = DeviceRows.of(array, "X", gpu.backend)
    assert rows.resident
    assert next(iter(rows.blocks(N)))[1].data_ptr() == pointer(array)


def test_nor_on_the_way_out(gpu, cupy, values):
    home = _device.home_of(cupy.asarray(values))
    result = gpu.put(np.ones((2, 2)))
    assert pointer(home.bring(result)) == result.data_ptr()


def test_cupy_computed_on_the_cpu_comes_back_as_cupy(cupy, values):
    result = qf.cosine_similarity(cupy.asarray(values), device="cpu")
    assert isinstance(result, cupy.ndarray)
    close(cupy.asnumpy(result), qf.cosine_similarity(values))


def test_numpy_asked_onto_a_gpu_comes_back_as_numpy(gpu, values):
    assert isinstance(qf.pca(values, 2, device="cuda").components, np.ndarray)


def test_numbas_arrays_give_tensors(gpu, values):
    if gpu.simulated:
        pytest.skip("a simulated device has no memory that torch could take")
    from numba import cuda

    result = qf.cosine_similarity(cuda.to_device(values))
    assert torch.is_tensor(result)
    assert result.is_cuda
    close(result.cpu(), qf.cosine_similarity(values))


def test_work_runs_on_the_current_stream(gpu, values):
    if gpu.simulated:
        pytest.skip("a simulated device has one stream")
    stream = torch.cuda.Stream()
    X = gpu.put(np.zeros((200_000, 64), np.float32))
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # what comes after is not there for anyone who does not wait
        X.normal_()
        found = qf.cosine_similarity(X, axis=0)
    stream.synchronize()
    close(found.cpu(), qf.cosine_similarity(X.cpu().numpy(), axis=0))


def test_an_array_of_the_older_protocol_waits_for_its_stream(gpu):
    if gpu.simulated:
        pytest.skip("a simulated device has one stream")
    stream = torch.cuda.Stream()
    tensor = torch.zeros((20_000, 8), device=gpu.backend.device)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        tensor.fill_(2)
    described = dict(tensor.__cuda_array_interface__, version=3, stream=stream.cuda_stream)
    found = _device.gpu_tensor(types.SimpleNamespace(__cuda_array_interface__=described))
    assert float(found.sum()) == 2 * tensor.numel()


def test_several_small_launches_on_small_grids_advise_nothing(gpu, values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("pca", "riemann"):
            CALLS[name](gpu.put(values))
