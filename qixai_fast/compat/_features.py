"""Mutual information of each feature with a target, by scikit-learn's conventions.

Continuous columns are divided by their standard deviation and get a little normal noise, drawn as
scikit-learn draws it; then the KSG-1 estimator, Ross's, or the plug-in, and nothing below 0. All arithmetic
before the neighbour search is scikit-learn's, to the last bit: distances decide what is counted.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from .._threads import ordered_map, resolve_n_jobs
from .._validate import Array, Float64
from ..kernels.ross_cpu import ross_information
from ..mutual_info.pairs import digamma_table, pair_value
from ..mutual_info.variables import plain_variable
from . import _labels
from ._arguments import (
    check_array_like,
    check_boolean,
    check_n_jobs,
    check_no_nan,
    check_positive,
    check_random_state,
    is_array_like,
    is_sparse,
    loaded,
    read_array,
    refuse,
)

Mask = npt.NDArray[np.bool_]

_NOISE = 1e-10
# A standard deviation below this is taken for that of a constant.
_CONSTANT = 10 * float(np.finfo(np.float64).eps)
_BLOCK_BYTES = 2**20


def read_features(X: Any) -> Any:
    """A real matrix with rows and columns; a sparse one column by column."""
    if is_sparse(X):
        matrix = X.tocsc()
        data = matrix.data
    else:
        matrix = data = read_array(X, "X")
        if matrix.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {matrix.ndim}D array instead, of shape {matrix.shape}; "
                "reshape a single feature with X.reshape(-1, 1)"
            )
    for length, what in zip(matrix.shape, ("sample", "feature"), strict=True):
        if length == 0:
            raise ValueError(f"Found array with 0 {what}(s) (shape={matrix.shape}) while 1 is required.")
    check_no_nan(data, "X")
    if data.dtype.kind == "O":
        matrix = data = _as_float(data, "X")
        check_no_nan(data, "X")
    if data.dtype.kind not in "buif":
        raise ValueError(f"dtype {data.dtype} of X is not numeric; convert it to numbers first")
    return matrix


def _as_float(array: Array, name: str) -> Float64:
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be converted to numbers ({error})") from None


def read_target(y: Any, n_samples: int) -> Array:
    """One value for each sample; a column counts as a vector, with scikit-learn's warning."""
    target = read_array(y, "y")
    if target.ndim == 2 and target.shape[1] == 1:
        kind = loaded("sklearn.exceptions", "DataConversionWarning", UserWarning)
        message = "A column-vector y was passed when a 1d array was expected; use y.ravel()."
        warnings.warn(message, kind, stacklevel=4)
        target = target[:, 0]
    if target.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {target.shape} instead.")
    if len(target) != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[n_samples, len(target)]}"
        )
    check_no_nan(target, "y")
    return target


def check_classes(y: Array) -> None:
    """Raise ValueError unless a target can be class labels; warn where there are very many."""
    unknown = y.dtype.kind == "O" and not isinstance(y[0], str)
    if unknown or _labels.is_continuous(y):
        kind = "unknown" if unknown else "continuous"
        raise ValueError(
            f"Unknown label type: {kind}. Class labels are strings or integers; for a target of real numbers "
            "there is mutual_info_regression."
        )
    if y.dtype.kind == "S":
        raise TypeError("y: labels of bytes are not supported; convert them to strings or integers")
    n_samples = len(y)
    if n_samples > 20 and len(np.unique(y)) > round(0.5 * n_samples):
        message = (
            "The number of unique classes is greater than 50% of the number of samples. "
            "`y` could represent a regression problem, not a classification problem."
        )
        warnings.warn(message, UserWarning, stacklevel=4)


def check_discrete_features(function: str, value: Any) -> None:
    """Raise unless the choice of discrete features is "auto", a boolean or an array."""
    if isinstance(value, str) and value == "auto":
        return
    if not isinstance(value, (bool, np.bool_)) and not is_array_like(value):
        refuse(function, "discrete_features", "a str among {'auto'}, a bool or an array-like", value)


def discrete_mask(discrete_features: Any, n_features: int, sparse: bool) -> Mask:
    """Which features are discrete: "auto", all, none, a mask, or their places."""
    if isinstance(discrete_features, str):
        return np.full(n_features, sparse)
    if isinstance(discrete_features, (bool, np.bool_)):
        return np.full(n_features, bool(discrete_features))
    chosen = read_array(discrete_features, "discrete_features")
    if chosen.size == 0:
        raise ValueError("discrete_features: wanted at least one feature, got none; False means none")
    if chosen.ndim != 1:
        raise IndexError(f"discrete_features: wanted one dimension, got shape {chosen.shape}")
    if chosen.dtype.kind == "b":
        if len(chosen) != n_features:
            raise IndexError(f"discrete_features: wanted a mask of {n_features} features, got {len(chosen)}")
        return chosen
    mask = np.zeros(n_features, dtype=bool)
    mask[chosen] = True
    return mask


def _deviation(values: Array, name: str) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = np.std(values)
    if not np.isfinite(deviation):
        raise ValueError(
            f"{name}: its spread overflows {values.dtype}; divide it by a constant, or convert it to float64"
        )
    return deviation


def noisy_features(X: Array, continuous: Mask, draws: np.random.RandomState) -> Float64:
    """Scaled columns with noise, one a row: shape (continuous features, n_samples)."""
    n_samples = len(X)
    places = np.flatnonzero(continuous)
    columns = np.empty((len(places), n_samples))
    rows = max(1, _BLOCK_BYTES // (8 * len(places)))
    every = len(places) == len(continuous)
    for start in range(0, n_samples, rows):
        block = X[start : start + rows]
        columns[:, start : start + rows] = (block if every else block[:, places]).T
    size = np.empty((len(places), 1))
    for row, column in enumerate(columns):
        deviation = _deviation(column, f"X[:, {places[row]}]")
        if deviation >= _CONSTANT:
            column /= deviation
        size[row] = _NOISE * max(1.0, float(np.mean(np.abs(column))))
    # One generator draws row after row, all features of a sample together.
    for start in range(0, n_samples, rows):
        block = columns[:, start : start + rows]
        block += size * draws.standard_normal((block.shape[1], len(places))).T
    return columns


def noisy_target(y: Array, draws: np.random.RandomState) -> Array:
    """A scaled target with noise, in its own precision: scikit-learn keeps float32."""
    if y.dtype.kind in "OUS":
        y = _as_float(y, "y")
        check_no_nan(y, "y")
    if y.dtype.kind not in "buif":
        raise ValueError(f"dtype {y.dtype} of y is not numeric; convert it to numbers first")
    target = y.astype(y.dtype if y.dtype in (np.float16, np.float32) else np.float64)
    deviation = _deviation(target, "y")
    if deviation != 0:
        target /= deviation
    target += _NOISE * np.maximum(1, np.mean(np.abs(target))) * draws.standard_normal(len(target))
    return target


class Estimator:
    """Estimates against one target, whose share of the work is done once."""

    def __init__(self, target: Array, discrete: bool, n_neighbors: int) -> None:
        self.target = target
        self.discrete = discrete
        self.n_neighbors = n_neighbors
        self.psi = digamma_table(len(target))
        if discrete:
            self._codes = _labels.encode(target)
        else:
            self._order = np.argsort(target)
            self._ascending = target[self._order].astype(np.float64)
            self._single = target.dtype == np.float32

    def prepare_for_continuous(self) -> None:
        """Do what all continuous features share, before threads ask for it."""
        n = len(self.target)
        if self.discrete:
            return
        if self.n_neighbors >= n:
            raise ValueError(f"n_neighbors: wanted fewer than the {n} samples, got {self.n_neighbors}")
        self._variable = plain_variable(self.target.astype(np.float64))

    def of_continuous(self, values: Float64) -> float:
        """Estimate for a scaled, noisy column."""
        if not self.discrete:
            x = plain_variable(values)
            return max(0.0, pair_value(x, self._variable, self.n_neighbors, 1, self.psi))
        order = np.argsort(values)
        return self._ross(values[order], self._codes, order, single=False)

    def of_discrete(self, column: Array) -> float:
        """Estimate for a discrete column."""
        codes = _labels.encode(column)
        if self.discrete:
            return _labels.information(_labels.count(codes, self._codes))
        return self._ross(self._ascending, codes, self._order, single=self._single)

    def _ross(self, ascending: Float64, codes: _labels.Codes, order: Array, *, single: bool) -> float:
        value: float = ross_information(
            ascending, codes.values[order], codes.span, self.n_neighbors, single, self.psi
        )
        if np.isnan(value):
            raise ValueError(
                "Found array with 0 sample(s) in a class of two or more: none has a neighbour in its class"
            )
        return max(0.0, value)


def _column(X: Any, place: int) -> Array:
    """One column, dense; of a sparse matrix, as float64."""
    if not is_sparse(X):
        column: Array = X[:, place]
        return column
    values = np.zeros(X.shape[0])
    stored = slice(X.indptr[place], X.indptr[place + 1])
    values[X.indices[stored]] = X.data[stored]
    return values


def estimate(
    function: str,
    X: Any,
    y: Any,
    *,
    discrete_target: bool,
    discrete_features: Any,
    n_neighbors: Any,
    copy: Any,
    random_state: Any,
    n_jobs: Any,
) -> Float64:
    """Mutual information in nats of each feature with the target, (n_features,)."""
    check_array_like(function, "X", X, sparse=True)
    check_array_like(function, "y", y)
    k = check_positive(function, "n_neighbors", n_neighbors)
    check_boolean(function, "copy", copy)
    check_discrete_features(function, discrete_features)
    draws = check_random_state(function, random_state)
    jobs = check_n_jobs(function, n_jobs)
    features = read_features(X)
    n_samples, n_features = features.shape
    discrete = discrete_mask(discrete_features, n_features, is_sparse(features))
    target = read_target(y, n_samples)
    threads = resolve_n_jobs(jobs)
    if discrete_target:
        check_classes(target)
    if is_sparse(features) and not discrete.all():
        raise ValueError("Sparse matrix `X` can't have continuous features.")
    columns = np.empty((0, n_samples))
    if not discrete.all():
        columns = noisy_features(features, ~discrete, draws)
    if not discrete_target:
        target = noisy_target(target, draws)
    estimator = Estimator(target, discrete_target, k)
    result = np.empty(n_features)
    if len(columns):
        estimator.prepare_for_continuous()
        result[~discrete] = list(
            ordered_map(estimator.of_continuous, columns, threads, in_flight=4 * threads)
        )
    places = np.flatnonzero(discrete).tolist()
    if discrete_target and any(_labels.is_continuous(_column(features, place)) for place in places):
        _labels.warn_of_continuous("features")
    found = ordered_map(
        lambda place: estimator.of_discrete(_column(features, place)), places, threads, in_flight=4 * threads
    )
    result[discrete] = list(found)
    return result
