"""Run a bench: choose the cases, share out the time, read the results."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .._memory import parse_memory
from .._threads import resolve_n_jobs, usable_cores
from .._validate import check_int
from ..store import open_store
from . import drawn, stored
from .output import check_folder, write
from .peers import optional
from .racing import race, threads_limited
from .reading import details, reading

Tell = Callable[[str, dict[str, Any] | None], None]

_PACKAGES = (
    *("qixai-fast", "numpy", "scipy", "numba", "scikit-learn", "torch", "NPEET", "ennemi"),
    *("fbpca", "dask", "faiss-cpu", "captum"),
)
_PEERS = (
    *("sklearn.feature_selection", "sklearn.metrics", "sklearn.decomposition", "sklearn.neighbors"),
    *("npeet.entropy_estimators", "ennemi", "torch", "fbpca", "dask.array", "faiss"),
)
# What a case gets at least, of an equal share: those before it may have taken more than theirs.
_LEAST_SHARE = 0.4
# Cases are left out only where the time is over by as much again, and by so many seconds.
_LEAST_PATIENCE = 60.0
_HOW = [
    "Every tool gets the same arrays, in float32 or float64 copies where it knows no half precision. In each "
    "round all run once, in turns; times are medians over the rounds, a ratio is the median of the rounds' "
    "own ratios, so that a busy machine slows both.",
    "First calls, which compile and load, are not timed. Slow tools do fewer pairs or rows; times are given "
    "for one. One far beyond its share of the time is timed once, before the rounds. All are judged by the "
    "pairs or rows that all did.",
    "For mutual information an error up to 2 / sqrt(N) nats, or a tenth of the truth where that is more, is "
    "right, and more than three times as much is wrong. Binned values are of binned data: what bins hide is "
    "an error here, and a perfect count does not mend it.",
    "Threads are for ours and for peers where one call can use several; peers for mutual information do one "
    "pair a call, on one thread.",
    "Peers run with their defaults, but for dask's svd_compressed: 2 power iterations where they have 0.",
    "One drawing of the data, one seed: a verdict near its limit can change with another.",
]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What tells about speed, and nothing that names the machine or its user."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def _load(*names: str) -> None:
    """All at once: threads of a library are limited after it is loaded. Mistakes in arguments come before."""
    for name in names:
        optional(name)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"seconds: wanted a number, got {type(value).__name__}")
    if not 1 <= value < float("inf"):
        raise ValueError(f"seconds: wanted at least 1, got {value:g}")
    return float(value)


def _samples(
    store: Any, layers: list[str] | None, n_samples: int | None, seed: int, budget: int | None
) -> tuple[list[stored.Sample], list[str]]:
    """Samples of the layers asked for, and what was left out."""
    opened = store if hasattr(store, "n_samples") else open_store(store)
    total = opened.n_samples
    if total < stored.LEAST_SAMPLES:
        raise ValueError(
            f"{opened.location}: has {total} samples; a bench needs at least {stored.LEAST_SAMPLES}"
        )
    n = min(total, stored.DEFAULT_SAMPLES)
    if n_samples is not None:
        n = check_int(n_samples, "n_samples", low=stored.LEAST_SAMPLES)
        if n > total:
            raise ValueError(f"n_samples: wanted at most the {total} samples of {opened.location}, got {n}")
    names, left_out = list(dict.fromkeys(layers)) if layers else list(opened), []
    for name in names:
        if name not in opened:
            hint = "; give --layers once for each" if "," in name else ""
            raise ValueError(f"no layer {name!r} in {opened.location}; there are: {', '.join(opened)}{hint}")
    if not layers and len(names) > stored.MOST_LAYERS:
        picked = np.linspace(0, len(names) - 1, stored.MOST_LAYERS).round().astype(int)
        left_out.append(
            f"{len(names) - stored.MOST_LAYERS} of {len(names)} layers, to leave time for each: "
            "--layers names others."
        )
        names = [names[i] for i in picked]
    rows = np.sort(np.random.default_rng(seed).choice(total, n, replace=False))
    return [
        stored.draw(opened, name, rows, np.random.default_rng([seed, index]), budget, len(names))
        for index, name in enumerate(names)
    ], left_out


def run_bench(
    store: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    layers: list[str] | None = None,
    n_samples: int | None = None,
    seconds: float = 60.0,
    n_jobs: int = 1,
    random_state: int = 0,
    max_memory: int | float | str | None = "1GB",
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Time every estimator beside the peers that are installed, and hold what they say against a truth.

    Parameters
    ----------
    store : path, URL or ActivationStore, optional
        Activations to do it on. None: data that are drawn here, whose truth is known in closed form.
    out : path, optional
        Folder for ``bench.json``, ``bench.md`` and ``bench.png``, written together at the end.
    layers : list of str, optional
        Of the store; up to four, spread over the network, where not given.
    n_samples : int, optional
        How many are drawn of the store, without replacement; all up to 10,000 where not given.
    seconds : float
        About how long it may take: it sets the sizes of drawn data, the rounds, and how much slow peers do.
    n_jobs : int
        Threads of ours, and of peers where one call can use several: those for mutual information do one
        pair a call, on one thread.
    random_state : int
        Seed of all that is drawn.
    max_memory : int, float, str or None
        For what is drawn of the store and the copies that tools make of it: fewer features are drawn.
    tell : callable, optional
        Told ``(what is being done, None)`` before each case and ``(instrument, result)`` after it.

    Returns
    -------
    dict
        JSON-able: ``cases`` (a row a tool: seconds a unit, ratio to ours, error, verdict), ``reading``
        (a sentence an instrument), ``details`` (who was wrong, where and by how much), ``findings`` (what
        the data have that misleads estimators), ``left_out``, ``environment``.

    Raises
    ------
    ValueError
        For a store of too few samples, a layer that is not there, more samples than there are, values that
        are not finite.
    StoreError
        For a directory that is no store, and damaged or truncated files.
    MemoryBudgetError
        Where not even two features of the samples fit.
    """
    limit = _seconds(seconds)
    jobs = resolve_n_jobs(n_jobs)
    seed = check_int(random_state, "random_state", low=0)
    budget = parse_memory(max_memory)
    folder = None if out is None else check_folder(Path(out), None if store is None else _location(store))
    if store is None and (layers or n_samples is not None):
        raise ValueError("layers and n_samples are of a store, and there is none: give store=")
    findings: list[str] = []
    left_out: list[str] = []
    steps: list[Any]
    if store is None:
        _load(*_PEERS, "captum.attr")
        steps = list(drawn.steps(limit, n_jobs=jobs, seed=seed))
        if not optional("torch"):
            left_out.append("integrated gradients: torch is not installed.")
    else:
        samples, left_out = _samples(store, layers, n_samples, seed, budget)
        _load(*_PEERS)
        findings = [sentence for sample in samples for sentence in stored.findings(sample)]
        steps = list(stored.steps(samples, n_jobs=jobs, seed=seed))
        left_out.append(
            "integrated gradients: a store holds activations and no model; a bench without --store has them."
        )
    cases: list[dict[str, Any]] = []
    start = time.perf_counter()
    with threads_limited(jobs):
        for index, step in enumerate(steps):
            remaining = limit - (time.perf_counter() - start)
            if remaining < -max(limit, _LEAST_PATIENCE):
                left_out.append(
                    f"the last {len(steps) - index} cases: the time was over (--seconds gives more)."
                )
                break
            case = step()
            if case is None:
                continue
            if isinstance(case, str):
                left_out.append(case + ".")
                continue
            if tell:
                tell(f"{index + 1} of {len(steps)}: {case.instrument}, {case.data}", None)
            remaining = limit - (time.perf_counter() - start)
            share = max(remaining / (len(steps) - index), _LEAST_SHARE * limit / len(steps))
            cases.append(race(case, share))
            if tell:
                tell(case.instrument, cases[-1])
    taken = time.perf_counter() - start
    subject = "data drawn here, with known truths" if store is None else f"activations of {_location(store)}"
    content = {
        "about": f"{len(cases)} comparisons on {subject}, {jobs} thread{'s' if jobs > 1 else ''}, "
        f"seed {seed}, in {taken:.0f} s.",
        "store": None if store is None else _location(store),
        "seconds": limit,
        "n_jobs": jobs,
        "random_state": seed,
        "reading": reading(cases),
        "details": details(cases),
        "findings": findings,
        "left_out": list(dict.fromkeys(left_out)),
        "cases": cases,
        "how": _HOW,
        "environment": environment(),
    }
    if folder is not None:
        write(content, folder)
    return content


def _location(store: Any) -> str:
    return str(getattr(store, "location", store))
