"""Cosine similarity: beside the product of matrices that it needs, scikit-learn, torch, dask and faiss."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

import qixai_fast as qf
from benchmarks.peers import optional

torch = optional("torch")
dask = optional("dask")
da = optional("dask.array")
faiss = optional("faiss")
if faiss:
    faiss.omp_set_num_threads(1)


def layers(rng, size, dtype):
    """Two layers of 512 features; quick ones are smaller."""
    d = size(512, 32)
    shapes = (size(20_000, 300), d), (size(2_000, 100), d)
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype) for shape in shapes]


def torch_cosine(X, Y):
    """As torch's users write it for all pairs of rows: normalise, then one product."""
    if torch is None:
        return None
    wide_x, wide_y = torch.from_numpy(X), torch.from_numpy(Y)
    normalize = torch.nn.functional.normalize
    return lambda: (normalize(wide_x) @ normalize(wide_y).T).numpy()


def work(X, Y, what):
    return f"{what}, {len(X):,} x {len(Y):,} rows of {X.shape[1]} {X.dtype} features"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_full_matrix(race, size, rng, dtype):
    X, Y = layers(rng, size, dtype)
    results = race(
        work(X, Y, "cosine_similarity"),
        lambda: qf.cosine_similarity(X, Y, n_jobs=1),
        {
            "X @ Y.T": lambda: X @ Y.T,
            "scikit-learn": lambda: sklearn_cosine(X, Y),
            "torch normalize, matmul": torch_cosine(X, Y),
        },
        least={"X @ Y.T": 1 / 1.1} if dtype is np.float32 else None,
    )
    for name in set(results) - {"ours", "X @ Y.T"}:
        np.testing.assert_allclose(results["ours"], results[name], atol=1e-5)


def dask_cosine(path, Y):
    """Blocks of a file, normalised and multiplied; dask has no function for it."""
    X = da.from_array(np.load(path, mmap_mode="r"), chunks=(4096, -1))
    unit = X / da.sqrt((X * X).sum(axis=1, keepdims=True))
    with dask.config.set(scheduler="synchronous"):
        return (unit @ (Y / np.linalg.norm(Y, axis=1, keepdims=True)).T).compute()


def test_file(race, size, rng, tmp_path):
    X, Y = layers(rng, size, np.float32)
    path = tmp_path / "layer.npy"
    np.save(path, X)
    results = race(
        work(X, Y, "cosine_similarity of a file"),
        lambda: qf.cosine_similarity(np.load(path, mmap_mode="r"), Y, n_jobs=1),
        {
            "dask.array": da and (lambda: dask_cosine(path, Y)),
            "scikit-learn": lambda: sklearn_cosine(np.load(path), Y),
        },
        rounds=3,
    )
    for theirs in results.values():
        np.testing.assert_allclose(results["ours"], theirs, atol=1e-5)


def test_half_precision(race, size, rng):
    X, Y = layers(rng, size, np.float16)
    wide_x, wide_y = X.astype(np.float32), Y.astype(np.float32)
    results = race(
        work(X, Y, "cosine_similarity"),
        lambda: qf.cosine_similarity(X, Y, n_jobs=1),
        {
            "X @ Y.T of float32 copies": lambda: wide_x @ wide_y.T,
            "scikit-learn": lambda: sklearn_cosine(X, Y),
        },
        least={"X @ Y.T of float32 copies": 1 / 1.1, "scikit-learn": 1.7},
    )
    np.testing.assert_allclose(results["ours"], results["scikit-learn"], atol=1e-5)


def test_rows_with_themselves(race, size, rng):
    X = layers(rng, size, np.float32)[0][: size(8_000, 200)]
    race(
        f"cosine_similarity, {len(X):,} rows of {X.shape[1]} float32 features with themselves",
        lambda: qf.cosine_similarity(X, n_jobs=1),
        {"X @ X.T": lambda: X @ X.T, "scikit-learn": lambda: sklearn_cosine(X)},
    )


def partition(similarities, k):
    """The usual recipe for the k best of each row, from the full matrix."""
    best = np.argpartition(similarities, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(similarities, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def torch_top_k(X, Y, k):
    cosine = torch_cosine(X, Y)
    return cosine and (lambda: torch.topk(torch.from_numpy(cosine()), k).indices.numpy())


def faiss_top_k(X, Y, k, index_of):
    """Exact search: rows scaled to unit length, put into an index, and searched."""
    if faiss is None:
        return None

    def call():
        unit_x, unit_y = X.copy(), Y.copy()
        faiss.normalize_L2(unit_x)
        faiss.normalize_L2(unit_y)
        index = index_of(Y.shape[1])
        index.add(unit_y)
        return index.search(unit_x, k)[1]

    return call


def test_top_k(race, size, rng):
    X, Y = layers(rng, size, np.float32)
    results = race(
        work(X, Y, "cosine_top_k, k=10"),
        lambda: qf.cosine_top_k(X, Y, k=10, n_jobs=1),
        {
            "X @ Y.T": lambda: X @ Y.T,
            "scikit-learn and argpartition": lambda: partition(sklearn_cosine(X, Y), 10),
            "torch matmul, topk": torch_top_k(X, Y, 10),
            "faiss IndexFlatIP": faiss_top_k(X, Y, 10, faiss and faiss.IndexFlatIP),
            "faiss IndexFlatL2": faiss_top_k(X, Y, 10, faiss and faiss.IndexFlatL2),
        },
        least={"X @ Y.T": 1 / 1.4},
    )
    for name in set(results) - {"ours", "X @ Y.T"}:
        assert (results["ours"][1] == results[name]).mean() > 0.99, name
    tracemalloc.start()
    qf.cosine_top_k(X, Y, k=10, n_jobs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    race.bound("megabytes that it takes at most; the full matrix has 160", peak / 1e6, most=40)


def dask_corrcoef(X, Y):
    with dask.config.set(scheduler="synchronous"):
        return da.corrcoef(da.from_array(np.hstack([X, Y]), chunks=(8192, -1)), rowvar=False).compute()


def test_feature_maps(race, size, rng):
    X = rng.standard_normal((size(50_000, 500), size(1_024, 24))).astype(np.float32)
    Y = X[:, :: size(8, 2)] + rng.standard_normal((len(X), X.shape[1] // size(8, 2))).astype(np.float32)
    wide_x, wide_y = X.astype(np.float64), Y.astype(np.float64)
    results = race(
        f"cosine_similarity, centred maps: {X.shape[1]:,} and {Y.shape[1]}, N={len(X):,}, float32",
        lambda: qf.cosine_similarity(X, Y, axis=0, center=True, n_jobs=1),
        {
            "X.T @ Y of float64 copies": lambda: wide_x.T @ wide_y,
            "numpy.corrcoef of both": lambda: np.corrcoef(X, Y, rowvar=False),
            "torch.corrcoef of both": torch
            and (lambda: torch.corrcoef(torch.from_numpy(np.hstack([X, Y])).T).numpy()),
            "dask.array.corrcoef of both": da and (lambda: dask_corrcoef(X, Y)),
        },
        rounds=3,
    )
    for name in set(results) - {"ours", "X.T @ Y of float64 copies"}:
        both = results[name][: X.shape[1], X.shape[1] :]
        np.testing.assert_allclose(results["ours"], both, atol=1e-5)
