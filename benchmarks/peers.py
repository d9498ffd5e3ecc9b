"""The tools that a user would pick instead, each called as its documentation says, on one thread.

A peer that is not installed is None. ``pip install ennemi``, and
``pip install git+https://github.com/gregversteeg/NPEET``; JIDT needs Java and is left out.
"""

import importlib

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma


def optional(name):
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_sklearn = optional("sklearn.feature_selection")
_npeet = optional("npeet.entropy_estimators")
_ennemi = optional("ennemi")


def sklearn_ksg(x, y, k=3):
    """scikit-learn; scales by the standard deviation, adds seeded noise, clips at 0."""
    return float(
        _sklearn.mutual_info_regression(x.reshape(-1, 1), y, n_neighbors=k, random_state=0, n_jobs=1)[0]
    )


def sklearn_inner_ksg(x, y, k=3):
    """The private function that scikit-learn calls for each column, without its checks, scaling and noise."""
    return float(_sklearn._mutual_info._compute_mi_cc(x, y, k))


def npeet_ksg(x, y, k=3):
    """NPEET; adds noise from numpy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    return float(_npeet.mi(x, y, k=k, base=np.e))


def ennemi_ksg(x, y, k=3):
    """ennemi; scales, and adds noise."""
    return float(_ennemi.estimate_mi(y, x, k=k, max_threads=1)[0, 0])


def tree_ksg(x, y, k=3):
    """KSG-1 in a few lines of scipy: a k-d tree for the radius, sorted marginals for the counts."""
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


KSG = {
    "scikit-learn": sklearn_ksg if _sklearn else None,
    "cKDTree + searchsorted": tree_ksg,
    "NPEET": npeet_ksg if _npeet else None,
    "ennemi": ennemi_ksg if _ennemi else None,
}


SKLEARN_INNER = sklearn_inner_ksg if hasattr(_sklearn, "_mutual_info") else None


def on_pairs(estimate, X, pairs, **options):
    """A call for ``race``: one estimate after another, for pairs of columns; None for a missing peer."""
    if estimate is None:
        return None
    columns = {j: np.ascontiguousarray(X[:, j]) for pair in pairs for j in pair}
    return (lambda: [estimate(columns[i], columns[j], **options) for i, j in pairs]), len(pairs)
