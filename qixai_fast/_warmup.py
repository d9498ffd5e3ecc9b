"""Compile every kernel once, so that numba's cache holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def _calls() -> dict[str, Callable[[], Any]]:
    """One small call for each public function with a kernel behind it."""
    import qixai_fast as qf
    from qixai_fast.compat import sklearn as drop_ins
    from qixai_fast.kernels.trapezoids_cpu import add_trapezoid

    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 4))
    rectified = np.maximum(X, 0)
    many = rng.normal(size=(4096, 16))
    wide = rng.normal(size=(2048, 96)).astype(np.float32)
    labels = np.arange(64) % 2
    return {
        "pca": lambda: qf.pca(X, 2),
        "pca, float32": lambda: qf.pca(wide, 2),
        "transform": lambda: qf.pca(X, 2).transform(X),
        "transform, float32": lambda: qf.pca(wide, 2).transform(wide),
        "randomized_svd": lambda: qf.randomized_svd(X, 2, random_state=0),
        "cosine_similarity": lambda: qf.cosine_similarity(X),
        "cosine_similarity, float32": lambda: qf.cosine_similarity(X.astype(np.float32)),
        "cosine_top_k": lambda: qf.cosine_top_k(X, k=2),
        "cosine_top_k, float32": lambda: qf.cosine_top_k(X.astype(np.float32), k=2),
        "linear_cka_test": lambda: qf.linear_cka_test(X.T, X.T, n_permutations=9, random_state=0),
        "rsa": lambda: qf.rsa(X, X),
        "von_neumann_entropy": lambda: qf.von_neumann_entropy(X),
        "von_neumann_entropy, float32": lambda: qf.von_neumann_entropy(X.astype(np.float32)),
        "mutual_info_binned": lambda: qf.pairwise_mutual_info_binned(X),
        "mutual_info_binned, many samples": lambda: qf.pairwise_mutual_info_binned(many),
        "digitize, float32": lambda: qf.digitize(many.astype(np.float32)),
        "mutual_info_test": lambda: qf.mutual_info_test(X, n_permutations=19, random_state=0),
        "mutual_info_ksg, KSG-1": lambda: qf.pairwise_mutual_info_ksg(X),
        "mutual_info_ksg, KSG-2": lambda: qf.mutual_info_ksg(X[:, 0], X[:, 1], algorithm=2),
        "mutual_info_ksg, atoms": lambda: qf.pairwise_mutual_info_ksg(rectified),
        "mutual_info_ksg, vectors": lambda: qf.mutual_info_ksg(X[:, :2], X[:, 2:]),
        "mutual_info_ksg, vectors, KSG-2": lambda: qf.mutual_info_ksg(X[:, :2], X[:, 2:], algorithm=2),
        "conditional_mutual_info_ksg": lambda: qf.conditional_mutual_info_ksg(X[:, 0], X[:, 1], X[:, 2]),
        "mutual_info_mixed": lambda: qf.mutual_info_mixed(X, labels),
        "drop-ins, mutual_info_classif": lambda: drop_ins.mutual_info_classif(X, labels, random_state=0),
        "drop-ins, adjusted_mutual_info_score": lambda: drop_ins.adjusted_mutual_info_score(
            labels, labels[::-1] + rectified[:, 0].round()
        ),
        "riemann_accumulate": lambda: qf.riemann_accumulate(X[None], np.ones(1)),
        "riemann_accumulate (half)": lambda: qf.riemann_accumulate(X[None].astype(np.float16), np.ones(1)),
        # Without torch, which may not be there.
        "layer_conductance": lambda: add_trapezoid(*X[:4].copy(), np.zeros(4)),
        "layer_conductance, float32": lambda: add_trapezoid(*X[:4].astype(np.float32), np.zeros(4)),
    }


def warm_up() -> Iterator[tuple[str, float]]:
    """Yield the name of each call and the seconds that it took."""
    import warnings

    for name, call in _calls().items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
        yield name, time.perf_counter() - start
