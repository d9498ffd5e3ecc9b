"""Layers as quantum states: samples of unit norm, their tensor products, and the spectrum of their mean."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ._cluster import mapped
from ._entropies import PartialSpectrum, entropy
from ._memory import require_budget, workers_within
from ._products import RowProducts, gram, gram_memory
from ._threads import ordered_map, single_threaded_blas
from ._unit_rows import UnitRows
from ._validate import PIECE_BYTES, Array, Float64, Matrix, piece_rows
from .bins import row_blocks
from .statistics import leaf_bounds, reduce_rows

Mask = npt.NDArray[np.bool_]

# Eigenvalues of a matrix of this side take about half a minute on one core, and 400 MB.
EXACT_SIDE = 5000
DEFAULT_RANK = 256
# Applications of the matrix, and so blocks of vectors.
_SWEEPS = 6
# The trace is 1; what is smaller tells nothing that is above rounding.
_NOISE = 1e-14
_WIDE_BOUND = 0.05
_MIN_STRIP = 32
_MAX_STRIP = 1024
_STRIP_ENTRIES = 2**22


@dataclass(frozen=True)
class States(UnitRows):
    """Samples as states.

    Attributes
    ----------
    dropped : ndarray of shape (n_samples,), bool, or None
        Samples that are left out: read as zeros. None refuses samples of zeros, which are no states.
    """

    dropped: Mask | None

    def fill(self, target: Array, start: int, stop: int) -> None:
        super().fill(target, start, stop)
        if self.dropped is not None:
            target[self.dropped[start:stop]] = 0.0
            return
        zero: Mask = self.is_zero[start:stop]
        if zero.any():
            raise ValueError(
                f"{self.name}: the sample at row {start + int(np.argmax(zero))} is all zeros, which is no "
                "state; leave such samples out, or pass zero_samples='drop'"
            )


@dataclass(frozen=True)
class _Products(Matrix):
    """Tensor products of the states of two layers: row i is ``kron(a_i, b_i)``."""

    parts: tuple[States, States]

    @property
    def n_features(self) -> int:
        return self.parts[0].n_features * self.parts[1].n_features

    def block(self, start: int, stop: int) -> Float64:
        first, second = (part.block(start, stop) for part in self.parts)
        products: Float64 = np.einsum("ij,ik->ijk", first, second).reshape(stop - start, -1)
        return products


def states_of(matrices: Sequence[Matrix], zero_samples: str) -> list[States]:
    """View layers of the same samples as states; those that are zero in one are dropped from all."""
    dropped = None
    if zero_samples == "drop":
        dropped = np.zeros(matrices[0].n_samples, dtype=bool)
        for matrix in matrices:
            bounds = row_blocks(matrix.n_samples, piece_rows(matrix.n_features))
            for (start, stop), zero in zip(bounds, mapped(_ZeroRows(matrix), bounds, 1), strict=True):
                dropped[start:stop] |= zero
        if dropped.all():
            names = " and ".join(matrix.name for matrix in matrices)
            nothing = "every sample is all zeros" + (" in one of them" if len(matrices) > 1 else "")
            raise ValueError(f"{names}: {nothing}, so there is no state")
    return [
        States(m.name, m.data, m.home, False, np.zeros(m.n_samples, dtype=bool), dropped) for m in matrices
    ]


@dataclass(frozen=True)
class _ZeroRows:
    """Which of some rows are all zeros."""

    matrix: Matrix

    def __call__(self, bounds: tuple[int, int]) -> Mask:
        return np.asarray(~self.matrix.block(*bounds).any(axis=1))


@dataclass(frozen=True)
class _Image:
    """``A^T A`` times some vectors (a :class:`~qixai_fast.statistics.RowStatistic`)."""

    vectors: Float64

    def chunk(self, blocks: Sequence[Float64]) -> Float64:
        (block,) = blocks
        image: Float64 = block.T @ (block @ self.vectors)
        return image

    def combine(self, first: Float64, second: Float64) -> Float64:
        first += second
        return first


@dataclass(frozen=True)
class _UpperRows:
    """Some rows of ``A^T A``, from the diagonal on (a :class:`~qixai_fast.statistics.RowStatistic`)."""

    first: int
    last: int

    def chunk(self, blocks: Sequence[Float64]) -> Float64:
        (block,) = blocks
        rows: Float64 = block[:, self.first : self.last].T @ block[:, self.first :]
        return rows

    def combine(self, first: Float64, second: Float64) -> Float64:
        first += second
        return first


@dataclass(frozen=True)
class Ensemble:
    """The mean of the projectors on the states of one layer, or on the products of those of two.

    Attributes
    ----------
    parts : tuple of States
        One or two.
    """

    parts: tuple[States, ...]

    @property
    def n_samples(self) -> int:
        return self.parts[0].n_samples

    @property
    def dimension(self) -> int:
        return math.prod(part.n_features for part in self.parts)

    @property
    def side(self) -> int:
        """Side of the smaller matrix with its eigenvalues: features by features, or samples by samples."""
        return min(self.n_samples, self.dimension)

    @property
    def over_features(self) -> bool:
        return self.dimension <= self.n_samples

    @property
    def n_states(self) -> int:
        dropped = self.parts[0].dropped
        return self.n_samples - (0 if dropped is None else int(np.count_nonzero(dropped)))

    @property
    def _rows(self) -> Matrix:
        if len(self.parts) == 1:
            return self.parts[0]
        first, second = self.parts
        return _Products(f"{first.name} and {second.name}", first.data, first.home, (first, second))

    # All of the spectrum ----------------------------------------------------------------------

    def matrix_memory(self) -> tuple[int, int]:
        """Bytes that :meth:`matrix` and its eigenvalues take: once, and for each worker."""
        square = 8 * self.side**2
        if not self.over_features:
            each = max(gram_memory(part)[1] for part in self.parts)
            strips = max(_hadamard(part).per_worker for part in self.parts)
            return 2 * square + 2**16, each + strips
        bounds = leaf_bounds([self._rows])
        leaf = 8 * self.dimension * (bounds[0][1] - bounds[0][0])
        held = len(bounds).bit_length() + 1
        return (held + 1) * square + 2**16, 2 * leaf + square + 2 * PIECE_BYTES + 2**16

    def matrix(self, n_jobs: int) -> Float64:
        """The smaller matrix itself, trace 1: a density matrix, or a product of Gram matrices."""
        if self.over_features:
            with single_threaded_blas():
                matrix: Float64 = reduce_rows(_UpperRows(0, self.dimension), [self._rows], n_jobs)
        else:
            matrix = gram(self.parts[0], n_jobs)
            for part in self.parts[1:]:
                _multiply_by_gram(matrix, part, n_jobs)
        matrix /= np.trace(matrix)
        return matrix

    # Norms of it, a few rows at a time --------------------------------------------------------

    @property
    def _strip_width(self) -> int:
        """Rows of the density matrix that are held at once."""
        return min(self.dimension, _MAX_STRIP, max(_MIN_STRIP, _STRIP_ENTRIES // self.dimension))

    def norms_memory(self) -> tuple[int, int]:
        """Bytes that :meth:`upper_rows` takes: once, and for each worker."""
        bounds = leaf_bounds([self._rows])
        leaf = 8 * self.dimension * (bounds[0][1] - bounds[0][0])
        strip = 8 * self.dimension * self._strip_width
        held = len(bounds).bit_length() + 2
        return held * strip + 2**16, 2 * leaf + strip + 2 * PIECE_BYTES + 2**16

    def upper_rows(self, n_jobs: int) -> Iterator[Float64]:
        """Rows of the density matrix times the number of states, from the diagonal on; all, in order.

        The rows ``first:last`` come with the columns from ``first`` on: a square on the diagonal, then the
        rest, which the lower triangle has too.
        """
        for first in range(0, self.dimension, self._strip_width):
            last = min(first + self._strip_width, self.dimension)
            with single_threaded_blas():
                rows: Float64 = reduce_rows(_UpperRows(first, last), [self._rows], n_jobs)
            yield rows

    def sum_over_entries(self, function: Callable[[Float64], Float64], n_jobs: int) -> float:
        """Sum of a function of all entries of the density matrix times the number of states."""
        parts = []
        for rows in self.upper_rows(n_jobs):
            values = function(rows)
            parts += [float(values[:, : len(rows)].sum()), 2.0 * float(values[:, len(rows) :].sum())]
        return math.fsum(parts)

    def squared_norm(self, n_jobs: int) -> float:
        """Sum of the squares of all eigenvalues, the cheaper way."""
        samples = self.n_samples * sum(part.n_features for part in self.parts)
        if self.over_features and samples > self.dimension**2:
            squares = self.sum_over_entries(np.square, n_jobs)
        else:
            squares = self._over_samples(None, n_jobs)[1]
        return squares / self.n_states**2

    # The leading part -------------------------------------------------------------------------

    def partial_memory(self, rank: int) -> tuple[int, int]:
        """Bytes that :meth:`partial` takes: once, and for each worker."""
        tile = self._tile
        tiles = 8 * tile * (2 * sum(part.n_features for part in self.parts) + 3 * tile + 2 * rank)
        vectors = 8 * self.side * rank
        # The blocks; their image, its basis twice and a product on the way; the eigenproblem.
        space = (_SWEEPS + 4) * vectors + 8 * 5 * (_SWEEPS * rank) ** 2 + 2**16
        if not self.over_features:
            return space, tiles + 2 * PIECE_BYTES + 2**16
        bounds = leaf_bounds([self._rows])
        leaf = (bounds[0][1] - bounds[0][0]) * 8 * (2 * self.dimension + rank)
        norms, each = self.norms_memory()
        passes = len(bounds).bit_length() * vectors + space
        return max(passes, norms), max(vectors + max(leaf, tiles) + 2 * PIECE_BYTES + 2**16, each)

    def partial(self, rank: int, n_jobs: int) -> PartialSpectrum:
        """Ritz values of a block Krylov space from a fixed random start, and the norm of all.

        Of all that is in the space, the matrix maps only the last block to outside of it.
        """
        image = np.random.default_rng(0).standard_normal((self.side, rank))
        blocks: list[Float64] = []
        products: list[Float64] = []
        with single_threaded_blas():
            for _ in range(_SWEEPS):
                fresh = _new_directions(image, blocks)
                if fresh.shape[1] == 0:
                    break
                blocks.append(fresh)
                image = self._apply(fresh, n_jobs)
                parts = [block.T @ image for block in blocks]
                for block, part in zip(blocks, parts, strict=True):
                    image -= block @ part
                products.append(np.concatenate(parts))
            size = len(products[-1])
            within = np.zeros((size, size))
            for column in products:
                stop, width = column.shape
                within[:stop, stop - width : stop] = column
            values, turn = np.linalg.eigh(within, UPLO="U")
            outside = image @ turn[-image.shape[1] :, ::-1]
        residuals = np.einsum("ij,ij->j", outside, outside)
        norm = self.squared_norm(n_jobs)
        return PartialSpectrum(values[::-1].astype(np.float64), residuals, norm, self.side)

    def _apply(self, vectors: Float64, n_jobs: int) -> Float64:
        """The smaller matrix times some vectors."""
        if self.over_features:
            image: Float64 = reduce_rows(_Image(vectors), [self._rows], n_jobs)
        else:
            image = self._over_samples(vectors, n_jobs)[0]
        image /= self.n_states
        return image

    @property
    def _tile(self) -> int:
        return min(_hadamard(part).tile_rows for part in self.parts)

    def _over_samples(self, vectors: Float64 | None, n_jobs: int) -> tuple[Float64, float]:
        """Product of Gram matrices, tile by tile: times some vectors, or else its squared norm."""
        n, tile = self.n_samples, self._tile
        image = np.empty((0, 0) if vectors is None else vectors.shape)

        def rows_of(start: int) -> list[Float64]:
            return [part.block(start, min(start + tile, n)) for part in self.parts]

        def strip(first: int) -> float:
            left, squares = rows_of(first), 0.0
            if vectors is not None:
                image[first : first + tile] = 0.0
            for start in range(first if vectors is None else 0, n, tile):
                right = left if start == first else rows_of(start)
                product = left[0] @ right[0].T
                for one, other in zip(left[1:], right[1:], strict=True):
                    product *= one @ other.T
                if vectors is None:
                    squares += float(np.vdot(product, product)) * (1 if start == first else 2)
                else:
                    image[first : first + tile] += product @ vectors[start : start + tile]
            return squares

        with single_threaded_blas():
            squares = math.fsum(ordered_map(strip, range(0, n, tile), n_jobs))
        return image, squares


def _new_directions(image: Float64, blocks: Sequence[Float64]) -> Float64:
    """Orthonormal basis of what vectors, less their parts along some blocks, are beyond rounding."""
    basis, triangle, _ = scipy.linalg.qr(image, mode="economic", pivoting=True)
    kept = basis[:, np.abs(np.diagonal(triangle)) > _NOISE].astype(np.float64, copy=False)
    # Once more: small vectors may consist of rounding to a large part.
    for block in blocks:
        kept -= block @ (block.T @ kept)
    return np.linalg.qr(kept)[0].astype(np.float64, copy=False)


def _hadamard(part: Matrix) -> RowProducts:
    return RowProducts(part, part, np.dtype(np.float64), symmetric=True)


def _multiply_by_gram(matrix: Float64, part: Matrix, n_jobs: int) -> None:
    """Multiply a symmetric matrix with the Gram matrix of a layer, entry by entry."""

    def multiply(first_x: int, first_y: int, tile: Array) -> None:
        rows, columns = slice(first_x, first_x + tile.shape[0]), slice(first_y, first_y + tile.shape[1])
        matrix[rows, columns] *= tile
        if first_x != first_y:
            matrix[columns, rows] = matrix[rows, columns].T

    _hadamard(part).run(multiply, n_jobs=n_jobs)


def entropies(
    ensembles: Sequence[Ensemble], alpha: float, rank: int | None, *, n_jobs: int, budget: int | None
) -> list[tuple[float, float]]:
    """Entropy of order ``alpha`` of each ensemble, and how far from it the true one can be."""
    leading = DEFAULT_RANK if rank is None else rank
    plans = []
    for ensemble in ensembles:
        whole = ensemble.side <= (EXACT_SIDE if rank is None else rank)
        fixed, each = ensemble.matrix_memory() if whole else ensemble.partial_memory(leading)
        plans.append((whole, fixed + 3 * ensemble.n_samples * len(ensembles), each))
    sides = " and ".join(str(ensemble.side) for ensemble in ensembles)
    work = f"density matrices of side {sides}"
    # Before any of them is computed, the largest has to fit.
    require_budget(budget, max(fixed + each for _, fixed, each in plans), work)
    found = []
    for ensemble, (whole, fixed, each) in zip(ensembles, plans, strict=True):
        workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=each, work=work)
        if whole:
            matrix = ensemble.matrix(workers)
            with single_threaded_blas():
                eigenvalues = np.linalg.eigvalsh(matrix).astype(np.float64, copy=False)
            found.append((entropy(eigenvalues, alpha), 0.0))
        else:
            low, high = ensemble.partial(leading, workers).bounds(alpha)
            found.append(((low + high) / 2, max(0.0, (high - low) / 2)))
    return found


def warn_of_bound(bound: float) -> None:
    """Warn the caller of a public function of a bound that it did not ask for, where it is wide."""
    if bound > _WIDE_BOUND:
        warnings.warn(
            f"only the leading eigenvalues were computed: the value is known to within {bound:.2g} nats; "
            "pass return_bound=True for this bound, a larger rank for a smaller one",
            UserWarning,
            stacklevel=4,
        )
