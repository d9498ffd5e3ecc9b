"""Mixtures of scalars: of Gaussians, and of what is continuous with what repeats.

Values without a formula are sums or integrals that ``tests/test_benchmark_truths.py`` computes from the
densities.
"""

import math

import numpy as np

from benchmarks.accuracy.distributions import Distribution, gaussian, sample_gaussian


def entropy(probabilities):
    """Of a table of probabilities, in nats."""
    p = np.asarray(probabilities, dtype=np.float64).ravel()
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def sample_cross(rng, n):
    """Two standard Gaussians with correlations 0.9 and -0.9: uncorrelated, and far from independent."""
    x, noise = rng.standard_normal((2, n))
    return x, rng.choice([-0.9, 0.9], n) * x + math.sqrt(1 - 0.81) * noise


def sample_bumps(rng, n):
    """Two round Gaussians, at (-1.5, -1.5) and at (1.5, 1.5)."""
    centre = rng.choice([-1.5, 1.5], n)
    return centre + rng.standard_normal(n), centre + rng.standard_normal(n)


def half_discrete():
    """The kind says one bit, and then either half has its own information."""
    return math.log(2) + 0.5 * gaussian(0.9) + 0.5 * (math.log(2) - entropy([0.1, 0.9]))


def sample_half_discrete(rng, n):
    """One half a Gaussian with correlation 0.9, the other (+-1, +-1), equal nine times in ten."""
    x, y = sample_gaussian(0.9)(rng, n)
    sign = rng.choice([-1.0, 1.0], n)
    other = np.where(rng.random(n) < 0.9, sign, -sign)
    discrete = rng.random(n) < 0.5
    return np.where(discrete, sign, x), np.where(discrete, other, y)


def sample_counts(rng, n):
    """x exponential; y counts with that rate, or 0 in 15 of 100 cases."""
    x = rng.exponential(size=n)
    return x, np.where(rng.random(n) < 0.15, 0, rng.poisson(x)).astype(np.float64)


MIXTURES = [
    Distribution("two crossed Gaussians, ρ=±0.9", 0.4084425498, sample_cross),
    Distribution("two Gaussian bumps", 0.4059587825, sample_bumps),
    Distribution("half Gaussian ρ=0.9, half ±1", half_discrete(), sample_half_discrete),
    Distribution("counts of a rate, 15 % dropped", 0.2297759585, sample_counts),
]
