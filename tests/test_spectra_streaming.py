"""Spectra of files: bits, budgets, pages, scores, torch."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from test_spectra import with_spectrum

import qixai_fast as qf

BITS = """
import sys
import numpy as np
import qixai_fast as qf

tall = np.random.default_rng(0).normal(3, 1, size=(30000, 60)).astype(np.float32)
wide = np.random.default_rng(1).normal(3, 1, size=(80, 9000))
for n_jobs in (1, 2, 4, None):
    parts = []
    for X, method in ((tall, "covariance"), (tall, "krylov"), (wide, "covariance"), (wide, "krylov")):
        result = qf.pca(X, 7, method=method, random_state=0, n_jobs=n_jobs)
        scores = result.transform(X, n_jobs=n_jobs)
        parts += [result.components, result.singular_values, result.mean, result.error_bound, scores]
    parts += qf.randomized_svd(tall, 7, random_state=0, n_jobs=n_jobs)
    parts += qf.randomized_svd(wide, 7, random_state=0, n_jobs=n_jobs)
    print(hash(b"".join(part.tobytes() for part in parts)))
"""


def test_any_number_of_threads_gives_the_same_bits():
    outputs = []
    for threads in ("1", "4"):
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        )
        outputs += done.stdout.split()
    assert len(outputs) == 8
    assert len(set(outputs)) == 1


@pytest.mark.parametrize(
    ("shape", "method"), [((20000, 30), "auto"), ((70, 4000), "auto"), ((3000, 200), "krylov")]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_mapped_files_give_the_bits_of_memory(tmp_path, shape, method, dtype):
    X = np.random.default_rng(0).normal(2, 1, size=shape).astype(dtype)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    for name in ("x.npy", "f.npy"):
        mapped = np.load(tmp_path / name, mmap_mode="r")
        for file, memory in zip(
            (*qf.randomized_svd(mapped, 5, random_state=1), qf.pca(mapped, 5, method=method, random_state=1)),
            (*qf.randomized_svd(X, 5, random_state=1), qf.pca(X, 5, method=method, random_state=1)),
            strict=True,
        ):
            if isinstance(file, qf.PCAResult):
                np.testing.assert_array_equal(file.transform(mapped), memory.transform(X))
                file, memory = file.singular_values, memory.singular_values
            np.testing.assert_array_equal(file, memory)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("shape", [(40000, 100), (100, 40000)])
def test_pages_of_a_file_are_let_go(tmp_path, shape):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    X = np.load(path, mmap_mode="r")
    qf.randomized_svd(X, 4)
    with open("/proc/self/smaps") as smaps:
        parts = smaps.read().split(str(path))[1:]
    resident = sum(int(part.split("Rss:")[1].split()[0]) for part in parts)
    assert resident * 1024 < X.nbytes / 2


def peak_of(call):
    call()
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


CALLS = {
    "pca by features": ((30000, 64), lambda X, **o: qf.pca(X, 8, random_state=0, **o)),
    "pca by samples": ((100, 40000), lambda X, **o: qf.pca(X, 8, random_state=0, **o)),
    "pca by krylov": ((4000, 500), lambda X, **o: qf.pca(X, 8, method="krylov", random_state=0, **o)),
    "pca with tol": (
        (1500, 300),
        lambda X, **o: qf.pca(X, 8, method="krylov", tol=1e-4, random_state=0, **o),
    ),
    "pca of all": ((3000, 400), lambda X, **o: qf.pca(X, 400, **o)),
    "svd by features": ((30000, 64), lambda X, **o: qf.randomized_svd(X, 8, **o)),
    "svd by samples": ((100, 40000), lambda X, **o: qf.randomized_svd(X, 8, **o)),
    "svd by krylov": ((1200, 1100), lambda X, **o: qf.randomized_svd(X, 8, random_state=0, **o)),
}


def nbytes(result):
    parts = vars(result).values() if isinstance(result, qf.PCAResult) else result
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_budgets_are_kept(tmp_path, name, n_jobs):
    shape, call = CALLS[name]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(qf.MemoryBudgetError, match="max_memory") as caught:
        call(X, max_memory=1000)
    needed = caught.value.required
    for budget in (needed, 3 * needed):
        result, peak = peak_of(lambda budget=budget: call(X, max_memory=budget, n_jobs=n_jobs))
        assert peak <= budget + nbytes(result)
    # Asking for far more than is used would turn away work that fits.
    _, peak = peak_of(lambda: call(X, max_memory=needed))
    assert needed < 4 * peak
    with pytest.raises(qf.MemoryBudgetError):
        call(X, max_memory=needed - 1)
    unlimited = call(X, n_jobs=1)
    if isinstance(unlimited, qf.PCAResult):
        unlimited, result = (unlimited.components,), (result.components,)
    for free, bound in zip(unlimited, result, strict=True):
        np.testing.assert_array_equal(free, bound)


def test_scores_stream_into_files(tmp_path):
    X = with_spectrum(50000, 40, 0.8 ** np.arange(30), offset=1000, dtype=np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    result = qf.pca(mapped, 6)
    out = np.lib.format.open_memmap(tmp_path / "scores.npy", mode="w+", dtype=np.float32, shape=(50000, 6))
    with pytest.raises(qf.MemoryBudgetError) as caught:
        result.transform(mapped, out=out, max_memory=1000)
    budget = caught.value.required
    same, peak = peak_of(lambda: result.transform(mapped, out=out, max_memory=budget, n_jobs=4))
    assert same is out
    assert peak <= budget
    exact = (X.astype(np.float64) - result.mean) @ result.components.T.astype(np.float64)
    np.testing.assert_allclose(out, exact, atol=1e-6)
    scores = result.transform(X)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, out)
    variances = result.transform(X.astype(np.float64)).var(axis=0, ddof=1)
    np.testing.assert_allclose(variances, result.explained_variance, rtol=1e-5)


def test_unfit_scores_are_refused():
    result = qf.pca(np.random.default_rng(0).normal(size=(20, 5)), 2)
    X = np.zeros((7, 5))
    frozen = np.zeros((7, 2))
    frozen.flags.writeable = False
    for out, error, words in [
        (np.zeros((7, 3)), ValueError, r"out: wanted a writable .* shape \(7, 2\), got shape \(7, 3\)"),
        (np.zeros((7, 2), int), ValueError, "dtype int64"),
        (frozen, ValueError, "read-only"),
        ([[0.0]], TypeError, "out: wanted a NumPy array or memmap, got list"),
    ]:
        with pytest.raises(error, match=words):
            result.transform(X, out=out)
    with pytest.raises(ValueError, match="X: wanted 5 features as in the fitted data, got 4"):
        result.transform(X[:, :4])
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 3, column 1"):
        result.transform(X)
    assert result.transform(np.zeros((1, 5))).shape == (1, 2)


def test_results_are_frozen():
    result = qf.pca(np.eye(4), 2)
    with pytest.raises(AttributeError):
        result.n_passes = 7
    assert isinstance(result.total_variance, float)
    assert isinstance(result.n_passes, int)


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(with_spectrum(300, 20, 0.8 ** np.arange(20), dtype=np.float32))
    expected = qf.pca(X.numpy(), 4)
    for tensor in (X, X.clone().requires_grad_(), X.T.contiguous().T):
        result = qf.pca(tensor, 4)
        np.testing.assert_allclose(result.components.numpy(), expected.components, atol=1e-6)
        assert result.singular_values.dtype == torch.float64
        assert isinstance(result.total_variance, float)
        scores = result.transform(tensor)
        assert isinstance(scores, torch.Tensor)
        np.testing.assert_allclose(scores.numpy(), expected.transform(X.numpy()), atol=1e-5)
        assert isinstance(result.transform(X.numpy()), np.ndarray)
    brain = X.to(torch.bfloat16)
    result = qf.pca(brain, 4)
    assert result.components.dtype == torch.float32
    stored = qf.pca(brain.to(torch.float32).numpy(), 4)
    np.testing.assert_array_equal(result.singular_values.numpy(), stored.singular_values)
    U, S, Vt = qf.randomized_svd(brain, 4)
    assert (U.dtype, S.dtype, Vt.dtype) == (torch.float32, torch.float64, torch.float32)
    np.testing.assert_array_equal(Vt.numpy(), qf.randomized_svd(brain.to(torch.float32).numpy(), 4)[2])
    np.testing.assert_allclose((U.T @ U).numpy(), np.eye(4), atol=1e-5)
