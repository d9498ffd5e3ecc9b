"""Rendering of figures and what their tests look at."""

import io

import matplotlib as mpl
import matplotlib.image
import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch

import qixai_fast as qf

WORDS = ["this", "film", "is", "not", "a", "good", "film", "at", "all"]
VALUES = np.array([0.1, 0.2, 0.0, -2.0, 0.05, 1.0, 0.2, -0.1, -0.5])


def render(figure, **options):
    """The pixels (height, width, 3) that savefig writes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **options)
    buffer.seek(0)
    return mpl.image.imread(buffer)[..., :3]


def pixel_at(figure, axes, x, y):
    """The colour drawn at data coordinates."""
    pixels = render(figure)
    across, up = axes.transData.transform((x, y))
    return pixels[int(len(pixels) - up), int(across)]


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def drawn_inside(figure):
    """All that is drawn lies within the figure."""
    render(figure)
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    # Inches; a pixel of antialiasing.
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


def attribution(values, delta, converged=None):
    n = len(delta)
    counts = torch.ones(n, dtype=torch.int64)
    return qf.Attribution(values, torch.tensor(delta), counts, counts, converged)


def spots():
    """A white image; attributions +2 at row 1, column 2 and -2 at row 4, column 6, 0 elsewhere."""
    image, values = np.ones((6, 8)), np.zeros((6, 8))
    values[1, 2], values[4, 6] = 2.0, -2.0
    return image, values


def boxes_of(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def words_of(figure):
    """Texts in the boxes, without the numbers below them."""
    return [text for text in figure.axes[0].texts if text.get_fontsize() == 10]
