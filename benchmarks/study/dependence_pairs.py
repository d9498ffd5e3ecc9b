"""Pairs of variables and of layers that depend on one another in a known way.

A pair of *maps* is two vectors of n samples; a pair of *layers* two arrays (n, 4). Everything is drawn anew
for each repetition; what is fixed is the law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WIDTH = 4  # features of a layer
INDEPENDENT = "independent"


@dataclass(frozen=True)
class Pair:
    """A law of (x, y).

    Attributes
    ----------
    name : str
    law : str
        As the table says it.
    relation : {"linear", "ranks", "none"}
        Whether x and y are linearly correlated, correlated in ranks alone (where there is no variance), or
        not at all: correlation is then blind by construction, but for the spread that tails give it.
    sample : callable
        ``sample(rng, n) -> (x, y)``.
    """

    name: str
    law: str
    relation: str
    sample: Callable


def _independent(rng, n):
    return rng.standard_normal(n), rng.standard_normal(n)


def _linear(rng, n):
    x, noise = rng.standard_normal((2, n))
    return x, 0.25 * x + noise


def _quadratic(rng, n):
    x, noise = rng.standard_normal((2, n))
    return x, 0.5 * (x**2 - 1) + noise


def _gated(rng, n):
    x, z, noise = rng.standard_normal((3, n))
    return x, np.maximum(x, 0) * z + 0.25 * noise


def _relu(rng, n):
    """What two maps after a ReLU share when one is a noisy copy of the other."""
    x, noise = rng.standard_normal((2, n))
    return np.maximum(x, 0), np.maximum(0.35 * x + noise, 0)


def _cauchy_noise(rng, n):
    x = rng.standard_normal(n)
    return x, 0.5 * x + 0.5 * rng.standard_cauchy(n)


def _common_scale(rng, n):
    """Student t with 3 degrees of freedom, uncorrelated: only the size of both is shared."""
    scale = np.sqrt(3 / rng.chisquare(3, n))
    return scale * rng.standard_normal(n), scale * rng.standard_normal(n)


MAPS = (
    Pair(INDEPENDENT, "x, y standard normal", "none", _independent),
    Pair("linear", "y = 0.25 x + noise", "linear", _linear),
    Pair("ReLU on both", "x = ReLU(u), y = ReLU(0.35 u + noise)", "linear", _relu),
    Pair("Cauchy noise", "y = 0.5 x + 0.5 Cauchy", "ranks", _cauchy_noise),
    Pair("quadratic", "y = 0.5 (x² - 1) + noise", "none", _quadratic),
    Pair("ReLU-gated", "y = ReLU(x) z + 0.25 noise", "none", _gated),
    Pair("heavy-tailed", "Student t, ν = 3, uncorrelated", "none", _common_scale),
)


def _normals(rng, n, count):
    return rng.standard_normal((count, n, WIDTH))


def _layers_independent(rng, n):
    x, y = _normals(rng, n, 2)
    return x, y


def _layers_linear(rng, n):
    x, noise = _normals(rng, n, 2)
    return x, 0.25 * x + noise


def _layers_relu(rng, n):
    x, noise = _normals(rng, n, 2)
    return np.maximum(x, 0), np.maximum(0.35 * x + noise, 0)


def _layers_quadratic(rng, n):
    x, noise = _normals(rng, n, 2)
    return x, 0.5 * (x**2 - 1) + noise


def _layers_gated(rng, n):
    x, z, noise = _normals(rng, n, 3)
    return x, np.maximum(x, 0) * z + 0.25 * noise


def _layers_xor(rng, n):
    """One feature of y is the sign of a product of two of x: each alone says nothing."""
    x, noise = _normals(rng, n, 2)
    y = noise.copy()
    y[:, 0] = np.sign(x[:, 0] * x[:, 1]) + 0.5 * noise[:, 0]
    return x, y


def _layers_sign(rng, n):
    """y is x with noise, and each sample is turned round by a coin of its own."""
    x, noise = _normals(rng, n, 2)
    return x, rng.choice((-1.0, 1.0), size=(n, 1)) * (0.7 * x + noise)


def _layers_scale(rng, n):
    x, y = _normals(rng, n, 2)
    scale = np.sqrt(3 / rng.chisquare(3, (n, 1)))
    return scale * x, scale * y


LAYERS = (
    Pair(INDEPENDENT, "X, Y standard normal", "none", _layers_independent),
    Pair("linear", "Y = 0.25 X + noise", "linear", _layers_linear),
    Pair("ReLU on both", "X = ReLU(U), Y = ReLU(0.35 U + noise)", "linear", _layers_relu),
    Pair("quadratic", "Y = 0.5 (X² - 1) + noise", "none", _layers_quadratic),
    Pair("ReLU-gated", "Y = ReLU(X) Z + 0.25 noise", "none", _layers_gated),
    Pair("XOR", "Y₁ = sign(X₁ X₂) + 0.5 noise, the rest noise", "none", _layers_xor),
    Pair("random sign", "Y = ±(0.7 X + noise), a coin a sample", "none", _layers_sign),
    Pair("heavy-tailed", "multivariate t, ν = 3, uncorrelated", "none", _layers_scale),
)
