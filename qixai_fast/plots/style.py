"""One look for all figures: colours, axes, and PNG bytes that do not change from run to run."""

from __future__ import annotations

import io
import warnings
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 150
INK = "#1f2933"
MUTED = "#616e7c"
GRID = "#e4e7eb"
NULL = "#9aa5b1"
ACCENT = "#c2410c"
# Okabe and Ito's palette: distinguishable with the common forms of colour blindness.
LAYER_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6d00", "#444444")
CLASS_MAP = "tab10"
MAGNITUDE_MAP = "viridis"
SIGNED_MAP = "RdBu_r"
# The same red and blue for single marks: distinguishable with the common forms of colour blindness.
POSITIVE = "#b2182b"
NEGATIVE = "#2166ac"


def layer_colour(index: int) -> str:
    """The colour of a layer, by its place in the network; repeats after eight."""
    return LAYER_COLOURS[index % len(LAYER_COLOURS)]


def short(name: str) -> str:
    """A layer's name as figures write it: the middle of a long one is left out."""
    return name if len(name) <= 28 else f"{name[:13]}…{name[-14:]}"


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """A figure of its own canvas, in inches: pyplot's global state and backend stay untouched."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "", grid: str = "") -> None:
    """Titles, quiet spines and, where asked ("x", "y"), grid lines behind the data."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=9, color=INK)
    axes.set_ylabel(ylabel, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def take_literally(figure: Figure) -> None:
    """Draw every text of a figure as it is: names are the user's, and dollar signs in them no formula."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)


def png_bytes(figure: Figure) -> bytes:
    """Render to PNG without a software stamp, so that equal figures are equal bytes."""
    take_literally(figure)
    # A sign that the font lacks is drawn as a box, which needs no warning.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
