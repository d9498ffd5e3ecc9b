"""Claim (a): the first five components of the dense layer explain about 27 % of its variance."""

from __future__ import annotations

import numpy as np

import qixai_fast as qf
from benchmarks.study import fashion
from benchmarks.study.paper_networks import network

TOP = 5
SHOWN = 30  # components in the figure
NOISE_WIDTHS = (16, 64, 256, 1024)
NOISE_SAMPLES = (20, 50, 200, 1000, 10_000)
SUBSETS = (20, 50, 100, 300, 1000, 3000)


def measure(nets, options, sizes):
    """Shares of variance, per kind of network and layer, beside nulls; and how they depend on sizes."""
    rng = np.random.default_rng(0)
    n = len(next(iter(nets.values()))[0].maps["dense"])
    content = {"layers": {}, "spectra": {}, "dead": {}, "scaled": {}}
    for kind, members in nets.items():
        content["layers"][kind] = {
            layer: {
                "share": [share(net.maps[layer]) for net in members],
                "independent": [share(unpaired(net.maps[layer], rng)) for net in members],
            }
            for layer in fashion.LAYERS
        }
        content["scaled"][kind] = [share(scaled(net.maps["dense"])) for net in members]
        content["dead"][kind] = [int((net.maps["dense"].max(axis=0) == 0).sum()) for net in members]
        content["spectra"][kind] = [cumulative(net.maps["dense"]) for net in members]
    trained = [net.maps["dense"] for net in nets["trained"]]
    width = trained[0].shape[1]
    content["width"] = width
    content["spectra"]["independent"] = [cumulative(unpaired(maps, rng)) for maps in trained]
    content["spectra"]["noise"] = [cumulative(rng.standard_normal((n, width)))]
    content["interval"] = [interval(maps, sizes.n_bootstrap, rng) for maps in trained]
    content["pixels"] = share(fashion.load(options).test.images.flatten(1).numpy())
    content["widths"] = _widths(nets, options, sizes, rng)
    content["noise"] = {
        str(d): [share(rng.standard_normal((m, d))) for m in NOISE_SAMPLES] for d in NOISE_WIDTHS
    }
    content["noise_samples"] = list(NOISE_SAMPLES)
    content["subsets"] = {
        str(m): [float(np.mean([share(maps[rng.permutation(n)[:m]]) for _ in range(20)])) for maps in trained]
        for m in SUBSETS
        if m < n
    }
    return content


def share(maps, top=TOP):
    """Share of the variance that the first components explain."""
    return float(qf.pca(maps, min(top, *maps.shape)).explained_variance_ratio.sum())


def cumulative(maps):
    """The same for the first component, the first two, ..."""
    ratios = qf.pca(maps, min(SHOWN, *maps.shape)).explained_variance_ratio
    return np.cumsum(ratios).tolist()


def unpaired(maps, rng):
    """Every unit keeps its values and gets them in an order of its own: independent units."""
    return rng.permuted(maps, axis=0)


def scaled(maps):
    """Units of variance 1, without those that never fire."""
    spread = maps.std(axis=0)
    return maps[:, spread > 0] / spread[spread > 0]


def interval(maps, n_bootstrap, rng):
    """95 % interval of the share over images: a bootstrap, by weights in the moments."""
    centred = maps.astype(np.float64) - maps.mean(axis=0)
    n = len(maps)
    shares = []
    for _ in range(n_bootstrap):
        weights = rng.multinomial(n, np.full(n, 1 / n)) / n
        mean = weights @ centred
        values = np.linalg.eigvalsh(centred.T @ (centred * weights[:, None]) - np.outer(mean, mean))
        shares.append(values[-TOP:].sum() / values.sum())
    return np.quantile(shares, [0.025, 0.975]).tolist()


def _widths(nets, options, sizes, rng):
    """Shares for other widths of the dense layer."""
    found = {}
    for dense in sorted({*sizes.widths, *sizes.untrained_widths, fashion.DENSE}):
        row = found[str(dense)] = {}
        for kind in ("trained", "untrained"):
            if dense == fashion.DENSE:
                members = nets[kind]
            elif kind == "untrained" or dense in sizes.widths:
                members = [network(seed, kind, options, sizes, dense=dense) for seed in sizes.seeds]
            else:
                continue
            maps = [net.maps["dense"] for net in members]
            row[kind] = [share(values) for values in maps]
            if kind == "trained":
                row["independent"] = [share(unpaired(values, rng)) for values in maps]
                row["accuracy"] = [net.trained.accuracy for net in members]
    return found
