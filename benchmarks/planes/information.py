"""Mutual information of pairs whose value is known: smooth, after a ReLU, in half precision."""

import functools
import math

import numpy as np
from scipy.integrate import dblquad, quad
from scipy.special import ndtr

import qixai_fast as qf
from benchmarks import peers
from benchmarks.environment import SEED
from benchmarks.planes.measuring import Entrant, Plane

metrics = peers.optional("sklearn.metrics")
NEIGHBORS = (1, 3, 10, 30)
BINS = (4, 8, 16, 32, 64)
FAR = 9.0  # a normal variable is never beyond


def gaussian_truth(rho):
    return -0.5 * math.log1p(-(rho**2))


@functools.cache
def rectified_truth(rho):
    """Of a Gaussian pair after a ReLU on both: both zero, one of them zero, both positive."""
    spread = math.sqrt(1 - rho**2)
    both = 0.25 + math.asin(rho) / (2 * math.pi)

    def density(z):
        return math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def one(y):
        p = ndtr(-rho * y / spread)
        return density(y) * p * math.log(2 * p) if p else 0.0

    def none(x, y):
        exponent = (x**2 - 2 * rho * x * y + y**2) / (2 * spread**2)
        ratio = (x**2 + y**2) / 2 - exponent - math.log(spread)
        return math.exp(-exponent) / (2 * math.pi * spread) * ratio

    return both * math.log(4 * both) + 2 * quad(one, 0, FAR)[0] + dblquad(none, 0, FAR, 0, FAR)[0]


def relu(values):
    return np.maximum(values, 0)


def float16(values):
    return values.astype(np.float16)


def bfloat16(values):
    """A torch tensor: numpy has no such type."""
    import torch

    return torch.from_numpy(values).to(torch.bfloat16)


def same(values):
    return values


# Name: correlation, what becomes of both variables, truth. Rounding takes away less than any digit shown.
PAIRS = {
    "Gaussian, ρ=0.6": (0.6, same, gaussian_truth),
    "both after a ReLU, ρ=0.9": (0.9, relu, rectified_truth),
    "float16, ρ=0.9": (0.9, float16, gaussian_truth),
    "bfloat16, ρ=0.9": (0.9, bfloat16, gaussian_truth),
}


def draw(name, n, number):
    rho, becomes, _ = PAIRS[name]
    x, noise = np.random.default_rng([SEED, *name.encode(), n, number]).standard_normal((2, n))
    return becomes(x), becomes(rho * x + math.sqrt(1 - rho**2) * noise)


def plain(values):
    """float64 of the same values, for tools that know no other type."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.float(), dtype=np.float64)


def from_plain(estimate, **options):
    return lambda case: estimate(plain(case[0]), plain(case[1]), **options)


def histogram2d(x, y, bins):
    """The recipe: a table of counts, and scikit-learn's score of it."""
    counts = np.histogram2d(x, y, bins)[0]
    return metrics.mutual_info_score(None, None, contingency=counts)


def entrants():
    found = [
        *(
            Entrant(
                "qixai-fast", f"KSG-{algorithm}", f"KSG-{algorithm}, n_neighbors={k}",
                lambda case, k=k, algorithm=algorithm: qf.mutual_info_ksg(
                    *case, n_neighbors=k, algorithm=algorithm, n_jobs=1
                ),
                default=(k, algorithm) == (3, 1),
            )
            for algorithm in (1, 2)
            for k in NEIGHBORS
        ),
        *(
            Entrant(
                "qixai-fast", f"binned {strategy}",
                f"binned, Miller-Madow, {strategy}, n_bins={bins}",
                lambda case, bins=bins, strategy=strategy: qf.mutual_info_binned(
                    *case, n_bins=bins, strategy=strategy, bias_correction="miller-madow", n_jobs=1
                ),
            )
            for strategy in ("uniform", "quantile")
            for bins in BINS
        ),
        Entrant(
            "qixai-fast", "binned default", "mutual_info_binned",
            lambda case: qf.mutual_info_binned(*case, n_jobs=1), default=True,
        ),
    ]  # fmt: skip
    names = {
        "scikit-learn": "mutual_info_regression, n_neighbors",
        "NPEET": "mi, k",
        "ennemi": "estimate_mi, k",
        "cKDTree + searchsorted": "k",
    }
    for tool, estimate in peers.KSG.items():
        if estimate is not None:
            found += [
                Entrant(tool, "KSG", f"{names[tool]}={k}", from_plain(estimate, k=k), default=k == 3)
                for k in NEIGHBORS
            ]
    if metrics:
        found += [
            Entrant(
                "NumPy recipe",
                "histogram2d",
                f"histogram2d + mutual_info_score, bins={bins}",
                from_plain(histogram2d, bins=bins),
            )
            for bins in BINS
        ]
    return found


def planes(rng, quick, folder):
    """Each draw has a seed of its own; ``rng`` and ``folder`` are for planes that want them."""
    n, draws = (300, 1) if quick else (10_000, 8)
    for name, (rho, becomes, truth_of) in PAIRS.items():
        if becomes is bfloat16 and peers.optional("torch") is None:
            continue
        truth = truth_of(rho)
        yield Plane(
            name=f"mutual information {name}",
            group="information",
            title=f"MI, {name}",
            work=f"mutual information of one pair, N={n:,}, {truth:.4f} nats in truth",
            error_is=f"root mean square error of {draws} draws / truth",
            cases=[draw(name, n, number) for number in range(draws)],
            entrants=entrants(),
            error=lambda value, case, truth=truth: abs(value - truth) / truth,
        )
