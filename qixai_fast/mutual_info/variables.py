"""What the nearest-neighbour estimators need of one variable, worked out once and shared by all its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .._cluster import mapped
from .._memory import release_pages
from .._random import as_generator
from .._validate import Float64, Matrix, as_index, check_finite
from ..kernels.axis_cpu import PAD, Axis, make_axis, pad_in_place
from .atoms import find_atoms
from .lattice import Lattice, find_lattice
from .pairing import Index

Int32 = npt.NDArray[np.int32]

# Bytes a sample: a Variable with both jitter streams, and the most that making one takes besides.
VARIABLE_BYTES = 60
PREPARE_BYTES = 104
_CHECK_BYTES = 2**20


@dataclass(frozen=True)
class View:
    """A variable's values ready for distances.

    Attributes
    ----------
    values : (n,) float64
        In sample order, scaled, and spread within their lattice cells where they lie on one.
    order : (m,) int32
        The continuous samples, ascending in value.
    axis : Axis or None
        Their values, sorted, for pairs of scalars; None where there are not two different ones.
    rank : (n,) int32 or None
        Place of each sample in ``order``, where all are continuous.
    """

    values: Float64
    order: Int32
    axis: Axis | None = None
    rank: Int32 | None = None

    @classmethod
    def of(cls, values: Float64, order: Int32, *, axis: bool) -> View:
        """A view, with its axis and ranks where wanted."""
        if not axis:
            return cls(values, order)
        padded = np.empty(len(order) + 2 * PAD)
        np.take(values, order, out=padded[PAD : PAD + len(order)])
        if len(order) < 2 or padded[PAD] == padded[PAD + len(order) - 1]:
            return cls(values, order)
        rank = None
        if len(order) == len(values):
            rank = np.empty(len(order), np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
        return cls(values, order, make_axis(pad_in_place(padded, len(order))), rank)

    def permuted(self, order: Index, inverse: Int32) -> View:
        """The view of ``values[order]``: what is sorted stays, only whose values they are changes."""
        rank = None if self.rank is None else self.rank[order]
        return replace(self, values=self.values[order], order=inverse[self.order], rank=rank)


@dataclass(frozen=True)
class Variable:
    """One variable, split into atoms and a continuous part.

    Attributes
    ----------
    codes : (n,) int32
        0 for a continuous sample, i for atom i - 1.
    atoms : tuple of float
    lattice : Lattice or None
        Of the continuous part; None where there is none.
    tie_fraction : float
        Share of the samples whose value another sample has, too.
    views : tuple of View
        One; two, with independent jitter, for a variable spread over its lattice.
    key : tuple of int
        Orders variables by their ranks, then values, for :func:`choose_views`; (0, 0) with one view.
    """

    codes: Int32
    atoms: tuple[float, ...]
    lattice: Lattice | None
    tie_fraction: float
    views: tuple[View, ...]
    key: tuple[int, int]

    @property
    def n_codes(self) -> int:
        return len(self.atoms) + 1

    def view(self, stream: int) -> View:
        """The view with the given jitter stream; the only one where there is no jitter."""
        return self.views[min(stream, len(self.views) - 1)]

    def permuted(self, order: Index) -> Variable:
        """The variable whose sample i is this one's sample ``order[i]``; nothing is sorted again.

        Its estimates equal those of the permuted data. Lattice jitter moves with the samples, so that a
        permuted variable holds the very same values.

        Parameters
        ----------
        order : (n,) int64
            A permutation.
        """
        inverse = np.empty(len(order), dtype=np.int32)
        inverse[order] = np.arange(len(order), dtype=np.int32)
        return replace(
            self,
            codes=self.codes[order],
            views=tuple(view.permuted(order, inverse) for view in self.views),
        )


def choose_views(x: Variable, y: Variable) -> tuple[View, View]:
    """Views with independent jitter, the same two when x and y are exchanged."""
    stream = int(x.key > y.key)
    return x.view(stream), y.view(1 - stream)


def seed_of(random_state: Any) -> int:
    """The seed of the jitter streams; None is seed 0, a generator gives its next integer."""
    if random_state is None:
        return 0
    seed = as_index(random_state)
    if seed is not None and seed >= 0:
        return seed
    return int(as_generator(random_state).integers(2**63))


@dataclass
class Jitter:
    """Uniform draws for two independent streams, and for each dimension of a vector within them."""

    seed: int
    n_samples: int
    _drawn: dict[int, Float64] = field(default_factory=dict)

    def stream(self, stream: int, dimension: int) -> Float64:
        """(n_samples,) draws from [0, 1); those of dimension 0 are kept for all scalar variables."""
        if dimension == 0 and stream in self._drawn:
            return self._drawn[stream]
        draws = np.random.default_rng([self.seed, stream, dimension]).random(self.n_samples)
        if dimension == 0:
            self._drawn[stream] = draws
        return draws


def standard_deviation(values: Float64) -> float:
    """Standard deviation about the mean, safe from overflow; 1 for fewer than two values or a constant."""
    if len(values) < 2:
        return 1.0
    offsets = values - values[len(values) // 2]
    largest = float(np.max(np.abs(offsets)))
    if not 0 < largest < np.inf:
        return 1.0
    offsets /= largest
    return largest * float(offsets.std()) or 1.0


def prepare_variable(
    values: Float64,
    name: str,
    dtype: np.dtype[Any],
    *,
    n_neighbors: int,
    scale: str | None,
    atoms: str,
    jitter: Jitter,
    dimension: int = 0,
    axis: bool = True,
) -> Variable:
    """Sort a variable, find its atoms and lattice, scale it.

    Parameters
    ----------
    values : (n,) float64
        Finite.
    name : str
        For messages.
    dtype : numpy dtype
        As the variable came.
    n_neighbors, scale, atoms
        As :func:`qixai_fast.mutual_info_ksg` takes them.
    jitter : Jitter
    dimension : int
        Which component of a vector this is.
    axis : bool
        Whether views get what pairs of scalars need.
    """
    n = len(values)
    order = np.argsort(values).astype(np.int32)
    ascending = values[order]
    if ascending[-1] / 2 - ascending[0] / 2 > np.finfo(np.float64).max / 2:
        raise ValueError(f"{name}: its range overflows float64; divide it by a constant first")
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
    distinct = ascending[starts]
    counts = np.diff(starts, append=n)
    lattice = find_lattice(distinct, n, dtype)
    level_codes = np.zeros(len(distinct), dtype=np.int32)
    at = np.zeros(0, dtype=np.intp)
    if atoms == "auto":
        at = find_atoms(distinct, counts, n_neighbors, lattice)
        level_codes[at] = np.arange(1, len(at) + 1)
    tied = float(counts[counts > 1].sum() / n)
    codes = np.empty(n, dtype=np.int32)
    codes[order] = np.repeat(level_codes, counts)
    continuous = order[codes[order] == 0] if len(at) else order
    if len(continuous) == 0:
        lattice = None
    repeats = bool(np.any(counts[level_codes == 0] > 1))
    key = (0, 0)
    views: tuple[View, ...]
    if atoms == "auto" and lattice is not None and repeats:
        ranks = np.empty(n, dtype="<u4")
        ranks[order] = np.repeat(np.arange(len(distinct), dtype="<u4"), counts)
        key = (xxhash.xxh3_64_intdigest(ranks.data), xxhash.xxh3_64_intdigest(values.data))
        del ranks, ascending
        views = tuple(
            _spread_view(values, codes, lattice, scale, jitter.stream(s, dimension), axis) for s in (0, 1)
        )
    else:
        scaled = values.copy()
        if scale == "std":
            scaled /= standard_deviation(values[continuous])
        views = (View.of(scaled, np.ascontiguousarray(continuous), axis=axis),)
    return Variable(codes, tuple(float(v) for v in distinct[at]), lattice, tied, views, key)


def plain_variable(values: Float64) -> Variable:
    """A variable as it is, and sorted: not scaled, without atoms, and no lattice is looked for.

    Parameters
    ----------
    values : (n,) float64
        Finite, with a range that does not overflow; kept, not copied.
    """
    order = np.argsort(values).astype(np.int32)
    codes = np.zeros(len(values), dtype=np.int32)
    return Variable(codes, (), None, 0.0, (View.of(values, order, axis=True),), (0, 0))


def _spread_view(
    values: Float64, codes: Int32, lattice: Lattice, scale: str | None, uniform: Float64, axis: bool
) -> View:
    """The variable with its continuous part spread within its lattice cells."""
    members = np.flatnonzero(codes == 0).astype(np.int32)
    spread = lattice.spread(values[members], uniform[members])
    if scale == "std":
        spread /= standard_deviation(spread)
    placed = values.copy()
    placed[members] = spread
    return View.of(placed, members[np.argsort(spread)], axis=axis)


@dataclass(frozen=True)
class _FiniteRows:
    """Check a block of rows."""

    matrix: Matrix
    rows: int

    def __call__(self, start: int) -> None:
        view = self.matrix.data[start : start + self.rows]
        check_finite(view, self.matrix.name, first_row=start)
        release_pages(view)


def check_matrix_finite(matrix: Matrix) -> None:
    """Raise ValueError naming the first row and column that is NaN or infinite, in one read."""
    if matrix.dtype.kind != "f":
        return
    rows = max(1, _CHECK_BYTES // (8 * matrix.n_features))
    for _ in mapped(_FiniteRows(matrix, rows), range(0, matrix.n_samples, rows), 1):
        pass


def read_columns(matrix: Matrix, columns: Sequence[int]) -> Float64:
    """Some columns as a new (len(columns), n_samples) float64 array, one variable a row."""
    data = matrix.data
    out = np.empty((len(columns), matrix.n_samples))
    if data.flags.f_contiguous:
        for row, column in enumerate(columns):
            out[row] = data[:, column]
            release_pages(data[:, column])
        return out
    # The pages of a mapped file hold whole rows: those of a block count as memory until they are let go.
    row = max(8 * len(columns), data.itemsize * data.shape[1] // 4)
    rows = max(1, _CHECK_BYTES // row)
    chosen = list(columns)
    for start in range(0, matrix.n_samples, rows):
        view = data[start : start + rows]
        out[:, start : start + rows] = view[:, chosen].T
        release_pages(view)
    return out
