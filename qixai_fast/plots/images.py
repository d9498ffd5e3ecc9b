"""Attributions laid over the image that they explain."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from .._device import to_numpy
from .._validate import Array, Float64, check_choice
from .samples import caption, choose_sample, finite_array, largest_shown
from .style import INK, SIGNED_MAP, take_literally
from .titles import GAP, MARGIN, blank_sheet, check_unit, check_width, make_legend, place_axes

# Paper is never darker than this, so that it does not pass for a strong attribution.
_PALEST, _DARKEST = 1.0, 0.6
_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
_MAX_HEIGHT = 6.0  # inches
_WIDE = 1.6


def blend(strength: Float64, paper: Float64) -> Float64:
    """Colours (..., 3) of signed strengths in [-1, 1] on grey paper: stronger ones cover it more."""
    colours = colormaps[SIGNED_MAP]((strength + 1) / 2)[..., :3]
    cover = np.sqrt(np.abs(strength))[..., None]
    mixed: Float64 = cover * colours + (1 - cover) * paper[..., None]
    return mixed


BLENDED_MAP = ListedColormap(blend(np.linspace(-1, 1, 256), np.ones(256)), name="signed_on_paper")


def as_picture(image: Any, name: str = "image", *, cmap: str = "gray") -> Float64:
    """RGB in [0, 1], shape (H, W, 3), of an image (H, W), (C, H, W) or (H, W, C) with C 1 or 3."""
    given = to_numpy(image, name)
    pixels = finite_array(image, name)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    elif pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[-1] in (1, 3)):
        hint = f"; give one image of a batch, as {name}[0]" if pixels.ndim == 4 else ""
        raise ValueError(
            f"{name}: wanted shape (H, W), (C, H, W) or (H, W, C) with C 1 or 3, got {pixels.shape}{hint}"
        )
    low, high = (0.0, 255.0) if given.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))
    if given.dtype.kind in "bf" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    pixels = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        return pixels
    grey = pixels.reshape(pixels.shape[:2])
    return np.repeat((1 - grey if cmap == "gray_r" else grey)[..., None], 3, axis=-1)


def sum_channels(values: Float64, height: int, width: int) -> tuple[Float64, int]:
    """Signed values (H, W), and over how many channels they were summed."""
    place = (height, width)
    if values.shape == place:
        return values, 1
    if values.ndim == 3 and values.shape[1:] == place:
        return values.sum(axis=0), values.shape[0]
    if values.ndim == 3 and values.shape[:2] == place:
        return values.sum(axis=2), values.shape[2]
    raise ValueError(
        f"values: wanted shape (H, W), (C, H, W) or (H, W, C) with H, W = {height}, {width} as image has, "
        f"got {values.shape}"
    )


def draw_overlay(axes: Axes, picture: Array, signed_values: Float64, limit: float) -> None:
    """Signed values (H, W) over a pale grey copy of a picture (H, W, 3); colours end at ``limit``."""
    paper = _DARKEST + (_PALEST - _DARKEST) * (picture @ _LUMA)
    axes.imshow(blend(np.clip(signed_values / limit, -1, 1), paper))
    frame(axes)


def frame(axes: Axes) -> None:
    """No ticks, a thin line around."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
        spine.set_color(INK)


def plot_image_attribution(
    image: Any,
    values: Any,
    *,
    sample: int | None = None,
    input_index: int | None = None,
    target: str | int | None = None,
    unit: str = "units of the output",
    percentile: float = 99,
    cmap: str = "gray",
    width: float = 7.2,
) -> Figure:
    """An image, and beside it its attributions over a pale copy of it: red raises the output, blue lowers it.

    Attributions of the channels of a pixel are added up, signs kept. Colours are symmetric about 0 and cover
    the image the more, the larger the magnitude.

    Parameters
    ----------
    image : array-like or Tensor
        One image: shape (H, W), (C, H, W) or (H, W, C), with C 1 or 3. uint8, and floats from 0 to 1, are
        shown as they are; all else is scaled from its smallest to its largest value.
    values : array-like, Tensor or Attribution
        Its attributions: shape (H, W), (C, H, W) or (H, W, C), any number of channels. Of an
        :class:`~qixai_fast.Attribution`, the title has delta, too.
    sample : int, optional
        Which row of ``values``, where it is an Attribution or has an axis of samples in front.
    input_index : int, optional
        Which input, for an Attribution of several. Their delta is that of all together.
    target : str or int, optional
        The output's name, for the title.
    unit : str
        The output's unit, for the colour bar: ``"logits"``, for example.
    percentile : float, default=99
        Colours end at this percentile of the magnitudes (after the sum over channels), never below the
        largest of up to 100 pixels. The colour bar says so and has arrows where values go beyond.
    cmap : str, default="gray"
        ``"gray"``: large values of an image of one channel are white; ``"gray_r"``: they are black.
    width : float, default=7.2
        Inches. An image more than 1.6 times as wide as high goes above its attributions.

    Returns
    -------
    Figure
        Of its own canvas, not known to pyplot: ``figure.savefig("attribution.png")``.

    Raises
    ------
    TypeError
        For arguments of another kind than those above.
    ValueError
        For shapes that do not fit, NaN and infinite values (naming the first), and an Attribution of several
        samples or inputs without saying which.

    See Also
    --------
    plot_feature_attribution, plot_token_attribution

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> image, values = rng.random((3, 32, 32)), rng.normal(size=(3, 32, 32))
    >>> figure = qf.plot_image_attribution(image, values, target="cat", unit="logits")
    >>> len(figure.axes)  # the image, its attributions, their colour bar
    3
    """
    check_choice(cmap, "cmap", ("gray", "gray_r"))
    width, unit = check_width(width), check_unit(unit)
    picture = as_picture(image, cmap=cmap)
    shown = choose_sample(values, sample, input_index)
    n_rows, n_columns = picture.shape[:2]
    total, n_channels = sum_channels(shown.values, n_rows, n_columns)
    limit = largest_shown(total, percentile)

    beside = n_columns <= _WIDE * n_rows
    room = width - 2 * MARGIN
    across = (room - GAP) / 2 if beside else room
    height = min(across * n_rows / n_columns, _MAX_HEIGHT)
    legend = make_legend(
        total,
        limit,
        percentile,
        BLENDED_MAP,
        unit=unit,
        summed="" if n_channels == 1 else f"{n_channels} channels",
        width=width,
    )
    body = height if beside else 2 * height + GAP
    figure, top = blank_sheet(width, body, caption(shown, target), below=legend.height)
    across = height * n_columns / n_rows
    left = (width - 2 * across - GAP) / 2 if beside else (width - across) / 2
    first = place_axes(figure, left, top, across, height)
    second = (
        place_axes(figure, left + across + GAP, top, across, height)
        if beside
        else place_axes(figure, left, top + height + GAP, across, height)
    )
    first.imshow(picture)
    frame(first)
    draw_overlay(second, picture, total, limit)
    legend.draw(figure)
    take_literally(figure)
    return figure
