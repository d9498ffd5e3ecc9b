"""Matrices as pictures whose pixels are cells: small enough to embed, exact enough to read values back.

A value becomes one of 255 levels between two ends, and the level is the pixel's index into a palette of
colours; 255 stands for "no value". A browser shows the picture as it is; the page's script reads the levels
back out of the same bytes and turns them into values again.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from ..._validate import Array, Float64

LEVELS = 254
MISSING = 255
_NO_VALUE = (154, 165, 177)
# Between maps that are nearly copies the values are far above all others: colours end below them.
_COLOURS_END = 99.5

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cells:
    """One matrix, as the page shows it.

    Attributes
    ----------
    png : str
        The picture, base64.
    low, high : float
        Values of the first and the last level; between them levels are evenly spaced.
    end : float
        Where the colours end: at ``high``, or below it where few values are far above all others.
    """

    png: str
    low: float
    high: float
    end: float

    @property
    def error(self) -> float:
        """How far a value read back can be from the one that was put in."""
        return (self.high - self.low) / LEVELS / 2


def encode_levels(values: Array, low: float, high: float) -> Codes:
    """Levels 0 to 254 of values between two ends; 255 where a value is NaN.

    Examples
    --------
    >>> encode_levels(np.array([[0.0, 0.5], [1.0, np.nan]]), 0.0, 1.0)
    array([[  0, 127],
           [254, 255]], dtype=uint8)
    """
    span = high - low if high > low else 1.0
    levels = np.clip(np.rint((values - low) / span * LEVELS), 0, LEVELS)
    return np.where(np.isnan(values), MISSING, levels).astype(np.uint8)


def png_of(levels: Codes, colours: Codes) -> bytes:
    """A PNG of one pixel a cell, ``colours`` (256, 3) its palette; rows unfiltered, so easy to read back."""
    height, width = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = np.pad(levels, ((0, 0), (1, 0))).tobytes()
    parts = {b"IHDR": header, b"PLTE": colours.tobytes(), b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


def palette(cmap: str, end: float = 1.0) -> Codes:
    """256 colours: a colour map over the first ``end`` of the levels, its last colour after, and no value."""
    at = np.minimum(np.arange(LEVELS + 1) / LEVELS / end, 1.0)
    colours: Array = np.rint(255 * matplotlib.colormaps[cmap](at)[:, :3])
    return np.vstack([colours, [_NO_VALUE]]).astype(np.uint8)


def magnitude_cells(values: Float64, cmap: str) -> Cells:
    """A matrix of values that are mostly not negative, from its smallest to its largest."""
    known = values[~np.isnan(values)]
    low, high = (float(min(known.min(), 0.0)), float(known.max())) if known.size else (0.0, 0.0)
    end = float(np.percentile(known, _COLOURS_END)) if known.size else 0.0
    if not low < end < high / 1.5:
        end = high
    share = (end - low) / (high - low) if high > low else 1.0
    picture = png_of(encode_levels(values, low, high), palette(cmap, share))
    return Cells(base64.b64encode(picture).decode("ascii"), low, high, end)


def cosine_cells(values: Float64, cmap: str) -> Cells:
    """A matrix of cosines, from -1 to 1."""
    picture = png_of(encode_levels(values, -1.0, 1.0), palette(cmap))
    return Cells(base64.b64encode(picture).decode("ascii"), -1.0, 1.0, 1.0)


def pvalue_levels(pvalues: Float64, floor: float) -> str:
    """p-values on a logarithmic scale, from 1 (level 0) to the smallest possible (254): zlib, base64."""
    with np.errstate(divide="ignore"):
        shares = np.log(pvalues) / np.log(floor)
    return base64.b64encode(zlib.compress(encode_levels(shares, 0.0, 1.0).tobytes(), 9)).decode("ascii")


def cluster_order(values: Float64) -> npt.NDArray[np.int64]:
    """An order of the rows that brings those with like values side by side.

    Average linkage of Euclidean distances, leaves in the order that keeps neighbours closest (Bar-Joseph,
    Gifford and Jaakkola 2001). NaN, the diagonal of a layer with itself, counts as the row's largest value.
    """
    if len(values) < 3:
        return np.arange(len(values))
    largest = np.nanmax(np.where(np.isnan(values), -np.inf, values), axis=1, keepdims=True)
    filled = np.where(np.isnan(values), np.where(np.isfinite(largest), largest, 0.0), values)
    order: npt.NDArray[np.int64] = leaves_list(linkage(pdist(filled), "average", optimal_ordering=True))
    return order.astype(np.int64)
