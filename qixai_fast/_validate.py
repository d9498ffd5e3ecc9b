"""Input checks: what came, what is wanted, before any compute."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._device import Home, home_of, to_numpy
from ._memory import release_pages

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

PIECE_BYTES = 2**18


def check_real(array: Array, name: str) -> None:
    """Raise TypeError unless the dtype is boolean, integer or real floating point."""
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"{name}: dtype {array.dtype} is not supported; wanted real numbers (float, integer or boolean)"
        )
    if array.dtype.itemsize > 8:
        raise TypeError(f"{name}: dtype {array.dtype} is not supported; convert it to float64 first")


def check_finite(block: Array, name: str, *, first_row: int = 0) -> None:
    """Raise ValueError naming the first row and column of ``block`` that is NaN or infinite.

    ``first_row`` is the row of the whole array at which the block begins.
    """
    if block.dtype.kind != "f" or block.size == 0:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(block))
    if len(bad) == 0:
        return
    value = block[tuple(bad[0])]
    place = f"row {first_row + int(bad[0][0])}"
    if block.ndim > 1:
        place += f", column {', '.join(str(int(i)) for i in bad[0][1:])}"
    raise ValueError(f"{name}: {value} at {place}; remove or impute NaN and infinite values first")


def as_index(value: Any) -> int | None:
    """The integer that a value is; None for booleans and all that is no integer, arrays included."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_int(value: Any, name: str, *, low: int, high: int | None = None, why: str = "") -> int:
    """Return an integer argument within [low, high], or raise TypeError/ValueError naming it."""
    number = as_index(value)
    if number is None:
        raise TypeError(f"{name}: wanted an integer, got {type(value).__name__}")
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}: wanted {wanted}{why and ' (' + why + ')'}, got {number}")
    return number


def check_choice(value: Any, name: str, choices: Collection[Any]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    # Comparing an array gives an array, not an answer.
    plain = value is None or isinstance(value, (str, int, float, np.generic))
    if not plain or not any(value == choice for choice in choices):
        raise ValueError(f"{name}: wanted one of {', '.join(repr(c) for c in choices)}, got {value!r}")


def piece_rows(n_features: int) -> int:
    """Rows of float64 that fit the cache next to a processor, at least one."""
    return max(1, PIECE_BYTES // (8 * n_features))


@dataclass(frozen=True)
class Matrix:
    """A checked (n_samples, n_features) input of any origin, read in blocks of rows.

    Attributes
    ----------
    name : str
        The argument's name, for messages.
    data : ndarray
        Two-dimensional view of the input in its own dtype (bfloat16 as float32); may be a memmap.
    home : Home
        Where results go back to.
    """

    name: str
    data: Array
    home: Home

    @property
    def n_samples(self) -> int:
        return int(self.data.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.data.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def on_device(self) -> bool:
        """Whether a GPU reads it."""
        return False

    def columns(self, start: int, stop: int) -> Matrix:
        """Some of the columns, as a view."""
        return Matrix(self.name, self.data[:, start:stop], self.home)

    def block(self, start: int, stop: int) -> Float64:
        """Rows ``start:stop`` as a new C-ordered float64 array, checked to be finite.

        Pages of a mapped file are let go once they are copied.
        """
        view = self.data[start:stop]
        copied = np.array(view, dtype=np.float64, order="C")
        check_finite(copied, self.name, first_row=start)
        release_pages(view)
        return copied

    def fill(self, target: Array, start: int, stop: int) -> None:
        """Write rows ``start:stop``, as :meth:`block` reads them, to a float array, a few at a time."""
        step = piece_rows(self.n_features)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            target[first - start : last - start] = self.block(first, last)


def check_matrix_shape(
    shape: tuple[int, ...], name: str, *, min_samples: int = 1, min_features: int = 1
) -> None:
    """Raise ValueError unless a shape is that of a matrix with enough samples and features."""
    if len(shape) != 2:
        hint = ""
        if len(shape) == 1:
            hint = f"; reshape a single feature with {name}.reshape(-1, 1)"
        elif len(shape) > 2:
            hint = (
                f"; reduce it first, for example {name}.reshape(len({name}), -1), or capture with a reduction"
            )
        raise ValueError(f"{name}: wanted shape (n_samples, n_features), got {shape}{hint}")
    if shape[0] < min_samples:
        raise ValueError(f"{name}: wanted at least {min_samples} sample(s), got shape {shape}")
    if shape[1] < min_features:
        raise ValueError(f"{name}: wanted at least {min_features} feature(s), got shape {shape}")


def as_matrix(X: Any, name: str = "X", *, min_samples: int = 1, min_features: int = 1) -> Matrix:
    """Check that an input is a non-empty real matrix. Values are checked as blocks are read.

    Raises
    ------
    TypeError
        For dtypes that are not real numbers, and sparse input.
    ValueError
        For other than two dimensions, too few samples or features.
    """
    array = to_numpy(X, name)
    check_real(array, name)
    check_matrix_shape(array.shape, name, min_samples=min_samples, min_features=min_features)
    return Matrix(name, array, home_of(X))


def as_input(X: Any, name: str, backends: list[Any] | None) -> Any:
    """A checked input: a :class:`Matrix`, or rows of the first of some devices, checked likewise."""
    if backends is None:
        return as_matrix(X, name)
    from ._gpu.rows import DeviceRows

    return DeviceRows.of(X, name, backends[0])


def check_same_samples(first: Matrix, second: Matrix) -> None:
    """Raise ValueError unless two matrices have the same number of samples."""
    if first.n_samples != second.n_samples:
        raise ValueError(
            f"{first.name} and {second.name}: wanted the same number of samples, "
            f"got {first.n_samples} and {second.n_samples}"
        )


def as_vector(x: Any, name: str, *, min_samples: int = 1) -> Float64:
    """Check one variable, shape (n,) or (n, 1), and return it as a finite float64 vector."""
    array = to_numpy(x, name)
    check_real(array, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: wanted shape (n_samples,), got {array.shape}")
    if len(array) < min_samples:
        raise ValueError(f"{name}: wanted at least {min_samples} sample(s), got {len(array)}")
    vector = np.array(array, dtype=np.float64)
    check_finite(vector, name)
    return vector
