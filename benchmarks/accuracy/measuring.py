"""Every estimator on every distribution, on several cores: nothing here is timed."""

from benchmarks.environment import SEED, limit_threads

limit_threads()  # also in each process of the pool

from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from functools import partial  # noqa: E402
from multiprocessing import get_context  # noqa: E402

import numpy as np  # noqa: E402

import qixai_fast as qf  # noqa: E402
from benchmarks import peers  # noqa: E402
from benchmarks.accuracy.distributions import DISTRIBUTIONS  # noqa: E402

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
PEERS = {name: estimate for name, estimate in peers.KSG.items() if estimate}
# scipy's tree cannot split equal points: with nine zeros in ten, 100,000 samples take minutes a call.
MOST_SAMPLES = {"ennemi": 10_000, "cKDTree + searchsorted": 10_000}


def plain(values):
    """float64 of the same values, for tools that know no other type."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.float(), dtype=np.float64)


def estimates_of(distribution, n, repeats):
    """By estimator, one estimate for each draw."""
    theirs = {name: call for name, call in PEERS.items() if n <= MOST_SAMPLES.get(name, n)}
    estimates = {name: [] for name in OURS | theirs}
    for repeat in range(repeats):
        x, y = distribution.sample(np.random.default_rng([SEED, *distribution.name.encode(), n, repeat]), n)
        for name, estimate in OURS.items():
            estimates[name].append(estimate(x, y))
        for name, estimate in theirs.items():
            estimates[name].append(estimate(plain(x), plain(y)))
    return {name: np.array(values) for name, values in estimates.items()}


def summary(estimates, truth):
    """Bias, RMSE (None unless all are finite), and how many are not; all None where it did not run."""
    if estimates is None:
        return None, None, None
    lost = int((~np.isfinite(estimates)).sum())
    if lost:
        return None, None, lost
    errors = estimates - truth
    return float(errors.mean()), float(np.sqrt((errors**2).mean())), 0


def measure(index, plan):
    """One distribution: for each estimator, one value for each number of samples."""
    distribution = DISTRIBUTIONS[index]
    steps = [estimates_of(distribution, *step) for step in plan]
    columns = {
        name: zip(*(summary(step.get(name), distribution.truth) for step in steps), strict=True)
        for name in OURS | PEERS
    }
    estimators = {
        name: dict(zip(("bias", "rmse", "not_finite"), map(list, values), strict=True))
        for name, values in columns.items()
    }
    return {"truth": distribution.truth, "estimators": estimators}


def measure_all(plan, processes):
    """All distributions, by name."""
    work = partial(measure, plan=plan), range(len(DISTRIBUTIONS))
    if processes == 1:
        results = list(map(*work))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(*work))
    return {distribution.name: result for distribution, result in zip(DISTRIBUTIONS, results, strict=True)}
