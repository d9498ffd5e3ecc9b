"""The truths that the accuracy table stands on, by numerical integration of the densities."""

import itertools
import math
import zlib

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_ndtr, ndtr, ndtri, xlogy

import qixai_fast as qf
from benchmarks.accuracy import codes, mixtures, vectors
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


SCALARS = [*known.PAIRS, *mixtures.MIXTURES]


def truth(name, among=SCALARS):
    return next(d.truth for d in among if d.name == name)


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


def test_crossed_gaussians():
    x, w = grid(-9, 9)
    joint = np.logaddexp(log_density(x[:, None], x, 0.9), log_density(x[:, None], x, -0.9)) - math.log(2)
    value = w @ (np.exp(joint) * (joint - log_density(x[:, None], x, 0))) @ w
    assert truth("two crossed Gaussians, ρ=±0.9") == pytest.approx(value, abs=1e-9)


def test_bumps():
    x, w = grid(-11, 11)
    low, high = stats.norm.logpdf(x, -1.5), stats.norm.logpdf(x, 1.5)
    joint = np.logaddexp(low[:, None] + low, high[:, None] + high) - math.log(2)
    one = np.logaddexp(low, high) - math.log(2)
    value = w @ (np.exp(joint) * (joint - one[:, None] - one)) @ w
    assert truth("two Gaussian bumps") == pytest.approx(value, abs=1e-9)


def test_half_discrete():
    """The chain rule by hand: which half, then the Gaussian's part, then four cells."""
    table = np.array([[0.45, 0.05], [0.05, 0.45]])
    bits = (table * np.log(table / 0.25)).sum()
    value = math.log(2) + 0.5 * gaussian_part(0.9, (-9, 9), (-9, 9)) + 0.5 * bits
    assert truth("half Gaussian ρ=0.9, half ±1") == pytest.approx(value, abs=1e-9)


def test_counts():
    """Not (1 - p) times the information without dropping, as Gao et al. (2017) have it: zeros are mixed."""
    dropped, value = 0.15, 0.0
    for low, high in itertools.pairwise((0, 5, 20, 80)):
        x, w = grid(low, high)
        for count in range(100):
            given = (1 - dropped) * stats.poisson.pmf(count, x) + dropped * (count == 0)
            alone = (1 - dropped) * 2.0 ** -(count + 1) + dropped * (count == 0)
            value += w @ (np.exp(-x) * xlogy(given, given / alone))
    assert truth("counts of a rate, 15 % dropped") == pytest.approx(value, abs=1e-8)


def of_classes(weights, step, low=-12.0, high=18.0):
    """Normal classes; what lies below ``low`` is one atom there."""
    weights = np.array(weights) / np.sum(weights)
    centres = step * np.arange(len(weights))[:, None]
    x, w = grid(low, high)
    density = stats.norm.pdf(x, centres)
    value = weights @ (xlogy(density, density / (weights @ density)) @ w)
    below = stats.norm.cdf(low, centres[:, 0])
    return value + weights @ xlogy(below, below / (weights @ below))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("normal, 4 classes", ([1, 1, 1, 1], 1.5)),
        ("normal, 2 classes, 1 in 20", ([19, 1], 2.0)),
        ("ReLU of normal, 4 classes", ([1, 1, 1, 1], 1.0, 1.0)),
    ],
)
def test_classes(name, arguments):
    assert truth(name, codes.LABELS) == pytest.approx(of_classes(*arguments), abs=1e-9)


def test_overlapping_classes():
    """Uniform on [l, l + 2]: alone on the first and last unit, in pairs on the four between."""
    value = (2 * math.log(5) + 8 * math.log(2.5)) / 10
    assert truth("uniform, 5 overlapping classes", codes.LABELS) == pytest.approx(value, abs=1e-12)


def test_channels():
    joint = codes.channel([3, 1], 0.2)
    assert joint == pytest.approx(np.array([[0.6, 0.15], [0.05, 0.2]]))
    value = sum(p * math.log(p / (joint.sum(1)[i] * joint.sum(0)[j])) for (i, j), p in np.ndenumerate(joint))
    assert codes.table_information(joint) == pytest.approx(value, abs=1e-12)
    assert truth("16 symbols, independent", codes.CODES) == pytest.approx(0, abs=1e-12)
    assert truth("2 symbols, 10 % errors", codes.CODES) == pytest.approx(
        math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1), abs=1e-12
    )


@pytest.mark.parametrize("distribution", codes.CODES, ids=lambda d: d.name)
def test_codes_are_drawn_from_their_table(distribution):
    x, y = distribution.sample(np.random.default_rng(0), 200_000)
    levels = (x.max() + 1) * (y.max() + 1)  # a plug-in estimate is about (levels - 1) / 2N too large
    value = qf.mutual_info_discrete(x, y, bias_correction="miller-madow")
    assert value == pytest.approx(distribution.truth, abs=0.01 + levels / 400_000)


@pytest.mark.parametrize("distribution", codes.LABELS, ids=lambda d: d.name)
def test_labels(distribution):
    x, labels = distribution.sample(np.random.default_rng(0), 20_000)
    assert qf.mutual_info_mixed(x, labels) == pytest.approx(distribution.truth, abs=0.02)


def gaussian_from_samples(x, y):
    """Of Gaussian vectors, from the covariance that samples have."""
    both = np.linalg.slogdet(np.cov(np.hstack([x, y]).T))[1]
    return 0.5 * (np.linalg.slogdet(np.cov(x.T))[1] + np.linalg.slogdet(np.cov(y.T))[1] - both)


@pytest.mark.parametrize("distribution", vectors.VECTORS, ids=lambda d: d.name)
def test_vectors(distribution):
    x, y = distribution.sample(np.random.default_rng(0), 100_000)
    if "ReLU" in distribution.name:
        assert distribution.truth == pytest.approx(x.shape[1] * truth("ReLU on both, ρ=0.9"), abs=1e-9)
        assert (x == 0).mean() == pytest.approx(0.5, abs=0.01)
        assert qf.mutual_info_ksg(x[:20_000, 1], y[:20_000, 1]) == pytest.approx(vectors.RELU_PAIR, abs=0.03)
    else:
        assert gaussian_from_samples(x, y) == pytest.approx(distribution.truth, abs=0.02)


@pytest.mark.parametrize("distribution", vectors.CONDITIONAL, ids=lambda d: d.name)
def test_conditional(distribution):
    """I(x; y | z) = I(x; (y, z)) - I(x; z)."""
    x, y, z = (
        values.reshape(100_000, -1) for values in distribution.sample(np.random.default_rng(0), 100_000)
    )

    def information(a, b):
        half = (
            np.linalg.slogdet(np.atleast_2d(np.cov(a.T)))[1]
            + np.linalg.slogdet(np.atleast_2d(np.cov(b.T)))[1]
        )
        return 0.5 * (half - np.linalg.slogdet(np.cov(np.hstack([a, b]).T))[1])

    value = information(x, np.hstack([y, z])) - information(x, z)
    assert value == pytest.approx(distribution.truth, abs=0.01)


@pytest.mark.parametrize("distribution", SCALARS, ids=lambda d: d.name)
def test_samples_are_of_that_distribution(distribution):
    rng = np.random.default_rng(zlib.crc32(distribution.name.encode()))
    samples = [distribution.sample(rng, 4000) for _ in range(3)]
    estimates = [qf.mutual_info_ksg(*map(normal_scores, pair)) for pair in samples]
    assert np.mean(estimates) == pytest.approx(distribution.truth, abs=0.04)


def test_precision_rounds_the_same_draws():
    pytest.importorskip("torch")
    whole, *rounded = known.PRECISION[:4]
    x = whole.sample(np.random.default_rng(3), 100)[0]
    assert whole.drawn_as == "Gaussian, ρ=0.6"
    for distribution, bits in zip(rounded, (23, 10, 7), strict=True):
        values = distribution.sample(np.random.default_rng(3), 100)[0]
        values = np.asarray(values.float() if bits == 7 else values, np.float64)
        assert distribution.drawn_as == whole.drawn_as
        assert distribution.truth == whole.truth
        assert 0 < np.abs(values / x - 1).max() <= 2.0 ** -(bits + 1)
