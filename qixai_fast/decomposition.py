"""Singular values and vectors of a streamed matrix, with a bound on the error of each value.

One of three ways, chosen by shape and by the number of components only, so that results do not depend
on threads or budgets:

- features by features: the (d, d) moments in one read, and one small eigenproblem;
- samples by samples, where there are fewer of them: the (n, n) products in one read, feature-side
  vectors in a second;
- block Krylov, where both sides are wide: a few reads, each with a block of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._memory import workers_within
from ._validate import Array, Float64, Matrix
from .feature_products import feature_pairs, leading_eigenpairs
from .gram import Columns, Images, Rows, Strips, largest_block, long_vectors
from .rounding import double_rounding
from .rounding import relative_bound as relative_bound
from .statistics import cross_moments_memory, leaf_bounds
from .wide_spectrum import wide_memory, wide_pairs

if TYPE_CHECKING:
    from ._gpu.spectra import DevicePasses

METHODS = ("auto", "covariance", "krylov")
_BLOCK = 32
# Four passes with b vectors cost as much as the (w, w) products at w = 16 b; but they also read the
# data four times, and they are not exact.
_DIRECT_WIDTHS = 32
# Below, squares of single values have lost digits to float64's denormal numbers.
_LEAST_SQUARES = 1e-290


@dataclass(frozen=True)
class Decomposition:
    """Leading singular triplets of a matrix, largest first.

    Attributes
    ----------
    sigma : ndarray of shape (k,)
    right : ndarray of shape (d, k)
    left : ndarray of shape (n, k) or None
        In the result's dtype; None where they were not asked for.
    rounding, truncation : ndarray of shape (k,)
        Bounds on the errors of ``sigma ** 2``; more passes would lessen the second.
    sum_of_squares : float
        Of all values, about the mean where centred.
    mean : ndarray of shape (d,)
    n_passes : int
        Reads of the data.
    """

    sigma: Float64
    right: Array
    left: Array | None
    rounding: Float64
    truncation: Float64
    sum_of_squares: float
    mean: Float64
    n_passes: int


@dataclass(frozen=True)
class Problem:
    """What to decompose, and how.

    Attributes
    ----------
    matrix : Matrix
    n_components, n_oversamples : int
    center, want_left : bool
    method : {"auto", "covariance", "krylov"}
    random : numpy Generator
    n_jobs : int
    budget : int or None
    tol : float or None
        Wanted relative error of singular values.
    n_passes : int or None
        Exact number of Krylov passes; None for as many as ``tol`` needs, or as usual.
    device : DevicePasses or None
        What reads the matrix in place of threads of the host.
    """

    matrix: Matrix
    n_components: int
    n_oversamples: int
    center: bool
    want_left: bool
    method: str
    random: np.random.Generator
    n_jobs: int
    budget: int | None
    tol: float | None = None
    n_passes: int | None = None
    device: DevicePasses | None = None

    @property
    def narrow(self) -> int:
        return min(self.matrix.n_samples, self.matrix.n_features)

    @property
    def block(self) -> int:
        """Krylov vectors a pass: a multiple of 32, which products of matrices are quick with."""
        wanted = self.n_components + self.n_oversamples
        return min(self.narrow, -(-wanted // _BLOCK) * _BLOCK)

    @property
    def out_dtype(self) -> np.dtype[Any]:
        return result_dtype(self.matrix)

    def workers(self, fixed: int, per_worker: int, work: str, on_device: int = 0) -> int:
        """Workers that fit the budget; a device needs one, and its own memory within the same budget."""
        if self.device is not None:
            self.device.require(self.budget, fixed, on_device, work)
            return 1
        return workers_within(self.budget, self.n_jobs, fixed=fixed, per_worker=per_worker, work=work)

    def rows(self, shift: Float64 | None) -> Images:
        return Rows(self.matrix, shift) if self.device is None else self.device.rows(shift)

    def strips(self) -> Columns:
        mean = np.zeros(self.matrix.n_features) if self.center else None
        return Strips(self.matrix, mean) if self.device is None else self.device.strips(mean)


def result_dtype(matrix: Matrix) -> np.dtype[Any]:
    """float32 for half and single precision, float64 for all else."""
    half_or_single = matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4
    return np.dtype(np.float32 if half_or_single else np.float64)


def _rounding(tall: Columns, trace: float) -> float:
    """Bound on the 2-norm error of streamed float64 products with this trace."""
    bounds = tall.bounds()
    return double_rounding(bounds[0][1] - bounds[0][0], tall.shape[1], len(bounds), trace)


def _live(squares: Float64, rounding: Float64 | float) -> int:
    """How many leading values stand above rounding, so that vectors may be divided by them."""
    return int(np.count_nonzero(squares > 4 * rounding))


def _left_memory(problem: Problem, rows: int) -> tuple[int, int]:
    """Bytes for the pass that computes the vectors of the long side, which has ``rows`` rows."""
    k = problem.n_components
    longest = max(problem.matrix.n_samples, problem.matrix.n_features)
    fixed = 8 * (3 * k * problem.narrow + 6 * k * k + longest + 2 * rows * k)
    return fixed, 8 * (rows * k + k * k)


def _with_left(
    problem: Problem, squares: Float64, right: Float64, mean: Float64, rounding: Float64 | float, workers: int
) -> tuple[Float64, Float64, Array]:
    rows = problem.rows(mean if problem.center else None)
    left = np.zeros((problem.matrix.n_samples, problem.n_components), problem.out_dtype)
    sigma, right = long_vectors(rows, right, np.sqrt(squares), _live(squares, rounding), left, workers)
    return sigma, right, left


def _by_features(problem: Problem) -> Decomposition:
    matrix, k = problem.matrix, problem.n_components
    d = matrix.n_features
    fixed, per_worker = cross_moments_memory([matrix])
    fixed = max(fixed, 8 * (4 * d * d + 3 * d * k))
    if problem.want_left:
        left_fixed, left_worker = _left_memory(problem, problem.rows(None).bounds()[0][1])
        fixed += left_fixed
        per_worker = max(per_worker, largest_block(Rows(matrix, None)) + left_worker)
    on_device = problem.device.features_bytes(k if problem.want_left else 0) if problem.device else 0
    workers = problem.workers(fixed, per_worker, f"a spectrum of {d} features", on_device)
    pairs = feature_pairs(
        matrix, k, center=problem.center, tol=problem.tol, n_jobs=workers, device=problem.device
    )
    sigma, right, left = np.sqrt(pairs.values), pairs.vectors, None
    if problem.want_left:
        sigma, right, left = _with_left(problem, pairs.values, right, pairs.mean, pairs.errors, workers)
    n_passes = pairs.n_passes + int(problem.want_left)
    return Decomposition(sigma, right, left, pairs.errors, np.zeros(k), pairs.trace, pairs.mean, n_passes)


def _by_samples(problem: Problem) -> Decomposition:
    matrix, k = problem.matrix, problem.n_components
    n, d = matrix.n_samples, matrix.n_features
    strips = problem.strips()
    bounds = strips.bounds()
    left_fixed, left_worker = _left_memory(problem, bounds[0][1])
    held = max(len(bounds).bit_length() + 1, 4)
    workers = problem.workers(
        8 * (held * n * n + 3 * n * k) + left_fixed,
        2 * largest_block(strips) + max(8 * n * n, left_worker),
        f"a spectrum of {n} samples by {d} features",
        problem.device.samples_bytes(k) if problem.device else 0,
    )
    products = strips.gram(workers)
    trace = float(np.trace(products))
    rounding = _rounding(strips, trace)
    squares, left, residuals = leading_eigenpairs(products, k)
    components = np.zeros((k, d), problem.out_dtype)
    sigma, left = long_vectors(
        strips, left, np.sqrt(squares), _live(squares, rounding), components.T, workers
    )
    return Decomposition(
        sigma,
        components.T,
        left.astype(problem.out_dtype) if problem.want_left else None,
        residuals + rounding,
        np.zeros(k),
        trace,
        np.zeros(d) if strips.mean is None else strips.mean,
        2,
    )


def _by_krylov(problem: Problem) -> Decomposition:
    matrix, k, block = problem.matrix, problem.n_components, problem.block
    fixed, per_worker = wide_memory(matrix, block, problem.n_passes, problem.tol)
    if problem.want_left:
        left_fixed, left_worker = _left_memory(problem, problem.rows(None).bounds()[0][1])
        fixed += left_fixed
        per_worker = max(per_worker, largest_block(Rows(matrix, None)) + left_worker)
    on_device = problem.device.krylov_bytes(block) if problem.device else 0
    workers = problem.workers(
        fixed, per_worker, f"a Krylov spectrum of {matrix.n_features} features", on_device
    )
    pairs = wide_pairs(
        matrix,
        k,
        block,
        center=problem.center,
        tol=problem.tol,
        n_passes=problem.n_passes,
        # The vectors of the other side come from float64 products, and mend the values.
        finish=not problem.want_left,
        random=problem.random,
        n_jobs=workers,
        device=problem.device,
    )
    sigma, right, left = np.sqrt(pairs.values), pairs.vectors, None
    if problem.want_left:
        sigma, right, left = _with_left(problem, pairs.values, right, pairs.mean, pairs.rounding, workers)
    n_passes = pairs.n_passes + int(problem.want_left)
    return Decomposition(
        sigma, right, left, pairs.rounding, pairs.truncation, pairs.trace, pairs.mean, n_passes
    )


def decompose(problem: Problem) -> Decomposition:
    """Leading singular triplets; the caller limits BLAS to one thread.

    Raises
    ------
    ValueError
        Where the squares of the values are too small for float64.
    """
    direct = problem.narrow <= _DIRECT_WIDTHS * problem.block
    if problem.method == "krylov" or (problem.method == "auto" and not direct):
        found = _by_krylov(problem)
    elif problem.matrix.n_samples < problem.matrix.n_features:
        found = _by_samples(problem)
    else:
        found = _by_features(problem)
    if found.sum_of_squares < _LEAST_SQUARES and _has_values(problem):
        raise ValueError(f"{problem.matrix.name}: the squares of the values underflow float64; scale it up")
    return found


def _has_values(problem: Problem) -> bool:
    """Whether a matrix is other than zero; where centred, other than one row repeated."""
    matrix = problem.matrix
    origin = matrix.block(0, 1) if problem.center else np.zeros((1, 1))
    bounds = leaf_bounds([matrix])
    return any(bool((matrix.block(*leaf) != origin).any()) for leaf in bounds)
