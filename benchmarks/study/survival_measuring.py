"""One network under one condition: its numbers, and how far they are from the clean ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import qixai_fast as qf
from benchmarks.study import fashion
from benchmarks.study.survival_conditions import CLEAN, SEEDS, activations, sizes
from benchmarks.study.survival_intervals import subsamples
from benchmarks.study.survival_numbers import (
    LAYERS,
    matching,
    measured,
    rank_correlation,
    same_layers,
    same_pairs,
    some,
)

TOLERANCE = 0.01  # of integrated gradients: of completeness, and of refinement
MAX_STEPS = 200
ATOL = 1e-3


@dataclass(frozen=True)
class Case:
    """What is known of one network under one condition.

    Attributes
    ----------
    accuracy : float
    layers : dict of str to array
    numbers, replicates : dict of str to float, and to list of float
        On all images; and on the subsamples, of the first seed only.
    mi : dict of (str, str) to array
    attributions : Attributed or None
    """

    accuracy: float
    layers: dict
    numbers: dict
    replicates: dict
    mi: dict
    attributions: Attributed | None


@dataclass(frozen=True)
class Attributed:
    """Attributions of some images, and how each of them went."""

    values: np.ndarray  # (n, pixels)
    error: np.ndarray  # |delta| relative to the change of the output
    converged: np.ndarray
    gradients: float


def case(condition, seed, options):
    """Measure a condition by itself."""
    size = sizes(options)
    network, split, layers = activations(condition, seed, options)
    n = len(split)
    whole = measured(layers)
    # Paired conditions draw the same subsamples as the clean case, others draw their own.
    replicates = {}
    if seed == SEEDS[0]:
        draws = subsamples(n, size.subsample, seed=6 if condition.paired else 7, count=size.replicates)
        # Of other networks the seeds are the bracket of KSG: it would take longer than all else.
        parts = [measured(some(layers, places), ksg=not condition.training).numbers for places in draws]
        replicates = {key: [part[key] for part in parts] for key in parts[0]}
    attributions = attribute(network.model, split, size.attributed) if condition.attributed else None
    return Case(network.accuracy, layers, whole.numbers, replicates, whole.mi, attributions)


def beside(one, clean, condition, options):
    """Numbers that say how alike two cases are, with replicates for those that have an interval."""
    size = sizes(options)
    numbers, replicates = same_pairs(clean.mi, one.mi), {}
    if condition.paired:
        numbers |= same_layers(clean.layers, one.layers)
        draws = subsamples(size.images, size.subsample, seed=6, count=size.replicates)
        parts = [same_layers(some(clean.layers, draw), some(one.layers, draw)) for draw in draws]
        replicates = {key: [part[key] for part in parts] for key in parts[0]}
    if condition.training or condition == CLEAN:  # another network: its maps have changed places
        match = {layer: matching(clean.layers[layer], one.layers[layer]) for layer in LAYERS}
        numbers |= same_pairs(clean.mi, one.mi, match)
    return numbers, replicates


def attribute(model, split, count):
    """Integrated gradients of the true class's logit, from a black image; of the first ``count`` images."""
    images, labels = split.images[:count], split.labels[:count]
    dtype = next(model.parameters()).dtype

    def logits(x):
        return model(x.to(dtype)).float()

    result = qf.integrated_gradients(
        logits, images, target=labels, tol=TOLERANCE, atol=ATOL, max_n_steps=MAX_STEPS
    )
    ends = [
        fashion.outputs(model, x).gather(1, labels[:, None]).squeeze(1).double().numpy()
        for x in (images, torch.zeros_like(images))
    ]
    change = np.maximum(np.abs(ends[0] - ends[1]), ATOL)
    return Attributed(
        result.values.flatten(1).numpy(),
        np.abs(result.delta.numpy()) / change,
        result.converged.numpy().astype(float),
        float(np.mean(np.asarray(result.n_gradients))),
    )


def attribution_numbers(one, clean, images):
    """What is said of attributions: by name the statistic over images, and its value by image.

    Ranks are held against the clean ones over the pixels that are not black in ``images``: on black ones both
    are exactly zero, the baseline being black, unless noise is added.
    """
    drawn = images.flatten(1).numpy() > 0
    ranks = [
        rank_correlation(a[pixels], b[pixels])
        for a, b, pixels in zip(one.values, clean.values, drawn, strict=True)
    ]
    return {
        "IG ranks": (np.mean, np.array(ranks)),
        "IG error": (np.median, one.error),
        "IG converged": (np.mean, one.converged),
    }
