"""Figures of attributions: laid over images, or as bars for inputs without a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..._validate import Array, Float64
from ...plots.features import draw_bars, largest_first, rest_of, rest_words
from ...plots.images import BLENDED_MAP, as_picture, draw_overlay, frame, sum_channels
from ...plots.samples import largest_shown, signed
from ...plots.style import INK, dress, new_figure
from ...plots.titles import GAP, MARGIN, draw_colour_bar, place_axes
from ..results import Arrays, AttributedSample, Results

PERCENTILE = 99
_WIDTH = 7.2  # inches
_MAX_SAMPLES_SHOWN = 8
_MAX_SAMPLES_WITH_BARS = 3
_MAX_BARS = 15
# Pictures of more pixels than this a side need more room.
_SMALL_PICTURE = 32
_LINE = 0.155  # inches


def is_image(inputs: Array) -> bool:
    """Whether inputs (n, C, H, W) or (n, H, W) can be shown as pictures."""
    if inputs.ndim == 4:
        return inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 3
    return inputs.ndim == 3 and min(inputs.shape[1:]) > 3 and max(inputs.shape[1:]) <= 1024


def _caption(sample: AttributedSample) -> list[str]:
    target = "" if sample["target"] is None else f"output {sample['target']}"
    label = "" if sample["label"] is None else f"label {sample['label']}"
    steady = "" if sample["converged"] else "not converged"
    return [line for line in (target, label, steady) if line]


def _picture_map(inputs: Array) -> str:
    """Drawings, many of whose pixels share the lowest value, are shown as ink on paper, all else as it is."""
    one_channel = inputs.ndim == 3 or inputs.shape[1] == 1
    return "gray_r" if one_channel and np.mean(inputs == inputs.min()) > 0.25 else "gray"


@dataclass(frozen=True)
class _Panel:
    """One input: its picture, its values a pixel, where their colours end, and what stands above."""

    picture: Float64
    signed_values: Float64
    limit: float
    caption: list[str]


def _panels(inputs: Array, values: Array, samples: list[AttributedSample]) -> list[_Panel]:
    cmap = _picture_map(inputs)
    panels = []
    for pixels, own, sample in zip(inputs, values, samples, strict=True):
        signed_values, _ = sum_channels(own.astype(np.float64), *inputs.shape[-2:])
        limit = largest_shown(signed_values, PERCENTILE)
        panels.append(_Panel(as_picture(pixels, cmap=cmap), signed_values, limit, _caption(sample)))
    return panels


def _picture_figure(inputs: Array, values: Array, samples: list[AttributedSample], unit: str) -> Figure:
    """Each input above its overlay, in as many rows as their size calls for."""
    n_rows, n_columns = inputs.shape[-2:]
    panels = _panels(inputs, values, samples)
    many_small = len(panels) > 4 and max(n_rows, n_columns) <= _SMALL_PICTURE
    per_row = 2 if n_columns > 2 * n_rows else 8 if many_small else 4
    head = _LINE * max(len(panel.caption) for panel in panels) + 0.05
    step = (_WIDTH - 2 * MARGIN + GAP) / per_row
    down = min((step - GAP) * n_rows / n_columns, 3.0)
    across = down * n_columns / n_rows
    block = head + 2 * down + GAP + 0.3
    body = MARGIN + -(-len(panels) // per_row) * block
    cut = any(bool((np.abs(panel.signed_values) > panel.limit).any()) for panel in panels)
    figure = new_figure(_WIDTH, body + (0.9 if cut else 0.75), "none")
    for place, panel in enumerate(panels):
        row, column = divmod(place, per_row)
        left, top = MARGIN + column * step + (step - GAP - across) / 2, MARGIN + row * block + head
        above = place_axes(figure, left, top, across, down)
        above.imshow(panel.picture)
        above.set_title("\n".join(panel.caption), fontsize=8, color=INK, pad=3)
        frame(above)
        below = place_axes(figure, left, top + down + GAP, across, down)
        draw_overlay(below, panel.picture, panel.signed_values, panel.limit)
        below.set_xlabel(f"±{signed(panel.limit)[1:]}", fontsize=8, color=INK, labelpad=2)
    summed = f", sum of {inputs.shape[1]} channels" if inputs.ndim == 4 and inputs.shape[1] > 1 else ""
    text = f"attribution in {unit}{summed}; colours end at ± the number below each picture"
    if cut:
        text += f"\n(percentile {PERCENTILE} of its magnitudes)"
    bar = place_axes(figure, (_WIDTH - 4.5) / 2, body + 0.1, 4.5, 0.13)
    draw_colour_bar(figure, bar, text, 1.0, BLENDED_MAP, ("against", "for this output"), cut=cut)
    return figure


def _names(shape: tuple[int, ...], places: Array) -> list[str]:
    """Features by their place in a sample."""
    return [f"feature {', '.join(str(int(i)) for i in np.unravel_index(place, shape))}" for place in places]


def _bar_figure(values: Array, samples: list[AttributedSample], unit: str) -> Figure:
    """Bars of the features that count most over the shown samples, a panel a sample."""
    flat: Float64 = values.reshape(len(values), -1).astype(np.float64)
    places = largest_first(np.abs(flat).mean(axis=0), _MAX_BARS)
    names = _names(values.shape[1:], places)
    if len(places) < flat.shape[1]:
        names.append(rest_words(flat.shape[1] - len(places)))
    captions = [_caption(sample) for sample in samples]
    head = _LINE * max(map(len, captions)) + 0.05
    body = 0.2 * len(names) + 0.1
    left = 1.2
    room = (_WIDTH - left - MARGIN) / len(samples) - 0.12
    figure = new_figure(_WIDTH, MARGIN + head + body + 0.5, "none")
    for column, (lines, own) in enumerate(zip(captions, flat, strict=True)):
        axes: Axes = place_axes(figure, left + column * (room + 0.12), MARGIN + head, room, body)
        draw_bars(axes, own[places], rest_of(own, places), room, size=7)
        dress(axes, grid="x")
        axes.set_title("\n".join(lines), fontsize=8, color=INK, pad=3)
        axes.set_yticks(range(len(names)), names if column == 0 else [])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    figure.text(
        (left + (_WIDTH - left) / 2) / _WIDTH, 0.06 / figure.get_figheight(),
        f"attribution in {unit}", ha="center", va="bottom", fontsize=9, color=INK,
    )  # fmt: skip
    return figure


def attribution_figure(results: Results, arrays: Arrays) -> Figure:
    """Up to eight attributed inputs, as pictures; up to three as bars. Of several inputs, the first."""
    section = results["attributions"]
    assert section is not None
    content = arrays[section["arrays"]]
    inputs, values = content["inputs_0"], content["values_0"]
    n_inputs = sum(name.startswith("inputs_") for name in content)
    unit = "units of the output" + (f" (first of {n_inputs} inputs)" if n_inputs > 1 else "")
    if is_image(inputs):
        samples = section["samples"][:_MAX_SAMPLES_SHOWN]
        return _picture_figure(inputs[: len(samples)], values[: len(samples)], samples, unit)
    samples = section["samples"][:_MAX_SAMPLES_WITH_BARS]
    return _bar_figure(values[: len(samples)], samples, unit)
