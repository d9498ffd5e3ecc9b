"""Ours and the peers, by what they take: one call shape for all.

``value(*variables)`` gives nats; ``local(*variables)``, where there is one, gives the parts whose mean the
estimate is, for intervals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import qixai_fast as qf
from benchmarks import peers
from benchmarks.accuracy import peer_calls

CORRECTIONS = ("miller-madow", "panzeri-treves", "grassberger", "permutation-mean")


@dataclass(frozen=True)
class Estimator:
    """What is called, on up to how many samples, and whether half-samples are tried, too.

    Estimators with the same ``shares_local`` have the same local values: those of the same cells.
    """

    value: Callable
    local: Callable | None = None
    shares_local: str = ""
    theirs: bool = False
    halves: bool = False
    most: int = 10**9


def plain(values):
    """float64 of the same values, for tools that know no other type."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.float(), dtype=np.float64)


def ksg_local(*variables, **options):
    return qf.mutual_info_ksg(*variables, return_local=True, n_jobs=1, **options)[1]


def conditional_local(*variables):
    return qf.conditional_mutual_info_ksg(*variables, return_local=True, n_jobs=1)[1]


def codes_local(x, y):
    """ln(p_xy / (p_x p_y)) of each sample's cell, x and y being codes from 0."""
    x, y = (np.unique(code, return_inverse=True)[1].reshape(-1) for code in (x, y))
    joint = np.bincount(x * (y.max() + 1) + y, minlength=(x.max() + 1) * (y.max() + 1))
    cells = joint.reshape(x.max() + 1, -1)
    return np.log(cells[x, y] * float(len(x)) / (cells.sum(1)[x] * cells.sum(0)[y]))


def binned_local(x, y, **options):
    bins = partial(qf.digitize, n_bins=16, n_jobs=1, **options)
    return codes_local(*(np.asarray(bins(values.reshape(-1, 1)).codes[0]) for values in (x, y)))


def ksg(**options):
    value = partial(qf.mutual_info_ksg, n_jobs=1, **options)
    return Estimator(value, partial(ksg_local, **options), halves=options.get("algorithm") != 2)


def binned(correction, **options):
    value = partial(qf.mutual_info_binned, n_jobs=1, bias_correction=correction, **options)
    return Estimator(value, partial(binned_local, **options), shares_local=f"bins {options}")


def peer(call, **options):
    return Estimator(call, theirs=True, halves=True, **options)


def installed(calls):
    return {name: call for name, call in calls.items() if call}


# scipy's tree cannot split equal points: with nine zeros in ten, 100,000 samples take minutes a call.
RECIPE = "cKDTree + searchsorted"
MOST_SAMPLES = {"ennemi": 10_000, RECIPE: 10_000}
KSG = {"KSG-1": ksg(), "KSG-2": ksg(algorithm=2)}
BINNED = {
    "binned" + strategy + (f", {correction}" if correction else ""): binned(correction, **options)
    for strategy, options in (("", {}), (", quantile", {"strategy": "quantile"}))
    for correction in (None, *CORRECTIONS)
}
BINNED["binned, zero bin, miller-madow"] = binned("miller-madow", zero_bin=True)

PEERS = {
    name: Estimator(call, theirs=True, halves=name != RECIPE, most=MOST_SAMPLES.get(name, 100_000))
    for name, call in installed(peers.KSG).items()
}
PAIR = KSG | BINNED | PEERS
ROUNDED = KSG | {name: BINNED[name] for name in ("binned", "binned, quantile, miller-madow")} | PEERS
VECTOR = KSG | {
    name: Estimator(call, theirs=True, most=1_000) for name, call in installed(peer_calls.VECTORS).items()
}
LABEL = {"mixed (Ross)": Estimator(partial(qf.mutual_info_mixed, n_jobs=1), halves=True)} | {
    name: peer(call, most=10_000) for name, call in installed(peer_calls.LABELS).items()
}
CODE = {
    "plug-in" + (f", {name}" if name else ""): Estimator(
        partial(qf.mutual_info_discrete, bias_correction=name), codes_local, shares_local="cells"
    )
    for name in (None, *CORRECTIONS)
} | {name: Estimator(call, theirs=True) for name, call in installed(peer_calls.CODES).items()}
CONDITIONAL = {
    "conditional KSG": Estimator(partial(qf.conditional_mutual_info_ksg, n_jobs=1), conditional_local)
} | {name: peer(call, most=10_000) for name, call in installed(peer_calls.CONDITIONAL).items()}
