"""Cost against error, both axes logarithmic: a panel an instrument."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ..plots.style import INK, MUTED, dress, new_figure
from .cases import OFF, RIGHT

_COLUMNS = 2
# Okabe and Ito; ours are blue wherever they are, and peers keep a colour within a panel.
_OURS = ("#0072b2", "#56b4e9", "#003f5c")
_THEIRS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#444444", "#8a6d00")
_MARKS = {RIGHT: "o", OFF: "D"}
_UNITS = {"pair": "seconds a pair", "row": "seconds a row", "call": "seconds a call"}


def draw(content: dict[str, Any]) -> Figure:
    """One mark for each tool and data set: a dot is right, a hollow diamond off, a cross wrong."""
    by_instrument: dict[str, list[dict[str, Any]]] = {}
    for case in content["cases"]:
        by_instrument.setdefault(case["instrument"], []).append(case)
    rows = max(1, math.ceil(len(by_instrument) / _COLUMNS))
    height = 2.8 * rows + 0.3
    figure = new_figure(10, height, layout="none")
    figure.set_dpi(100)
    # By hand: a layout engine takes seconds for this many ticks.
    room = {"left": 0.07, "right": 0.81, "wspace": 0.92, "hspace": 0.42}
    room |= {"top": 1 - 0.65 / height, "bottom": 0.5 / height}
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, gridspec_kw=room).ravel()
    for axes, (instrument, cases) in zip(panels, by_instrument.items(), strict=False):
        _panel(axes, instrument, cases)
    for axes in panels[len(by_instrument) :]:
        axes.set_axis_off()
    figure.suptitle(
        "Down and left is better. Dot: right; hollow diamond: off; cross: wrong. "
        "Lower edge: this or less; upper edge: not finite.",
        fontsize=10,
        color=INK,
        y=1 - 0.1 / height,
    )
    return figure


def _panel(axes: Any, instrument: str, cases: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(row["name"] for case in cases for row in case["rows"] if row["seconds"]))
    ours = [name for name in names if name.startswith("qixai-fast")]
    colours = dict(zip(ours, _OURS * len(ours), strict=False))
    theirs = [name for name in names if name not in ours]
    colours |= dict(zip(theirs, _THEIRS * len(theirs), strict=False))
    # Errors far below what is asked for stand at the lower edge, so that the rest can be told apart.
    lowest = 1e-4 * min(case["right"] for case in cases)
    errors = [row["error"] for case in cases for row in case["rows"] if row["error"]]
    bottom, top = max(lowest, min(errors, default=lowest) / 3), 3 * max([*errors, 10 * lowest])
    for case in cases:
        # Peers first, so that nothing of theirs is hidden by more than one mark of ours.
        for row in sorted(case["rows"], key=lambda row: row["ours"]):
            if row["seconds"] is None:
                continue
            error = top if row["error"] is None else max(row["error"], bottom)
            colour, mark = colours[row["name"]], _MARKS.get(row["verdict"], "x")
            face = "none" if row["verdict"] == OFF else colour
            options = {"color": colour, "markerfacecolor": face, "markeredgecolor": colour}
            axes.plot(row["seconds"], error, mark, markersize=6, alpha=0.85, clip_on=False, **options)
    unit = _UNITS[cases[0]["unit"]]
    error_unit = f" ({cases[0]['error_unit']})" if cases[0]["error_unit"] else ""
    dress(axes, title=instrument, xlabel=unit, ylabel=f"error{error_unit}")
    axes.set(xscale="log", yscale="log", ylim=(bottom / 2, max(top, 30 * bottom) * 1.5))
    left, right = axes.get_xlim()
    middle = math.sqrt(left * right)
    axes.set_xlim(min(left, middle / 20), max(right, middle * 20))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25, color=MUTED)
    handles = [Line2D([], [], color=colours[name], marker="o", linestyle="", label=name) for name in names]
    axes.legend(
        handles=handles,
        fontsize=7,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        handletextpad=0.1,
    )
