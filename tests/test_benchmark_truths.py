"""The truths that the accuracy table stands on, by numerical integration of the densities."""

import itertools
import math
import zlib

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_ndtr, ndtr, ndtri

import qixai_fast as qf
from benchmarks.accuracy import distributions as known

# Gauss-Legendre on an interval: spectral for densities as smooth as these.
NODES, WEIGHTS = np.polynomial.legendre.leggauss(600)


def grid(low, high):
    return low + (NODES + 1) * (high - low) / 2, WEIGHTS * (high - low) / 2


def log_density(x, y, rho):
    s = 1 - rho**2
    return -(x**2 - 2 * rho * x * y + y**2) / (2 * s) - math.log(2 * math.pi) - math.log(s) / 2


def gaussian_part(rho, x_range, y_range):
    """Integral of f ln(f / (f_x f_y)) over a rectangle."""
    (x, wx), (y, wy) = grid(*x_range), grid(*y_range)
    joint = log_density(x[:, None], y, rho)
    return wx @ (np.exp(joint) * (joint - log_density(x[:, None], y, 0))) @ wy


def atom_part(rho, y_range, threshold=0.0):
    """Integral of f(x <= t, y) ln(P(x <= t | y) / P(x <= t)) over y: an atom against a density."""
    y, w = grid(*y_range)
    z = (threshold - rho * y) / math.sqrt(1 - rho**2)
    return w @ (stats.norm.pdf(y) * ndtr(z) * (log_ndtr(z) - log_ndtr(threshold)))


@pytest.mark.parametrize("rho", [0.6, 0.9])
def test_gaussian(rho):
    assert known.gaussian(rho) == pytest.approx(gaussian_part(rho, (-9, 9), (-9, 9)), abs=1e-9)


def truth(name):
    return next(d.truth for d in known.DISTRIBUTIONS if d.name == name)


@pytest.mark.parametrize("rho", [0.6, 0.9])
def test_relu_on_both(rho):
    both_zero = 0.25 + math.asin(rho) / (2 * math.pi)
    value = both_zero * math.log(4 * both_zero)
    value += 2 * atom_part(rho, (0, 9)) + gaussian_part(rho, (0, 9), (0, 9))
    assert truth(f"ReLU on both, ρ={rho}") == pytest.approx(value, abs=1e-9)


def test_sparse_relu():
    rho, t = 0.9, ndtri(0.9)
    x, w = grid(-9, t)
    both_zero = w @ (stats.norm.pdf(x) * ndtr((t - rho * x) / math.sqrt(1 - rho**2)))
    value = both_zero * math.log(both_zero / 0.81)
    value += 2 * atom_part(rho, (t, 9), t) + gaussian_part(rho, (t, 9), (t, 9))
    assert truth("ReLU, 90 % zeros, ρ=0.9") == pytest.approx(value, abs=1e-9)


def test_relu_on_x_and_sign_of_x():
    zero = atom_part(0.6, (-9, 9))
    assert truth("ReLU on x, ρ=0.6") == pytest.approx(zero + gaussian_part(0.6, (0, 9), (-9, 9)), abs=1e-9)
    assert truth("sign of x, ρ=0.6") == pytest.approx(2 * zero, abs=1e-9)


@pytest.mark.parametrize("nu", [1, 3])
def test_student(nu):
    angle, w = grid(-math.pi / 2, math.pi / 2)
    # x = tan(angle)^3 spreads the nodes over the heavy tails
    x, w = np.tan(angle) ** 3, w * 3 * np.tan(angle) ** 2 / np.cos(angle) ** 2
    points = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1)
    joint = stats.multivariate_t(shape=[[1, 0.6], [0.6, 1]], df=nu).logpdf(points)
    one = stats.t(nu).logpdf(x)
    value = w @ (np.exp(joint) * (joint - one[:, None] - one)) @ w
    assert known.student(0.6, nu) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("width", [0.1, 0.5, 0.75])
def test_uniform_noise(width):
    corners = sorted({-width, width, 1 - width, 1 + width})
    entropy = 0.0
    for low, high in itertools.pairwise(corners):  # linear between the corners
        y, w = grid(low, high)
        p = (np.minimum(y + width, 1) - np.maximum(y - width, 0)) / (2 * width)
        entropy -= w @ (p * np.log(p))
    assert known.uniform_noise(width) == pytest.approx(entropy - math.log(2 * width), abs=1e-6)


@pytest.mark.parametrize("theta", [0.5, 2.0])
def test_gamma_exponential(theta):
    # over ln x and ln u with u = x y, which is exponential and independent of x
    (z, wz), (v, wv) = grid(-80, 5), grid(-40, 5)
    x, u = np.exp(z)[:, None], np.exp(v)
    p = np.exp(theta * z[:, None] - x + v - u - math.lgamma(theta))
    log_ratio = z[:, None] - u - math.log(theta) + (theta + 1) * np.log1p(u / x)
    assert known.gamma_exponential(theta) == pytest.approx(wz @ (p * log_ratio) @ wv, abs=1e-7)


def normal_scores(values):
    """Mutual information keeps its value, and heavy tails go; values with ties stay as they are."""
    if not isinstance(values, np.ndarray) or len(np.unique(values)) < len(values):
        return values
    return ndtri((stats.rankdata(values) - 0.5) / len(values))


@pytest.mark.parametrize("distribution", known.DISTRIBUTIONS, ids=lambda d: d.name)
def test_samples_are_of_that_distribution(distribution):
    if distribution.name.startswith("bfloat16"):
        pytest.importorskip("torch")
    rng = np.random.default_rng(zlib.crc32(distribution.name.encode()))
    samples = [distribution.sample(rng, 4000) for _ in range(3)]
    estimates = [qf.mutual_info_ksg(*map(normal_scores, pair)) for pair in samples]
    assert np.mean(estimates) == pytest.approx(distribution.truth, abs=0.04)
