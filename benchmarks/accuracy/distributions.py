"""Pairs of variables whose mutual information is known.

Beyond the Gaussian: Student t and additive noise as in Czyż et al., "Beyond Normal" (2023), the
gamma-exponential pair as in Kraskov et al. (2004), and what activations look like: after a ReLU, after a
sign, in half precision. ``tests/test_benchmarks_truths.py`` checks every value by numerical integration.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, digamma, gammaln, ndtri


@dataclass(frozen=True)
class Distribution:
    """Variables of known mutual information.

    Attributes
    ----------
    name : str
    truth : float
        In nats.
    sample : callable
        ``sample(rng, n)`` gives x and y, and z where the information is conditional.
    drawn_as : str, optional
        The name that seeds come from: distributions that share it are made from the same draws.
    """

    name: str
    truth: float
    sample: Callable
    drawn_as: str = ""


def gaussian(rho):
    return -0.5 * math.log1p(-(rho**2))


def student(rho, nu):
    """Two entropies of one dimension less one of two: the Gaussian's value, and a part that knows only nu."""
    one = 0.5 * math.log(nu) + betaln(0.5, nu / 2) + (nu + 1) / 2 * (digamma((nu + 1) / 2) - digamma(nu / 2))
    two = (
        gammaln(nu / 2)
        - gammaln(nu / 2 + 1)
        + math.log(nu * math.pi)
        + (nu / 2 + 1) * (digamma(nu / 2 + 1) - digamma(nu / 2))
    )
    return gaussian(rho) + 2 * one - two


def uniform_noise(width):
    """x uniform on (0, 1), y = x + uniform on (-width, width)."""
    return width - math.log(2 * width) if width <= 0.5 else 1 / (4 * width)


def gamma_exponential(theta):
    """x of the gamma distribution with shape theta, y exponential with rate x."""
    return digamma(theta + 1) - math.log(theta)


def sample_gaussian(rho):
    def sample(rng, n):
        x = rng.standard_normal(n)
        return x, rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(n)

    return sample


def sample_student(rho, nu):
    def sample(rng, n):
        x, y = sample_gaussian(rho)(rng, n)
        common = np.sqrt(nu / rng.chisquare(nu, n))
        return x * common, y * common

    return sample


def sample_uniform_noise(width):
    def sample(rng, n):
        x = rng.random(n)
        return x, x + rng.uniform(-width, width, n)

    return sample


def sample_gamma_exponential(theta):
    def sample(rng, n):
        x = rng.gamma(theta, size=n)
        return x, rng.exponential(size=n) / x

    return sample


def through(sample, of_x, of_y):
    """The same pair after a function of x and one of y."""

    def changed(rng, n):
        x, y = sample(rng, n)
        return of_x(x), of_y(y)

    return changed


def unchanged(values):
    return values


def relu(values):
    return np.maximum(values, 0)


def sparse_relu(values):
    """Zero for nine in ten of a standard normal."""
    return np.maximum(values - ndtri(0.9), 0)


def float64(values):
    return values


def float32(values):
    return values.astype(np.float32)


def float16(values):
    return values.astype(np.float16)


def bfloat16(values):
    """A torch tensor: NumPy has no such type."""
    import torch

    return torch.from_numpy(values).to(torch.bfloat16)


PAIRS = [
    *(Distribution(f"Gaussian, ρ={rho}", gaussian(rho), sample_gaussian(rho)) for rho in (0.6, 0.9)),
    *(
        Distribution(f"Student t, ν={nu}, ρ=0.6", float(student(0.6, nu)), sample_student(0.6, nu))
        for nu in (1, 3)
    ),
    Distribution("uniform noise ±0.1", uniform_noise(0.1), sample_uniform_noise(0.1)),
    Distribution("gamma-exponential, θ=0.5", float(gamma_exponential(0.5)), sample_gamma_exponential(0.5)),
    Distribution(
        "gamma-exponential, logarithms",
        float(gamma_exponential(0.5)),
        through(sample_gamma_exponential(0.5), np.log, np.log),
    ),
    Distribution("sign of x, ρ=0.6", 0.1305576634, through(sample_gaussian(0.6), np.sign, unchanged)),
    *(
        Distribution(f"ReLU on both, ρ={rho}", truth, through(sample_gaussian(rho), relu, relu))
        for rho, truth in ((0.6, 0.1528436781), (0.9, 0.5543695742))
    ),
    Distribution("ReLU on x, ρ=0.6", 0.1768506074, through(sample_gaussian(0.6), relu, unchanged)),
    Distribution(
        "ReLU, 90 % zeros, ρ=0.9", 0.1632218828, through(sample_gaussian(0.9), sparse_relu, sparse_relu)
    ),
]


def in_precision(distribution, kind):
    """The same draws, rounded. Rounding takes information away, but less than any digit shown here."""
    return Distribution(
        f"{distribution.name}, {kind.__name__}",
        distribution.truth,
        through(distribution.sample, kind, kind),
        distribution.name,
    )


# What rounding does depends on how dense the values are on their lattice: near a ReLU's zero, in a tail.
ROUNDED = (
    "Gaussian, ρ=0.6",
    "Gaussian, ρ=0.9",
    "Student t, ν=3, ρ=0.6",
    "uniform noise ±0.1",
    "ReLU on both, ρ=0.9",
)
PRECISION = [
    in_precision(distribution, kind)
    for distribution in PAIRS
    if distribution.name in ROUNDED
    for kind in (float64, float32, float16, bfloat16)
]
