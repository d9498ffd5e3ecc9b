"""Figures of attributions: laid over images, or as bars for inputs without a picture."""

from __future__ import annotations

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


def _on_paper(inputs: Array) -> str:
    """Drawings, many of whose pixels share the lowest value, are shown as ink on paper, all else as it is."""
    one_channel = inputs.ndim == 3 or inputs.shape[1] == 1
    return "gray_r" if one_channel and np.mean(inputs == inputs.min()) > 0.25 else "gray"


def _picture_figure(inputs: Array, values: Array, samples: list[AttributedSample]) -> Figure:
    """Each input above its overlay, in as many rows as their size calls for."""
    n_rows, n_columns = inputs.shape[-2:]
    per_row = 8 if max(n_rows, n_columns) <= _SMALL_PICTURE else 4
    captions = [_caption(sample) for sample in samples]
    head = _LINE * max(map(len, captions)) + 0.05
    across = (_WIDTH - 2 * MARGIN + GAP) / per_row - GAP
    down = min(across * n_rows / n_columns, 3.0)
    across = down * n_columns / n_rows
    block = head + 2 * down + GAP + 0.3
    n_blocks = -(-len(samples) // per_row)
    n_channels = 1 if inputs.ndim == 3 else inputs.shape[1]
    figure = new_figure(_WIDTH, MARGIN + n_blocks * block + 0.75, "none")
    cmap = _on_paper(inputs)
    cut = False
    for place, lines in enumerate(captions):
        row, column = divmod(place, per_row)
        left, top = MARGIN + column * (across + GAP), MARGIN + row * block + head
        picture = as_picture(inputs[place], cmap=cmap)
        signed_values, _ = sum_channels(values[place].astype(np.float64), n_rows, n_columns)
        limit = largest_shown(signed_values, PERCENTILE)
        cut = cut or bool((np.abs(signed_values) > limit).any())
        above = place_axes(figure, left, top, across, down)
        above.imshow(picture)
        above.set_title("\n".join(lines), fontsize=8, color=INK, pad=3)
        below = place_axes(figure, left, top + down + GAP, across, down)
        draw_overlay(below, picture, signed_values, limit)
        below.set_xlabel(f"±{signed(limit)[1:]}", fontsize=8, color=INK, labelpad=2)
        frame(above)
    summed = "" if n_channels == 1 else f", sum of {n_channels} channels"
    bar = place_axes(figure, (_WIDTH - 4.5) / 2, MARGIN + n_blocks * block + 0.1, 4.5, 0.13)
    text = f"attribution in units of the output{summed}; colours end at ± the number below each picture"
    draw_colour_bar(figure, bar, text, 1.0, BLENDED_MAP, ("against", "for this output"), cut=cut)
    return figure


def _names(shape: tuple[int, ...], places: Array) -> list[str]:
    """Features by their place in a sample."""
    return [f"feature {', '.join(str(int(i)) for i in np.unravel_index(place, shape))}" for place in places]


def _bar_figure(values: Array, samples: list[AttributedSample]) -> Figure:
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
        "attribution in units of the output", ha="center", va="bottom", fontsize=9, color=INK,
    )  # fmt: skip
    return figure


def attribution_figure(results: Results, arrays: Arrays) -> Figure:
    """Up to eight attributed inputs, as pictures; up to three as bars."""
    section = results["attributions"]
    assert section is not None
    content = arrays[section["arrays"]]
    inputs, values = content["inputs_0"], content["values_0"]
    if is_image(inputs):
        samples = section["samples"][:_MAX_SAMPLES_SHOWN]
        return _picture_figure(inputs[: len(samples)], values[: len(samples)], samples)
    samples = section["samples"][:_MAX_SAMPLES_WITH_BARS]
    return _bar_figure(values[: len(samples)], samples)
