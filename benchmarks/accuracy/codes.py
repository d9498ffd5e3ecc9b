"""A variable against class labels, and two variables that are codes already.

Labels: values without a formula are integrals that ``tests/test_benchmark_truths.py`` computes.
"""

import math

import numpy as np

from benchmarks.accuracy.distributions import Distribution, relu, sample_gaussian
from benchmarks.accuracy.mixtures import entropy


def sample_classes(weights, step, sd=1.0, after=None):
    """Label l with probability ``weights[l]``; x normal about ``step * l``, then through ``after``."""
    weights = np.asarray(weights) / np.sum(weights)

    def sample(rng, n):
        labels = rng.choice(len(weights), n, p=weights)
        x = step * labels + sd * rng.standard_normal(n)
        return (x if after is None else after(x)), labels

    return sample


def sample_overlapping(rng, n):
    """Five labels; x uniform on [l, l + 2] (Gao et al. 2017, section 5)."""
    labels = rng.integers(5, size=n)
    return labels + 2 * rng.random(n), labels


def sample_sign_label(rng, n):
    x, y = sample_gaussian(0.6)(rng, n)
    return x, (y > 0).astype(np.int64)


LABELS = [
    Distribution("uniform, 5 overlapping classes", math.log(5) - 0.8 * math.log(2), sample_overlapping),
    Distribution("sign of a Gaussian, ρ=0.6", 0.1305576634, sample_sign_label),
    Distribution("normal, 4 classes", 0.6443512673, sample_classes([1, 1, 1, 1], 1.5)),
    Distribution("normal, 2 classes, 1 in 20", 0.0805160945, sample_classes([19, 1], 2.0)),
    Distribution(
        "ReLU of normal, 4 classes",
        0.3650977504,
        sample_classes([1, 1, 1, 1], 1.0, after=lambda x: relu(x - 1)),
    ),
]


def table_information(joint):
    """Of a table of joint probabilities."""
    return entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint)


def channel(inputs, error):
    """Joint probabilities of a symbol and of what arrives: another one, at random, with that error."""
    inputs = np.asarray(inputs, dtype=np.float64) / np.sum(inputs)
    m = len(inputs)
    return inputs[:, None] * np.where(np.eye(m), 1 - error, error / (m - 1))


def table_distribution(name, joint):
    cells = joint.ravel()

    def sample(rng, n):
        return np.divmod(rng.choice(len(cells), n, p=cells / cells.sum()), joint.shape[1])

    return Distribution(name, table_information(joint), sample)


CODES = [
    table_distribution("2 symbols, 10 % errors", channel([1, 1], 0.1)),
    table_distribution("16 symbols, 30 % errors", channel(np.ones(16), 0.3)),
    table_distribution("16 symbols, independent", channel(np.ones(16), 15 / 16)),
    table_distribution("100 symbols of Zipf's law, 50 % errors", channel(1 / np.arange(1, 101), 0.5)),
]
