"""Arguments as scikit-learn takes them, and errors of the kinds that it raises.

Nothing here imports scikit-learn. Where a program has imported it, errors and warnings are of its classes,
so that what catches or filters them goes on working.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from numbers import Integral
from typing import Any, NoReturn

import numpy as np

from .._device import to_numpy
from .._validate import Array


class InvalidParameterError(ValueError, TypeError):
    """A parameter of the wrong type, or out of range."""


def loaded(module: str, name: str, otherwise: Any) -> Any:
    """A name from a module that the program has imported; ``otherwise`` where it has not."""
    return getattr(sys.modules.get(module), name, otherwise)


def refuse(function: str, parameter: str, wanted: str, value: Any) -> NoReturn:
    """Raise what scikit-learn raises for a parameter that it does not take."""
    error = loaded("sklearn.utils._param_validation", "InvalidParameterError", InvalidParameterError)
    raise error(f"The {parameter!r} parameter of {function} must be {wanted}. Got {value!r} instead.")


def is_sparse(value: Any) -> bool:
    """Whether a value is a scipy sparse matrix or array; never imports scipy."""
    issparse = loaded("scipy.sparse", "issparse", None)
    return issparse is not None and bool(issparse(value))


def is_array_like(value: Any) -> bool:
    """Sequences and arrays; no strings, no scalars, nothing sparse."""
    if is_sparse(value) or np.isscalar(value) or getattr(value, "shape", None) == ():
        return False
    return any(hasattr(value, name) for name in ("__len__", "shape", "__array__"))


def check_array_like(
    function: str, parameter: str, value: Any, *, sparse: bool = False, none: bool = False
) -> None:
    """Raise unless a parameter is array-like, or one of the other things it may be."""
    if is_array_like(value) or (sparse and is_sparse(value)) or (none and value is None):
        return
    wanted = ["an array-like"] + ["a sparse matrix"] * sparse + ["None"] * none
    refuse(function, parameter, " or ".join(wanted), value)


def check_string(function: str, parameter: str, value: Any, choices: Collection[str]) -> None:
    """Raise unless a parameter is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        refuse(function, parameter, f"a str among {{{', '.join(map(repr, choices))}}}", value)


def check_boolean(function: str, parameter: str, value: Any) -> None:
    """Raise unless a parameter is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        refuse(function, parameter, "a bool", value)


def check_positive(function: str, parameter: str, value: Any) -> int:
    """An integer of at least 1, or an error."""
    if not isinstance(value, Integral) or int(value) < 1:
        refuse(function, parameter, "an int in the range [1, inf)", value)
    return int(value)


def check_random_state(function: str, value: Any) -> np.random.RandomState:
    """The generator that scikit-learn would draw from; None is NumPy's global one."""
    if value is None:
        shared: np.random.RandomState = np.random.mtrand._rand
        return shared
    if isinstance(value, np.random.RandomState):
        return value
    if isinstance(value, Integral) and 0 <= int(value) < 2**32:
        return np.random.RandomState(int(value))
    wanted = f"an int in the range [0, {2**32 - 1}], an instance of 'numpy.random.RandomState' or None"
    refuse(function, "random_state", wanted, value)


def check_n_jobs(function: str, value: Any) -> int | None:
    """The number of jobs as given; None is what an enclosing joblib context says, 1 without one."""
    if value is None:
        effective = loaded("joblib", "effective_n_jobs", None)
        return 1 if effective is None else int(effective(None))
    if not isinstance(value, Integral):
        refuse(function, "n_jobs", "an int or None", value)
    return int(value)


def read_array(value: Any, name: str) -> Array:
    """Any array-like as a NumPy array of real numbers, strings, dates or objects."""
    array = to_numpy(value, name)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}")
    return array


def _is_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA: whether it equals itself is unknown, too
        return True
    except ValueError:  # an array among objects
        return False


def check_no_nan(array: Array, name: str) -> None:
    """Raise ValueError for the first NaN or infinite value, in scikit-learn's words, and say where it is."""
    if array.dtype.kind == "O":
        bad = np.array([_is_nan(value) for value in array.ravel()], dtype=bool).reshape(array.shape)
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(array.sum(dtype=np.float64)):
                return
        bad = ~np.isfinite(array)
    else:
        return
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        nan = array.dtype.kind == "O" or np.isnan(array[place])
        what = "NaN" if nan else f"infinity or a value too large for {array.dtype!r}"
        raise ValueError(f"Input {name} contains {what}, first at {place if len(place) > 1 else place[0]}.")
