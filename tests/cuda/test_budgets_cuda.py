"""``max_memory`` bounds what the CUDA path of each family allocates on its device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accounting import device_memory

import qixai_fast as qf
from qixai_fast.errors import MemoryBudgetError

pytestmark = pytest.mark.usefixtures("small_blocks")
WEIGHTS = np.array([0.25, 0.5, 0.25])
# A call, and a shape for it in the simulator: large enough that there is something to cut into blocks.
CALLS = {
    "pca": (lambda X, **options: qf.pca(X, 2, **options).components, (2000, 12)),
    "cosine_similarity": (lambda X, **options: qf.cosine_similarity(X, axis=0, **options), (2000, 12)),
    "cosine_top_k": (lambda X, **options: qf.cosine_top_k(X, k=2, **options)[0], (60, 4)),
    "linear_cka": (lambda X, **options: qf.linear_cka(X, X, **options), (2000, 12)),
    "binned": (lambda X, **options: qf.pairwise_mutual_info_binned(X, n_bins=4, **options), (100, 5)),
    "ksg": (lambda X, **options: qf.pairwise_mutual_info_ksg(X, atoms="none", **options), (40, 3)),
    "riemann": (
        lambda X, **options: qf.riemann_accumulate(X.reshape(3, -1), WEIGHTS, **options),
        (3, 5000),
    ),
}
# Sums of a block, flags and the like: tensors of a few numbers that no plan counts; 512 bytes each on a GPU.
FEW_NUMBERS = {True: 2**13, False: 2**16}


def required(call, X):
    """The least budget that the call says would do."""
    with pytest.raises(MemoryBudgetError) as caught:
        call(X, device="cuda", max_memory=1)
    return caught.value.required


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("name", list(CALLS))
def test_peak_is_within_the_budget(gpu, name, resident):
    call, shape = CALLS[name]
    if not gpu.simulated:
        shape = (3, 500_000) if name == "riemann" else (50 * shape[0], shape[1])
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    X = gpu.put(values) if resident else values
    expected = call(values)
    least = required(call, X)
    call(X, device="cuda", max_memory=8 * least)  # what is kept for good is made now
    for budget in (least, 3 * least):
        with device_memory(gpu) as used:
            found = call(X, device="cuda", max_memory=budget)
        assert used.peak > 0, "nothing was seen"
        result = found.nbytes if torch.is_tensor(found) else 0
        assert used.peak <= budget + result + FEW_NUMBERS[gpu.simulated], (
            f"{used.peak / budget:.2f} of the budget"
        )
        np.testing.assert_allclose(
            found.cpu() if torch.is_tensor(found) else found, expected, rtol=1e-4, atol=1e-5
        )
