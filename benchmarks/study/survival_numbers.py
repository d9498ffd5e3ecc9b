"""The numbers that the survival study follows, from the activations of some layers on some images."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

import qixai_fast as qf
from benchmarks.study.fashion import LAYERS

MI_PAIRS = (("conv1", "conv2"), ("conv2", "dense"))
PAIRS = (*MI_PAIRS, ("conv1", "dense"))
N_BINS = 8  # the same for every number of samples, so that the bias shows
TOP = 10


@dataclass(frozen=True)
class Measured:
    """Numbers by name, and the KSG matrices of the pairs of layers behind some of them."""

    numbers: dict[str, float]
    mi: dict[tuple[str, str], np.ndarray]


def name(what, *layers):
    """``what`` of one layer or two, as tables and JSON call it."""
    return f"{what}, {'-'.join(layers)}"


def measured(layers, *, ksg=True):
    """All numbers that need no other network: ``layers`` are arrays (n, maps) by name.

    KSG takes most of the time, and can be left out.
    """
    numbers, mi = {}, {}
    with warnings.catch_warnings():
        # Maps that are constant on few samples count as they are documented to: cosine and MI 0.
        warnings.filterwarnings("ignore", message=".*constant", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*zero", category=UserWarning)
        for layer in LAYERS:
            X = layers[layer]
            ratio = np.asarray(qf.pca(X, 5).explained_variance_ratio)
            entropy = qf.von_neumann_entropy(X, zero_samples="drop")
            numbers[name("top-5 variance", layer)] = float(ratio.sum())
            numbers[name("entropy", layer)] = entropy
            numbers[name("effective rank", layer)] = math.exp(entropy)
        for pair in PAIRS:
            X, Y = (layers[layer] for layer in pair)
            cosines = np.asarray(qf.cosine_similarity(X, Y, axis=0, center=True))
            numbers[name("CKA", *pair)] = qf.linear_cka(X, Y)
            numbers[name("debiased CKA", *pair)] = qf.linear_cka(X, Y, debiased=True)
            numbers[name("mean cosine", *pair)] = float(np.abs(cosines).mean())
        for pair in MI_PAIRS:
            X, Y = (layers[layer] for layer in pair)
            if ksg:
                mi[pair] = np.asarray(qf.pairwise_mutual_info_ksg(X, Y))
                numbers[name("mean KSG MI", *pair)] = float(mi[pair].mean())
                numbers[name("largest KSG MI", *pair)] = float(mi[pair].max())
            for what, correction in (("plug-in", None), ("corrected", "permutation-mean")):
                values = np.asarray(
                    qf.pairwise_mutual_info_binned(
                        X, Y, n_bins=N_BINS, strategy="quantile", bias_correction=correction
                    )
                )
                numbers[name(f"mean {what} MI", *pair)] = float(values.mean())
                numbers[name(f"largest {what} MI", *pair)] = float(values.max())
    return Measured(numbers, mi)


def null(layers, *, seed, rounds):
    """Mean and largest MI of samples that are paired at random: what each estimator makes of nothing."""
    rng = np.random.default_rng(seed)
    n = len(layers[LAYERS[0]])
    drawn = []
    for _ in range(rounds):
        orders = {layer: rng.permutation(n) for layer in LAYERS}
        numbers = measured({layer: rows(layers[layer], orders[layer]) for layer in LAYERS}).numbers
        drawn.append({key: value for key, value in numbers.items() if " MI, " in key})
    return {key: float(np.mean([numbers[key] for numbers in drawn])) for key in drawn[0]}


def rows(X, places):
    """Some rows of an array or a tensor."""
    return X[torch.from_numpy(np.asarray(places)) if isinstance(X, torch.Tensor) else places]


def some(layers, places):
    """The same layers on some of their images."""
    return {layer: rows(X, places) for layer, X in layers.items()}


def matching(X, Y):
    """For every map of X its partner among those of Y: the assignment of the largest total correlation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # constant maps: 0
        cosines = np.abs(np.asarray(qf.cosine_similarity(X, Y, axis=0, center=True)))
    return linear_sum_assignment(-cosines)[1]


def same_layers(clean, layers):
    """CKA of each layer with the same layer under the clean condition, on the same images."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        return {name("CKA with clean", layer): qf.linear_cka(clean[layer], layers[layer]) for layer in LAYERS}


def same_pairs(clean_mi, mi, match=None):
    """How far pairs of maps keep their place: identity of the top ten, and ranks of all.

    ``match`` are the places of partners, layer by layer (:func:`matching`); without it a map is known by its
    number, as the paper names them. Ranks are those of pairs that vary on both sides: maps that are constant
    (MI exactly 0) would be matched with each other, and their zeros make ranks agree.
    """
    after = " (matched)" if match else ""
    numbers = {}
    for pair in MI_PAIRS:
        values = mi[pair] if match is None else mi[pair][np.ix_(match[pair[0]], match[pair[1]])]
        numbers[name(f"top pairs{after}", *pair)] = overlap(clean_mi[pair], values)
        vary = (clean_mi[pair] != 0) & (values != 0)
        numbers[name(f"MI ranks{after}", *pair)] = rank_correlation(clean_mi[pair][vary], values[vary])
    return numbers


def overlap(first, second, top=TOP):
    """Share of the ``top`` largest entries that two matrices have in common, less what chance gives.

    (shared - expected) / (top - expected), where two sets drawn at random share top^2 / size on average:
    1 for the same set, 0 for chance.
    """
    top = min(top, first.size // 2)
    a, b = (set(np.argsort(-values.ravel(), kind="stable")[:top].tolist()) for values in (first, second))
    expected = top**2 / first.size
    return float((len(a & b) - expected) / (top - expected))


def rank_correlation(x, y):
    """Spearman's, with ties; 0 where one side is constant."""
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    lengths = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / lengths) if lengths else 0.0
