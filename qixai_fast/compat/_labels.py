"""Scores of two labellings, from the counts of the pairs of labels that occur."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._validate import Array, Float64
from ._arguments import check_array_like, check_no_nan, is_sparse, read_array

Int64 = npt.NDArray[np.int64]

AVERAGE_METHODS = ("arithmetic", "max", "min", "geometric")
_EPSILON = float(np.finfo(np.float64).eps)
# A table of counts may have this many cells however few the labels.
_SMALL_TABLE = 4096
# Strings of at most as many letters are numbered letter by letter.
_SHORT_STRING = 32


@dataclass(frozen=True)
class Codes:
    """Labels as numbers from 0 to ``span - 1``, some of which may not occur."""

    values: Int64
    span: int


@dataclass(frozen=True)
class Contingency:
    """How often each pair of labels occurs.

    Attributes
    ----------
    counts : (m,) int64
        Of the pairs that occur.
    rows, columns : (m,) int64
        Their places in the sums.
    row_sums, column_sums : int64
        How often each label occurs; may have zeros.
    """

    counts: Int64
    rows: Int64
    columns: Int64
    row_sums: Int64
    column_sums: Int64

    @property
    def n_rows(self) -> int:
        return int(np.count_nonzero(self.row_sums))

    @property
    def n_columns(self) -> int:
        return int(np.count_nonzero(self.column_sums))


def is_continuous(array: Array) -> bool:
    """Whether labels are floats with a fraction."""
    return array.dtype.kind == "f" and bool((array != np.trunc(array)).any())


def warn_of_continuous(names: str) -> None:
    """Tell the caller of a public function that floats with a fraction make a level each."""
    message = f"Clustering metrics expects discrete values but received continuous values for {names}"
    warnings.warn(message, UserWarning, stacklevel=4)


def read_labels(function: str, labels_true: Any, labels_pred: Any, *, none: bool = False) -> list[Array]:
    """Check two labellings: one-dimensional, of the same length, nothing missing."""
    given = {"labels_true": labels_true, "labels_pred": labels_pred}
    for name, value in given.items():
        check_array_like(function, name, value, none=none)
    arrays = {name: read_array(value, name) for name, value in given.items()}
    for name, array in arrays.items():
        if array.dtype.kind == "S":
            raise TypeError(f"{name}: labels of bytes are not supported; convert them to strings or integers")
        check_no_nan(array, name)
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"{name} must be 1D: shape is {array.shape}")
    lengths = [len(array) for array in arrays.values()]
    if lengths[0] != lengths[1]:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {lengths}")
    if continuous := [name for name, array in arrays.items() if is_continuous(array)]:
        warn_of_continuous(" and ".join(continuous))
    return list(arrays.values())


def _as_integers(array: Array) -> Int64 | None:
    """The same labels as int64, where they are integers in its range; None for all others."""
    kind = array.dtype.kind
    if kind not in "buif" or (kind == "u" and int(array.max()) >= 2**63):
        return None
    with np.errstate(invalid="ignore"):
        integers: Int64 = array.astype(np.int64, copy=False)
    return integers if kind != "f" or np.array_equal(integers, array) else None


def _within_range(integers: Int64, room: int) -> Codes | None:
    """Integers less their minimum, order and gaps kept; None where they spread too far."""
    low, high = int(integers.min()), int(integers.max())
    return Codes(integers - low, high - low + 1) if high - low < room else None


def _without_gaps(codes: Codes) -> Codes:
    occurs = np.bincount(codes.values, minlength=codes.span) > 0
    place = np.cumsum(occurs) - 1
    return Codes(place[codes.values], int(place[-1]) + 1)


def _room(n_samples: int) -> int:
    """Cells that a table of counts may have: beyond, sorting is faster."""
    return max(4 * n_samples, _SMALL_TABLE)


def _fuse(x: Codes, y: Codes) -> Codes:
    return Codes(x.values * y.span + y.values, x.span * y.span)


def _spelled(array: Array, room: int) -> Codes | None:
    """Codes of short strings, letter by letter; None where their letters spread too far."""
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    letters = native.view(np.uint32).reshape(len(array), -1)
    low, high = letters.min(axis=0).astype(np.int64), letters.max(axis=0).astype(np.int64)
    codes = Codes(np.zeros(len(array), dtype=np.int64), 1)
    for place in np.flatnonzero(high > low):
        added = Codes(letters[:, place] - low[place], int(high[place] - low[place]) + 1)
        if added.span > room:
            return None
        if codes.span * added.span > room:
            codes, added = _without_gaps(codes), _without_gaps(added)
        codes = _fuse(codes, added)
        if codes.span > room:
            distinct, values = np.unique(codes.values, return_inverse=True)
            codes = Codes(values.reshape(-1), len(distinct))
    return codes


def encode(array: Array) -> Codes:
    """Number the labels of a non-empty array, in their order.

    Integers within a range of a few times their number keep their gaps; short strings are numbered letter by
    letter; longer ones and objects go through a dictionary; what remains is sorted.
    """
    room = _room(len(array))
    codes = None
    if array.dtype.kind == "U" and array.dtype.itemsize <= 4 * _SHORT_STRING:
        codes = _spelled(array, room)
    elif (integers := _as_integers(array)) is not None:
        codes = _within_range(integers, room)
    if codes is not None:
        return codes
    if array.dtype.kind in "OU":
        labels = array.tolist()
        numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
        return Codes(np.fromiter(map(numbers.__getitem__, labels), np.int64, len(labels)), len(numbers))
    distinct, values = np.unique(array, return_inverse=True)
    return Codes(values.reshape(-1), len(distinct))


def count(x: Codes, y: Codes) -> Contingency:
    """Count the pairs of labels of two labellings with at least one sample."""
    room = _room(len(x.values))
    if x.span * y.span > room:
        x, y = _without_gaps(x), _without_gaps(y)
    fused = _fuse(x, y)
    if fused.span <= room:
        table = np.bincount(fused.values, minlength=fused.span)
        cells = np.flatnonzero(table)
        counts = table[cells]
        square = table.reshape(x.span, y.span)
        sums = square.sum(axis=1), square.sum(axis=0)
    else:
        cells, counts = np.unique(fused.values, return_counts=True)
        sums = np.bincount(x.values, minlength=x.span), np.bincount(y.values, minlength=y.span)
    rows, columns = np.divmod(cells, y.span)
    return Contingency(counts, rows, columns, *sums)


def read_contingency(function: str, contingency: Any) -> Contingency:
    """Check a table of counts, dense or sparse; fractions are cut off, as scikit-learn does."""
    check_array_like(function, "contingency", contingency, sparse=True)
    if is_sparse(contingency):
        table = contingency.tocoo()
        shape = table.shape
        values, places = table.data, table.coords if hasattr(table, "coords") else (table.row, table.col)
    else:
        table = read_array(contingency, "contingency")
        if table.ndim != 2:
            raise ValueError(f"Expected 2D array, got {table.ndim}D array instead, of shape {table.shape}")
        shape = table.shape
        places = np.nonzero(table)
        values = table[places]
    check_no_nan(values, "contingency")
    if values.dtype.kind not in "buif":
        raise ValueError(f"contingency: wanted counts, got dtype {values.dtype}")
    if len(values) and not (values.min() >= 0 and values.sum(dtype=np.float64) < 2.0**62):
        raise ValueError(f"contingency: wanted counts of at least 0, got {values.min()} to {values.max()}")
    fused = places[0].astype(np.int64) * shape[1] + places[1]
    cells, inverse = np.unique(fused, return_inverse=True)
    counts = np.zeros(len(cells), dtype=np.int64)
    np.add.at(counts, inverse.reshape(-1), values.astype(np.int64))
    cells, counts = cells[counts > 0], counts[counts > 0]
    if len(cells) == 0:
        raise ValueError(f"contingency: wanted at least one count above 0, got shape {shape} without any")
    rows, columns = np.divmod(cells, shape[1])
    sums = [np.zeros(length, dtype=np.int64) for length in shape]
    np.add.at(sums[0], rows, counts)
    np.add.at(sums[1], columns, counts)
    return Contingency(counts, rows, columns, *sums)


def information(table: Contingency) -> float:
    """Mutual information in nats, at least 0; parts that are nothing but rounding count as 0."""
    if table.n_rows <= 1 or table.n_columns <= 1:
        return 0.0
    total = float(table.counts.sum())
    whole = math.log(total)
    share = table.counts / total
    product = table.row_sums[table.rows].astype(np.float64) * table.column_sums[table.columns]
    parts = share * (np.log(table.counts) - whole) + share * (2 * whole - np.log(product))
    parts[np.abs(parts) < _EPSILON] = 0.0
    return max(0.0, float(parts.sum()))


def entropy(sums: Int64) -> float:
    """Entropy in nats of a labelling, from how often each label occurs."""
    sums = sums[sums > 0]
    if len(sums) <= 1:
        return 0.0
    counts: Float64 = sums.astype(np.float64)
    total = counts.sum()
    return float(-np.sum(counts / total * (np.log(counts) - math.log(total))))


def average(method: str, first: float, second: float) -> float:
    """A mean of two entropies."""
    if method == "min":
        return min(first, second)
    if method == "max":
        return max(first, second)
    if method == "geometric":
        return math.sqrt(first * second)
    return (first + second) / 2


def normalized(table: Contingency, method: str) -> float:
    """Mutual information over a mean of both entropies."""
    if table.n_rows == table.n_columns == 1:
        return 1.0
    value = information(table)
    if value == 0:
        return 0.0
    return value / average(method, entropy(table.row_sums), entropy(table.column_sums))


def adjusted(table: Contingency, method: str) -> float:
    """Mutual information beyond its mean over permutations, over a mean of both entropies beyond it."""
    from ..mutual_info.bias import PluginEstimator

    if len(table.counts) == table.n_rows == table.n_columns:
        return 1.0
    if table.n_rows == 1 or table.n_columns == 1:
        return 0.0
    n = int(table.counts.sum())
    entropies = entropy(table.row_sums), entropy(table.column_sums)
    if n in (table.n_rows, table.n_columns):
        # Where one side is all different, every permutation tells all of the other.
        value = chance = min(entropies)
    else:
        value = information(table)
        chance = PluginEstimator(n, None).expected_of_margins(table.row_sums, table.column_sums)
    above = value - chance
    # Neither side is ever exactly 0, so that two zeros make a perfect match.
    above = min(above, -_EPSILON) if above < 0 else max(above, _EPSILON)
    return above / max(average(method, *entropies) - chance, _EPSILON)
