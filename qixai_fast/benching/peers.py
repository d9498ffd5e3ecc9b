"""The tools that a user would pick instead for KSG, each called as its documentation says, on one thread.

A peer that is not installed is left out, never replaced. ``pip install ennemi``, and
``pip install git+https://github.com/gregversteeg/NPEET``; JIDT needs Java and is left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from .._validate import Float64

Estimator = Callable[..., float]


@cache
def optional(name: str) -> Any:
    """A module, or None where it is not installed, or so broken that it cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception:  # of another tool: its reasons are its own, and the others run without it
        return None


@contextmanager
def numpy_seeded(seed: int = 0) -> Iterator[None]:
    """numpy's global generator seeded, for tools that take no other; its state is put back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextmanager
def torch_seeded(seed: int = 0) -> Iterator[None]:
    """torch's global generator on the CPU seeded; its state is put back."""
    generator = optional("torch").default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


def sklearn_ksg(x: Float64, y: Float64, k: int = 3) -> float:
    """scikit-learn; scales by the standard deviation, adds seeded noise, clips at 0."""
    selection = optional("sklearn.feature_selection")
    options: dict[str, Any] = {"n_neighbors": k, "random_state": 0, "n_jobs": 1}
    return float(selection.mutual_info_regression(x.reshape(-1, 1), y, **options)[0])


def sklearn_inner_ksg(x: Float64, y: Float64, k: int = 3) -> float:
    """The private function that scikit-learn calls for each column, without its checks, scaling and noise."""
    return float(optional("sklearn.feature_selection")._mutual_info._compute_mi_cc(x, y, k))


def npeet_ksg(x: Float64, y: Float64, k: int = 3) -> float:
    """NPEET; adds noise from numpy's global generator."""
    with numpy_seeded():
        return float(optional("npeet.entropy_estimators").mi(x, y, k=k, base=np.e))


def ennemi_ksg(x: Float64, y: Float64, k: int = 3) -> float:
    """ennemi; scales, and adds noise."""
    return float(optional("ennemi").estimate_mi(y, x, k=k, max_threads=1)[0, 0])


def tree_ksg(x: Float64, y: Float64, k: int = 3) -> float:
    """KSG-1 in a few lines of scipy: a k-d tree for the radius, sorted marginals for the counts."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    n = len(x)
    points = np.column_stack([x / x.std(), y / y.std()])
    radius = cKDTree(points).query(points, k=k + 1, p=np.inf)[0][:, k]
    local = np.zeros(n)
    for values in points.T:
        ordered = np.sort(values)
        last = np.searchsorted(ordered, values + radius, side="left")
        first = np.searchsorted(ordered, values - radius, side="right")
        local += digamma(np.maximum(last - first, 1))
    return float(digamma(k) + digamma(n) - local.mean())


def ksg_peers() -> dict[str, Estimator | None]:
    """By name, each peer's estimate of one pair of scalars; None where it is not installed."""
    return {
        "scikit-learn": sklearn_ksg if optional("sklearn.feature_selection") else None,
        "cKDTree + searchsorted": tree_ksg,
        "NPEET": npeet_ksg if optional("npeet.entropy_estimators") else None,
        "ennemi": ennemi_ksg if optional("ennemi") else None,
    }
