"""Attributions of single features as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._validate import Array, Float64, check_int
from .samples import caption, choose_sample, finite_array, list_of, signed
from .style import INK, NEGATIVE, NULL, POSITIVE, dress, take_literally
from .titles import MARGIN, POINTS, Ruler, blank_sheet, check_unit, check_width, place_axes

_ROW = 0.2  # inches a bar
_AROUND = 3 * MARGIN + 0.12  # around names and axes
_LEAST_BARS = 0.4
_LEAST_NAME = 36  # points
_OFFSET = 3  # points between a bar and its number


def largest_first(values: Float64, top: int) -> Array:
    """Places of the ``top`` largest magnitudes; of equal ones, the first comes first."""
    places: Array = np.argsort(-np.abs(values), kind="stable")[:top]
    return places


def rest_of(values: Float64, shown: Array) -> float | None:
    """Sum of the values that are not shown; None where all are."""
    return None if len(shown) == len(values) else float(np.delete(values, shown).sum())


def all_bars(values: Float64, rest: float | None) -> Float64:
    """The bars from above, with that of the rest where there is one."""
    return values if rest is None else np.append(values, rest)


def rest_words(n_others: int) -> str:
    """The label of their bar."""
    return "1 other" if n_others == 1 else f"{n_others:,} others, sum"


def number_room(bars: Float64, size: float) -> tuple[float, float]:
    """Inches that the numbers at the ends of bars need, on the left and on the right."""
    ruler = Ruler(size)
    sides = [0.0, 0.0]
    for value in bars.tolist():
        needed = (ruler.width(signed(value)) + 2 * _OFFSET) / POINTS
        sides[value >= 0] = max(sides[value >= 0], needed)
    return sides[0], sides[1]


def draw_bars(axes: Axes, values: Float64, rest: float | None, room: float, *, size: float = 8) -> None:
    """Bars from above with their values written at the ends, ``rest`` as a grey one below them.

    ``room`` is the width of the axes in inches: limits leave space for the numbers.
    """
    bars = all_bars(values, rest)
    colours = [POSITIVE if value > 0 else NEGATIVE for value in values] + [NULL]
    axes.barh(range(len(bars)), bars, height=0.72, color=colours[: len(bars)])
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, value in enumerate(bars.tolist()):
        axes.annotate(
            signed(value), (value, row), xytext=(-_OFFSET if value < 0 else _OFFSET, 0),
            textcoords="offset points", ha="right" if value < 0 else "left", va="center", fontsize=size,
            color=INK,
        )  # fmt: skip
    left, right = number_room(bars, size)
    low, high = min(0.0, float(bars.min())), max(0.0, float(bars.max()))
    high = high if high > low else 1.0
    an_inch = (high - low) / max(room - left - right, 0.2 * room)
    axes.set_xlim(low - left * an_inch, high + right * an_inch)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.xaxis.get_offset_text().set_fontsize(8)
    axes.locator_params(axis="x", nbins=max(2, min(8, int(2 * room))))


def label_below(axes: Axes, text: str, left: float, room: float, width: float) -> None:
    """Label the lower axis, in the middle of its ``room`` inches as far as the figure's ``width`` allows."""
    ruler = Ruler(9)
    text = ruler.fit(text, (width - 2 * MARGIN) * POINTS)
    middle = min(left + room / 2, width - MARGIN - ruler.width(text) / POINTS / 2)
    axes.set_xlabel(text, x=(middle - left) / room, fontsize=9, color=INK)


def _check_names(names: Any, n_features: int) -> list[str]:
    if names is None:
        return [f"feature {i}" for i in range(n_features)]
    found = [str(name) for name in list_of(names, "names", "names")]
    if len(found) != n_features:
        raise ValueError(f"names: wanted one for each of the {n_features} values, got {len(found)}")
    return found


def _check_inputs(inputs: Any, n_features: int) -> list[str]:
    """What stands behind each name."""
    if inputs is None:
        return [""] * n_features
    given = finite_array(inputs, "inputs")
    if given.shape != (n_features,):
        raise ValueError(f"inputs: wanted shape ({n_features},) as values, got {given.shape}")
    return [f" = {value:.4g}".replace("-", "\N{MINUS SIGN}") for value in given]


def plot_feature_attribution(
    values: Any,
    names: Sequence[str] | None = None,
    inputs: Any = None,
    *,
    top: int = 20,
    sample: int | None = None,
    input_index: int | None = None,
    target: str | int | None = None,
    unit: str = "units of the output",
    width: float = 7.2,
) -> Figure:
    """Attributions of features as bars, largest magnitude first: red raises the output, blue lowers it.

    Parameters
    ----------
    values : array-like, Tensor or Attribution
        Shape (n_features,). Of an :class:`~qixai_fast.Attribution`, the title has delta, too.
    names : sequence of str, optional
        A name for each feature; ``feature 0``, ``feature 1`` ... without.
    inputs : array-like or Tensor, optional
        Shape (n_features,): the sample that is explained, written behind the names where ``width``
        leaves room for both.
    top : int, default=20
        How many bars. The others are added up, signs kept, in one more bar, a grey one.
    sample : int, optional
        Which row of ``values``, where it is an Attribution or has an axis of samples in front.
    input_index : int, optional
        Which input, for an Attribution of several. Their delta is that of all together.
    target : str or int, optional
        The output's name, for the title.
    unit : str
        The output's unit, for the axis: ``"logits"``, for example.
    width : float, default=7.2
        Inches.

    Returns
    -------
    Figure
        Of its own canvas, not known to pyplot: ``figure.savefig("attribution.png")``.

    Raises
    ------
    TypeError
        For arguments of another kind than those above.
    ValueError
        For lengths and shapes that do not fit, NaN and infinite values (naming the first), and an Attribution
        of several samples or inputs without saying which.

    See Also
    --------
    plot_image_attribution, plot_token_attribution

    Examples
    --------
    >>> import qixai_fast as qf
    >>> figure = qf.plot_feature_attribution([0.1, -2.0, 0.4], ["age", "height", "weight"], top=2)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['height', 'weight', '1 other']
    """
    width, unit, top = check_width(width), check_unit(unit), check_int(top, "top", low=1)
    shown = choose_sample(values, sample, input_index)
    if shown.values.ndim != 1:
        raise ValueError(
            f"values: wanted shape (n_features,), got {shown.values.shape}; name a sample, or flatten "
            "one sample's values with .reshape(-1)"
        )
    n_features = len(shown.values)
    found, given = _check_names(names, n_features), _check_inputs(inputs, n_features)
    places = largest_first(shown.values, top)
    rest = rest_of(shown.values, places)
    numbers = sum(number_room(all_bars(shown.values[places], rest), 8))
    longest = min(0.45 * width, width - _AROUND - numbers - _LEAST_BARS) * POINTS
    ruler = Ruler(8.5)
    if any(longest - ruler.width(given[i]) < _LEAST_NAME for i in places):
        given = [""] * n_features
    written = [ruler.fit(found[i], longest - ruler.width(given[i])) + given[i] for i in places]
    if rest is not None:
        written.append(rest_words(n_features - len(places)))
    left = MARGIN + max(ruler.width(label) for label in written) / POINTS + 0.12
    body = _ROW * len(written) + 0.1
    figure, top_edge = blank_sheet(width, body, caption(shown, target), below=0.5)
    room = width - left - 2 * MARGIN
    axes = place_axes(figure, left, top_edge, room, body)
    draw_bars(axes, shown.values[places], rest, room)
    axes.set_yticks(range(len(written)), written)
    dress(axes, grid="x")
    label_below(axes, f"attribution in {unit}", left, room, width)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.spines["left"].set_visible(False)
    take_literally(figure)
    return figure
