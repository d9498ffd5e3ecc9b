"""Attributions of words and other tokens as coloured text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .._validate import Array, Float64, check_int
from .samples import caption, choose_sample, largest_shown, list_of, signed
from .style import INK, SIGNED_MAP, take_literally
from .titles import (
    MARGIN,
    POINTS,
    Ruler,
    blank_sheet,
    check_unit,
    check_width,
    make_legend,
    place_axes,
    printable,
)

# Points.
_SIZE, _NUMBER_SIZE = 10.0, 6.5
_PADDING, _GAP = 3.5, 2.5
_BOX, _NUMBER_ROW, _LEADING = 16.0, 9.0, 5.0
# Numbers below more tokens than this are too many to read.
_MAX_NUMBERS = 80
_VISIBLE = {"\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True)
class _Placed:
    """A token's box: text, value, and left and upper edge and width in points."""

    text: str
    value: float
    left: float
    top: float
    width: float


def visible(token: str) -> str:
    """A token with signs for what would not be seen: blanks at its ends, line ends, control characters."""
    body = token.strip(" ")
    if not body:
        return "␣" * len(token) or "∅"
    ahead = len(token) - len(token.lstrip(" "))
    behind = len(token) - len(token.rstrip(" "))
    inner = "".join(_VISIBLE.get(sign, sign) for sign in body)
    return "␣" * ahead + printable(inner) + "␣" * behind


def text_colour(background: Array) -> str:
    """Black or white, whichever stands out more (at least 4.5 to 1, as WCAG 2 asks for)."""
    linear = np.where(background <= 0.04045, background / 12.92, ((background + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    # Equal contrast: (1.05 / (L + .05)) = (L + .05) / .05.
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _number(value: float, limit: float) -> str:
    """A token's value with three digits of the largest one's."""
    if not 1e-3 <= limit < 1e5:
        return signed(value)
    digits = max(0, 2 - math.floor(math.log10(limit)))
    return signed(value) if value == 0 else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _wrap(
    tokens: Sequence[str], values: Float64, room: float, limit: float, *, numbers: bool
) -> tuple[list[_Placed], float]:
    """Boxes line by line, and the height of them all."""
    ruler, small = Ruler(_SIZE), Ruler(_NUMBER_SIZE)
    line = _BOX + _LEADING + (_NUMBER_ROW if numbers else 0)
    placed, left, top = [], 0.0, 0.0
    for token, value in zip(tokens, values.tolist(), strict=True):
        text = ruler.fit(visible(token), room - 2 * _PADDING)
        width = ruler.width(text) + 2 * _PADDING
        if numbers:
            width = max(width, small.width(_number(value, limit)) + _GAP)
        if left + width > room and left > 0:
            left, top = 0.0, top + line
        placed.append(_Placed(text, value, left, top, width))
        left += width + _GAP
        if "\n" in token:
            left, top = 0.0, top + line
    return placed, placed[-1].top + line


def _draw(axes: Axes, placed: Sequence[_Placed], limit: float, *, numbers: bool) -> None:
    colours = colormaps[SIGNED_MAP]
    for box in placed:
        colour = np.array(colours((np.clip(box.value / limit, -1, 1) + 1) / 2)[:3])
        axes.add_patch(
            FancyBboxPatch(
                (box.left, box.top),
                box.width,
                _BOX,
                boxstyle="round,pad=0,rounding_size=2.5",
                facecolor=colour,
                edgecolor="none",
            )
        )
        middle = box.left + box.width / 2
        axes.text(
            middle,
            box.top + _BOX / 2,
            box.text,
            ha="center",
            va="center_baseline",
            fontsize=_SIZE,
            color=text_colour(colour),
        )
        if numbers:
            axes.text(
                middle,
                box.top + _BOX + 1.5,
                _number(box.value, limit),
                ha="center",
                va="top",
                fontsize=_NUMBER_SIZE,
                color=INK,
            )


def _check_tokens(tokens: Any) -> list[str]:
    found = list_of(tokens, "tokens", "strings, split as the model does")
    for place, token in enumerate(found):
        if not isinstance(token, str):
            raise TypeError(
                f"tokens: wanted strings, got {type(token).__name__} at {place}; turn ids into strings first"
            )
    return found


def plot_token_attribution(
    tokens: Sequence[str],
    values: Any,
    *,
    sample: int | None = None,
    input_index: int | None = None,
    target: str | int | None = None,
    unit: str = "units of the output",
    percentile: float = 99,
    max_tokens: int = 500,
    width: float = 7.2,
) -> Figure:
    """Text on the colours of its attributions: red raises the output, blue lowers it.

    Attributions of embeddings are added up over their last axis, signs kept: one number a token, written
    below it where there are at most 80 tokens.

    Parameters
    ----------
    tokens : sequence of str
        As the model reads them. Blanks at their ends are drawn as ``␣``, line ends as ``↵``, and after these
        a new line begins; dollar signs are dollar signs. Signs that matplotlib's font lacks are drawn as
        boxes: name a font that has them in ``matplotlib.rcParams["font.family"]``.
    values : array-like, Tensor or Attribution
        Shape (n_tokens,) or (n_tokens, n_dimensions). Of an :class:`~qixai_fast.Attribution`, as from
        ``integrated_gradients(model, ids, layer="embedding")``, the title has delta, too.
    sample : int, optional
        Which row of ``values``, where it is an Attribution or has an axis of samples in front.
    input_index : int, optional
        Which input, for an Attribution of several. Their delta is that of all together.
    target : str or int, optional
        The output's name, for the title.
    unit : str
        The output's unit, for the colour bar: ``"logits"``, for example.
    percentile : float, default=99
        Colours end at this percentile of the magnitudes, never below the largest of up to 100 tokens. The
        colour bar says so and has arrows where values go beyond.
    max_tokens : int, default=500
        Tokens drawn, from the first. A line below says how many there are beyond, and their sum.
    width : float, default=7.2
        Inches. Lines wrap; of a token longer than a line the middle is left out.

    Returns
    -------
    Figure
        Of its own canvas, not known to pyplot: ``figure.savefig("attribution.png")``.

    Raises
    ------
    TypeError
        For tokens that are no strings, and other arguments of another kind than those above.
    ValueError
        For other than one row of values a token, NaN and infinite values (naming the first), and an
        Attribution of several samples or inputs without saying which.

    See Also
    --------
    plot_image_attribution, plot_feature_attribution

    Examples
    --------
    >>> import qixai_fast as qf
    >>> figure = qf.plot_token_attribution(["not", "a", "good", "film"], [-1.2, 0.1, 0.9, 0.3], unit="logits")
    >>> figure.savefig("attribution.png")  # doctest: +SKIP
    """
    width, unit = check_width(width), check_unit(unit)
    words, most = _check_tokens(tokens), check_int(max_tokens, "max_tokens", low=1)
    shown = choose_sample(values, sample, input_index)
    if shown.values.ndim not in (1, 2):
        raise ValueError(
            f"values: wanted shape (n_tokens,) or (n_tokens, n_dimensions), got {shown.values.shape}; "
            "of several samples, name one"
        )
    if len(words) != len(shown.values):
        raise ValueError(
            f"tokens: wanted one for each of the {len(shown.values)} rows of values, got {len(words)}; "
            "padding counts, too"
        )
    summed = "" if shown.values.ndim == 1 else f"{shown.values.shape[1]} dimensions"
    totals = shown.values if shown.values.ndim == 1 else shown.values.sum(axis=1)
    limit = largest_shown(totals, percentile)
    numbers = min(len(words), most) <= _MAX_NUMBERS
    room = (width - 2 * MARGIN) * POINTS
    placed, height = _wrap(words[:most], totals[:most], room, limit, numbers=numbers)
    beyond = totals[most:]
    body = height + (16.0 if len(beyond) else 0.0)
    legend = make_legend(
        totals, limit, percentile, colormaps[SIGNED_MAP], unit=unit, summed=summed, width=width
    )
    figure, top = blank_sheet(width, body / POINTS, caption(shown, target), below=legend.height)
    axes = place_axes(figure, MARGIN, top, room / POINTS, body / POINTS)
    axes.set_xlim(0, room)
    axes.set_ylim(body, 0)
    axes.set_axis_off()
    _draw(axes, placed, limit, numbers=numbers)
    if len(beyond):
        note = f"… and {len(beyond):,} more tokens, not drawn: sum {signed(float(beyond.sum()))}"
        axes.text(0, height, note, va="top", fontsize=9, style="italic", color=INK)
    legend.draw(figure)
    take_literally(figure)
    return figure
