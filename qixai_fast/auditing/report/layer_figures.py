"""Figures of single layers: spectrum, what loads on each component, samples on components, zeros."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..._validate import Array
from ...plots.style import CLASS_MAP, INK, MUTED, SIGNED_MAP, dress, layer_colour, new_figure, short
from ..results import Arrays, LayerResult, Results

_MAX_MAPS_SHOWN = 40
_MAX_COMPONENTS_SHOWN = 10


def spectrum_figure(results: Results) -> Figure:
    """Cumulative explained variance of every layer."""
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots()
    longest = 1
    for index, layer in enumerate(results["layers"]):
        cumulative = [100 * component["cumulative"] for component in layer["components"]]
        if not cumulative:
            continue
        longest = max(longest, len(cumulative))
        at = np.arange(1, len(cumulative) + 1)
        axes.plot(at, cumulative, "o-", markersize=4, color=layer_colour(index), label=short(layer["name"]))
    axes.axhline(90, color=MUTED, linewidth=0.8, linestyle=":")
    axes.annotate("90 %", (longest, 90), fontsize=8, color=MUTED, ha="right", va="bottom")
    axes.set_ylim(0, 103)
    axes.set_xticks(np.unique(np.linspace(1, longest, min(longest, 10)).round().astype(int)))
    dress(axes, xlabel="components", ylabel="variance explained, %", grid="y")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def _maps_shown(layer: LayerResult, components: Array) -> Array:
    """The maps with the largest share of the shown components, in map order."""
    share = (components**2).sum(axis=0)
    return np.sort(np.argsort(-share, kind="stable")[:_MAX_MAPS_SHOWN])


def loadings_figure(layer: LayerResult, arrays: Arrays) -> Figure:
    """Correlation of each map with each of the first components."""
    content = arrays[layer["arrays"]]
    count = min(len(content["loadings"]), _MAX_COMPONENTS_SHOWN)
    shown = _maps_shown(layer, content["components"][:count])
    figure = new_figure(7.2, 1.1 + 0.24 * count)
    axes = figure.subplots()
    image = axes.imshow(
        content["loadings"][:count][:, shown], cmap=SIGNED_MAP, vmin=-1, vmax=1, aspect="auto"
    )
    shares = content["explained_variance_ratio"][:count]
    axes.set_yticks(range(count), [f"{i + 1}  ({100 * share:.0f} %)" for i, share in enumerate(shares)])
    step = max(1, len(shown) // 20)
    axes.set_xticks(range(0, len(shown), step), [str(shown[i]) for i in range(0, len(shown), step)])
    some = f", {len(shown)} of {layer['n_maps']} maps" if len(shown) < layer["n_maps"] else ""
    dress(axes, title=f"{short(layer['name'])}{some}", xlabel="map", ylabel="component (variance explained)")
    figure.colorbar(image, ax=axes, label="loading", pad=0.01).ax.tick_params(labelsize=8)
    return figure


def scores_figure(results: Results, arrays: Arrays) -> Figure:
    """Samples on the first two components of each layer, coloured by class where there are classes."""
    layers = results["layers"]
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    figure = new_figure(2.9 * columns if columns > 1 else 4.2, 2.8 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    names = results["store"]["class_names"]
    for axes in grid.flat[len(layers) :]:
        axes.set_visible(False)
    painted = None
    for index, (layer, axes) in enumerate(zip(layers, grid.flat, strict=False)):
        content = arrays[layer["arrays"]]
        scores, labels = content["scores"], content["score_labels"]
        coloured = names is not None and bool((labels >= 0).any())
        painted = axes.scatter(
            scores[:, 0],
            scores[:, 1],
            s=5,
            linewidths=0,
            alpha=0.8,
            c=labels if coloured else layer_colour(index),
            cmap=CLASS_MAP if coloured else None,
            vmin=-0.5 if coloured else None,
            vmax=max(9.5, len(names or ()) - 0.5) if coloured else None,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        dress(axes, title=short(layer["name"]), xlabel="component 1", ylabel="component 2")
    if names is not None and painted is not None and len(names) <= 10:
        handles, _ = painted.legend_elements(num=list(range(len(names))))
        figure.legend(
            handles[: len(names)],
            names,
            loc="outside lower center",
            ncols=len(names),
            frameon=False,
            fontsize=8,
            handletextpad=0.1,
            columnspacing=1.0,
        )
    return figure


def zeros_figure(results: Results, arrays: Arrays) -> Figure:
    """Share of exact zeros in every map of every layer, sorted."""
    figure = new_figure(7.2, 2.8)
    axes = figure.subplots()
    for index, layer in enumerate(results["layers"]):
        zeros = np.sort(arrays[layer["arrays"]]["zero_fraction"])[::-1]
        at = np.linspace(0, 100, len(zeros)) if len(zeros) > 1 else np.array([0.0])
        axes.step(at, 100 * zeros, where="mid", color=layer_colour(index), label=short(layer["name"]))
    axes.set_ylim(-2, 102)
    dress(
        axes, xlabel="maps of the layer, most zeros first, %", ylabel="samples with exact zero, %", grid="y"
    )
    axes.legend(frameon=False, fontsize=9)
    return figure


def labels_figure(results: Results, arrays: Arrays) -> Figure:
    """Mutual information of every map with the class, a row a layer; filled where it is significant."""
    section = results["labels"]
    assert section is not None
    alpha = float(results["plan"].get("alpha", 0.05))
    figure = new_figure(7.2, 0.9 + 0.55 * len(section["layers"]))
    axes = figure.subplots()
    for index, layer in enumerate(section["layers"]):
        content = arrays[layer["arrays"]]
        values = content["values"]
        known = content["max_pvalues"] <= alpha
        # A fixed spread across the row keeps maps apart without any meaning of its own.
        height = index + 0.26 * np.cos(2.4 * np.arange(len(values)))
        colour = layer_colour(index)
        axes.scatter(values[known], height[known], s=16, color=colour, linewidths=0, alpha=0.85)
        axes.scatter(values[~known], height[~known], s=16, facecolors="none", edgecolors=colour)
        best = int(np.argmax(values))
        axes.annotate(
            f"map {best}", (values[best], height[best]), xytext=(5, 0), textcoords="offset points",
            fontsize=8, color=INK, va="center",
        )  # fmt: skip
    axes.axvline(section["label_entropy"], color=MUTED, linestyle=":", linewidth=1)
    axes.annotate(
        " all there is to know", (section["label_entropy"], -0.45), fontsize=8, color=MUTED, ha="right"
    )
    axes.set_yticks(range(len(section["layers"])), [short(layer["layer"]) for layer in section["layers"]])
    axes.set_ylim(len(section["layers"]) - 0.5, -0.6)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    dress(axes, xlabel="mutual information with the class, nats", grid="x")
    return figure
