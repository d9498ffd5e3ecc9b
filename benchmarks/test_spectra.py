"""Spectra: against a bare product, and against all that computes the same singular values."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks.peers import optional

extmath = optional("sklearn.utils.extmath")
decomposition = optional("sklearn.decomposition")
torch = optional("torch")
fbpca = optional("fbpca")
dask = optional("dask")
da = optional("dask.array")

N_COMPONENTS = 20
ROWS_A_BLOCK = 8192


def layer_blocks(rng, n, d, *, mean=0.5, noise=0.1, rectified=False):
    """Activations block by block: 100 directions of variance 1 / i^2, noise, and a mean."""
    mix = rng.standard_normal((100, d), dtype=np.float32) / np.arange(1, 101, dtype=np.float32)[:, None]
    for first in range(0, n, ROWS_A_BLOCK):
        rows = min(ROWS_A_BLOCK, n - first)
        block = rng.standard_normal((rows, 100), dtype=np.float32) @ mix
        block += noise * rng.standard_normal((rows, d), dtype=np.float32) + np.float32(mean)
        yield first, np.maximum(block, 0) if rectified else block


def layer(rng, n, d, **options):
    X = np.empty((n, d), np.float32)
    for first, block in layer_blocks(rng, n, d, **options):
        X[first : first + len(block)] = block
    return X


def true_values(X, k=N_COMPONENTS):
    """Singular values about the mean, by products of float64 blocks about it."""
    mean = X.mean(axis=0, dtype=np.longdouble).astype(np.float64)
    scatter = np.zeros((X.shape[1], X.shape[1]))
    for first in range(0, len(X), ROWS_A_BLOCK):
        block = X[first : first + ROWS_A_BLOCK].astype(np.float64) - mean
        scatter += block.T @ block
    return np.sqrt(np.maximum(np.linalg.eigvalsh(scatter)[::-1][:k], 0))


def error_of(values, truth):
    return float(np.max(np.abs(np.asarray(values, dtype=np.float64) - truth) / truth))


def note_errors(race, result, truth, most):
    error = np.abs(np.asarray(result.singular_values) - truth) / truth
    race.bound("relative error of the singular values", float(error.max()), most=most)
    # Two digits of the last place are the truth's own.
    race.bound("error / its stated bound", float(np.max((error - 4e-16) / result.error_bound)), most=1.0)


def centred_peers(X, *, sklearn_svd=None, torch_iterations=None):
    """Calls that give the leading singular values about the mean.

    ``X`` is an array that has it taken out already, or a file's path: then reading it and taking the mean out
    are part of the work, as they are of ours.
    """
    from_file = not isinstance(X, np.ndarray)

    def centred():
        if not from_file:
            return X
        stored = np.load(X)
        stored -= stored.mean(axis=0)
        return stored

    width = (np.load(X, mmap_mode="r") if from_file else X).shape[1]
    names = ("scikit-learn randomized_svd", "torch.svd_lowrank", "fbpca")
    peers = dict.fromkeys(names)
    if extmath:
        options = {} if sklearn_svd is None else {"n_iter": sklearn_svd}
        peers["scikit-learn randomized_svd"] = lambda: extmath.randomized_svd(
            centred(), N_COMPONENTS, random_state=0, **options
        )[1]
    if torch:
        niter = 2 if torch_iterations is None else torch_iterations
        peers["torch.svd_lowrank"] = lambda: torch.svd_lowrank(
            torch.from_numpy(centred()), q=min(N_COMPONENTS + 10, width), niter=niter
        )[1][:N_COMPONENTS].numpy()
    if fbpca:
        peers["fbpca"] = lambda: fbpca.pca(centred(), N_COMPONENTS, raw=True)[1]
    return peers


def dask_svd(path, iterator, n_power_iter):
    """Out of core: the file in blocks, read again for every product, as dask's documentation advises."""
    X = da.from_array(np.load(path, mmap_mode="r"), chunks=(ROWS_A_BLOCK, -1))
    with dask.config.set(scheduler="synchronous"):
        centred = X - X.mean(axis=0).compute()
        found = da.linalg.svd_compressed(
            centred, N_COMPONENTS, iterator=iterator, n_power_iter=n_power_iter, seed=0, compute=True
        )
        return found[1].compute()


def torch_pca(path):
    X = torch.from_numpy(np.load(path))
    return torch.pca_lowrank(X, q=min(N_COMPONENTS + 10, X.shape[1]))[1][:N_COMPONENTS].numpy()


MEMORY = """
import json, sys, time
import numpy as np
import qixai_fast as qf

def resident(which):
    for line in open("/proc/self/status"):
        if line.startswith(which):
            return int(line.split()[1]) / 1000

path, k, n_jobs, max_memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
warm = np.random.default_rng(0).standard_normal((20000, 128)).astype(np.float32)
qf.pca(warm, 2, n_jobs=n_jobs)
del warm
X = np.load(path, mmap_mode="r")
open("/proc/self/clear_refs", "w").write("5")  # from here on VmHWM is a new peak
before = resident("VmRSS:")
start = time.perf_counter()
result = qf.pca(X, k, n_jobs=n_jobs, max_memory=max_memory or None)
seconds = time.perf_counter() - start
values, bound = result.singular_values.tolist(), result.error_bound.tolist()
print(json.dumps([seconds, resident("VmHWM:"), before, result.n_passes, values, bound]))
"""
ACCOUNTING = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's accounting of memory"
)


def in_child(path, *, n_jobs=1, max_memory=""):
    """Seconds, peak and first resident megabytes, passes, values and bounds of a pca in a fresh process."""
    command = [sys.executable, "-c", MEMORY, str(path), str(N_COMPONENTS), str(n_jobs), max_memory]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.fixture
def narrow_file(rng, size, tmp_path):
    path = tmp_path / "layer.npy"
    np.save(path, layer(rng, size(200_000, 4000), size(512, 128)))
    return path


@ACCOUNTING
def test_narrow_file(race, narrow_file):
    truth = true_values(np.load(narrow_file))

    def bare():
        X = np.load(narrow_file, mmap_mode="r")
        return X.T @ X

    n, d = np.load(narrow_file, mmap_mode="r").shape
    results = race(
        f"pca of a file of {n:,} x {d} float32, k={N_COMPONENTS}",
        lambda: qf.pca(np.load(narrow_file, mmap_mode="r"), N_COMPONENTS, n_jobs=1),
        {
            "X.T @ X of the file, float32": bare,
            **centred_peers(narrow_file),
            "scikit-learn PCA": decomposition
            and (lambda: decomposition.PCA(N_COMPONENTS, random_state=0).fit(np.load(narrow_file))),
            "torch.pca_lowrank": torch and (lambda: torch_pca(narrow_file)),
            "dask svd_compressed, default": da and (lambda: dask_svd(narrow_file, "power", 0)),
            "dask svd_compressed, QR, n_power_iter=4": da and (lambda: dask_svd(narrow_file, "QR", 4)),
        },
        least={"X.T @ X of the file, float32": 1 / 1.2, "scikit-learn randomized_svd": 4.0},
        rounds=5,
    )
    note_errors(race, results["ours"], truth, most=1e-7)
    _, peak, before, n_passes, *_ = in_child(narrow_file)
    race.bound("MB above the start", peak - before, most=64)
    race.bound("reads of the file", n_passes, most=1)


def test_rectified(race, size, rng):
    X = layer(rng, size(200_000, 4000), size(512, 128), noise=0.3, rectified=True)
    results = race(
        f"the same of rectified activations in memory, {len(X):,} x {X.shape[1]}",
        lambda: qf.pca(X, N_COMPONENTS, n_jobs=1),
        {"X.T @ X, float32": lambda: X.T @ X},
        rounds=5,
    )
    note_errors(race, results["ours"], true_values(X), most=1e-6)


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_two_threads(race, narrow_file):
    results = race(
        "pca of the file on two threads",
        lambda: qf.pca(np.load(narrow_file, mmap_mode="r"), N_COMPONENTS, n_jobs=2),
        {"one thread": lambda: qf.pca(np.load(narrow_file, mmap_mode="r"), N_COMPONENTS, n_jobs=1)},
        least={"one thread": 1.7},
    )
    assert (results["ours"].singular_values == results["one thread"].singular_values).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("ratio", [0, 1, 10, 30, 100, 1000])
def test_large_means(race, size, rng, ratio, dtype):
    n, d = size(50_000, 4000), size(256, 64)
    X = rng.standard_normal((n, 40)) * np.geomspace(1, 1e-3, 40) @ rng.standard_normal((40, d))
    X = (X + ratio * X.std()).astype(dtype)
    truth = true_values(X, 40)
    k = min(N_COMPONENTS, int(np.count_nonzero(truth >= 1e-3 * truth[0])))
    results = race(
        f"mean / standard deviation {ratio}, {dtype}, {n:,} x {d}: {k} values above 0.001 of the first",
        lambda: qf.pca(X, k, n_jobs=1),
        {"scikit-learn PCA": decomposition and (lambda: decomposition.PCA(k, random_state=0).fit(X))},
        rounds=3,
    )
    note_errors(race, results["ours"], truth[:k], most=1e-6)


def fewest_iterations(call, truth, error, tries):
    """The smallest number of iterations that brings a peer within an error."""
    for n_iter in tries:
        if error_of(call(n_iter), truth) <= error:
            return n_iter
    return tries[-1]


@pytest.mark.large
@pytest.mark.parametrize("shape", [(100_000, 2048), (50_000, 4096)])
def test_wide(race, size, rng, shape):
    n, d = size(shape[0], 2000), size(shape[1], 300)
    X = layer(rng, n, d)
    X -= X.mean(axis=0)
    exact = qf.pca(X, N_COMPONENTS, method="krylov", tol=1e-9, random_state=1)
    truth = exact.singular_values
    counts = {}
    if extmath:
        counts["sklearn_svd"] = fewest_iterations(
            lambda i: centred_peers(X, sklearn_svd=i)["scikit-learn randomized_svd"](),
            truth,
            1e-5,
            range(3, 12),
        )
    if torch:
        counts["torch_iterations"] = fewest_iterations(
            lambda i: centred_peers(X, torch_iterations=i)["torch.svd_lowrank"](), truth, 1e-5, range(2, 12)
        )
    peers = centred_peers(X, **counts)
    peers["scikit-learn PCA"] = decomposition and (
        lambda: decomposition.PCA(N_COMPONENTS, random_state=0).fit(X).singular_values_
    )
    results = race(
        f"pca of {n:,} x {d} float32 in memory, k={N_COMPONENTS}; "
        "peers with the fewest iterations within 1e-5",
        lambda: qf.pca(X, N_COMPONENTS, n_jobs=1, random_state=0),
        peers,
        least={name: 1.4 for name, peer in peers.items() if peer and name != "fbpca"},
        rounds=3,
    )
    note_errors(race, results["ours"], truth, most=1e-6)


def scaled_tiles(rng, n, d, path):
    """Write a tile of rows again and again, at scales that are powers of two; return the singular values."""
    tile = layer(rng, min(n, 65_536), d)
    scales = [2.0 ** (i % 3) for i in range(-(-n // len(tile)))]
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    scatter, total = np.zeros((d, d)), np.zeros(d)
    center = tile.mean(axis=0, dtype=np.float64)
    products = {}
    for i, scale in enumerate(scales):
        rows = tile[: min(len(tile), n - i * len(tile))]
        first = i * len(tile)
        out[first : first + len(rows)] = rows * np.float32(scale)
        if len(rows) not in products:
            centred = rows.astype(np.float64) - center
            products[len(rows)] = centred.T @ centred, centred.sum(axis=0)
        square, part = products[len(rows)]
        # About the mean of the plain tile, scaled: sum of (s x - c) (s x - c)^T with x = y + c.
        away = (scale - 1) * center
        scatter += scale**2 * square + scale * (np.outer(part, away) + np.outer(away, part))
        scatter += len(rows) * np.outer(away, away)
        total += scale * part + len(rows) * away
    out.flush()
    scatter -= np.outer(total, total) / n
    return np.sqrt(np.linalg.eigvalsh(scatter)[::-1][:N_COMPONENTS])


@ACCOUNTING
@pytest.mark.large
def test_file_beyond_the_budget(race, size, rng, tmp_path):
    n, d = size(2_929_688, 20_000), size(1024, 128)
    if shutil.disk_usage(tmp_path).free < 2 * 4 * n * d:
        pytest.skip("too little disk space")
    path = tmp_path / "layer.npy"
    truth = scaled_tiles(rng, n, d, path)
    found = {}

    def ours():
        found["child"] = in_child(path, n_jobs=2, max_memory="512MB")

    race(f"pca of a file of {4 * n * d / 1e9:.3g} GB, max_memory='512MB', two threads", ours, {}, rounds=1)
    _, peak, _, n_passes, values, bound = found["child"]
    race.bound("MB resident in all, the libraries' code included", peak, most=512)
    race.bound("reads of the file", n_passes, most=1)
    error = np.abs(np.array(values) - truth) / truth
    race.bound("relative error of the singular values", float(error.max()), most=1e-6)
    race.bound("error / its stated bound", float(np.max((error - 1e-14) / np.array(bound))), most=1.0)
    path.unlink()
