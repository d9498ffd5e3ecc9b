"""Time the entrants of a case in turns, and judge what they return.

In each round every entrant runs once; a ratio is the median over the rounds of (its time a unit) / (ours),
so that a busy machine slows both. Slow entrants do fewer units; short calls are repeated within a round.
First calls compile and load: they are not timed, and size nothing.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from threadpoolctl import threadpool_limits

from .cases import FAILED, OFF, RIGHT, WRONG, Case, Entrant
from .peers import optional

# Shorter calls are repeated within a round where there is time: timers and caches would decide otherwise.
_LEAST_SECONDS = 0.01
_LEAST_ROUNDS = 3
_MOST_ROUNDS = 9
_PATIENCE = 3  # an entrant that takes so many times its share is timed once


@dataclass
class _Runner:
    """An entrant under way: its call, how many units that does, how often it is repeated,
    in how many rounds it runs at most, how long its first call took, and its times a unit."""

    entrant: Entrant
    call: Callable[[], Any]
    units: int
    repeats: int
    rounds: int
    result: Any
    warned: str
    first: float
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.call()
        self.seconds.append((time.perf_counter() - start) / (self.repeats * self.units))


@contextmanager
def threads_limited(n_jobs: int) -> Iterator[None]:
    """As many threads for every library as there are for ours; call it after all libraries are loaded."""
    torch, faiss = optional("torch"), optional("faiss")
    torch_before = torch.get_num_threads() if torch else 1
    faiss_before = faiss.omp_get_max_threads() if faiss else 1
    with threadpool_limits(limits=n_jobs):
        if torch:
            torch.set_num_threads(n_jobs)
        if faiss:
            faiss.omp_set_num_threads(n_jobs)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(torch_before)
            if faiss:
                faiss.omp_set_num_threads(faiss_before)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _started(entrant: Entrant, case: Case, seconds: float) -> _Runner:
    """The entrant with as much work as takes about ``seconds`` a round, warmed up."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        units = min(case.first, case.units)
        call = entrant.make(units)
        first, _ = _timed(call)
        taken, result = _timed(call)
        wanted = min(case.units, max(units, int(units * seconds / max(taken, 1e-9))))
        if wanted > units:
            units, call = wanted, entrant.make(wanted)
            taken, result = _timed(call)
    repeats = max(1, math.ceil(min(_LEAST_SECONDS, seconds) / max(taken, 1e-9)))
    warned = next((str(one.message) for one in caught if _of_substance(one)), "")
    runner = _Runner(entrant, call, units, repeats, _MOST_ROUNDS, result, " ".join(warned.split()), first)
    if taken > _PATIENCE * seconds:  # the second call is its only round
        runner.rounds, runner.seconds = 0, [taken / units]
    return runner


def _of_substance(caught: warnings.WarningMessage) -> bool:
    """Whether a warning is about the values, and not about names that will change."""
    return not issubclass(caught.category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning))


def verdict(case: Case, error: float, units: int) -> str:
    """ "right", "off" or "WRONG"; what is not finite is wrong."""
    if not math.isfinite(error) or error > case.wrong(units):
        return WRONG
    return RIGHT if error <= case.right(units) else OFF


def race(case: Case, seconds: float) -> dict[str, Any]:
    """Run a case for about so many seconds, first calls not counted.

    Returns
    -------
    dict
        JSON-able: what the case is, and a row an entrant with its time, ratio, error and verdict.
    """
    start = time.perf_counter()
    each = seconds / len(case.entrants) / (_LEAST_ROUNDS + 2)
    runners: list[_Runner] = []
    rows: dict[str, dict[str, Any]] = {}
    for entrant in case.entrants:
        try:
            runners.append(_started(entrant, case, each))
        except Exception as error:  # a peer may fail in ways of its own: that is a result
            rows[entrant.name] = _failed(entrant, error)
    deadline = start + seconds + sum(runner.first for runner in runners)
    for turn in range(_MOST_ROUNDS):
        if turn >= _LEAST_ROUNDS and time.perf_counter() > deadline:
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first call has told
            for runner in runners:
                if turn < runner.rounds:
                    runner.run()
    ours = next((runner for runner in runners if runner.entrant is case.entrants[0]), None)
    # All are judged by the same pairs or rows: those that the slowest did, too.
    common = min((runner.units for runner in runners), default=case.units)
    for runner in runners:
        try:
            rows[runner.entrant.name] = _judged(case, runner, ours, common)
        except Exception as error:  # what it returned cannot be held against the truth
            rows[runner.entrant.name] = _failed(runner.entrant, error)
    return {
        "instrument": case.instrument,
        "data": case.data,
        "source": case.source,
        "truth": case.truth,
        "unit": case.unit,
        "units": case.units,
        "error_unit": case.error_unit,
        "judged_on": common,
        "right": case.right(common),
        "wrong": case.wrong(common),
        "not_installed": case.absent,
        "rows": [rows[entrant.name] for entrant in case.entrants],
    }


def _judged(case: Case, runner: _Runner, ours: _Runner | None, common: int) -> dict[str, Any]:
    result = runner.result[:common] if common < runner.units else runner.result
    score = case.score(result, common)
    finite = math.isfinite(score.error)
    row = _row(
        runner.entrant,
        seconds=statistics.median(runner.seconds),
        rounds=len(runner.seconds),
        units=runner.units,
        error=score.error if finite else None,
        verdict=verdict(case, score.error, common),
        detail=score.detail if finite else "not finite",
        warned=runner.warned,
    )
    if ours is not None:
        ratios = [theirs / own for theirs, own in zip(runner.seconds, ours.seconds, strict=False)]
        row |= {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return row


def _failed(entrant: Entrant, error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())[:160]
    return _row(entrant, verdict=FAILED, detail=f"{type(error).__name__}: {text}")


def _row(entrant: Entrant, **values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("seconds", "rounds", "units", "error", "ratio", "lowest", "highest"))
    start = {"name": entrant.name, "ours": entrant.ours, "threads": entrant.threads}
    return {**start, **empty, "detail": "", "warned": "", **values}
