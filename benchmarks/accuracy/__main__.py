"""Bias and RMSE of every estimator on pairs whose mutual information is known.

``python -m benchmarks.accuracy`` writes ``results/accuracy.json`` and ``accuracy.png``, in a few minutes;
``python -m benchmarks.tables`` then writes the tables.
"""

from benchmarks.environment import SEED, environment, limit_threads

limit_threads()

import argparse  # noqa: E402
import sys  # noqa: E402
from datetime import datetime, timezone  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from pytest_benchmark.utils import get_commit_info  # noqa: E402

import qixai_fast as qf  # noqa: E402
from benchmarks import peers, tables  # noqa: E402
from benchmarks.accuracy.distributions import DISTRIBUTIONS  # noqa: E402
from benchmarks.accuracy.figure import draw  # noqa: E402

# Samples, how often ours runs, and how often a peer does (on the first of the same samples).
PLAN = [
    (100, 200, 200),
    (300, 200, 200),
    (1_000, 100, 100),
    (3_000, 50, 50),
    (10_000, 30, 10),
    (30_000, 10, 5),
    (100_000, 10, 3),
]
QUICK = [(100, 3, 2), (200, 2, 2)]

CORRECTIONS = ("miller-madow", "panzeri-treves", "grassberger", "permutation-mean")
OURS = {
    "KSG-1": partial(qf.mutual_info_ksg, n_jobs=1),
    "KSG-2": partial(qf.mutual_info_ksg, algorithm=2, n_jobs=1),
    "binned": partial(qf.mutual_info_binned, n_jobs=1),
    **{
        f"binned, {name}": partial(qf.mutual_info_binned, bias_correction=name, n_jobs=1)
        for name in CORRECTIONS
    },
    "binned, quantile": partial(qf.mutual_info_binned, strategy="quantile", n_jobs=1),
}
PEERS = {name: peers.KSG[name] for name in ("scikit-learn", "NPEET")}


def plain(values):
    """float64 of the same values, for tools that know no other type."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.float(), dtype=np.float64)


def errors_of(distribution, key, n, repeats, peer_repeats):
    """Estimates less the truth, by estimator."""
    errors = {name: [] for name in [*OURS, *(name for name, call in PEERS.items() if call)]}
    for repeat in range(repeats):
        x, y = distribution.sample(np.random.default_rng([SEED, *key.encode(), n, repeat]), n)
        for name, estimate in OURS.items():
            errors[name].append(estimate(x, y) - distribution.truth)
        if repeat < peer_repeats:
            for name in errors.keys() - OURS.keys():
                errors[name].append(PEERS[name](plain(x), plain(y)) - distribution.truth)
    return {name: np.array(values) for name, values in errors.items()}


def measure(plan, distributions, report=print):
    """All numbers of the table: by distribution and estimator, one value for each number of samples."""
    results = {}
    for distribution in distributions:
        name = distribution.name
        errors = [errors_of(distribution, name, *step) for step in plan]
        results[name] = {
            "truth": distribution.truth,
            "estimators": {
                estimator: {
                    "bias": [float(step[estimator].mean()) for step in errors],
                    "rmse": [float(np.sqrt((step[estimator] ** 2).mean())) for step in errors],
                }
                for estimator in errors[0]
            },
        }
        report(name)
    return results


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run?")
    parser.add_argument("--out", type=Path, help="folder of accuracy.json and accuracy.png")
    options = parser.parse_args(arguments)
    if options.quick and options.out is None:
        parser.error("--quick: wanted --out, as its numbers are no results")
    plan = QUICK if options.quick else PLAN
    content = {
        "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "commit": get_commit_info()["id"][:12],
        "environment": environment(),
        "samples": [step[0] for step in plan],
        "repeats": [step[1] for step in plan],
        "peer_repeats": [step[2] for step in plan],
        "distributions": measure(plan, DISTRIBUTIONS),
    }
    tables.write_json((options.out or tables.RESULTS) / "accuracy.json", content)
    draw(content, (options.out or tables.HERE) / "accuracy.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
