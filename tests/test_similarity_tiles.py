"""Cosine similarity in tiles: where products go, the same bits in any way to cut them, within a budget."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

import qixai_fast as qf


def test_result_goes_to_a_memmap(tmp_path):
    X = np.random.default_rng(8).standard_normal((1100, 5)).astype(np.float32)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(1100, 1100))
    assert qf.cosine_similarity(X, out=out) is out
    assert np.array_equal(out, qf.cosine_similarity(X))
    half = np.empty((1100, 1100), np.float16, order="F")
    qf.cosine_similarity(X, out=half)
    np.testing.assert_allclose(half, out, atol=1e-3)
    for axis, shape in ((1, (1100, 300)), (0, (5, 5))):
        Y = X[:300] if axis == 1 else X
        out = np.empty(shape)
        assert qf.cosine_similarity(X, Y, axis=axis, out=out) is out
        np.testing.assert_allclose(out, qf.cosine_similarity(X, Y, axis=axis), atol=1e-7)


def test_products_in_place_and_from_tiles_agree():
    X = np.random.default_rng(13).standard_normal((2100, 40)).astype(np.float32)
    straight = qf.cosine_similarity(X, X[::-1])
    for out in (np.empty((2100, 2100), np.float32, order="F"), np.empty((2100, 4200), np.float32)[:, ::2]):
        assert qf.cosine_similarity(X, X[::-1], out=out) is out
        np.testing.assert_allclose(out, straight, atol=1e-6)
    assert np.abs(straight).max() <= 1
    assert (np.diagonal(straight[:, ::-1]) > 1 - 1e-6).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_panels_have_the_bits_of_one(dtype):
    """A small budget keeps one tile of each side at a time; BLAS sees the same products."""
    X = np.random.default_rng(12).standard_normal((2300, 300)).astype(dtype)
    for Y in (None, X[:1500] + 1):
        free, best = qf.cosine_similarity(X, Y), qf.cosine_top_k(X, Y, k=3)
        for call in (qf.cosine_similarity, lambda *a, **o: qf.cosine_top_k(*a, k=3, **o)[0]):
            with pytest.raises(qf.MemoryBudgetError) as caught:
                call(X, Y, max_memory=1)
            small = call(X, Y, max_memory=caught.value.required)
            assert np.array_equal(small, free if call is qf.cosine_similarity else best[0])


def test_a_matrix_is_symmetric_across_panels():
    X = np.random.default_rng(14).standard_normal((7500, 600)).astype(np.float32)
    # more tiles than one panel holds
    alone = qf.cosine_similarity(X)
    assert np.array_equal(alone[:200], alone[:, :200].T)
    assert np.array_equal(alone[6900:7100, 50:400], alone[50:400, 6900:7100].T)
    np.testing.assert_allclose(alone[6990:7010], sklearn_cosine(X[6990:7010], X), atol=1e-6)


_BITS = """
import hashlib, numpy as np, qixai_fast as qf
X = np.random.default_rng(0).standard_normal((2500, 150)).astype(np.float32)
for n_jobs in (1, 2, 4, None):
    digest = hashlib.sha256()
    for axis in (0, 1):
        for center in (False, True):
            digest.update(qf.cosine_similarity(X, axis=axis, center=center, n_jobs=n_jobs).tobytes())
    for part in qf.cosine_top_k(X, X[:1500], k=4, n_jobs=n_jobs):
        digest.update(part.tobytes())
    print(digest.hexdigest())
"""


def test_same_bits_for_any_number_of_threads():
    run = subprocess.run(
        [sys.executable, "-c", _BITS],
        env={**os.environ, "NUMBA_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    digests = run.stdout.split()
    assert len(digests) == 4
    assert len(set(digests)) == 1


CALLS = {
    "rows": lambda X, **options: qf.cosine_similarity(X, X[:1500], **options),
    "rows of one": lambda X, **options: qf.cosine_similarity(X[:1500], **options),
    "maps": lambda X, **options: qf.cosine_similarity(X, X[:, :200], axis=0, **options),
    "maps of one": lambda X, **options: qf.cosine_similarity(X, axis=0, center=True, **options),
    "top k": lambda X, **options: qf.cosine_top_k(X, k=3, **options)[0],
    "top k of maps": lambda X, **options: qf.cosine_top_k(X, k=3, axis=0, **options)[0],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_budget_is_kept(call, dtype):
    X = np.random.default_rng(11).standard_normal((2600, 300)).astype(dtype)
    free = call(X)
    with pytest.raises(qf.MemoryBudgetError, match="would do") as caught:
        call(X, max_memory=1000)
    for budget in (caught.value.required, 2 * caught.value.required):
        tracemalloc.start()
        result = call(X, max_memory=budget)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        returned = result.nbytes * 3  # the top k's indices count too
        assert peak - returned <= budget
        np.testing.assert_allclose(result, free, atol=1e-12 if dtype is np.float64 else 1e-6)


def test_maps_of_two_layers_take_no_table_of_all_columns():
    X = np.random.default_rng(15).standard_normal((64, 3000)).astype(np.float32)
    tracemalloc.start()
    result = qf.cosine_similarity(X, X[:, :20], axis=0, center=True, n_jobs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 3020**2 / 8
    np.testing.assert_allclose(result, np.corrcoef(X, X[:, :20], rowvar=False)[:3000, 3000:], atol=1e-6)
