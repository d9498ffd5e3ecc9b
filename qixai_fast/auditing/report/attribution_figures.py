"""Figures of attributions: laid over images, or as bars for inputs without a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..._validate import Array
from ..results import Arrays, AttributedSample, Results
from ...plots.style import LAYER_COLOURS, MUTED, SIGNED_MAP, dress, new_figure

_MAX_SAMPLES_SHOWN = 8
_MAX_BARS = 20


def is_image(inputs: Array) -> bool:
    """Whether inputs (n, C, H, W) or (n, H, W) can be shown as pictures."""
    if inputs.ndim == 4:
        return inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 3
    return inputs.ndim == 3 and min(inputs.shape[1:]) > 3 and max(inputs.shape[1:]) <= 1024


def _picture(image: Array) -> Array:
    """Grey or RGB pixels in [0, 1], whatever the normalisation was."""
    pixels = image[0] if image.ndim == 3 and image.shape[0] == 1 else image
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    low, high = float(pixels.min()), float(pixels.max())
    scaled: Array = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    return scaled


def _caption(sample: AttributedSample) -> str:
    target = "" if sample["target"] is None else f"output {sample['target']}"
    label = "" if sample["label"] is None else f"label {sample['label']}"
    steady = "" if sample["converged"] else "not converged"
    return "\n".join(filter(None, (target, label, steady)))


def _show_images(figure: Figure, inputs: Array, values: Array, samples: list[AttributedSample]) -> None:
    grid = figure.subplots(2, len(samples), squeeze=False)
    painted = None
    for column, sample in enumerate(samples):
        top: Axes = grid[0][column]
        bottom: Axes = grid[1][column]
        picture = _picture(inputs[column])
        grey = picture if picture.ndim == 2 else picture.mean(axis=-1)
        signed = values[column].reshape(-1, *values[column].shape[-2:]).sum(axis=0)
        strength = float(np.abs(signed).max()) or 1.0
        top.imshow(picture, cmap="gray_r" if picture.ndim == 2 else None, vmin=0, vmax=1)
        top.set_title(_caption(sample), fontsize=8)
        bottom.imshow(grey, cmap="gray_r", vmin=0, vmax=2.5)
        painted = bottom.imshow(signed / strength, cmap=SIGNED_MAP, vmin=-1, vmax=1, alpha=0.75)
        for axes in (top, bottom):
            axes.set_xticks([])
            axes.set_yticks([])
    if painted is not None:
        bar = figure.colorbar(painted, ax=grid[1].tolist(), orientation="horizontal", shrink=0.5, aspect=40)
        bar.set_ticks([-1, 0, 1], labels=["against", "0", "for this output"])
        bar.ax.tick_params(labelsize=8)


def _show_bars(figure: Figure, values: Array, samples: list[AttributedSample]) -> None:
    flat = values.reshape(len(values), -1)
    order = np.argsort(-np.abs(flat).mean(axis=0), kind="stable")[:_MAX_BARS]
    grid = figure.subplots(1, len(samples), squeeze=False, sharey=True)[0]
    for column, (axes, sample) in enumerate(zip(grid, samples, strict=True)):
        axes.barh(range(len(order)), flat[column, order], color=LAYER_COLOURS[0])
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.invert_yaxis() if column == 0 else None
        axes.set_yticks(range(len(order)), [str(i) for i in order])
        dress(axes, xlabel="attribution", ylabel="input feature" if column == 0 else "")
        axes.set_title(_caption(sample), fontsize=8)


def attribution_figure(results: Results, arrays: Arrays) -> Figure:
    """Up to eight attributed inputs."""
    section = results["attributions"]
    assert section is not None
    content = arrays[section["arrays"]]
    samples = section["samples"][:_MAX_SAMPLES_SHOWN]
    inputs, values = content["inputs_0"][: len(samples)], content["values_0"][: len(samples)]
    if is_image(inputs):
        figure = new_figure(max(3.0, 1.0 * len(samples)), 3.1)
        _show_images(figure, inputs, values, samples)
    else:
        samples = samples[:4]
        figure = new_figure(7.2, 3.6)
        _show_bars(figure, values[: len(samples)], samples)
    return figure
