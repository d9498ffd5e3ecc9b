"""Mutual information from codes in files, as an audit keeps them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import reference

import qixai_fast as qf
from qixai_fast.mutual_info.binned_codes import pairwise_of_codes

N = 100_000


@pytest.fixture
def files(tmp_path):
    """Codes of two layers in mapped files; not every bin occurs in every column."""
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 16, N)
    found = []
    for name, d in (("a", 5), ("b", 4)):
        codes = rng.integers(0, 16, (d, N))
        codes[0] = shared
        codes[1] = np.minimum(codes[1], 3)
        codes[2] = 7
        codes[3] = (shared + rng.integers(0, 3, N)) % 16
        np.save(tmp_path / f"{name}.npy", codes.astype(np.uint8))
        found.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    return found


def value(x, y):
    table = reference.joint_counts(x, y, (16, 16))
    return 0.0 if min(np.ptp(x), np.ptp(y)) == 0 else reference.mutual_info_plugin(table)


OPTIONS = {"n_bins": 16, "bias_correction": None, "n_jobs": 2, "max_memory": None}


def test_values_are_those_of_the_reference(files):
    x, y = files
    found = pairwise_of_codes(x, y, **OPTIONS)
    np.testing.assert_allclose(found, [[value(a, b) for b in y] for a in x], rtol=0, atol=1e-12)
    assert found[0, 0] > 2.0
    assert found[0, 3] > 1.0


def test_one_side_alone_has_entropies_on_its_diagonal(files):
    x, _ = files
    found = pairwise_of_codes(x, None, **OPTIONS)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found[0, 0], value(x[0], x[0]), atol=1e-12)


@pytest.mark.parametrize("bias_correction", [None, "miller-madow", "permutation-mean"])
def test_bits_are_the_same_for_any_budget_and_threads(files, bias_correction):
    x, y = files
    options = {**OPTIONS, "bias_correction": bias_correction}
    expected = pairwise_of_codes(x, y, **options)
    for changes in ({"n_jobs": 1}, {"max_memory": 2_000_000}, {"max_memory": 2_000_000, "n_jobs": 1}):
        np.testing.assert_array_equal(pairwise_of_codes(x, y, **{**options, **changes}), expected)


def test_the_least_budget_reads_the_file_in_stretches(files):
    """The budget that the refusal names is less than the codes take."""
    x, y = files
    with pytest.raises(qf.MemoryBudgetError) as caught:
        pairwise_of_codes(x, y, **{**OPTIONS, "max_memory": 1000})
    least = caught.value.required
    assert least < 700_000 + x.nbytes
    tracemalloc.start()
    found = pairwise_of_codes(x, y, **{**OPTIONS, "max_memory": least})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, pairwise_of_codes(x, y, **OPTIONS))
    assert peak < least
