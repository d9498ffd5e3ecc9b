"""Do the numbers survive? How far each moves under noise, rare classes, half precision and fewer samples.

Everything is held against the same network, or the networks of three seeds, under clean conditions. The
yardstick is the spread between these seeds: a number that moves less than another seed would move it says
nothing of the condition, and one that moves more has changed its meaning.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from multiprocessing import get_context

import numpy as np

from benchmarks.environment import limit_threads
from benchmarks.study import fashion
from benchmarks.study.survival_conditions import (
    CLEAN,
    EPOCHS,
    SEEDS,
    audited,
    conditions,
    of_all_test_images,
    sizes,
)
from benchmarks.study.survival_figures import draw
from benchmarks.study.survival_intervals import drift, interval, rate, subsamples
from benchmarks.study.survival_measuring import attribution_numbers, beside, case
from benchmarks.study.survival_numbers import LAYERS, measured, null, same_pairs, some
from benchmarks.study.survival_reading import lines
from benchmarks.study.survival_verdicts import has_interval, is_likeness

__all__ = ["draw", "lines", "measure"]


def measure(options):
    size = sizes(options)
    of_all_test_images(options)  # recorded here, since several processes read it
    with _workers(options) as run:
        found = run(case, [(CLEAN, seed, options) for seed in SEEDS])
        clean = dict(zip(SEEDS, found, strict=True))
        wanted = conditions(options)
        cases = [(condition, seed) for condition in wanted for seed in condition.seeds]
        entries = run(_compared, [(*one, clean[one[1]], options) for one in cases])
        fewer = run(_on_fewer, [(images, clean[SEEDS[0]].mi, options) for images in size.fewer])
    by_title = {condition.title: [] for condition in wanted}
    for (condition, _), entry in zip(cases, entries, strict=True):
        by_title[condition.title].append(entry)
    numbers = {key: [clean[seed].numbers[key] for seed in SEEDS] for key in clean[SEEDS[0]].numbers}
    numbers |= _clean_attributions(clean, options)
    between = _between_seeds(clean, options)
    return {
        "data": fashion.load(options).name,
        "test_images": len(fashion.load(options).test),
        "trained_on": min(fashion.N_TRAIN, len(fashion.load(options).train)),
        "epochs": EPOCHS,
        "images": size.images,
        "subsample": size.subsample,
        "replicates": size.replicates,
        "attributed": size.attributed,
        "fewer_images": list(size.fewer),
        "seeds": list(SEEDS),
        "accuracy": [clean[seed].accuracy for seed in SEEDS],
        "constant_maps": {
            layer: [_constant(clean[seed].layers[layer]) for seed in SEEDS] for layer in LAYERS
        },
        "maps": {layer: clean[SEEDS[0]].layers[layer].shape[1] for layer in LAYERS},
        "clean": numbers,
        "between": between,
        "spread": {key: max(values) - min(values) for key, values in numbers.items()}
        | {key: (1 - float(np.mean(values))) / 2 for key, values in between.items()},
        "rates": {
            key: rate(few, size.fewer[1], fewer[0]["draws"][key], size.fewer[0], pool=_pool(options))
            for key, few in fewer[1]["draws"].items()
        },
        "drift": {
            key: drift(value, clean[SEEDS[0]].replicates[key], size.subsample, size.images)
            for key, value in clean[SEEDS[0]].numbers.items()
        },
        "null": [entry["null"] for entry in fewer],
        "conditions": [
            *({"title": title} | _merged(entries) for title, entries in by_title.items()),
            *({"title": f"audited {entry['images']:,} images"} | _drawn(entry, fewer[0]) for entry in fewer),
        ],
    }


@contextmanager
def _workers(options):
    """A function that calls another on many tuples of arguments: on all cores, or here for --quick."""
    if options.quick:
        yield lambda function, calls: [function(*call) for call in calls]
        return
    count = min(4, os.cpu_count() or 1)
    with ProcessPoolExecutor(count, get_context("spawn"), limit_threads) as pool:
        yield lambda function, calls: list(pool.map(function, *zip(*calls, strict=True)))


def _pool(options):
    return len(fashion.load(options).test)


def _constant(X):
    return int((X.std(axis=0) == 0).sum())


def _compared(condition, seed, clean, options):
    """One network under a condition, beside the same seed's clean one."""
    size = sizes(options)
    one = case(condition, seed, options)
    alike, alike_replicates = beside(one, clean, condition, options)
    found = {}
    for key, value in one.numbers.items():
        drawn = one.replicates.get(key)
        moved = None if drawn is None else np.subtract(drawn, clean.replicates[key])
        found[key] = _entry(value, value - clean.numbers[key], moved, size.subsample, size.images)
    for key, value in alike.items():
        moved = np.subtract(alike_replicates[key], 1) if key in alike_replicates else None
        found[key] = _entry(value, value - 1, moved, size.subsample, size.images)
    if one.attributions and clean.attributions:
        found |= _attribution_entries(one.attributions, clean.attributions, options)
    return {"accuracy": one.accuracy, "numbers": found}


def _attribution_entries(one, clean, options):
    n = sizes(options).attributed
    ours, theirs = (attribution_numbers(a, clean, _attributed_images(options)) for a in (one, clean))
    draws = subsamples(n, n // 4, seed=8, count=sizes(options).replicates)
    found = {}
    for key, (statistic, values) in ours.items():
        before = theirs[key][1]
        moved = np.array([statistic(values[places]) - statistic(before[places]) for places in draws])
        value = statistic(values)
        found[key] = _entry(value, value - statistic(before), moved, n // 4, n)
    return found


def _attributed_images(options):
    return audited(CLEAN, options).images[: sizes(options).attributed]


def _entry(value, shift, replicates, m, n):
    return {"value": float(value), "shift": float(shift), "replicates": replicates, "m": m, "n": n}


def _merged(entries):
    """Several seeds as one: the mean shift, in a bracket of the first seed's width that holds them all."""
    numbers = {}
    for key, first in entries[0]["numbers"].items():
        shifts = [entry["numbers"][key]["shift"] for entry in entries]
        shift = float(np.mean(shifts))
        ends = [] if len(shifts) == 1 else [min(shifts), max(shifts)]
        if has_interval(key) and first["replicates"] is not None:
            ends += interval(shift, first["replicates"], first["m"], first["n"])
        numbers[key] = {
            "value": float(np.mean([entry["numbers"][key]["value"] for entry in entries])),
            "shift": shift,
            "bracket": [min(ends), max(ends)] if ends else None,
            "seeds": shifts,
        }
    return {"accuracy": [entry["accuracy"] for entry in entries], "numbers": numbers}


def _clean_attributions(clean, options):
    images = _attributed_images(options)
    found = [
        attribution_numbers(clean[seed].attributions, clean[seed].attributions, images) for seed in SEEDS
    ]
    return {
        key: [float(statistic(values)) for statistic, values in (one[key] for one in found)]
        for key in ("IG error", "IG converged")
    }


def _between_seeds(clean, options):
    """How alike the networks of two seeds are: by number, a value for each pair of seeds."""
    found = []
    for first, second in combinations(SEEDS, 2):
        alike, _ = beside(clean[second], clean[first], CLEAN, options)
        attributions = attribution_numbers(
            clean[second].attributions, clean[first].attributions, _attributed_images(options)
        )
        found.append(alike | {"IG ranks": float(np.mean(attributions["IG ranks"][1]))})
    return {key: [one[key] for one in found] for key in found[0]}


def _on_fewer(images, clean_mi, options):
    """Many samples of some size from all test images, and what random pairing gives at that size."""
    layers = of_all_test_images(options)
    n = len(layers[LAYERS[0]])
    drawn = []
    for places in subsamples(n, images, seed=9, count=sizes(options).replicates):
        found = measured(some(layers, places))
        drawn.append(found.numbers | same_pairs(clean_mi, found.mi))
    rounds = 1 if options.quick else min(10, 2000 // images)
    some_places = subsamples(n, images, seed=10, count=1)[0]
    return {
        "images": images,
        "draws": {key: [one[key] for one in drawn] for key in drawn[0]},
        "null": null(some(layers, some_places), seed=11, rounds=rounds),
    }


def _drawn(entry, most):
    """A row of the table: the mean over draws, and between which bounds 95 of 100 single draws lie."""
    numbers = {}
    for key, values in entry["draws"].items():
        before = 1.0 if is_likeness(key) else np.mean(most["draws"][key])
        low, high = np.quantile(values, [0.025, 0.975], method="weibull") - before
        numbers[key] = {
            "value": float(np.mean(values)),
            "shift": float(np.mean(values) - before),
            "bracket": [float(low), float(high)],
            "seeds": [],
        }
    return {"accuracy": [], "numbers": numbers}
