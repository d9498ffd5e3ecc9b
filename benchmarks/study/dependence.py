"""When do mutual information and the quantum-inspired measures say more than correlation?

Power: how often a measure tells a dependent pair from an independent one, at a level of 5 %. The null is
made by permuting the samples of y, so marginals stay as they are: ``PERMUTED`` orders of every draw, pooled
over all draws of a pair at one size, give one critical value for each measure.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from benchmarks.environment import SEED, limit_threads
from benchmarks.study.dependence_pairs import LAYERS, MAPS

SIZES, DRAWS, PERMUTED = (50, 100, 200, 500, 1000), 200, 5
QUICK_SIZES, QUICK_DRAWS = (30, 60), 10
LEVEL, WANTED = 0.05, 0.8
FAMILIES = {"maps": MAPS, "layers": LAYERS}


def critical_value(null):
    """What a value must exceed for a Monte Carlo p-value of at most ``LEVEL``."""
    allowed = int(LEVEL * (len(null) + 1))
    return np.inf if allowed == 0 else np.sort(null)[-allowed]


def power_of(measures, pair, n, draws):
    """By measure, the share of ``draws`` at which it finds the pair dependent."""
    found = {name: np.empty(draws) for name in measures}
    null = {name: np.empty((draws, PERMUTED)) for name in measures}
    for draw in range(draws):
        rng = np.random.default_rng([SEED, *pair.law.encode(), n, draw])
        x, y = pair.sample(rng, n)
        orders = [rng.permutation(n) for _ in range(PERMUTED)]
        for name, prepare in measures.items():
            measure = prepare(x, y)
            found[name][draw] = measure(np.arange(n))
            null[name][draw] = [measure(order) for order in orders]
    return {
        name: float((values > critical_value(null[name].ravel())).mean()) for name, values in found.items()
    }


def _work(task, draws):
    from benchmarks.study.dependence_measures import OF_LAYERS, OF_MAPS

    family, place, n = task
    return power_of({"maps": OF_MAPS, "layers": OF_LAYERS}[family], FAMILIES[family][place], n, draws)


def measure(options):
    """Power of every measure on every pair at every size."""
    sizes, draws = (QUICK_SIZES, QUICK_DRAWS) if options.quick else (SIZES, DRAWS)
    tasks = [(family, i, n) for family, pairs in FAMILIES.items() for i in range(len(pairs)) for n in sizes]
    work = partial(_work, draws=draws)
    if options.quick:
        powers = list(map(work, tasks))
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), limit_threads) as pool:
            powers = list(pool.map(work, tasks))
    content = {"sizes": list(sizes), "draws": draws, "permuted": PERMUTED, "level": LEVEL, "families": {}}
    for family, pairs in FAMILIES.items():
        content["families"][family] = {pair.name: {} for pair in pairs}
    for (family, place, _), power in zip(tasks, powers, strict=True):
        curves = content["families"][family][FAMILIES[family][place].name]
        for name, value in power.items():
            curves.setdefault(name, []).append(value)
    return content


def least_size(content, curve):
    """The first size from which on the power is as wanted; None where there is none."""
    enough = None
    for n, power in reversed(list(zip(content["sizes"], curve, strict=True))):
        if power < WANTED:
            break
        enough = n
    return enough


def lines(content):
    from benchmarks.study.dependence_reading import lines_of

    return lines_of(content)


def draw(content, folder):
    from benchmarks.study.dependence_figure import draw_power

    draw_power(content, folder / "dependence.png")
