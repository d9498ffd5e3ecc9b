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
    """A pair (x, y): its name, its mutual information in nats, and ``sample(rng, n)``."""

    name: str
    truth: float
    sample: Callable


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


def float16(values):
    return values.astype(np.float16)


def bfloat16(values):
    """A torch tensor: numpy has no such type."""
    import torch

    return torch.from_numpy(values).to(torch.bfloat16)


DISTRIBUTIONS = [
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
    *(
        Distribution(f"{kind.__name__}, ρ={rho}", gaussian(rho), through(sample_gaussian(rho), kind, kind))
        for kind in (float16, bfloat16)
        for rho in (0.6, 0.9)
    ),
]
