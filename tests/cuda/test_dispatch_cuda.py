"""Which device does the work of the public functions, by what the stand-in devices recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qixai_fast as qf
from qixai_fast._gpu import backend as backends
from qixai_fast.errors import MemoryBudgetError

pytestmark = pytest.mark.usefixtures("small_blocks")
WEIGHTS = np.array([0.25, 0.5, 0.25])
# Functions with kernels of their own for CUDA.
CALLS = {
    "pca": lambda X, **options: qf.pca(X, 2, **options).components,
    "randomized_svd": lambda X, **options: qf.randomized_svd(X, 2, random_state=0, **options)[1],
    "cosine_similarity": lambda X, **options: qf.cosine_similarity(X, axis=0, **options),
    "cosine_top_k": lambda X, **options: qf.cosine_top_k(X, k=2, **options)[0],
    "binned": lambda X, **options: qf.pairwise_mutual_info_binned(X, n_bins=4, **options),
    "ksg": lambda X, **options: qf.pairwise_mutual_info_ksg(X, **options),
    "riemann": lambda X, **options: qf.riemann_accumulate(X.reshape(3, -1), WEIGHTS, **options),
}
calls = pytest.mark.parametrize("name", list(CALLS))


@pytest.fixture
def used(gpu):
    """Which of the two stand-in devices were asked for anything."""
    if not gpu.simulated:
        pytest.skip("a real device keeps no record")
    return lambda: {index for index in (0, 1) if backends.open_backend(index).log}


@pytest.fixture
def values():
    return np.random.default_rng(1).standard_normal((24, 3)).astype(np.float32)


@calls
def test_the_cpu_works_where_nothing_is_said(used, values, name):
    assert isinstance(CALLS[name](values), np.ndarray)
    assert torch.is_tensor(CALLS[name](torch.from_numpy(values)))
    assert used() == set()


@calls
def test_an_input_on_a_gpu_is_worked_on_there(used, gpu, values, name):
    CALLS[name](gpu.put(values))
    assert used() == {0}


@calls
def test_the_cpu_works_where_it_is_asked_to(used, gpu, values, name):
    result = CALLS[name](gpu.put(values), device="cpu")
    assert torch.is_tensor(result)
    assert used() == set()


@calls
@pytest.mark.parametrize("device", ["cuda:1", torch.device("cuda", 1)])
def test_the_device_that_is_named_works(used, values, name, device):
    result = CALLS[name](values, device=device)
    assert isinstance(result, np.ndarray)
    assert used() == {1}


@calls
@pytest.mark.parametrize("device", ["gpu", "cuda:9", "tpu", "cuda:x"])
def test_other_devices_are_refused_before_any_work(gpu, values, name, device):
    with pytest.raises(ValueError, match="device: "):
        CALLS[name](values, device=device)


@calls
def test_a_budget_that_is_too_small_says_what_would_do(gpu, values, name):
    """Of the device or of the host: whichever is short first."""
    with pytest.raises(MemoryBudgetError, match=r"max_memory: .*would do") as caught:
        CALLS[name](np.tile(values, (200, 40)), device="cuda", max_memory=2)
    assert caught.value.required > 2
