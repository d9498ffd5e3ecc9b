"""Titles and colour bars of attributions, as wide as the figure allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from .._validate import Float64
from .samples import signed
from .style import DPI, INK, MUTED, new_figure

POINTS = 72
_UNTYPED_RENDERER: Any = RendererAgg  # without annotations in matplotlib
MARGIN, GAP = 0.1, 0.08  # inches


def check_width(width: Any) -> float:
    """A figure's width in inches."""
    if isinstance(width, bool) or not isinstance(width, (int, float, np.integer, np.floating)):
        raise TypeError(f"width: wanted a number of inches, got {type(width).__name__}")
    if not 2.5 <= width <= 40:
        raise ValueError(f"width: wanted 2.5 to 40 inches, got {width}")
    return float(width)


def check_unit(unit: Any) -> str:
    """The unit of the output, as it is written beside the colours."""
    if not isinstance(unit, str):
        raise TypeError(f"unit: wanted a string, got {type(unit).__name__}")
    return unit


def printable(text: str) -> str:
    """The text, with the code points of signs that cannot be drawn, such as control characters."""
    return "".join(sign if sign.isprintable() else f"<{ord(sign):x}>" for sign in text)


class Ruler:
    """Widths of texts in points, as a figure will draw them."""

    def __init__(self, size: float, *, weight: str = "normal") -> None:
        self._font = FontProperties(size=size, weight=weight)
        # Hinting moves glyphs by parts of a pixel: measured as new figures are drawn.
        self._renderer: Any = _UNTYPED_RENDERER(1, 1, DPI)

    def width(self, text: str) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            measured, _, _ = self._renderer.get_text_width_height_descent(text, self._font, False)
        return float(measured) * POINTS / DPI

    def fit(self, text: str, room: float) -> str:
        """The text, on one line; the middle of one that is longer than ``room`` points is left out."""
        text = printable(" ".join(text.splitlines()))
        if self.width(text) <= room:
            return text
        fits, long = 0, len(text)
        while long - fits > 1:
            kept = (fits + long) // 2
            if self.width(_without_middle(text, kept)) <= room:
                fits = kept
            else:
                long = kept
        return _without_middle(text, fits)


def _without_middle(text: str, kept: int) -> str:
    return text[: -(-kept // 2)] + "…" + text[len(text) - kept // 2 :]


def join_lines(parts: Sequence[str], room: float, ruler: Ruler, separator: str) -> str:
    """Parts side by side as far as ``room`` points allow, and on new lines beyond."""
    first, *others = (ruler.fit(part, room) for part in parts)
    lines = [first]
    for part in others:
        longer = lines[-1] + separator + part
        if ruler.width(longer) <= room:
            lines[-1] = longer
        else:
            lines[-1] += separator.rstrip() if separator.strip() == "," else ""
            lines.append(part)
    return "\n".join(lines)


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """New axes, in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down), facecolor="white"
    )


def blank_sheet(width: float, body: float, title: Sequence[str], *, below: float) -> tuple[Figure, float]:
    """A figure with a title, and where the ``body`` inches under it begin, in inches from above.

    Inches ``below`` the body stay free, too.
    """
    text = join_lines(title, (width - 2 * MARGIN) * POINTS, Ruler(10, weight="bold"), "  ·  ")
    top = MARGIN + 0.19 * (text.count("\n") + 1) + 0.08
    height = top + body + below
    figure = new_figure(width, height, "none")
    figure.text(
        MARGIN / width, 1 - MARGIN / height, text,
        ha="left", va="top", fontsize=10, fontweight="bold", color=INK, linespacing=1.3,
    )  # fmt: skip
    return figure, top


def draw_colour_bar(
    figure: Figure, axes: Axes, text: str, limit: float, cmap: Colormap, ends: tuple[str, str], *, cut: bool
) -> None:
    """Signed colours from ``-limit`` to ``limit``, with words for both ends and for what they mean."""
    bar = figure.colorbar(
        ScalarMappable(Normalize(-limit, limit), cmap),
        cax=axes,
        orientation="horizontal",
        extend="both" if cut else "neither",
    )
    bar.set_ticks([-limit, 0, limit], labels=[ends[0], "0", ends[1]])
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_edgecolor(INK)
    bar.set_label(text, fontsize=8, color=INK)


@dataclass(frozen=True)
class Legend:
    """The colour bar at the lower end of a figure.

    Attributes
    ----------
    text : str
        What the numbers are.
    limit : float
        Where colours end.
    cmap : Colormap
    cut : bool
        Whether values go beyond.
    """

    text: str
    limit: float
    cmap: Colormap
    cut: bool

    @property
    def height(self) -> float:
        """Inches from what is above it to the figure's edge."""
        return 0.59 + 0.15 * (self.text.count("\n") + 1)

    def draw(self, figure: Figure) -> None:
        width, height = figure.get_size_inches()
        across = min(5.0, 0.85 * (width - 2 * MARGIN))
        place = place_axes(figure, (width - across) / 2, height - self.height + 0.14, across, 0.13)
        ends = signed(-self.limit), signed(self.limit)
        draw_colour_bar(figure, place, self.text, self.limit, self.cmap, ends, cut=self.cut)


def make_legend(
    values: Float64, limit: float, percentile: float, cmap: Colormap, *, unit: str, summed: str, width: float
) -> Legend:
    """The colour bar of the values, in a figure of a width: says what was summed, and why colours end."""
    cut = bool((np.abs(values) > limit).any())
    parts = [f"attribution in {unit}"]
    if summed:
        parts.append(f"sum of {summed}")
    if cut:
        parts.append(f"colours end at percentile {percentile:g}")
    return Legend(join_lines(parts, (width - 2 * MARGIN) * POINTS, Ruler(8), ", "), limit, cmap, cut)
