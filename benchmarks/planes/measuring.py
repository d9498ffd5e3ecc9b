"""One plane: what every entrant costs, how wrong it is, and whether it says so."""

import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# A warning of these kinds speaks of the code, not of the number.
ABOUT_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
SILENT_FROM = 0.1  # relative error


@dataclass(frozen=True)
class Entrant:
    """One tool at one setting.

    Attributes
    ----------
    tool : str
        Whose it is; decides the colour.
    line : str
        Settings of one tool that belong together; a line joins them in the figure.
    setting : str
    call : callable
        Takes a case, returns a result.
    cost : float or callable, optional
        What is on the cost axis where that is not seconds; a callable takes a result.
    default : bool
        Whether this is what one gets who sets nothing.
    """

    tool: str
    line: str
    setting: str
    call: Callable
    cost: float | Callable | None = None
    default: bool = False


@dataclass(frozen=True)
class Plane:
    """A panel: entrants on the same cases.

    ``error(result, case)`` is relative to the truth; of several cases the root mean square is kept.
    ``cost_is`` names what entrants cost beside seconds, if anything.
    """

    name: str
    group: str
    title: str
    work: str
    error_is: str
    cases: list
    entrants: list
    error: Callable
    cost_is: str = ""


def _first(entrant, case):
    """The result of a first call, the warnings that it raised, and its seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        result = entrant.call(case)
    seconds = time.perf_counter() - start
    words = [
        f"{one.category.__name__}: {str(one.message).strip().splitlines()[0][:160]}"
        for one in raised
        if not issubclass(one.category, ABOUT_CODE)
    ]
    return result, words, seconds


def _mean_square(errors):
    """Infinite where one of them is no number."""
    errors = np.asarray(errors, dtype=np.float64)
    return float(np.sqrt(np.mean(errors**2))) if np.isfinite(errors).all() else math.inf


def _seconds(entrant, case):
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entrant.call(case)
    return time.perf_counter() - start


def measure(plane, rounds):
    """The plane as JSON: a point an entrant.

    All entrants run once on every case, for errors and warnings, and then in rounds, one after the other, so
    that a busy machine slows all alike; without rounds, the first calls are what is timed. An entrant that
    raises has no place on the plane, and its words stay.
    """
    points, running = [], []
    for entrant in plane.entrants:
        point = {"tool": entrant.tool, "line": entrant.line, "setting": entrant.setting}
        point["default"] = entrant.default
        points.append(point)
        try:
            found = [_first(entrant, case) for case in plane.cases]
        except Exception as error:
            point["raised"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
            continue
        results = [result for result, _, _ in found]
        error = _mean_square([plane.error(r, case) for r, case in zip(results, plane.cases, strict=True)])
        point["error"] = error if math.isfinite(error) else None
        point["warned"] = sorted({word for _, words, _ in found for word in words})
        if entrant.cost is not None:
            costs = [entrant.cost(r) if callable(entrant.cost) else entrant.cost for r in results]
            point["cost"] = statistics.fmean(costs)
        running.append((entrant, point, [] if rounds else [seconds for _, _, seconds in found]))
    for step in range(rounds):
        for entrant, _, seconds in running:
            seconds.append(_seconds(entrant, plane.cases[step % len(plane.cases)]))
    for _, point, seconds in running:
        point["seconds"] = statistics.median(seconds)
        point["rounds"] = rounds
    return {
        "group": plane.group,
        "title": plane.title,
        "work": plane.work,
        "error_is": plane.error_is,
        "cost_is": plane.cost_is,
        "draws": len(plane.cases),
        "points": points,
    }


def is_wrong(point):
    """Off by more than a tenth, or no number at all."""
    return "raised" not in point and (point["error"] is None or point["error"] > SILENT_FROM)


def is_silent(point):
    """Wrong, and no warning says so."""
    return is_wrong(point) and not point["warned"]
