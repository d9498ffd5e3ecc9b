"""Measures of dependence, each prepared on a pair once, then asked for many orders of y's samples.

``prepare(x, y)`` returns a function of ``order``: the measure between x and ``y[order]``. Distances and
kernels do not change when samples are permuted, and are computed once.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

import qixai_fast as qf


def _two(values):
    return values.reshape(len(values), -1)


def correlation(x, y):
    """The largest absolute Pearson correlation of a feature of x with one of y."""
    x, y = ((v - v.mean(0)) / (v.std(0) * np.sqrt(len(v))) for v in map(_two, (x, y)))
    return lambda order: np.abs(x.T @ y[order]).max()


def rank_correlation(x, y):
    """The same of ranks (Spearman)."""
    return correlation(rankdata(x, axis=0), rankdata(y, axis=0))


def _double_centred(matrix):
    return matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean()


def _alignment(kernel_x, kernel_y):
    """<K, L[order, order]> / (|K| |L|) of two centred kernels: CKA, or squared distance correlation."""
    norm = np.linalg.norm(kernel_x) * np.linalg.norm(kernel_y)

    def value(order):
        return np.vdot(kernel_x, kernel_y[np.ix_(order, order)]) / norm

    return value


def distance_correlation(x, y):
    """Squared distance correlation (Székely, Rizzo and Bakirov 2007, eq. 2.8 to 2.10)."""
    return _alignment(*(_double_centred(cdist(_two(v), _two(v))) for v in (x, y)))


def rbf_cka(x, y):
    """CKA with Gaussian kernels as wide as the median distance (Kornblith et al. 2019, section 3)."""
    kernels = []
    for values in (x, y):
        squared = cdist(_two(values), _two(values), "sqeuclidean")
        kernels.append(_double_centred(np.exp(-squared / (2 * np.median(squared)))))
    return _alignment(*kernels)


def linear_cka(x, y):
    return lambda order: qf.linear_cka(x, y[order], n_jobs=1)


def binned(x, y):
    """The largest mutual information of a feature of x and one of y: 8 bins of equal counts."""
    options = {"n_bins": 8, "strategy": "quantile", "bias_correction": "miller-madow", "n_jobs": 1}
    x, y = _two(x), _two(y)
    return lambda order: qf.pairwise_mutual_info_binned(x, y[order], **options).max()


def ksg(x, y):
    """The same by KSG-1, 3 neighbours."""
    x, y = _two(x), _two(y)
    return lambda order: qf.pairwise_mutual_info_ksg(x, y[order], n_jobs=1).max()


def ksg_of_layers(x, y):
    """KSG-1 of the two vectors as wholes, 3 neighbours."""
    return lambda order: qf.mutual_info_ksg(x, y[order], n_jobs=1)


def quantum(x, y):
    return lambda order: qf.quantum_mutual_information(x, y[order], zero_samples="drop", n_jobs=1)


def entanglement(x, y):
    """Minus the Schmidt entropy: few shared modes stand out as a small entropy."""
    return lambda order: -qf.entanglement_entropy(x, y[order], n_jobs=1)


OF_MAPS = {
    "Pearson correlation": correlation,
    "Spearman correlation": rank_correlation,
    "distance correlation": distance_correlation,
    "binned MI": binned,
    "KSG MI": ksg,
}
OF_LAYERS = {
    "largest correlation": correlation,
    "linear CKA": linear_cka,
    "RBF CKA": rbf_cka,
    "distance correlation": distance_correlation,
    "largest binned MI": binned,
    "largest KSG MI": ksg,
    "KSG MI of layers": ksg_of_layers,
    "quantum MI": quantum,
    "Schmidt entropy": entanglement,
}
CORRELATIONS = ("Pearson correlation", "Spearman correlation", "largest correlation", "linear CKA")
