"""The figures of the survival study: every shift in one heat map, and what becomes of the top pairs."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from benchmarks.study.survival_verdicts import MOVES, standardised, verdict

CLIP = 4.0  # spreads: all beyond look the same
DPI = 100
PANELS = ("conv1-conv2", "conv2-dense")


def draw(content, folder):
    _shifts(content).savefig(folder / "survival_shifts.png", dpi=DPI)
    _pairs(content).savefig(folder / "survival_pairs.png", dpi=DPI)


def _shifts(content):
    names = sorted(content["spread"], key=_order)
    titles = [row["title"] for row in content["conditions"]]
    shifts = np.full((len(names), len(titles)), np.nan)
    figure = Figure(figsize=(10, 2.6 + 0.19 * len(names)), layout="constrained")
    axes = figure.subplots()
    for column, row in enumerate(content["conditions"]):
        for line, name in enumerate(names):
            if name not in row["numbers"]:
                continue
            entry, spread = row["numbers"][name], content["spread"][name]
            if spread:
                shifts[line, column] = np.clip(standardised(entry, spread), -CLIP, CLIP)
            if verdict(entry, spread) == MOVES:
                dark = abs(shifts[line, column]) > 0.6 * CLIP
                axes.plot(column, line, ".", color="white" if dark else "black", markersize=5)
    image = axes.imshow(shifts, cmap="PuOr", norm=Normalize(-CLIP, CLIP), aspect="auto")
    axes.set_facecolor("0.9")
    axes.set_xticks(range(len(titles)), titles, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    kinds = [_order(name)[0] for name in names]
    for line in range(1, len(names)):
        if kinds[line] != kinds[line - 1]:
            axes.axhline(line - 0.5, color="black", linewidth=0.8)
    axes.set_title("Shift from the clean case; a dot: its whole bracket is beyond one spread", fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, extend="both")
    bar.set_label("shift, in spreads between seeds (grey: none, or seeds do not differ)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _order(name):
    """Families of numbers one after the other, the order of layers within."""
    families = ("top-5", "effective", "entropy", "CKA,", "debiased", "mean cosine", "CKA with")
    families += ("mean KSG", "mean corrected", "mean plug-in", "largest KSG", "largest corrected")
    families += ("largest plug-in", "MI ranks,", "MI ranks (", "top pairs,", "top pairs (", "IG")
    groups = (3, 7, 13, 17, 18)  # where a line is drawn: spectra, similarity, MI, pairs, attributions
    place = next(index for index, family in enumerate(families) if name.startswith(family))
    return next(index for index, end in enumerate(groups) if place < end), place, name


def _pairs(content):
    rows = [row for row in content["conditions"] if f"top pairs, {PANELS[0]}" in row["numbers"]]
    figure = Figure(figsize=(10, 1.6 + 0.25 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, pair in zip(panels, PANELS, strict=True):
        seeds = content["between"][f"top pairs (matched), {pair}"]
        axes.axvspan(min(seeds), max(seeds), color="0.85", label="other seeds, maps matched")
        axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
        for kind, color, marker, offset in (
            ("", "#0072B2", "o", -0.15),
            (" (matched)", "#D55E00", "D", 0.15),
        ):
            key = f"top pairs{kind}, {pair}"
            found = [(line, row["numbers"][key]) for line, row in enumerate(rows) if key in row["numbers"]]
            lines = np.array([line for line, _ in found]) + (offset if kind or _has(rows, pair) else 0)
            values = np.array([entry["value"] for _, entry in found])
            ends = np.array([entry["bracket"] or [entry["shift"]] * 2 for _, entry in found]) + 1
            axes.hlines(lines, ends[:, 0], ends[:, 1], color=color, linewidth=1.5)
            label = "maps matched by correlation" if kind else "maps by their number"
            axes.plot(values, lines, marker, color=color, markersize=5, linestyle="", label=label)
        axes.set_title(pair, fontsize=10)
        axes.set_xlim(-0.1, 1.05)
        axes.set_xlabel("top 10 pairs shared with the clean case (0: chance, 1: all)", fontsize=9)
        axes.grid(axis="y", color="0.93")
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=8)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _has(rows, pair):
    return any(f"top pairs (matched), {pair}" in row["numbers"] for row in rows)
