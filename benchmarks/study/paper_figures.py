"""The figures of part 1."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks.study.paper_attribution import CASCADE
from benchmarks.study.paper_variance import TOP

# Okabe and Ito's colours, which the colour-blind tell apart; markers and dashes repeat what they say.
COLOURS = {
    "trained": "#0072B2",
    "untrained": "#E69F00",
    "random labels": "#009E73",
    "independent": "#CC79A7",
    "noise": "#777777",
}
MARKERS = {"trained": "o", "untrained": "s", "random labels": "^", "independent": "D"}
PAIR_NAMES = {"conv1 conv2": "Conv1\nConv2", "conv1 dense": "Conv1\nDense", "conv2 dense": "Conv2\nDense"}
PAPER_SHARE = 0.27


def draw(content, folder):
    """All figures as PNG."""
    for name, figure in (
        ("variance", _variance(content["variance"])),
        ("cosine", _cosine(content["cosine"])),
        ("entangled", _entangled(content["entangled"])),
        ("examples", _examples(content)),
        ("attribution", _attribution(content["attribution"])),
    ):
        figure.savefig(folder / f"paper-{name}.png", dpi=100)


def _figure(height, *panels, **options):
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots(*panels, **options)
    for axis in np.ravel(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _variance(content):
    figure, (left, right) = _figure(3.8, 1, 2)
    names = {"independent": "trained, units made independent", "noise": "noise, all units alike"}
    for kind, curves in content["spectra"].items():
        for i, curve in enumerate(curves):
            left.plot(
                np.arange(1, len(curve) + 1),
                100 * np.array(curve),
                color=COLOURS[kind],
                linestyle={"independent": "--", "noise": ":"}.get(kind, "-"),
                linewidth=1.4,
                label=names.get(kind, kind) if i == 0 else None,
            )
    left.plot(TOP, 100 * PAPER_SHARE, "k*", markersize=12, label="the paper")
    left.set(
        xlabel="components of the dense layer", ylabel="share of variance, %", ylim=(0, 102), xlim=(0, 30)
    )
    left.set_title(f"Dense, {content['width']} units", fontsize=10)
    left.legend(fontsize=8, edgecolor="none", framealpha=1, loc="lower right")
    widths = [int(width) for width in content["widths"]]
    for shift, kind in ((-0.06, "trained"), (0, "untrained"), (0.06, "independent")):
        for width in widths:
            shares = content["widths"][str(width)].get(kind, [])
            right.plot(
                np.full(len(shares), width * np.exp(shift)),
                100 * np.array(shares),
                MARKERS[kind],
                color=COLOURS[kind],
                markersize=5,
                fillstyle="none" if kind == "independent" else "full",
                label=names.get(kind, kind) if str(width) == str(content["width"]) else None,
            )
    grid = np.geomspace(min(widths), max(widths), 50)
    right.plot(grid, 100 * TOP / grid, ":", color=COLOURS["noise"], label="noise, endless samples: 5 / width")
    right.axhline(100 * PAPER_SHARE, color="k", linewidth=0.8)
    right.annotate("the paper, 27 %", (max(widths), 28), ha="right", va="bottom", fontsize=8)
    right.set_xscale("log", base=2)
    right.set_xticks(widths, [str(width) for width in widths])
    right.minorticks_off()
    right.set(xlabel="units of the dense layer", ylabel=f"share of the first {TOP}, %", ylim=(0, 102))
    right.set_title("Other widths: it is the nulls that change", fontsize=10)
    right.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 0.3))
    return figure


def _cosine(content):
    panels = {
        "maps": "maps over images,\nas they are",
        "centred": "maps over images,\ncentred, |cosine|",
        "units": "units of an image,\nwider layer cut",
        "scores": "first 5 scores,\nlines: other signs",
        "cka": "CKA,\ndebiased",
    }
    figure, axes = _figure(3.6, 1, len(panels), sharey=True)
    for axis, (reading, title) in zip(axes, panels.items(), strict=True):
        for x, pair in enumerate(PAIR_NAMES):
            for shift, kind in ((-0.2, "trained"), (0, "untrained"), (0.2, "random labels")):
                row = content["kinds"][kind][pair]
                values = np.array(row[reading])
                place = np.full(len(values), x + shift)
                first = x == 0 and axis is axes[0]
                if reading == "units":
                    low, high = np.array(row["orders"]).T
                    axis.vlines(x + shift, low.min(), high.max(), color="#bbbbbb", linewidth=6, zorder=0)
                if reading == "scores":
                    axis.vlines(place, -values, values, color=COLOURS[kind], linewidth=1)
                axis.plot(
                    place,
                    values,
                    MARKERS[kind],
                    color=COLOURS[kind],
                    markersize=5,
                    label=kind if first else None,
                )
        axis.axhline(0, color="k", linewidth=0.8)
        axis.set_xticks(range(len(PAIR_NAMES)), PAIR_NAMES.values(), fontsize=8)
        axis.set_xlim(-0.5, 2.5)
        axis.set_title(title, fontsize=9)
    axes[0].axhline(content["nulls"]["rectified"], color="#777777", linestyle=":")
    axes[0].annotate("dotted: unrelated units\nafter a ReLU", (-0.4, -0.1), fontsize=7, va="top")
    axes[2].annotate("grey: units in random\norders", (-0.4, -0.1), fontsize=7, va="top")
    axes[0].set(ylabel="cosine, or CKA", ylim=(-1, 1))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _entangled(content):
    figure, (left, right) = _figure(3.8, 1, 2)
    edges = np.array(content["histogram"]["edges"])
    for kind in MARKERS:
        if kind not in content["histogram"]:
            continue
        for i, counts in enumerate(content["histogram"][kind]):
            left.stairs(
                np.array(counts) / sum(counts) * 100,
                edges,
                color=COLOURS[kind],
                linewidth=1.2,
                linestyle={"untrained": "--", "random labels": ":"}.get(kind, "-"),
                label=kind if i == 0 else None,
            )
    null = [value for entry in content["networks"]["trained"] for value in entry["null"]]
    left.axvspan(0, max(null), color="#dddddd", zorder=0, label="largest of all pairs, images shuffled")
    left.set_yscale("log")
    left.set(
        xlabel="mutual information of two maps (KSG), nats", ylabel="share of pairs, %", xlim=(0, edges[-1])
    )
    left.set_title("Conv1 with Conv2, all pairs, every seed", fontsize=10)
    left.legend(fontsize=8, frameon=False)
    known = ("", "_class", "_brightness", "_both")
    for shift, kind in ((-0.2, "trained"), (0, "untrained"), (0.2, "random labels")):
        entries = [entry["given"] for entry in content["networks"][kind]]
        for x, name in enumerate(known):
            values = [entry[f"top{name}"] for entry in entries]
            right.plot(
                np.full(len(values), x + shift),
                values,
                MARKERS[kind],
                color=COLOURS[kind],
                markersize=5,
                label=kind if x == 0 else None,
            )
            if name:
                control = [entry[f"top{name}_control"] for entry in entries]
                right.plot(
                    np.full(len(control), x + shift),
                    control,
                    MARKERS[kind],
                    color="#999999",
                    markersize=5,
                    fillstyle="none",
                    label="control: of other images" if x == 1 and kind == "trained" else None,
                )
    right.set_xticks(range(4), ["nothing", "class", "brightness", "both"])
    right.axhline(0, color="k", linewidth=0.8)
    right.set(xlabel="what is known of the image", ylabel="nats still shared")
    right.set_title("The strongest pairs, mean", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    return figure


def _examples(content):
    examples = content["attribution"]["examples"]
    names = content["data"]["classes"]
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    axes = figure.subplots(3, len(examples), squeeze=False)
    for column, example in zip(axes.T, examples, strict=True):
        column[0].imshow(example["image"], cmap="gray", vmin=0, vmax=255)
        column[0].set_title(names[example["target"]], fontsize=9)
        for axis, part in zip(column[1:], ("trained", "fresh"), strict=True):
            shown = axis.imshow(example[part], cmap="RdBu_r", vmin=-100, vmax=100)
        column[1].set_title(f"{example['change']:.3g} logits, δ {example['delta']:+.2g}", fontsize=9)
        for axis in column:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, text in zip(
        axes[:, 0],
        ("image, and\npredicted class", "attributions,\ntrained", "the same,\nall layers random"),
        strict=True,
    ):
        axis.set_ylabel(text, fontsize=9)
    bar = figure.colorbar(shown, ax=axes[1:], shrink=0.7)
    bar.set_label("% of the largest", fontsize=8)
    return figure


def _attribution(content):
    figure, (left, right) = _figure(3.8, 1, 2)
    seeds = content["seeds"]
    steps = ["another seed,\ntrained", *(f"+ {name}" if i else name for i, name in enumerate(CASCADE))]
    for reading, marker, colour, name in (
        ("all", "o", COLOURS["trained"], "sizes, all pixels"),
        ("lit", "s", COLOURS["untrained"], "sizes, lit pixels"),
        ("signed", "^", COLOURS["random labels"], "with signs, lit pixels"),
    ):
        rows = [
            [seed["other_seed"][reading], *(seed["cascade"][c][reading] for c in CASCADE)] for seed in seeds
        ]
        for row in rows:
            left.plot(range(1, 5), row[1:], "-", color=colour, linewidth=0.7)
            left.plot(
                range(5), row, marker, color=colour, markersize=5, label=name if row is rows[0] else None
            )
        image = np.mean([seed["image"][reading] for seed in seeds])
        left.axhline(image, color=colour, linestyle=":", linewidth=1)
    left.plot([], [], "k:", label="with the image itself, no network")
    left.axhline(0, color="k", linewidth=0.8)
    left.set_xticks(range(5), steps, fontsize=8)
    left.set(xlabel="layers made random, from the output down", ylabel="rank correlation", ylim=(-0.8, 1))
    left.set_title("Do attributions notice that the network is gone?", fontsize=10)
    left.legend(fontsize=8, frameon=False, loc="lower right")
    styles = {
        "random order": ("#777777", ":"),
        "attribution": (COLOURS["trained"], "-"),
        "fresh network": (COLOURS["random labels"], "-."),
        "brightness": (COLOURS["untrained"], "--"),
    }
    names = {
        "attribution": "attributions",
        "fresh network": "attributions of a random network",
        "brightness": "brightest first, no network",
        "random order": "random order",
    }
    x = 100 * np.array(content["fractions"])
    for kind, (colour, style) in styles.items():
        curves = np.array([seed["deletion"]["curves"][kind] for seed in seeds])
        for i, curve in enumerate(curves):
            right.plot(x, curve, style, color=colour, linewidth=1.2, label=names[kind] if i == 0 else None)
    right.set(xlabel="lit pixels made black, %", ylabel="probability of the predicted class", ylim=(0, 1))
    right.set_title("Deleting pixels, largest first, every seed", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    return figure
