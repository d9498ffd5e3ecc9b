"""Matrices whose blocks are changed as they are read: scaled or centred.

Each is a :class:`Matrix`, so that whatever streams a matrix streams these too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._cluster import tree
from ._memory import release_pages
from ._validate import Float64, Matrix, piece_rows
from .statistics import leaf_bounds

# Fourth powers of values between these stay well inside float64.
_SMALLEST_SAFE = 1e-30
_LARGEST_SAFE = 1e30
_RELEASE_BYTES = 4 * 2**20


def columns_of(matrix: Matrix, start: int, stop: int) -> Matrix:
    """Some of a matrix's columns, as a view."""
    return matrix.columns(start, stop)


@dataclass(frozen=True)
class Affine(Matrix):
    """A matrix read as ``X * scale - shift``; the scale one number, or one a column."""

    scale: Float64 | float
    shift: Float64

    def block(self, start: int, stop: int) -> Float64:
        rows = super().block(start, stop)
        rows *= self.scale
        rows -= self.shift
        return rows


@dataclass(frozen=True)
class Centred(Affine):
    """Columns of :class:`Affine`, less their mean: in two steps, as one large sum would be rounded."""

    mean: Float64

    def block(self, start: int, stop: int) -> Float64:
        rows = super().block(start, stop)
        rows -= self.mean
        return rows


@dataclass(frozen=True)
class WithSquaredNorm(Affine):
    """The columns of :class:`Affine` and one more: the squared norm of the row."""

    @property
    def n_features(self) -> int:
        return super().n_features + 1

    def block(self, start: int, stop: int) -> Float64:
        wider = np.empty((stop - start, self.n_features))
        as_it_is = np.ndim(self.scale) == 0 and self.scale == 1
        # A few rows at a time, which stay in the cache until all is done with them.
        step = piece_rows(self.n_features)
        unreleased = start
        for first in range(start, stop, step):
            last = min(first + step, stop)
            target = wider[first - start : last - start]
            features, norms = target[:, :-1], target[:, -1]
            if as_it_is:
                np.subtract(self.data[first:last], self.shift, out=features)
                read = self.data[unreleased:last]
                if last == stop or read.nbytes >= _RELEASE_BYTES:
                    release_pages(read)
                    unreleased = last
            else:
                features[...] = super().block(first, last)
            np.einsum("ij,ij->i", features, features, out=norms)
            if not np.isfinite(norms.sum()):
                super().block(first, last)  # says which value is not finite; or squares overflow
        return wider


def largest_magnitudes(matrix: Matrix, n_jobs: int) -> Float64:
    """Largest magnitude of each column, shape (d,), in one read."""

    def leaf(bounds: tuple[int, int]) -> Float64:
        rows = matrix.block(*bounds)
        magnitudes: Float64 = np.maximum(rows.max(axis=0), -rows.min(axis=0))
        return magnitudes

    largest: Float64 = tree(leaf, leaf_bounds([matrix]), np.maximum, n_jobs)
    return largest


def safe_powers(largest: Float64) -> Float64:
    """Powers of two that bring magnitudes back to 1 where they are extreme; 1 elsewhere."""
    scales = np.ones_like(largest)
    extreme = (largest > 0) & ((largest < _SMALLEST_SAFE) | (largest > _LARGEST_SAFE))
    _, exponents = np.frexp(largest[extreme])
    scales[extreme] = np.ldexp(1.0, np.clip(1 - exponents, -1022, 1023))
    return scales


def column_scales(matrix: Matrix, n_jobs: int) -> Float64 | float:
    """A power of two for each column of extreme values, 1 for the others; a single 1 where there are none.

    Only float64 input can hold such values, so that nothing else is read for it.
    """
    if matrix.dtype != np.float64:
        return 1.0
    scales = safe_powers(largest_magnitudes(matrix, n_jobs))
    return 1.0 if (scales == 1).all() else scales


def within_range(matrix: Matrix, n_jobs: int) -> Matrix:
    """Scale columns of extreme values by powers of two; a matrix without any as it is."""
    scales = column_scales(matrix, n_jobs)
    if isinstance(scales, float):
        return matrix
    return Affine(matrix.name, matrix.data, matrix.home, scales, np.zeros(matrix.n_features))


def layer_scale(matrix: Matrix, n_jobs: int) -> float:
    """One power of two that keeps a whole layer within range; 1 unless its values are extreme."""
    if matrix.dtype != np.float64:
        return 1.0
    return float(safe_powers(largest_magnitudes(matrix, n_jobs).max(keepdims=True))[0])
