"""Rows that are not independent, dimensions that outweigh all others, and values that repeat.

The first is measured where the answer is known: two layers recorded from two different sets of units, put
side by side in random order, share nothing but the places of rows within their units; with those in random
order, too, nothing at all. A test at 5 % may then find 5 % of the pairs of maps.
"""

from __future__ import annotations

import shutil
import warnings

import numpy as np

import qixai_fast as qf
from benchmarks.environment import SEED

N_MAPS, N_BINS, N_PERMUTATIONS, ALPHA, MOST_ROWS = 16, 8, 199, 0.05, 1600
N_PAIRS_KSG, N_VALUES_KSG = 40, 1500


def recorded(case, layers, folder, reduce):
    """Layers of the row inputs, recorded anew."""
    shutil.rmtree(folder, ignore_errors=True)
    names = list(dict.fromkeys(layer.split("#")[0] for layer in layers))
    return qf.capture(case.model, case.row_batches, names, folder, reduce=reduce, progress=False)


def _flat(rows, units, maps):
    """Rows (units, rows, maps) of some units and maps, one below the other."""
    return np.ascontiguousarray(rows[units][:, :, maps].reshape(-1, len(maps)))


def _shares(x, y, seed, **groups):
    """Shares of pairs that a test calls dependent, with each of these groups permuted as a whole."""
    found = {}
    for name, by in groups.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # 199 rounds are few for q-values; p-values are read
            test = qf.mutual_info_test(
                *(x, y),
                groups=by,
                n_bins=N_BINS,
                strategy="quantile",
                n_permutations=N_PERMUTATIONS,
                random_state=seed,
            )
        found[name] = float(np.mean(test.pvalues <= ALPHA))
    return found


def dependence(case, store, n_repeats):
    """Share of significant pairs between a middle and a deep layer, with nothing and with all in common."""
    layers = case.layers[len(case.layers) // 2 - 1], _last(case, store)
    rows_a, rows_b = (case.take_rows(store[name]) for name in layers)
    n_units, n_rows = rows_b.shape[:2]
    half = min(n_units // 2, MOST_ROWS // n_rows)
    maps_a, maps_b = (np.linspace(0, rows.shape[2] - 1, N_MAPS).astype(int) for rows in (rows_a, rows_b))
    both = {"single": None, "grouped": np.repeat(np.arange(half), n_rows)}
    kinds = {"unrelated": [], "shuffled": [], "same": [], "one": []}
    for repeat in range(n_repeats):
        order = np.random.default_rng([SEED, repeat]).permutation(n_units)
        first, second = order[:half], order[half : 2 * half]
        x = _flat(rows_a, first, maps_a)
        kinds["unrelated"].append(_shares(x, _flat(rows_b, second, maps_b), repeat, **both))
        kinds["same"].append(_shares(x, _flat(rows_b, first, maps_b), repeat, **both))
        # Neither a unit nor a place in it in common.
        moved = np.random.default_rng([SEED, repeat, 1]).permuted(
            np.broadcast_to(np.arange(n_rows)[:, None], (half, n_rows, 1)), axis=1
        )
        away = np.take_along_axis(rows_b[second], moved, axis=1)
        kinds["shuffled"].append(_shares(x, _flat(away, np.arange(half), maps_b), repeat, single=None))
        middle = slice(n_rows // 2, n_rows // 2 + 1)
        single = (_flat(rows_a[:, middle], first, maps_a), _flat(rows_b[:, middle], second, maps_b))
        kinds["one"].append(_shares(*single, repeat, single=None))
    return {
        "layers": list(layers),
        "n_units": half,
        "n_rows": n_rows,
        "n_pairs": N_MAPS**2,
        "n_repeats": n_repeats,
        "within": _within(rows_b, maps_b),
        **{
            kind: {name: [found[name] for found in shares] for name in shares[0]}
            for kind, shares in kinds.items()
        },
    }


def _last(case, store):
    """The deepest layer that has more than one row a unit."""
    return [name for name in case.layers if case.take_rows(store[name]).shape[1] > 1][-1]


def _within(rows, maps):
    """Median share of a map's variance that lies between units: 1 / rows where rows are independent."""
    chosen = rows[:, :, maps].astype(np.float64)
    total = chosen.reshape(-1, len(maps)).var(axis=0)
    return float(np.median(chosen.mean(axis=1).var(axis=0)[total > 0] / total[total > 0]))


def outliers(rows):
    """How few dimensions carry the raw size of a layer, and what that does to entropy, PCA and cosine."""
    values = rows.reshape(-1, rows.shape[2]).astype(np.float64)
    values = values[np.random.default_rng(SEED).permutation(len(values))[:1000]]
    mean, spread = values.mean(axis=0), values.std(axis=0)
    alive = spread > 0
    centred = values - mean
    scaled = centred[:, alive] / spread[alive]
    raw_share = np.sort((values**2).sum(axis=0))[::-1] / (values**2).sum()
    spread_share = np.sort(spread**2)[::-1] / (spread**2).sum()
    found = {
        "n_maps": len(alive),
        "largest_offset": float(np.max(np.abs(mean[alive]) / spread[alive])),
        "mean_share": float((mean**2).sum() / (values**2).mean(axis=0).sum()),
        "top1_raw": float(raw_share[0]),
        "top3_raw": float(raw_share[:3].sum()),
        "top1_spread": float(spread_share[0]),
        "top3_spread": float(spread_share[:3].sum()),
    }
    for name, form in (("raw", values), ("centred", centred), ("scaled", scaled)):
        other = np.roll(form, len(form) // 2, axis=0)  # rows in random order, so another unit's
        lengths = np.linalg.norm(form, axis=1) * np.linalg.norm(other, axis=1)
        strength = np.linalg.eigvalsh(form.T @ form if form.shape[0] > form.shape[1] else form @ form.T)
        found[name] = {
            "rank": float(qf.effective_rank(form, zero_samples="drop")),
            "cosine": float(np.mean((form * other).sum(axis=1) / np.maximum(lengths, 1e-300))),
            "first": float(strength[-1] / strength.sum()),
        }
    return found


def _places(layer):
    """A recorded layer (n, maps, height, width) or (n, places, maps) as rows of maps."""
    values = np.asarray(layer, np.float32)
    values = np.moveaxis(values, 1, -1) if values.ndim == 4 else values
    values = values.reshape(-1, values.shape[-1])
    return values[np.random.default_rng(SEED).permutation(len(values))[:N_VALUES_KSG]]


def repeated_values(case, folder):
    """Atoms after the activation function, at single places and in the mean over an input's places."""
    shutil.rmtree(folder, ignore_errors=True)
    few = case.row_batches[: max(1, 96 // len(case.row_batches[0]))]
    store = qf.capture(case.model, few, [case.wide], folder, reduce="none", progress=False)
    layer = next(iter(store.values()))
    values = _places(layer)
    alive = np.flatnonzero(values.std(axis=0) > 0)
    rng = np.random.default_rng(SEED)
    pairs = np.array([rng.choice(alive, 2, replace=False) for _ in range(N_PAIRS_KSG)])
    split, plain = (
        qf.pairwise_mutual_info_ksg(values, pairs=pairs, atoms=atoms) for atoms in ("auto", "none")
    )
    seen = [qf.mutual_info_ksg(values[:, i], values[:, j], return_diagnostics=True)[1] for i, j in pairs[:10]]
    kept = np.asarray(layer, np.float32)
    means = kept.mean(axis=(2, 3) if kept.ndim == 4 else 1)
    found = {float(value) for place in seen for side in (place.x, place.y) for value in side[0].atoms}
    return {
        "layer": next(iter(store)),
        "n_values": len(values),
        "n_pairs": len(pairs),
        "atoms": sorted(found),
        "zero_share": float(np.mean(values == 0)),
        "six_share": float(np.mean(values == 6)),
        "near_one_share": float(np.mean(np.abs(values) > 0.99)),
        "zero_share_mean": float(np.mean(means == 0)),
        "split": float(np.median(split)),
        "plain": float(np.median(plain)),
        "largest_difference": float(np.max(np.abs(split - plain))),
        "median_difference": float(np.median(np.abs(split - plain))),
    }


def rows_measured(case, folder, quick):
    """All of this for one network."""
    store = recorded(case, case.layers, folder, case.row_reduce)
    return {
        "dependence": dependence(case, store, 2 if quick else 10),
        "outliers": {name: outliers(case.take_rows(store[name])) for name in case.layers},
        "repeated": repeated_values(case, folder.with_name(folder.name + "-wide")),
    }
