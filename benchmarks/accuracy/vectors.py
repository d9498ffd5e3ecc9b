"""Vectors of known mutual information, and pairs given a third variable.

All but the ReLU'd vectors share one nat, so that rows differ in nothing but dimension.
"""

import math

import numpy as np

from benchmarks.accuracy.distributions import Distribution, gaussian, relu

RELU_PAIR = 0.5543695742  # of two ReLU'd Gaussians with correlation 0.9


def sample_channels(rho, d, informative=None):
    """d coordinates a side; the first ones of both sides are correlated pair by pair, all else is noise."""
    informative = d if informative is None else informative

    def sample(rng, n):
        x, y = rng.standard_normal((2, n, d))
        y[:, :informative] = rho * x[:, :informative] + math.sqrt(1 - rho**2) * y[:, :informative]
        return x, y

    return sample


def share(n_pairs):
    """The correlation at which that many pairs have one nat together."""
    return math.sqrt(-math.expm1(-2 / n_pairs))


def sample_relu_channels(d):
    def sample(rng, n):
        x, y = sample_channels(0.9, d)(rng, n)
        return relu(x), relu(y)

    return sample


VECTORS = [
    *(Distribution(f"Gaussian, all of {d} x {d}", 1.0, sample_channels(share(d), d)) for d in (2, 5, 10, 25)),
    *(
        Distribution(f"Gaussian, 2 pairs of {d} x {d}", 1.0, sample_channels(share(2), d, 2))
        for d in (5, 10, 25)
    ),
    *(
        Distribution(f"ReLU on all of {d} x {d}, ρ=0.9", d * RELU_PAIR, sample_relu_channels(d))
        for d in (2, 5)
    ),
]


def conditional_gaussian(covariance, dimension):
    """I(x; y | z) of a Gaussian in the order x, y, z: determinants of parts of its covariance."""

    def determinant(*kept):
        return np.linalg.det(covariance[np.ix_(kept, kept)])

    z = tuple(range(2, 2 + dimension))
    ratio = determinant(0, *z) * determinant(1, *z) / (determinant(*z) * determinant(0, 1, *z))
    return 0.5 * math.log(ratio)


def sample_common(rho, d):
    """x and y each the sum of z and noise; the noises correlate."""

    def sample(rng, n):
        z = rng.standard_normal((n, d))
        x = rng.standard_normal(n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(n)
        total = z.sum(1) / math.sqrt(d)
        return total + x, total + y, z

    return sample


def sample_collider(rng, n):
    """x and y independent; z, their sum with noise, makes them dependent."""
    x, y, noise = rng.standard_normal((3, n))
    return x, y, x + y + 0.5 * noise


COLLIDER = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 2.25]])
CONDITIONAL = [
    Distribution("common cause, z of 1", 0.0, sample_common(0.0, 1)),
    Distribution("noises ρ=0.6, z of 1", gaussian(0.6), sample_common(0.6, 1)),
    Distribution("noises ρ=0.6, z of 3", gaussian(0.6), sample_common(0.6, 3)),
    Distribution("collider", conditional_gaussian(COLLIDER, 1), sample_collider),
]
