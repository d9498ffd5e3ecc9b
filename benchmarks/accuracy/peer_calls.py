"""Peers for vectors, labels, codes and conditional information; those for two scalars are in ``peers.py``.

Each is called as its documentation says, on one thread; one that is not installed is left out.
"""

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma

from benchmarks.peers import optional

K = 3
_selection = optional("sklearn.feature_selection")
_metrics = optional("sklearn.metrics")
_npeet = optional("npeet.entropy_estimators")
_ennemi = optional("ennemi")


def columns(values):
    return values.reshape(len(values), -1)


def npeet_mi(x, y):
    """Of scalars or vectors; adds noise from NumPy's global generator."""
    np.random.seed(0)  # noqa: NPY002
    return float(_npeet.mi(columns(x), columns(y), k=K, base=np.e))


def tree_mi(x, y):
    """KSG-1 in the maximum norm: one k-d tree for the radius, one a side for the counts."""
    x, y = (columns(values) / values.std(0) for values in (x, y))
    joint = cKDTree(np.hstack([x, y]))
    radius = np.nextafter(joint.query(joint.data, k=K + 1, p=np.inf)[0][:, K], 0)
    counts = [cKDTree(side).query_ball_point(side, radius, p=np.inf, return_length=True) for side in (x, y)]
    return float(digamma(K) + digamma(len(x)) - np.mean(digamma(counts[0]) + digamma(counts[1])))


def npeet_cmi(x, y, z):
    np.random.seed(0)  # noqa: NPY002
    return float(_npeet.cmi(columns(x), columns(y), columns(z), k=K, base=np.e))


def ennemi_cmi(x, y, z):
    return float(_ennemi.estimate_mi(y, x, cond=z, k=K, max_threads=1)[0, 0])


def sklearn_labels(x, labels):
    """``mutual_info_classif``; clips at 0."""
    found = _selection.mutual_info_classif(columns(x), labels, n_neighbors=K, random_state=0, n_jobs=1)
    return float(found[0])


def npeet_labels(x, labels):
    np.random.seed(0)  # noqa: NPY002
    return float(_npeet.micd(columns(x), columns(labels), k=K, base=np.e, warning=False))


def ennemi_labels(x, labels):
    return float(_ennemi.estimate_mi(labels, x, k=K, discrete_y=True, max_threads=1)[0, 0])


def sklearn_codes(x, y):
    return float(_metrics.mutual_info_score(x, y))


def npeet_codes(x, y):
    return float(_npeet.midd(columns(x), columns(y), base=np.e))


def of(module, call):
    return call if module else None


VECTORS = {"NPEET": of(_npeet, npeet_mi), "cKDTree, all sides": tree_mi}
CONDITIONAL = {"NPEET": of(_npeet, npeet_cmi), "ennemi": of(_ennemi, ennemi_cmi)}
LABELS = {
    "scikit-learn": of(_selection, sklearn_labels),
    "NPEET": of(_npeet, npeet_labels),
    "ennemi": of(_ennemi, ennemi_labels),
}
CODES = {"scikit-learn": of(_metrics, sklearn_codes), "NPEET": of(_npeet, npeet_codes)}
