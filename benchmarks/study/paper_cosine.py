"""Claim (b): layers are nearly orthogonal, as the cosines between Conv1, Conv2 and Dense say.

Which cosine the paper took is not in its public accounts, and layers of different widths have none of
their own. So all readings that we can think of are measured, each beside what it gives by chance.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import gammaln

import qixai_fast as qf
from benchmarks.study.paper_networks import PAIRS

N_ORDERS = 200  # random orders of units
N_SCORES = 5


def measure(nets, sizes):
    """Every reading for every kind of network and pair of layers; CKA beside them."""
    content = {"kinds": {}, "nulls": {}}
    for kind, members in nets.items():
        content["kinds"][kind] = {
            f"{a} {b}": _readings(members, a, b, np.random.default_rng(0), sizes) for a, b in PAIRS
        }
    n = len(nets["trained"][0].maps["conv1"])
    width = min(nets["trained"][0].maps[layer].shape[1] for layer in ("conv1", "dense"))
    content["nulls"] = {
        "width": width,
        "n": n,
        "centred": expected_cosine(n - 1),
        "random": expected_cosine(width),
        "positive": 2 / np.pi,  # mean cosine of independent |normal| vectors, many dimensions
        "rectified": 1 / np.pi,  # of independent max(normal, 0)
    }
    return content


def _readings(members, a, b, rng, sizes):
    found = {
        name: [] for name in ("maps", "centred", "units", "orders", "scores", "cka", "cka_null", "cka_p")
    }
    for net in members:
        x, y = net.maps[a], net.maps[b]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # units that never fire have cosine 0
            found["maps"].append(float(qf.cosine_similarity(x, y, axis=0).mean()))
            found["centred"].append(float(np.abs(qf.cosine_similarity(x, y, axis=0, center=True)).mean()))
        found["units"].append(unit_cosine(x, y))
        others = [unit_cosine(x, y[:, rng.permutation(y.shape[1])]) for _ in range(N_ORDERS)]
        found["orders"].append(np.quantile(others, [0.025, 0.975]).tolist())
        found["scores"].append(score_cosine(x, y))
        test = qf.linear_cka_test(
            x[: sizes.n_pairs], y[: sizes.n_pairs], debiased=True, n_permutations=99, random_state=0
        )
        found["cka"].append(test.value)
        found["cka_p"].append(test.pvalue)
        found["cka_null"].append(test.null_std)
    return found


def unit_cosine(x, y):
    """Mean over images of the cosine of two layers' units, the wider layer cut to the narrower."""
    width = min(x.shape[1], y.shape[1])
    x, y = x[:, :width].astype(np.float64), y[:, :width].astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = np.einsum("ij,ij->i", x, y)
    return float(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0).mean())


def score_cosine(x, y):
    """Largest cosine of two layers' first principal scores that signs allow.

    Components have no sign of their own. Flattened scores have any cosine between minus this and this,
    whatever the signs happened to be.
    """
    scores = [qf.pca(maps, N_SCORES).transform(maps).astype(np.float64) for maps in (x, y)]
    products = np.abs(np.einsum("ij,ij->j", *scores)).sum()
    return float(products / (np.linalg.norm(scores[0]) * np.linalg.norm(scores[1])))


def expected_cosine(width):
    """Mean of |cosine| of two independent normal vectors."""
    return float(np.exp(gammaln(width / 2) - gammaln((width + 1) / 2)) / np.sqrt(np.pi))
