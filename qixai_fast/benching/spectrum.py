"""Cases of singular values about the mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pca, randomized_svd
from .._validate import Array, Float64
from .cases import OURS, Case, Score, constant, entrants_of, relative_error, whole
from .peers import numpy_seeded, optional, torch_seeded

SPECTRUM = "singular values (PCA)"
N_COMPONENTS = 20
_RIGHT, _WRONG = 1e-3, 0.1
# Smaller ones, beside the first, are not asked of anybody.
_LEAST_VALUE = 1e-3
_BLOCK = 4096


def true_values(X: Array) -> Float64:
    """All singular values about the mean, by float64 throughout: R of a QR a block of rows, then its SVD."""
    mean = np.zeros(X.shape[1])
    for start in range(0, len(X), _BLOCK):
        mean += X[start : start + _BLOCK].sum(axis=0, dtype=np.float64)
    mean /= len(X)
    R: Array = np.empty((0, X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK].astype(np.float64) - mean
        R = np.asarray(np.linalg.qr(np.vstack([R, block]), mode="r"))
    return np.asarray(np.linalg.svd(R, compute_uv=False))


def _centred(X: Array) -> Array:
    """What a user hands to tools that do not centre: the data's own precision, as numpy does it."""
    plain = X.astype(np.float32) if X.dtype == np.float16 else X
    return np.asarray(plain - plain.mean(axis=0))


def _dask_values(da: Any, X: Array, k: int, n_jobs: int) -> Array:
    lazy = da.from_array(X, chunks=(max(1, len(X) // 4), X.shape[1]))
    scheduler = (
        {"scheduler": "synchronous"} if n_jobs == 1 else {"scheduler": "threads", "num_workers": n_jobs}
    )
    values = da.linalg.svd_compressed(lazy - lazy.mean(axis=0), k, n_power_iter=2, seed=0)[1]
    return np.asarray(values.compute(**scheduler))


def _torch_values(torch: Any, X: Array, k: int) -> Array:
    with torch_seeded():
        return np.asarray(torch.pca_lowrank(torch.from_numpy(X), q=min(k + 10, *X.shape))[1][:k])


def _fbpca_values(fbpca: Any, X: Array, k: int) -> Array:
    with numpy_seeded():
        return np.asarray(fbpca.pca(X, k)[1])


def _peers(X: Array, k: int, n_jobs: int) -> dict[str, Callable[[], Any] | None]:
    sk, extmath = optional("sklearn.decomposition"), optional("sklearn.utils.extmath")
    torch, fbpca, da = optional("torch"), optional("fbpca"), optional("dask.array")
    plain = X.astype(np.float32) if X.dtype == np.float16 else X
    return {
        "scikit-learn PCA": sk and (lambda: sk.PCA(k, random_state=0).fit(X).singular_values_),
        "scikit-learn randomized_svd": extmath
        and (lambda: extmath.randomized_svd(_centred(X), k, random_state=0)[1]),
        "torch.pca_lowrank": torch and (lambda: _torch_values(torch, plain, k)),
        "fbpca": fbpca and (lambda: _fbpca_values(fbpca, plain, k)),
        "dask svd_compressed": da and (lambda: _dask_values(da, plain, k, n_jobs)),
        "np.linalg.svd": lambda: np.linalg.svd(_centred(X), compute_uv=False)[:k],
    }


def spectrum_case(X: Array, data: str, *, n_jobs: int, seed: int, source: str = "") -> Case:
    """The leading singular values of a layer about its mean, against float64."""
    truth = true_values(X)
    k = min(N_COMPONENTS, int(np.count_nonzero(truth[: min(X.shape) - 1] >= _LEAST_VALUE * truth[0])))
    first = truth[:k]

    def ours_randomized() -> Array:
        values = randomized_svd(X, k, center=True, random_state=seed, n_jobs=n_jobs)[1]
        return np.asarray(values)

    calls: dict[str, Any] = {
        f"{OURS} pca": whole(lambda: pca(X, k, random_state=seed, n_jobs=n_jobs).singular_values),
        f"{OURS} randomized_svd": whole(ours_randomized),
        **{name: call and whole(call) for name, call in _peers(X, k, n_jobs).items()},
    }
    present, absent = entrants_of(calls, set(calls), n_jobs)

    def score(values: Any, units: int) -> Score:
        return relative_error(values, first)

    return Case(
        SPECTRUM, data, f"float64 SVD about the mean, first {k} values; error: the largest relative one",
        "call", 1, present, score, constant(_RIGHT), constant(_WRONG), absent=absent, source=source,
    )  # fmt: skip
