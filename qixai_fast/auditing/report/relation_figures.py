"""Figures of layer pairs: kernel alignment, cosines beside their null, Schmidt spectra, entanglement."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..._validate import Array
from ...plots.style import (
    ACCENT,
    INK,
    LAYER_COLOURS,
    MAGNITUDE_MAP,
    MUTED,
    NULL,
    dress,
    new_figure,
    short,
)
from ..results import Arrays, EntangledPair, PairResult, Results

_MAX_MAPS_SHOWN = 64
_COSINE_BINS = np.linspace(-1.0, 1.0, 61)


def pair_name(pair: PairResult) -> str:
    """How a layer pair is written everywhere on the page."""
    return f"{pair['layer_a']} – {pair['layer_b']}"


def _short_pair(pair: PairResult) -> str:
    """The same, as figures write it."""
    return f"{short(pair['layer_a'])} – {short(pair['layer_b'])}"


def between_layers(results: Results) -> list[PairResult]:
    """The pairs of two different layers."""
    return [pair for pair in results["pairs"] if not pair["within"]]


def _off_diagonal(pair: PairResult, matrix: Array) -> Array:
    """The entries that are pairs of different maps."""
    values: Array = matrix[np.triu_indices(len(matrix), 1)] if pair["within"] else matrix.ravel()
    return values


def alignment_figure(results: Results) -> Figure:
    """CKA of every pair of layers beside what permuted samples give."""
    pairs = between_layers(results)
    figure = new_figure(7.2, 0.9 + 0.36 * len(pairs))
    axes = figure.subplots()
    for row, pair in enumerate(pairs):
        cka = pair["cka"]
        assert cka is not None
        axes.barh(row, cka["value"], height=0.55, color=LAYER_COLOURS[0] if cka["significant"] else NULL)
        axes.plot([cka["null_q95"]] * 2, [row - 0.38, row + 0.38], color=ACCENT, linewidth=2)
        end = max(cka["value"], cka["null_q95"])
        axes.annotate(f" {cka['value']:.2f}", (end, row), va="center", fontsize=8, color=INK)
    axes.plot([], [], color=ACCENT, linewidth=2, label="95 % of permuted samples lie below")
    axes.set_yticks(range(len(pairs)), [_short_pair(pair) for pair in pairs])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    dress(axes, xlabel="linear CKA (0 unrelated, 1 the same up to rotation and scale)", grid="x")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _peak_at_one(values: Array) -> Array:
    """Weights that make the tallest bar of a histogram over the cosine bins 1."""
    tallest = np.histogram(values, _COSINE_BINS)[0].max()
    return np.full(len(values), 1.0 / max(1, tallest))


def cosine_figure(results: Results, arrays: Arrays) -> Figure:
    """Cosines between maps, raw and centred, each beside its null; one row a layer pair."""
    pairs = between_layers(results)[:6]
    figure = new_figure(7.2, 0.8 + 1.05 * len(pairs))
    grid = figure.subplots(len(pairs), 2, squeeze=False, sharex=True, sharey=True)
    for pair, (left, right) in zip(pairs, grid, strict=True):
        content = arrays[pair["cosine"]["arrays"]]
        chance = _off_diagonal(pair, content["cosine_raw_null"])
        left.hist(chance, _COSINE_BINS, weights=_peak_at_one(chance), color=NULL, label="random pairing")
        limit = pair["cosine"]["centred_threshold"]
        right.axvspan(-limit, limit, color=NULL, alpha=0.6, linewidth=0, label="within chance")
        for axes, key in ((left, "cosine_raw"), (right, "cosine_centred")):
            values = _off_diagonal(pair, content[key])
            axes.hist(
                values,
                _COSINE_BINS,
                weights=_peak_at_one(values),
                histtype="step",
                color=LAYER_COLOURS[0],
                linewidth=1.4,
            )
            first, last = pair is pairs[0], pair is pairs[-1]
            dress(
                axes,
                title=key.removeprefix("cosine_") if first else "",
                xlabel="cosine between maps" if last else "",
            )
            if first:
                axes.legend(frameon=False, fontsize=7, loc="upper left")
            axes.set_yticks([])
            axes.set_xticks([-1, -0.5, 0, 0.5, 1])
            axes.set_ylim(0, 1.15)
            axes.spines["left"].set_visible(False)
        left.set_ylabel(_short_pair(pair), fontsize=8, rotation=0, ha="right", va="center")
    return figure


def schmidt_figure(results: Results) -> Figure:
    """Schmidt spectra of the layer pairs whose dependence is significant: of many, those of largest CKA."""
    figure = new_figure(7.2, 3.0)
    axes = figure.subplots()
    shown = [pair for pair in between_layers(results) if pair["schmidt"] is not None]
    # One colour each: more could not be told apart, and their names would leave no room for the curves.
    strongest = sorted(shown, key=lambda pair: -pair["cka"]["value"] if pair["cka"] else 0.0)
    shown = [pair for pair in shown if pair in strongest[: len(LAYER_COLOURS)]]
    for index, pair in enumerate(shown):
        schmidt = pair["schmidt"]
        assert schmidt is not None
        spectrum = 100 * np.array(schmidt["spectrum"])
        axes.plot(
            np.arange(1, len(spectrum) + 1),
            spectrum,
            "o-",
            markersize=4,
            color=LAYER_COLOURS[index % len(LAYER_COLOURS)],
            label=f"{_short_pair(pair)}: {schmidt['effective_modes']:.1f} effective modes",
        )
    axes.set_ylim(bottom=0)
    dress(axes, xlabel="mode", ylabel="share of the dependence, %", grid="y")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _strongest(values: Array, axis: int) -> Array:
    """Which maps to show: those with the largest single value, in map order."""
    best = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=axis)
    return np.sort(np.argsort(-best, kind="stable")[:_MAX_MAPS_SHOWN])


def mutual_info_figure(pair: PairResult, arrays: Arrays, marked: list[EntangledPair]) -> Figure:
    """Mutual information of all maps of two layers; the table's pairs are ringed with their rank."""
    content = arrays[pair["mutual_info"]["arrays"]]
    values = content["values"]
    rows, columns = _strongest(values, 1), _strongest(values, 0)
    shown = values[np.ix_(rows, columns)]
    figure = new_figure(7.2, 1.3 + 5.4 * min(1.0, max(0.35, len(rows) / len(columns))))
    axes = figure.subplots()
    image = axes.imshow(shown, cmap=MAGNITUDE_MAP, vmin=0, aspect="auto", interpolation="nearest")
    maps_a, maps_b = content["maps_a"][rows], content["maps_b"][columns]
    for ticks, maps in ((axes.set_yticks, maps_a), (axes.set_xticks, maps_b)):
        step = max(1, len(maps) // 16)
        ticks(range(0, len(maps), step), [str(maps[i]) for i in range(0, len(maps), step)])
    place_a = {int(m): i for i, m in enumerate(maps_a)}
    place_b = {int(m): i for i, m in enumerate(maps_b)}
    for row in marked:
        if row["map_a"] in place_a and row["map_b"] in place_b:
            at = (place_b[row["map_b"]], place_a[row["map_a"]])
            axes.plot(*at, "o", markersize=13, color="white", markeredgecolor=INK, markeredgewidth=1.0)
            axes.annotate(str(row["rank"]), at, fontsize=8, color=INK, ha="center", va="center")
    dress(
        axes,
        title=_short_pair(pair),
        xlabel=f"map of {short(pair['layer_b'])}",
        ylabel=f"map of {short(pair['layer_a'])}",
    )
    figure.colorbar(image, ax=axes, label="mutual information, nats", pad=0.01).ax.tick_params(labelsize=8)
    return figure


def entangled_figure(results: Results) -> Figure:
    """The most entangled pairs between layers: both estimates side by side."""
    rows = [row for row in results["entangled"]["rows"] if not row["within"]][:15]
    figure = new_figure(7.2, 0.9 + 0.27 * len(rows))
    axes = figure.subplots()
    alpha = float(results["plan"].get("alpha", 0.05))
    for at, row in enumerate(rows):
        colour = LAYER_COLOURS[0] if row["selection_pvalue"] <= alpha else NULL
        axes.barh(at, row["mutual_info"], height=0.6, color=colour)
        if row["ksg"] is not None:
            axes.plot(row["ksg"], at, "D", markersize=5, color=ACCENT)
    axes.plot([], [], "s", color=LAYER_COLOURS[0], label="binned, bias corrected")
    axes.plot([], [], "D", markersize=5, color=ACCENT, label="KSG")
    names = [
        f"{short(row['layer_a'])} {row['map_a']} – {short(row['layer_b'])} {row['map_b']}" for row in rows
    ]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    dress(axes, xlabel="mutual information, nats", grid="x")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.axvline(0, color=MUTED, linewidth=0.8)
    return figure
