"""Dask arrays as inputs: the bits of the call on the array in memory, and each chunk computed once a pass."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from dataclasses import astuple, is_dataclass

import numpy as np
import pytest

import qixai_fast as qf

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

N, D = 3000, 10
CALLS = {
    "pca": lambda X, **k: qf.pca(X, 3, random_state=0, **k),
    "krylov": lambda X, **k: qf.pca(X, 3, method="krylov", random_state=0, **k),
    "svd": lambda X, **k: qf.randomized_svd(X, 3, random_state=0, **k),
    "cosine of maps": lambda X, **k: qf.cosine_similarity(X, axis=0, center=True, **k),
    "cosine of rows": lambda X, **k: qf.cosine_similarity(X[:400], X[300:900], **k),
    "top k": lambda X, **k: qf.cosine_top_k(X, k=2, axis=0, **k),
    "binned": lambda X, **k: qf.pairwise_mutual_info_binned(X, **k),
    "quantile": lambda X, **k: qf.pairwise_mutual_info_binned(X, X[:, :3], strategy="quantile", **k),
    "ksg": lambda X, **k: qf.pairwise_mutual_info_ksg(X[:600, :4], **k),
    "test": lambda X, **k: qf.mutual_info_test(X[:, :3], n_permutations=19, random_state=0, **k),
    "cka": lambda X, **k: qf.linear_cka(X, X[:, :6], **k),
    "entropy": lambda X, **k: qf.von_neumann_entropy(X, **k),
    "schmidt": lambda X, **k: qf.schmidt_spectrum(X, X[:, :4], **k),
    "quantum mutual information": lambda X, **k: qf.quantum_mutual_information(X[:, :3], X[:, 3:6], **k),
}
# Calls that read a scratch file: every chunk is computed once, whatever they do.
ONCE = ("binned", "ksg", "entropy")


@pytest.fixture(scope="module")
def layer() -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    values[:, 3] = np.maximum(values[:, 3], 0)
    values[:, 4] += values[:, 5]
    return values


def counted(layer, chunks):
    """A dask array of a layer, and how often each of its chunks was computed."""
    seen: Counter = Counter()
    lock = threading.Lock()

    def see(block, block_id=None):
        with lock:
            seen[block_id] += 1
        return block

    plain = da.from_array(layer, chunks=chunks)
    return plain.map_blocks(see, dtype=layer.dtype, meta=np.empty((0, 0), layer.dtype)), seen


def assert_same(got, wanted):
    if is_dataclass(got):
        got, wanted = astuple(got), astuple(wanted)
    if isinstance(got, tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
        return
    assert type(got) is type(wanted)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("chunks", [(700, 4), ((1, 2999), (10,)), (97, 10)])
def test_bits_of_the_array_in_memory(layer, name, chunks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = CALLS[name](layer)
        for n_jobs in (1, 4):
            assert_same(CALLS[name](da.from_array(layer, chunks=chunks), n_jobs=n_jobs), wanted)


@pytest.mark.parametrize("name", ONCE)
def test_columns_are_computed_once(layer, name):
    X, seen = counted(layer, (250, 4))
    CALLS[name](X, n_jobs=4)
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_a_pass_computes_each_chunk_once(layer, n_jobs):
    from qixai_fast._dask_arrays import dask_inputs
    from qixai_fast._validate import as_matrix
    from qixai_fast.statistics import cross_moments

    @dask_inputs("X")
    def moments(X, *, n_jobs=None, max_memory=None):
        return cross_moments([as_matrix(X)], n_jobs=n_jobs)

    big = np.tile(layer, (60, 1))
    X, seen = counted(big, (7001, 4))
    found = moments(X, n_jobs=n_jobs)
    np.testing.assert_array_equal(found.scatter, cross_moments([as_matrix(big)]).scatter)
    again = seen.pop((0, 0)), seen.pop((0, 1)), seen.pop((0, 2))
    assert set(seen.values()) == {1}
    # The shift comes from the first rows, before the pass.
    assert max(again) <= 2


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("name", ["pca", "krylov", "svd", "top k", "cosine of maps"])
def test_few_chunks_are_kept(layer, name, n_jobs):
    # All of the chunks fit the cache here: several passes compute each of them once.
    X, seen = counted(layer, (250, 4))
    CALLS[name](X, n_jobs=n_jobs)
    assert set(seen.values()) == {1}


def test_a_full_disk_is_an_error(layer, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    X, seen = counted(layer, (700, 4))
    with pytest.raises(OSError, match=r"X: no room for 120\.0 kB"):
        qf.pairwise_mutual_info_binned(X)
    assert not seen


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.float64, bool])
def test_dtypes(dtype):
    values = (np.random.default_rng(1).standard_normal((500, 4)) * 3).astype(dtype)
    X = da.from_array(values, chunks=(120, 3))
    assert_same(qf.cosine_similarity(X, axis=0), qf.cosine_similarity(values, axis=0))
    assert_same(qf.pairwise_mutual_info_binned(X), qf.pairwise_mutual_info_binned(values))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers(layer, scheduler):
    X, seen = counted(layer, (800, 10))
    with dask.config.set(scheduler=scheduler):
        assert_same(qf.pairwise_mutual_info_binned(X), qf.pairwise_mutual_info_binned(layer))
    assert set(seen.values()) == {1}


def test_a_cluster_of_processes(layer):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as c,
        distributed.Client(c),
    ):
        X = da.from_array(layer, chunks=(500, 10)).map_blocks(_with_process, dtype=np.float32)
        got = qf.cosine_similarity(X, axis=0, n_jobs=2)
        assert_same(qf.pca(da.from_array(layer, chunks=(500, 4)), 2), qf.pca(layer, 2))
        here = np.float32(_process())
    # The chunks hold the number of the process that made them in their last column.
    assert_same(got[:-1, :-1], qf.cosine_similarity(layer, axis=0)[:-1, :-1])
    assert not (layer[:, -1] == here).any()


def _process() -> int:
    import os

    return os.getpid() % 1000


def _with_process(block):
    import os

    import distributed

    distributed.get_worker()
    block = block.copy()
    block[:, -1] = os.getpid() % 1000
    return block


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda X: X[X[:, 0] > 0], ValueError, "X: a dask array of unknown chunk sizes"),
        (lambda X: X[:, 0], ValueError, "X: wanted shape"),
        (lambda X: X[None], ValueError, "X: wanted shape"),
        (lambda X: X.astype(complex), TypeError, "X: dtype complex128"),
        (lambda X: X.astype(object), TypeError, "X: dtype object"),
        (lambda X: X[:0], ValueError, "X: wanted at least"),
        (lambda X: X[:, :0], ValueError, "X: wanted at least"),
    ],
)
def test_refused_before_any_compute(layer, change, error, words):
    X, seen = counted(layer, (700, 4))
    for call in (CALLS["binned"], CALLS["top k"], CALLS["pca"]):
        with pytest.raises(error, match=words):
            call(change(X))
    assert not seen


def test_other_arguments_are_checked_first(layer):
    X, seen = counted(layer, (700, 4))
    with pytest.raises(ValueError, match="n_neighbors"):
        qf.pairwise_mutual_info_ksg(X, n_neighbors=0)
    with pytest.raises(ValueError, match="n_components"):
        qf.pca(X, 99)
    assert not seen


@pytest.mark.parametrize("name", ["pca", "top k", "binned", "ksg", "entropy"])
def test_nan_is_named(layer, name):
    values = layer.copy()
    values[577, 2] = values[590, 1] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 577, column 2"):
        CALLS[name](da.from_array(values, chunks=(200, 2)))


@pytest.mark.parametrize("name", ["pca", "binned", "ksg"])
def test_a_failing_chunk_is_an_error_and_no_hang(layer, name):
    def fail(block):
        raise RuntimeError("no such chunk")

    X = da.from_array(layer, chunks=(200, 10)).map_blocks(fail, dtype=np.float32, meta=np.empty((0, 0), "f4"))
    with pytest.raises(RuntimeError, match="no such chunk"):
        CALLS[name](X, n_jobs=4)


def test_a_chunk_unlike_its_announcement(layer):
    X = da.from_array(layer, chunks=(200, 10)).map_blocks(
        lambda block: block.astype("f8"), dtype=np.float32, meta=np.empty((0, 0), "f4")
    )
    with pytest.raises(ValueError, match=r"X: chunk \(0, 0\) came as float64"):
        qf.pca(X, 2)


@pytest.mark.parametrize("name", ["pca", "top k", "binned"])
def test_budget(layer, name):
    X = da.from_array(layer, chunks=(1500, 10))
    with pytest.raises(qf.MemoryBudgetError, match=r"chunks of 1500 x 10.*Rechunk X"):
        CALLS[name](X, max_memory=50_000)
    required = 70_000
    for _ in range(8):
        try:
            assert_same(CALLS[name](X, max_memory=required), CALLS[name](layer))
            return
        except qf.MemoryBudgetError as error:
            required = max(required + 1, error.required)
    pytest.fail("no budget would do")


def test_nothing_of_dask_is_imported_for_arrays():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np, qixai_fast as qf\n"
        "qf.pca(np.eye(4), 2)\n"
        "assert not any(name.split('.')[0] in ('dask', 'distributed') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
