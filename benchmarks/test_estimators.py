"""The estimators and the linear-algebra drop-ins beside scikit-learn's."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from qixai_fast import estimators as ours
from qixai_fast.compat import sklearn as drop_ins

decomposition = pytest.importorskip("sklearn.decomposition")
extmath = pytest.importorskip("sklearn.utils.extmath")
pairwise = pytest.importorskip("sklearn.metrics.pairwise")

COMPONENTS = 20
CHUNK = 5 * 512  # as IncrementalPCA cuts 512 features


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """One core each: scikit-learn's linear algebra has all of them otherwise."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    with threadpool_limits(1):
        yield


@pytest.fixture
def layer(size, rng):
    """Samples of rank 20 and some noise, in single precision."""
    n, d = size(200_000, 3000), size(512, 64)
    X = rng.standard_normal((n, 20), dtype=np.float32) @ rng.standard_normal((20, d), dtype=np.float32)
    X += 0.1 * rng.standard_normal((n, d), dtype=np.float32)
    return X


def _work(name, X):
    return f"`{name}`, {X.shape[0]:,} x {X.shape[1]} {X.dtype}, {COMPONENTS} components"


def _in_chunks(estimator, X):
    for start in range(0, len(X), CHUNK):
        estimator.partial_fit(X[start : start + CHUNK])
    return estimator.singular_values_


def test_pca(race, layer):
    found = race(
        _work("PCA.fit", layer),
        lambda: ours.PCA(COMPONENTS).fit(layer).singular_values_,
        {"PCA": lambda: decomposition.PCA(COMPONENTS).fit(layer).singular_values_},
        rounds=3,
    )
    np.testing.assert_allclose(found["ours"], found["PCA"], rtol=1e-3)


def test_chunks(race, layer):
    found = race(
        _work(f"PCA.partial_fit` of {CHUNK:,} samples at a time, `.singular_values_", layer),
        lambda: _in_chunks(ours.PCA(COMPONENTS), layer),
        {"IncrementalPCA": lambda: _in_chunks(decomposition.IncrementalPCA(COMPONENTS), layer)},
        rounds=1,
    )
    np.testing.assert_allclose(found["ours"], found["IncrementalPCA"], rtol=1e-2)


def test_transform(race, layer):
    mine, other = ours.PCA(COMPONENTS).fit(layer), decomposition.PCA(COMPONENTS).fit(layer)
    found = race(
        _work("PCA.transform", layer),
        lambda: mine.transform(layer),
        {"PCA": lambda: other.transform(layer)},
    )
    np.testing.assert_allclose(np.abs(found["ours"]), np.abs(found["PCA"]), atol=0.05)


def test_truncated_svd(race, layer):
    found = race(
        _work("TruncatedSVD.fit", layer),
        lambda: ours.TruncatedSVD(COMPONENTS).fit(layer).singular_values_,
        {"TruncatedSVD": lambda: decomposition.TruncatedSVD(COMPONENTS).fit(layer).singular_values_},
        rounds=3,
    )
    np.testing.assert_allclose(found["ours"], found["TruncatedSVD"], rtol=1e-3)


@pytest.mark.parametrize("n_iter", ["auto", 2, 0])
def test_randomized_svd(race, layer, n_iter):
    found = race(
        _work("randomized_svd", layer) + f", `n_iter={n_iter!r}`",
        lambda: drop_ins.randomized_svd(layer, COMPONENTS, n_iter=n_iter, random_state=0),
        {"randomized_svd": lambda: extmath.randomized_svd(layer, COMPONENTS, n_iter=n_iter, random_state=0)},
        rounds=3,
    )
    np.testing.assert_allclose(found["ours"][1], found["randomized_svd"][1], rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosine_similarity(race, size, rng, dtype):
    X = rng.standard_normal((size(5000, 300), 512)).astype(dtype)
    found = race(
        f"`cosine_similarity`, {len(X):,} x {X.shape[1]} {X.dtype}, with itself",
        lambda: drop_ins.cosine_similarity(X),
        {"cosine_similarity": lambda: pairwise.cosine_similarity(X)},
    )
    np.testing.assert_allclose(found["ours"], found["cosine_similarity"], atol=1e-5)
