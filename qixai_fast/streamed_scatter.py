"""The scatter of a streamed matrix as something to apply to a few vectors: one read each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._cluster import tree
from ._device import Home
from ._validate import Array, Float64, Matrix
from .shifted_rows import PRODUCT_ROWS, ShiftedReader, aligned_zeros
from .statistics import check_squares, leaf_bounds

# Rows that stay in a core's cache between the two products they are in.
_BLOCK_BYTES = 2 * 2**20


class SingleOverflowError(ArithmeticError):
    """Products have overflowed float32."""


def image_rows(width: int, itemsize: int) -> int:
    """Rows of one product: a power of two.

    Examples
    --------
    >>> image_rows(2048, 4), image_rows(100, 8)
    (256, 512)
    """
    rows = _BLOCK_BYTES // (width * itemsize)
    return min(PRODUCT_ROWS, max(32, 1 << max(0, rows.bit_length() - 1)))


@dataclass
class ImageSums:
    """Partial of :class:`ScatterImage`.

    Attributes
    ----------
    sums : ndarray of shape (2, d)
        Sums and sums of squares about the shift.
    peak : ndarray of shape (d,)
        Largest sum of squares of each column within one product of rows.
    image : ndarray of shape (b, d)
    """

    sums: Float64
    peak: Float64
    image: Float64


@dataclass(frozen=True)
class ScatterImage:
    """(X^T X V)^T with X less a shift (a :class:`~qixai_fast.statistics.RowStatistic`).

    Attributes
    ----------
    shift : ndarray of shape (d,)
    vectors : ndarray of shape (d, b)
        float32 or float64: the precision of products. Sums over more than 512 rows are float64.
    """

    shift: Float64
    vectors: Array

    def chunk(self, blocks: Sequence[Float64]) -> ImageSums:
        """Sums of one block of rows."""
        matrices = [Matrix("blocks", block, Home()) for block in blocks]
        return self.chunk_of(matrices[0], 0, len(blocks[0]))

    def chunk_of(self, matrix: Matrix, start: int, stop: int) -> ImageSums:
        """Sums of rows ``start:stop``, read a few at a time."""
        dtype, (d, b) = self.vectors.dtype, self.vectors.shape
        step = min(image_rows(d, dtype.itemsize), stop - start)
        reader = ShiftedReader([matrix], self.shift, dtype, step)
        part = ImageSums(np.zeros((2, d)), np.zeros(d), np.zeros((b, d)))
        scores, image = np.empty((step, b), dtype), aligned_zeros((b, d), dtype)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            sums = np.zeros((2, d))
            rows = reader.read(first, last, sums)
            reader.check(first, last, sums)
            with np.errstate(over="ignore", invalid="ignore"):
                np.matmul(rows, self.vectors, out=scores[: last - first])
                np.matmul(scores[: last - first].T, rows, out=image)
                part.image += image
            part.sums += sums
            np.maximum(part.peak, sums[1], out=part.peak)
        reader.release(stop)
        return part

    def combine(self, first: ImageSums, second: ImageSums) -> ImageSums:
        """Add two partials into the memory of the first."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(first.sums, second.sums, out=first.sums)
            np.add(first.image, second.image, out=first.image)
        np.maximum(first.peak, second.peak, out=first.peak)
        return first


def scatter_memory(matrix: Matrix, block: int) -> tuple[int, int]:
    """Bytes that applying a :class:`StreamedScatter` takes: once, and for each worker."""
    d = matrix.n_features
    bounds = leaf_bounds([matrix])
    partial = 8 * d * (block + 3)
    read = d * np.result_type(matrix.dtype, np.float32).itemsize
    # The shift is the mean of more rows than one product has.
    rows = min(PRODUCT_ROWS, bounds[0][1])
    per_worker = rows * (read + 8 * (d + block)) + 2 * partial + 2**16
    return (len(bounds).bit_length() + 2) * partial + 2**16, per_worker


class StreamedScatter:
    """The scatter of X about its mean, or X^T X.

    Parameters
    ----------
    matrix : Matrix
    shift : ndarray of shape (d,)
        Any value near the data, where the mean is to be taken out.
    center : bool
    n_jobs : int

    Attributes
    ----------
    trace : float
        Known after the first application, as are the others.
    squares, peak : ndarray of shape (d,)
        Sums of squares about the shift, to which rounding errors are proportional; largest in one product.
    mean : ndarray of shape (d,)
        Zeros where it is not taken out.
    """

    def __init__(self, matrix: Matrix, shift: Float64, center: bool, n_jobs: int) -> None:
        self._matrix, self._shift, self._center, self._n_jobs = matrix, shift, center, n_jobs
        self.trace = 0.0
        self.squares = self.peak = self.mean = np.zeros(matrix.n_features)

    def apply(self, vectors: Array) -> Float64:
        """The matrix times ``vectors``, shape (d, b), with products in their precision.

        Raises
        ------
        SingleOverflowError
            Where float32 products overflow.
        ValueError
            Where float64 squares do.
        """
        part = self._sums(vectors)
        total, self.squares, self.peak = *part.sums, part.peak
        whole = float(self.squares.sum())
        check_squares(whole, [self._matrix])
        with np.errstate(over="ignore", invalid="ignore"):
            overflown = not np.isfinite(part.image.sum())
        if vectors.dtype == np.float32 and overflown:
            raise SingleOverflowError
        self.trace = whole
        image = part.image.T
        if self._center:
            n = self._matrix.n_samples
            self.mean = self._shift + total / n
            self.trace = max(whole - float(total @ total) / n, 0.0)
            image -= np.outer(total, (total @ vectors.astype(np.float64)) / n)
        return image

    def _sums(self, vectors: Array) -> ImageSums:
        """Sums of all rows."""
        statistic = ScatterImage(self._shift, vectors)

        def leaf(bounds: tuple[int, int]) -> ImageSums:
            return statistic.chunk_of(self._matrix, *bounds)

        return tree(leaf, leaf_bounds([self._matrix]), statistic.combine, self._n_jobs)
