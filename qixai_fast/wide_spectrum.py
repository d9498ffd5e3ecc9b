"""Leading eigenpairs of the scatter of wide data by block Krylov, in float32 as far as that goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._validate import Array, Float64, Matrix
from .feature_products import PROMISE
from .krylov import RitzPairs, block_krylov, krylov_memory
from .rounding import double_rounding, relative_bound, single_image_rounding
from .shifted_rows import ShiftedReader
from .statistics import first_means, leaf_bounds
from .streamed_scatter import SingleOverflowError, StreamedScatter, image_rows, scatter_memory

if TYPE_CHECKING:
    from ._gpu.spectra import DevicePasses

MIN_PASSES, USUAL_PASSES, MAX_PASSES = 3, 4, 50
# Where a pass may be spared.
_SPARE = PROMISE / 2
# Passes that may be added in float64 to what float32 has found.
_FINISHING_PASSES = 2
_SAMPLE_ROWS, _SAMPLE_BYTES, _SAMPLE_PIECES = 2048, 32 * 2**20, 16
_SAMPLE_PASSES = 3
# Length of the random part of a start from a sample: a direction that the sample lacks is found, too.
_RANDOM_PART = 0.05


@dataclass(frozen=True)
class WidePairs:
    """Leading eigenpairs, with bounds on what rounding and stopping have done to the values.

    Attributes
    ----------
    values, rounding, truncation : ndarray of shape (k,)
    vectors : ndarray of shape (d, k)
    trace : float
    mean : ndarray of shape (d,)
        Zeros where it was not taken out.
    n_passes : int
    """

    values: Float64
    vectors: Float64
    rounding: Float64
    truncation: Float64
    trace: float
    mean: Float64
    n_passes: int


def _precision(matrix: Matrix) -> np.dtype[Any]:
    half_or_single = matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4
    return np.dtype(np.float32 if half_or_single else np.float64)


def _sample_rows(matrix: Matrix, block: int) -> int:
    """Rows to begin with; 0 where there are too few for them to tell much."""
    bytes_a_row = matrix.n_features * _precision(matrix).itemsize
    rows = min(_SAMPLE_ROWS, matrix.n_samples // 8, _SAMPLE_BYTES // bytes_a_row)
    return rows if rows >= max(4 * block, _SAMPLE_PIECES) else 0


def _start(matrix: Matrix, shift: Float64, center: bool, block: int, random: np.random.Generator) -> Float64:
    """Vectors to begin with: the leading ones of rows from all over the data, and something random.

    They save one pass, or more, beside vectors that are random altogether.
    """
    d = matrix.n_features
    start = random.standard_normal((d, block))
    rows = _sample_rows(matrix, block)
    if rows == 0:
        return start
    piece = rows // _SAMPLE_PIECES
    sample: Array = np.empty((piece * _SAMPLE_PIECES, d), _precision(matrix))
    for i in range(_SAMPLE_PIECES):
        first = (matrix.n_samples - piece) * i // (_SAMPLE_PIECES - 1)
        sums = np.zeros((2, d))
        reader = ShiftedReader([matrix], shift, sample.dtype, piece)
        sample[i * piece : (i + 1) * piece] = reader.read(first, first + piece, sums)
        reader.check(first, first + piece, sums)
        reader.release(first + piece)
    if center:
        sample -= sample.mean(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        trace = float(np.einsum("ij,ij->", sample, sample, dtype=np.float64))
        if not np.isfinite(np.float32(trace)) or trace < 1e-30:
            return start

    def apply(vectors: Array) -> Float64:
        image: Float64 = (sample.T @ (sample @ vectors)).astype(np.float64)
        return image

    def enough(pairs: RitzPairs) -> bool:
        return pairs.n_passes == _SAMPLE_PASSES

    single = sample.dtype == np.float32
    found = block_krylov(apply, start, block, lambda: trace, enough, single).vectors
    found += start * (_RANDOM_PART / np.sqrt(d))
    return found


def wide_memory(matrix: Matrix, block: int, n_passes: int | None, tol: float | None) -> tuple[int, int]:
    """Bytes that :func:`wide_pairs` takes: once, and for each worker."""
    d = matrix.n_features
    passes = n_passes or (USUAL_PASSES if tol is None else MAX_PASSES)
    fixed, per_worker = scatter_memory(matrix, block)
    sample = _sample_rows(matrix, block) * (2 * d + block) * _precision(matrix).itemsize
    krylov = krylov_memory(d, block, passes)
    return fixed + krylov + sample, per_worker


def wide_pairs(
    matrix: Matrix,
    n_components: int,
    block: int,
    *,
    center: bool,
    tol: float | None,
    n_passes: int | None,
    finish: bool,
    random: np.random.Generator,
    n_jobs: int,
    device: DevicePasses | None = None,
) -> WidePairs:
    """Leading eigenpairs of the scatter of X about its mean, or of X^T X.

    Parameters
    ----------
    matrix : Matrix
    n_components, block : int
        Values wanted, and vectors in one application.
    center : bool
    tol : float or None
        Relative error wanted of singular values: passes are added until the bound is below.
    n_passes : int or None
        Exact number of passes.
    finish : bool
        Where float32 products do not keep the promise, one or two passes in float64 follow.
    random : numpy Generator
    n_jobs : int
    device : DevicePasses, optional
        Reads the matrix in place of threads, for float64 products.
    """
    k, d = n_components, matrix.n_features
    shift = first_means([matrix]) if center else np.zeros(d)
    start = _start(matrix, shift, center, block, random)
    scatter = (
        StreamedScatter(matrix, shift, center, n_jobs) if device is None else device.scatter(shift, center)
    )
    goal = min(tol or PROMISE, PROMISE)
    dtype = _precision(matrix) if device is None else np.dtype(np.float64)
    bounds = leaf_bounds([matrix])

    def rounding(pairs: RitzPairs, single: bool) -> Float64:
        raw = float(scatter.squares.sum())
        double = (
            double_rounding(bounds[0][1], d, len(bounds), raw) if device is None else device.rounding(raw)
        )
        if not single:
            return np.full(k, double)
        rows = image_rows(d, dtype.itemsize)
        spread, vectors = pairs.spread[:k], pairs.vectors[:, :k]
        errors = single_image_rounding(spread, vectors, scatter.squares, scatter.peak, rows, matrix.n_samples)
        return errors + double

    def stop(single: bool, before: int, more: int) -> Callable[[RitzPairs], bool]:
        def enough(pairs: RitzPairs) -> bool:
            done = before + pairs.n_passes
            if n_passes is not None:
                return done >= n_passes
            if done < MIN_PASSES:
                return False
            values, errors = pairs.values[:k], rounding(pairs, single)
            if tol is None:
                # What rounding leaves uncertain, further passes of the same precision do not settle.
                settled = relative_bound(values, np.zeros(k), pairs.truncation) <= _SPARE
                return pairs.n_passes >= more or bool(np.all(settled))
            bound = relative_bound(values, errors, pairs.truncation)
            beyond_rounding = relative_bound(values + pairs.truncation, errors, np.zeros(k)) > tol
            return done >= MAX_PASSES or bool(np.all((bound <= tol) | beyond_rounding))

        return enough

    def iterate(begin: Float64, single: bool, before: int, more: int) -> RitzPairs:
        enough = stop(single, before, more)
        return block_krylov(scatter.apply, begin, k, lambda: scatter.trace, enough, single)

    single, before, begin, more = dtype == np.float32, 0, start, USUAL_PASSES
    while True:
        try:
            pairs = iterate(begin, single, before, more)
        except SingleOverflowError:
            single, before = False, before + 1
            continue
        passes = before + pairs.n_passes
        if not single or not finish or n_passes is not None:
            break
        errors = relative_bound(pairs.values[:k], rounding(pairs, single), np.zeros(k))
        if np.all(errors <= goal):
            break
        single, before = False, passes
        if errors[0] < 1:
            begin, more = pairs.vectors, _FINISHING_PASSES
    return WidePairs(
        pairs.values[:k],
        pairs.vectors[:, :k],
        rounding(pairs, single),
        pairs.truncation,
        scatter.trace,
        scatter.mean,
        passes,
    )
