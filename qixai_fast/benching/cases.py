"""One comparison: the same work on the same data by several tools, and how far each is from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._validate import Array

OURS = "qixai-fast"
RIGHT, OFF, WRONG, FAILED = "right", "off", "WRONG", "failed"


@dataclass(frozen=True)
class Score:
    """How far a result is from the truth.

    Attributes
    ----------
    error : float
        NaN where the result is not finite.
    detail : str
        What else is worth saying of the error, in a few words.
    """

    error: float
    detail: str = ""


@dataclass(frozen=True)
class Entrant:
    """A tool at the start.

    Attributes
    ----------
    name : str
    make : callable
        Takes how many units of work to do (the first so many), returns the call that does them.
    threads : int
        How many it may use; 1 for tools that know no other.
    """

    name: str
    make: Callable[[int], Callable[[], Any]]
    threads: int = 1

    @property
    def ours(self) -> bool:
        """Whether it is one of this package."""
        return self.name.startswith(OURS)


@dataclass(frozen=True)
class Case:
    """What is raced: one instrument on one data set.

    Attributes
    ----------
    instrument, data, truth : str
        What is worked out, on what, and what the error is measured against.
    unit, units : str, int
        What one time is for, as in "pair", and how many of them there are.
    entrants : list of Entrant
        The first is ours, and the others' times are told beside its.
    score : callable
        Takes a result and how many units it is for.
    right, wrong : callable
        Take how many units a result is for. Errors up to the first are "right", beyond the second "WRONG".
    error_unit : str
    first : int
        Units of the first, probing call.
    absent : list of str
        Peers that are not installed.
    source : str
        "" for data that are drawn here, else the layer: the same data set has the same source.
    """

    instrument: str
    data: str
    truth: str
    unit: str
    units: int
    entrants: list[Entrant]
    score: Callable[[Any, int], Score]
    right: Callable[[int], float]
    wrong: Callable[[int], float]
    error_unit: str = ""
    first: int = 1
    absent: list[str] = field(default_factory=list)
    source: str = ""


def entrants_of(
    calls: dict[str, Callable[[int], Callable[[], Any]] | None], threaded: set[str], n_jobs: int
) -> tuple[list[Entrant], list[str]]:
    """Those that are there, ours and ``threaded`` ones with ``n_jobs`` threads; and the names of the rest."""
    present = [
        Entrant(name, make, n_jobs if name in threaded or name.startswith(OURS) else 1)
        for name, make in calls.items()
        if make is not None
    ]
    return present, [name for name, make in calls.items() if make is None]


def whole(call: Callable[[], Any]) -> Callable[[int], Callable[[], Any]]:
    """For work that is one unit: the call, however many are asked for."""
    return lambda units: call


def constant(value: float) -> Callable[[int], float]:
    """A limit that does not depend on the units."""
    return lambda units: value


def relative_error(values: Array, truth: Array) -> Score:
    """The largest error relative to the truth; NaN where not all is finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != truth.shape or not np.isfinite(values).all():
        return Score(float("nan"))
    return Score(float(np.max(np.abs(values - truth) / np.abs(truth))))


def largest_error(values: Array, truth: Array) -> Score:
    """The largest absolute error; NaN where not all is finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != truth.shape or not np.isfinite(values).all():
        return Score(float("nan"))
    return Score(float(np.max(np.abs(values - truth))))
