"""Every estimator on every distribution, on several cores: nothing here is timed."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from benchmarks.accuracy import codes, distributions, estimators, mixtures, vectors
from benchmarks.accuracy.intervals import halves_width, local_width
from benchmarks.environment import SEED

# Ten half-samples a draw take long.
SPLIT_AT, SPLIT_PEERS_AT = (100, 1_000, 10_000), (1_000,)


@dataclass(frozen=True)
class Group:
    """Distributions that the same estimators are tried on.

    ``plan`` holds (samples, draws, draws that peers get, the first ones), and ``split`` says whether
    half-samples are tried.
    """

    distributions: list
    estimators: dict
    plan: list
    split: bool = True


PLAN = [(100, 300, 100), (1_000, 200, 100), (10_000, 60, 6), (100_000, 12, 1)]
GROUPS = {
    "pairs": Group([*distributions.PAIRS, *mixtures.MIXTURES], estimators.PAIR, PLAN),
    "precision": Group(distributions.PRECISION, estimators.ROUNDED, PLAN[1:], split=False),
    "vectors": Group(
        vectors.VECTORS, estimators.VECTOR, [(100, 300, 100), (1_000, 200, 20), (10_000, 10, 0)], split=False
    ),
    "labels": Group(codes.LABELS, estimators.LABEL, PLAN),
    "codes": Group(codes.CODES, estimators.CODE, PLAN, split=False),
    "conditional": Group(vectors.CONDITIONAL, estimators.CONDITIONAL, PLAN),
}
QUICK = [(60, 2, 1), (100, 2, 1)]


def variables_of(distribution, n, repeat):
    name = distribution.drawn_as or distribution.name
    return distribution.sample(np.random.default_rng([SEED, *name.encode(), n, repeat]), n)


class Tally:
    """What one estimator said of many draws."""

    def __init__(self, truth):
        self.truth, self.estimates, self.widths = truth, [], {"local": [], "halves": []}

    def add(self, estimate, **widths):
        self.estimates.append(estimate)
        for kind, width in widths.items():
            self.widths[kind].append(width)

    def summary(self):
        """Bias and RMSE (unless some are infinite), and the share of each interval that holds the truth."""
        estimates = np.array(self.estimates)
        errors = estimates - self.truth
        lost = int((~np.isfinite(estimates)).sum())
        found = {"draws": len(estimates), "not_finite": lost}
        if not lost:
            found |= {"bias": float(errors.mean()), "rmse": float(np.sqrt((errors**2).mean()))}
        for kind, widths in self.widths.items():
            if widths:
                usable = [width for width in widths if np.isfinite(width)]
                found[kind] = float((np.isfinite(errors) & (np.abs(errors) <= widths)).mean())
                found[f"{kind}_half_width"] = float(np.mean(usable)) if usable else None
        return found


def columns_of(summaries):
    """Summaries for each number of samples, None where it did not run, as one list for each key."""
    keys = dict.fromkeys(key for summary in summaries if summary for key in summary)
    return {
        key: [None if summary is None else summary.get(key) for summary in summaries]
        for key in ("draws", "not_finite", "bias", "rmse", *keys)
    }


def one_draw(group, distribution, n, repeat, with_peers, tallies):
    variables = variables_of(distribution, n, repeat)
    as_float64 = [estimators.plain(v) if v.dtype != np.int64 else v for v in variables]
    widths_of_codes = {}  # corrections move an estimate, not its local values
    for name, estimator in group.estimators.items():
        if n > estimator.most or (estimator.theirs and not with_peers):
            continue
        given = as_float64 if estimator.theirs else variables
        widths = {}
        if estimator.local:
            key = estimator.shares_local or name
            if key not in widths_of_codes:
                widths_of_codes[key] = local_width(estimator.local(*given))
            widths["local"] = widths_of_codes[key]
        if group.split and estimator.halves and n in (SPLIT_PEERS_AT if estimator.theirs else SPLIT_AT):
            # The same splits for all tools.
            widths["halves"] = halves_width(estimator.value, given, np.random.default_rng([SEED, n, repeat]))
        tallies.setdefault(name, Tally(distribution.truth)).add(estimator.value(*given), **widths)


def measure(work):
    """One distribution at one number of samples: a summary for each estimator that ran."""
    name, index, step = work
    group = GROUPS[name]
    n, draws, of_peers = step
    tallies = {}
    # Infinite differences of infinite halves, and a peer's own divisions: what counts is what comes out.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repeat in range(draws):
            one_draw(group, group.distributions[index], n, repeat, repeat < of_peers, tallies)
    return {estimator: tally.summary() for estimator, tally in tallies.items()}


def measure_all(quick, processes):
    """All groups: distribution -> truth, and estimator -> one summary (or None) for each number of "
    "samples."""
    plans = {name: QUICK if quick else group.plan for name, group in GROUPS.items()}
    work = [
        (name, index, step)
        for name, group in GROUPS.items()
        for index in range(len(group.distributions))
        for step in plans[name]
    ]
    longest_first = sorted(work, key=lambda item: -item[2][0])
    if processes == 1:
        results = list(map(measure, longest_first))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(measure, longest_first))
    found = {
        (name, index, step[0]): result
        for (name, index, step), result in zip(longest_first, results, strict=True)
    }
    return {
        name: {
            "samples": [step[0] for step in plans[name]],
            "distributions": {
                distribution.name: {
                    "truth": distribution.truth,
                    "estimators": {
                        estimator: columns_of(
                            [found[name, index, step[0]].get(estimator) for step in plans[name]]
                        )
                        for estimator in group.estimators
                    },
                }
                for index, distribution in enumerate(group.distributions)
            },
        }
        for name, group in GROUPS.items()
    }
