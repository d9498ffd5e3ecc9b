"""One page of panels a network."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

BLUE, ORANGE, GREEN, PURPLE, GREY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#777777",
)  # told apart by everyone


def _letter(ax, title):
    ax.set_title(title, fontsize=9, loc="left")
    ax.tick_params(labelsize=7)
    ax.xaxis.label.set_size(8)
    ax.yaxis.label.set_size(8)


def _depth(ax, network):
    names = network["names"]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")


def _series(network, audit, key):
    return [network[audit]["layers"][name][key] for name in network["layers"]]


def _variance(ax, network):
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(network["layers"])))
    for name, shown, colour in zip(network["layers"], network["names"], colours, strict=True):
        ratios = np.cumsum(network["audit"]["layers"][name]["variance_ratios"])
        ax.plot(range(1, len(ratios) + 1), 100 * ratios, color=colour, label=shown, lw=1.4)
    ax.axvline(5, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="components (the paper takes 5)", ylabel="% of variance", ylim=(0, 102))
    ax.set_xticks((1, 5, 10, 15, 20))
    ax.legend(fontsize=6, loc="lower right", frameon=False, ncol=2)
    _letter(ax, "Variance of the leading components")


def _ranks(ax, network):
    for key, colour, marker, label in (
        ("rank", ORANGE, "o", "as the audit has it"),
        ("rank_centred", BLUE, "s", "mean subtracted"),
        ("rank_scaled", GREEN, "^", "and each map scaled"),
    ):
        ax.plot(_series(network, "audit", key), color=colour, marker=marker, ms=4, label=label)
    ax.plot(
        _series(network, "untrained", "rank_centred"),
        color=BLUE,
        ls="--",
        label="mean subtracted, random weights",
    )
    ax.set(yscale="log", ylabel="effective rank, exp(S)")
    ax.legend(fontsize=6, frameon=False)
    _depth(ax, network)
    ax.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(3, 1)))
    ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(3, 1)))
    ax.tick_params(axis="y", which="both", labelsize=7)
    _letter(ax, "Effective rank (von Neumann entropy S)")


def _labels(ax, network):
    for audit, style, label in (("audit", "-o", "pretrained"), ("untrained", "--s", "random weights")):
        shares = [100 * (value or 0) for value in _series(network, audit, "label_mean")]
        ax.plot(shares, style, ms=4, color=BLUE if audit == "audit" else GREY, label=label)
    ax.set(ylabel="% of the label's entropy", ylim=(0, None))
    ax.legend(fontsize=6, frameon=False)
    _depth(ax, network)
    _letter(ax, "What a map knows of the label (mean)")


def _matrix(ax, network, audit, value, title):
    layers = network["layers"]
    grid = np.full((len(layers), len(layers)), np.nan)
    for pair in network[audit]["pairs"]:
        i, j = (layers.index(name) for name in pair["layers"])
        grid[i, j] = grid[j, i] = value(pair)
    image = ax.imshow(grid, vmin=0, vmax=1, cmap="cividis")
    for (i, j), number in np.ndenumerate(grid):
        if not np.isnan(number):
            colour = "white" if number < 0.5 else "black"
            ax.text(
                j,
                i,
                f"{number:.2f}".lstrip("0") if number < 1 else "1",
                color=colour,
                fontsize=6,
                ha="center",
                va="center",
            )
    _depth(ax, network)
    ax.set_yticks(range(len(layers)), network["names"])
    _letter(ax, title)
    return image


def _cka(pair):
    return 1.0 if pair["cka"] is None else pair["cka"]


def _dependent(pair):
    return pair["n_significant"] / pair["n_pairs"]


def _dependence(ax, network):
    found = network["rows"]["dependence"]
    row, unit = network["row"], network["unit"]
    bars = (
        (f"{row}s", found["unrelated"]["single"], ORANGE),
        (f"{row}s,\nplaces\nshuffled", found["shuffled"]["single"], PURPLE),
        (f"whole\n{unit}s", found["unrelated"]["grouped"], BLUE),
        (f"one {row}\nof each", found["one"]["single"], GREEN),
    )
    for place, (_, shares, colour) in enumerate(bars):
        values = 100 * np.asarray(shares)
        low, high = values.min(), values.max()
        ax.bar(place, values.mean(), 0.6, color=colour)
        ax.errorbar(
            place, values.mean(), [[values.mean() - low], [high - values.mean()]], color="black", capsize=3
        )
        ax.text(place + 0.06, high + 1, f"{values.mean():.1f} %", fontsize=7, va="bottom")
    ax.axhline(5, color="black", lw=0.8, ls="--")
    ax.set_xticks(range(len(bars)), [label for label, _, _ in bars])
    ax.set_xlabel("permuted")
    ax.set(ylabel="% of pairs with p <= 0.05", ylim=(0, min(112, 14 + 112 * max(max(b[1]) for b in bars))))
    _letter(ax, f"Pairs found between unrelated {unit}s")


def _example(ax, network, name):
    paths = network["paths"]
    shown = paths["examples"][0]
    scores = np.asarray(shown["scores"])
    largest = np.abs(scores).max()
    if "tokens" in shown:
        colours = np.where(scores > 0, BLUE, ORANGE)
        ax.barh(range(len(scores)), scores, color=colours)
        ax.set_yticks(range(len(scores)), shown["tokens"])
        ax.invert_yaxis()
        ax.axvline(0, color="black", lw=0.8)
        ax.set_xlabel("part of the cosine with the sentence nearest to it")
    elif name == "speaker":
        picture = np.asarray(shown["picture"]).T
        seconds = 0.05 * len(scores)
        ax.imshow(picture, cmap="Greys", aspect="auto", origin="lower", extent=(0, seconds, 0, len(picture)))
        ax.set(xlabel="seconds", ylabel="mel band (spectrum in grey)")
        twin = ax.twinx()
        twin.step(np.linspace(0, seconds, len(scores) + 1), [*scores, scores[-1]], where="post", color=ORANGE)
        twin.axhline(0, color=ORANGE, lw=0.5)
        twin.set_ylabel("part of the cosine", fontsize=8, color=ORANGE)
        twin.tick_params(labelsize=7)
    else:
        side = round(len(scores) ** 0.5)
        picture = np.asarray(shown["picture"], np.uint8)
        ax.imshow(picture.mean(axis=2), cmap="gray", vmin=-150, extent=(0, side, side, 0))
        image = ax.imshow(
            scores.reshape(side, side),
            cmap="PuOr_r",
            alpha=0.6,
            vmin=-largest,
            vmax=largest,
            extent=(0, side, side, 0),
        )
        ax.figure.colorbar(image, ax=ax, shrink=0.8, label="part of the logit").ax.tick_params(labelsize=6)
        ax.set(xlabel=f"patches ({shown['name']})")
    _letter(ax, "Integrated gradients, an example")


def _removal(ax, network):
    removal = network["paths"]["removal"]
    for place, (key, colour) in enumerate((("attributed", BLUE), ("largest_input", GREEN), ("random", GREY))):
        mean, (low, high) = 100 * removal[key]["mean"], 100 * np.asarray(removal[key]["interval"])
        ax.bar(place, mean, 0.6, color=colour)
        ax.errorbar(place, mean, [[mean - low], [high - mean]], color="black", capsize=3)
    ax.set_xticks(range(3), ["most\nattributed", "farthest from\nthe baseline", "random"])
    ax.axhline(0, color="black", lw=0.8)
    ax.set_ylabel("% of the output's change lost")
    _letter(ax, f"A fifth of the {network['paths']['part'].split(' of ')[0]} taken away")


def page(name, network):
    """All panels of one network."""
    figure = Figure(figsize=(10.4, 9.4), dpi=100, layout="constrained")
    axes = figure.subplots(3, 3)
    _variance(axes[0, 0], network)
    _ranks(axes[0, 1], network)
    _labels(axes[0, 2], network)
    _matrix(axes[1, 0], network, "audit", _cka, "CKA, debiased")
    _matrix(axes[1, 1], network, "untrained", _cka, "CKA with random weights")
    image = _matrix(axes[1, 2], network, "audit", _dependent, "Pairs of maps that are entangled (share)")
    figure.colorbar(image, ax=axes[1, 2], shrink=0.8).ax.tick_params(labelsize=6)
    _dependence(axes[2, 0], network)
    _example(axes[2, 1], network, name)
    _removal(axes[2, 2], network)
    figure.suptitle(f"{network['title']}: {network['n_units']} {network['unit']}s", fontsize=11)
    return figure


def draw(content, folder):
    """``pretrained-NAME.png`` of each network measured."""
    for name, network in content["networks"].items():
        drawn = io.BytesIO()
        page(name, network).savefig(drawn)
        # 256 colours are enough for these, at half the size.
        Image.open(drawn).convert("RGB").quantize(256).save(folder / f"pretrained-{name}.png", optimize=True)
