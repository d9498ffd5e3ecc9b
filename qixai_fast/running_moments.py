"""Moments of chunks of samples that come one after the other, and the spectra that they hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._memory import workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import Float64, Matrix
from .feature_products import leading_eigenpairs
from .statistics import CrossMoments, check_squares, combine_tree, leaf_bounds, leaf_shift

# Below, squares of single values have lost digits to float64's denormal numbers.
LEAST_SQUARES = 1e-290
# Of an outer product at a time, so that it stays in cache and out of the budget.
_OUTER_ROWS = 64
UNDERFLOW = "X: the squares of the values underflow float64; scale the input up"


@dataclass(frozen=True)
class RunningMoments:
    """Samples, means and centred sums of products of all chunks so far.

    Every chunk keeps moments about its own mean, so that no chunk, and no order of them, decides what
    the others are taken about: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979), for all pairs of columns.

    Attributes
    ----------
    n : int
    origin : ndarray of shape (d,)
        The mean of the first chunk.
    offset : ndarray of shape (d,)
        What the mean of all is beyond it: means far larger than the spread have fewer digits to spare.
    scatter : ndarray of shape (d, d)
        Centred sums of products.
    """

    n: int
    origin: Float64
    offset: Float64
    scatter: Float64

    @property
    def mean(self) -> Float64:
        return self.origin + self.offset

    @classmethod
    def of(cls, moments: CrossMoments) -> RunningMoments:
        """The moments of a first chunk."""
        return cls(moments.n, moments.mean, np.zeros_like(moments.mean), moments.scatter)

    def with_chunk(self, chunk: CrossMoments) -> RunningMoments:
        """The moments of these samples and a chunk's; takes over the chunk's memory.

        Examples
        --------
        >>> import numpy as np
        >>> from qixai_fast._validate import as_matrix
        >>> from qixai_fast.statistics import cross_moments
        >>> first, second = (cross_moments([as_matrix(rows)]) for rows in ([[1.0], [3.0]], [[8.0]]))
        >>> both = RunningMoments.of(first).with_chunk(second)
        >>> both.n, both.mean, both.scatter
        (3, array([4.]), array([[26.]]))
        """
        n = self.n + chunk.n
        with np.errstate(over="ignore", invalid="ignore"):
            between = (chunk.mean - self.origin) - self.offset
            weighted = between * (self.n / n * chunk.n)
            scatter = chunk.scatter
            scatter += self.scatter
            for start in range(0, len(between), _OUTER_ROWS):
                rows = slice(start, start + _OUTER_ROWS)
                scatter[rows] += np.outer(weighted[rows], between)
            offset = self.offset + between * (chunk.n / n)
        if not np.isfinite(np.trace(scatter)):
            raise ValueError("X: the squares of the values overflow float64; scale the input down")
        return RunningMoments(n, self.origin, offset, scatter)

    def about_zero(self) -> Float64:
        """Sums of products as they are, shape (d, d), as new memory."""
        mean = self.mean
        raw: Float64 = self.n * np.outer(mean, mean)
        raw += self.scatter
        return raw


def check_underflow(moments: CrossMoments, matrix: Matrix) -> None:
    """Raise ValueError where rows differ by so little that float64 has lost digits of their squares.

    The rows are read again only where the squares are that small.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast._validate import as_matrix
    >>> from qixai_fast.statistics import cross_moments
    >>> X = as_matrix(np.array([[1e-200], [3e-200]]))
    >>> check_underflow(cross_moments([X]), X)
    Traceback (most recent call last):
    ...
    ValueError: X: the squares of the values underflow float64; scale the input up
    """
    if float(np.trace(moments.scatter)) >= LEAST_SQUARES:
        return
    first = matrix.block(0, 1)
    if any(bool((matrix.block(*leaf) != first).any()) for leaf in leaf_bounds([matrix])):
        raise ValueError(UNDERFLOW)


def leading_components(products: Float64, k: int) -> tuple[Float64, Float64]:
    """The ``k`` largest eigenvalues of a symmetric matrix, and their vectors as rows, largest first.

    The entry of largest absolute value of every vector is positive.

    Examples
    --------
    >>> import numpy as np
    >>> leading_components(np.diag([1.0, 3.0]), 1)
    (array([3.]), array([[0., 1.]]))
    """
    values, vectors, _ = leading_eigenpairs(products, k)
    return values, oriented_rows(vectors)


def oriented_rows(vectors: Float64) -> Float64:
    """Columns as rows, the entry of largest absolute value of each made positive."""
    rows = np.ascontiguousarray(vectors.T)
    largest = rows[np.arange(len(rows)), np.argmax(np.abs(rows), axis=1)]
    rows[largest < 0] *= -1
    rows += 0.0
    return rows


def total_variance(matrix: Matrix, n_jobs: int, budget: int | None) -> float:
    """The variance of all features together, over ``n_samples``, in one read.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast._validate import as_matrix
    >>> total_variance(as_matrix(np.array([[1.0, 0.0], [3.0, 0.0]])), 1, None)
    1.0
    """
    bounds = leaf_bounds([matrix])
    width = 8 * matrix.n_features
    leaf = width * (bounds[0][1] - bounds[0][0])
    held = width * (len(bounds).bit_length() + 4)
    workers = workers_within(
        budget, n_jobs, fixed=leaf + held, per_worker=leaf + width + 2**16, work="a variance"
    )
    shift = leaf_shift(matrix.block(*bounds[0]))

    def chunk(rows: tuple[int, int]) -> tuple[Float64, float]:
        block = matrix.block(*rows)
        with np.errstate(over="ignore", invalid="ignore"):
            block -= shift
            return block.sum(axis=0), float(np.vdot(block, block))

    def add(first: tuple[Float64, float], second: tuple[Float64, float]) -> tuple[Float64, float]:
        return first[0] + second[0], first[1] + second[1]

    with single_threaded_blas():
        total, squares = combine_tree(ordered_map(chunk, bounds, workers), add)
    check_squares(squares, [matrix])
    n = matrix.n_samples
    return max(squares - float(total @ total) / n, 0.0) / n
