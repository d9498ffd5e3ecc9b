"""Claim (d): integrated gradients show what the network's decisions rest on."""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy.stats import rankdata

import qixai_fast as qf
from benchmarks.study import fashion

STEPS, TOL = 50, 0.05
CASCADE = ("classes", "dense", "conv2", "conv1")  # the order in which layers lose what they have learned
FRACTIONS = np.linspace(0, 1, 21)
N_EXAMPLES = 5


def measure(nets, options, sizes):
    """Completeness, agreement with networks that have not learned, and what deleting pixels does."""
    data = fashion.load(options)
    test = data.test.part(np.arange(min(sizes.n_attributed, len(data.test))))
    models = [net.trained.model for net in nets["trained"]]
    content = {"n": len(test), "steps": STEPS, "tol": TOL, "fractions": FRACTIONS.tolist(), "seeds": []}
    for i, model in enumerate(models):
        target = fashion.outputs(model, test.images).argmax(1)
        entry, maps = _one(model, models[(i + 1) % len(models)], target, data, test.images, seed=1000 + i)
        orders = {name: maps[name] for name in ("attribution", "fresh network", "brightness")}
        entry["deletion"] = _deletion(model, test.images, target, orders, sizes)
        content["seeds"].append(entry)
        if i == 0:
            content["examples"] = _examples(entry, maps, test, target)
        del entry["change"], entry["delta"]
    return content


def _one(model, another, target, data, images, seed):
    """One network: completeness, and rank correlations with what others make of the images."""
    entry, own, gradients = _complete(model, images, target)
    shown = lit(images)
    maps = {"attribution": own, "brightness": images.sum(1).flatten(1).double().numpy()}
    entry["cascade"] = {}
    for name, network in cascade(model, data, seed).items():
        maps["fresh network"], fresh_gradients, _ = attributed(network, images, target)
        entry["cascade"][name] = agreement(own, maps["fresh network"], shown)
    entry["gradient_fresh"] = agreement(gradients, fresh_gradients, shown)
    entry["image"] = agreement(own, maps["brightness"], shown)
    mean = data.train.images.mean(0, keepdim=True)
    for name, network, baseline in (("mean_baseline", model, mean), ("other_seed", another, 0 * mean)):
        entry[name] = agreement(own, attributed(network, images, target, baseline)[0], shown)
    return entry, maps


def attributed(model, images, target, baseline=0):
    """Attributions of the pixels, channels taken together, mean gradients likewise, and deltas."""
    found = qf.integrated_gradients(
        model, images, target=target, baselines=baseline, n_steps=STEPS, multiply_by_inputs=False
    )
    values = found.values * (images - baseline)
    return *(part.sum(1).flatten(1).double().numpy() for part in (values, found.values)), found.delta


def lit(images):
    """Pixels that are not black already: black is the baseline, so the others have nothing to attribute."""
    return (images != 0).any(1).flatten(1).numpy()


def _complete(model, images, target):
    """How far attributions are from the change of the output: fixed steps, and a tolerance."""
    with torch.no_grad():
        at, start = (model(x).gather(1, target[:, None])[:, 0].double() for x in (images, 0 * images))
    values, gradients, delta = attributed(model, images, target)
    refined = qf.integrated_gradients(model, images, target=target, tol=TOL)
    entry = {"change": (at - start).numpy(), "delta": delta.numpy()}
    for name, deltas in (("fixed", delta), ("refined", refined.delta)):
        relative = np.abs(deltas.double().numpy()) / np.maximum(np.abs(entry["change"]), 1e-3)
        entry[name] = {
            "median": float(np.median(relative)),
            "p95": float(np.quantile(relative, 0.95)),
            "largest": float(relative.max()),
            "within": float((relative <= TOL).mean()),
        }
    entry["converged"] = float(refined.converged.double().mean())
    entry["gradients"] = float(refined.n_gradients.double().mean())
    return entry, values, gradients


def cascade(model, data, seed):
    """Networks that lose what they have learned, from the output down (Adebayo et al. 2018)."""
    shape = tuple(data.train.images.shape[1:])
    dense = model.dense[0].out_features
    fresh = fashion.make_cnn(shape, len(data.classes), seed=seed, dense=dense).eval().requires_grad_(False)
    found, current = {}, copy.deepcopy(model)
    for name in CASCADE:
        setattr(current, name, copy.deepcopy(getattr(fresh, name)))
        found[name] = copy.deepcopy(current)
    return found


def agreement(one, other, shown):
    """Mean rank correlations over images: of sizes over all and over lit pixels, and of signed values."""
    return {
        "all": float(np.mean(_rank_correlations(np.abs(one), np.abs(other), np.ones_like(shown)))),
        "lit": float(np.mean(_rank_correlations(np.abs(one), np.abs(other), shown))),
        "signed": float(np.mean(_rank_correlations(one, other, shown))),
    }


def _rank_correlations(one, other, mask):
    found = []
    for a, b, keep in zip(one, other, mask, strict=True):
        ranks = np.stack([rankdata(a[keep]), rankdata(b[keep])])
        spread = ranks.std(axis=1)
        if keep.sum() > 2 and spread.min() > 0:
            found.append(np.corrcoef(ranks)[0, 1])
    return found if found else [0.0]


def _deletion(model, images, target, orders, sizes):
    """Mean curves of the predicted class's probability as lit pixels go black, and areas under them."""
    shown = lit(images)
    rng = np.random.default_rng(0)
    curves = {name: deletion_curves(model, images, target, values, shown) for name, values in orders.items()}
    chance = [
        deletion_curves(model, images, target, rng.random(shown.shape), shown) for _ in range(sizes.n_orders)
    ]
    curves["random order"] = np.mean(chance, axis=0)
    areas = {name: (values[:, 1:] + values[:, :-1]).mean(axis=1) / 2 for name, values in curves.items()}
    entry = {"curves": {name: values.mean(axis=0).tolist() for name, values in curves.items()}, "areas": {}}
    for name, values in areas.items():
        less = areas["random order"] - values
        again = rng.integers(0, len(less), (sizes.n_bootstrap, len(less)))
        entry["areas"][name] = {
            "mean": float(values.mean()),
            "below_random": float(less.mean()),
            "interval": np.quantile(less[again].mean(axis=1), [0.025, 0.975]).tolist(),
        }
    return entry


def deletion_curves(model, images, target, values, shown):
    """Probability of the target with 0, 5, ... 100 % of lit pixels black, largest values first."""
    ranks = rankdata(np.where(shown, -values, np.inf), method="ordinal", axis=1) - 1
    counts = shown.sum(axis=1, keepdims=True)
    curves = []
    for fraction in FRACTIONS:
        keep = torch.from_numpy(ranks >= np.round(fraction * counts)).reshape(
            len(images), 1, *images.shape[2:]
        )
        logits = fashion.outputs(model, images * keep)
        curves.append(torch.softmax(logits, 1).gather(1, target[:, None])[:, 0].double().numpy())
    return np.stack(curves, axis=1)


def _examples(entry, maps, test, target):
    """The first images of the first classes, and attributions in percent of the largest."""
    places = [int(np.flatnonzero(test.labels.numpy() == label)[0]) for label in np.unique(test.labels)]
    found = []
    for place in places[:N_EXAMPLES]:
        image = test.images[place]
        percent = {}
        for name, key in (("trained", "attribution"), ("fresh", "fresh network")):
            values = maps[key][place].reshape(image.shape[1:])
            percent[name] = np.round(100 * values / (np.abs(values).max() or 1)).astype(int).tolist()
        found.append(
            {
                "image": (255 * image.mean(0)).round().int().tolist(),
                "target": int(target[place]),
                "change": float(entry["change"][place]),
                "delta": float(entry["delta"][place]),
            }
            | percent
        )
    return found
