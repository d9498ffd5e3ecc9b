"""The rounds of a permutation test: who reached the observed value, how often, and when to stop asking.

A pair is settled once ``stop_after`` permutations reached its value (Besag and Clifford 1991, Biometrika
78:301). The first rounds ask all pairs whatever they give, because the largest of a round is only a draw from
the null of the largest where no pair is missing: family-wise p-values come from these rounds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._cluster import current, mapped
from .._threads import ordered_map
from .._validate import Float64
from .pairing import Index
from .permutations import Exchange

# Rounds that ask all pairs, for each exceedance that settles one: at a p-value of 0.05 as many are expected.
FULL_ROUNDS = 20
# Bytes a round and a pair, for what is kept of them here.
ROUND_BYTES = 24
PAIR_BYTES = 176

# Tasks for each thread of a cluster: each draws all permutations.
_TASKS_PER_THREAD = 2
# Permutations that another process keeps for its next task.
_KEPT_BYTES = 2**27

# Values that differ by the order of a sum only count as equal; standardised values are larger.
_TIE = 1e-12
_STANDARD_TIE = 1e-9


class Part(Protocol):
    """Some of the tested pairs, with all that their values need at hand."""

    @property
    def places(self) -> Index:
        """(p,) places of these pairs among all tested ones."""

    def values(self, order: Index | None, chosen: Index) -> Float64:
        """Values of pairs ``chosen`` (ascending, within the part), one column of each in ``order``."""


@runtime_checkable
class Divisible(Part, Protocol):
    """A part that can be sent in shares: ``whole().with_share(share(...))`` holds some of its pairs."""

    def whole(self) -> Any:
        """What all shares have in common."""

    def cuts(self, count: int) -> list[Index]:
        """Pairs of each share, in ascending order within it: about as many shares as asked for."""

    def share(self, chosen: Index) -> Any:
        """What some pairs have of their own."""


class Null(Protocol):
    """Values of all tested pairs, for the data as they are and for permuted ones.

    Attributes
    ----------
    location, scale : (n_pairs,) float64
        What values are centred and divided by before the largest of all pairs is taken.
    n_jobs : int
        Permutations evaluated at a time.
    """

    location: Float64
    scale: Float64
    n_jobs: int

    def parts(self) -> Iterator[Part]:
        """All tested pairs, each in one part."""

    def diagonal(self) -> Float64:
        """The value of each column with itself."""


@dataclass(frozen=True)
class Outcome:
    """What the rounds gave, for all tested pairs: (n_pairs,) each."""

    values: Float64
    pvalues: Float64
    max_pvalues: Float64
    null_mean: Float64
    n_used: Index


def full_rounds(n_permutations: int, stop_after: int | None) -> int:
    """How many rounds ask all pairs."""
    return n_permutations if stop_after is None else min(n_permutations, FULL_ROUNDS * stop_after)


@dataclass
class _Tally:
    """Counts of the pairs of a part, in its order."""

    values: Float64
    reached: Index
    total: Float64
    n_used: Index

    @classmethod
    def of(cls, values: Float64) -> _Tally:
        n = len(values)
        return cls(values, np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=np.int64))

    def put(self, places: Index, some: _Tally) -> None:
        """Take over what was counted for some of the pairs."""
        for name in ("values", "reached", "total", "n_used"):
            getattr(self, name)[places] = getattr(some, name)

    def add(self, chosen: Index, values: Float64) -> None:
        self.reached[chosen] += values >= self.values[chosen] - _TIE
        self.total[chosen] += values
        self.n_used[chosen] += 1


@dataclass(frozen=True)
class _Share:
    """All rounds of some pairs, in another process."""

    rounds: Rounds
    whole: Any

    def __call__(self, share: tuple[Any, Float64, Float64]) -> tuple[_Tally, Float64]:
        what, location, scale = share
        self.rounds.keep_orders()

        def standard(values: Float64) -> float:
            return float(np.max((values - location) / scale))

        largest = np.full(self.rounds.n_full, -np.inf)
        return self.rounds._ask(self.whole.with_share(what), 1, standard, largest), largest


class Rounds:
    """Permutation rounds, the same for every part and every number of threads.

    Parameters
    ----------
    exchange : Exchange
    seeds : (n_permutations,) int64
        One a round.
    stop_after : int or None
        Exceedances that settle a pair; None asks all pairs in all rounds.
    """

    def __init__(self, exchange: Exchange, seeds: Index, stop_after: int | None) -> None:
        self.exchange = exchange
        self.seeds = seeds
        self.stop_after = stop_after
        self.n_full = full_rounds(len(seeds), stop_after)
        self._orders: dict[int, Index] | None = None

    def keep_orders(self) -> None:
        """Draw every permutation once, where they are few enough to be kept."""
        if 8 * self.exchange.n_samples * len(self.seeds) <= _KEPT_BYTES and self._orders is None:
            self._orders = {}

    def _order(self, number: int) -> Index | None:
        if number < 0:
            return None
        if self._orders is None:
            return self.exchange.draw(int(self.seeds[number]))
        if number not in self._orders:
            self._orders[number] = self.exchange.draw(int(self.seeds[number]))
        return self._orders[number]

    def run(self, null: Null) -> Outcome:
        """Ask all pairs of a null."""
        n_pairs = len(null.location)
        values, pvalues, mean = np.empty(n_pairs), np.empty(n_pairs), np.empty(n_pairs)
        n_used = np.empty(n_pairs, dtype=np.int64)
        largest = np.full(self.n_full, -np.inf)
        for part in null.parts():
            places = part.places
            location, scale = null.location[places], null.scale[places]

            def standard(values: Float64, a: Float64 = location, b: Float64 = scale) -> float:
                return float(np.max((values - a) / b))

            cluster = current()
            if cluster is not None and isinstance(part, Divisible):
                tally = self._ask_elsewhere(part, location, scale, largest, cluster.threads)
            else:
                tally = self._ask(part, null.n_jobs, standard, largest)
            values[places], n_used[places] = tally.values, tally.n_used
            mean[places] = tally.total / tally.n_used
            pvalues[places] = self._pvalues(tally)
            # Let its variables go before those of the next part are made.
            del part
        return Outcome(values, pvalues, self._family(values, null, largest), mean, n_used)

    def _ask(self, part: Part, n_jobs: int, standard: Callable[[Float64], float], largest: Float64) -> _Tally:
        """Rounds of one part; ``largest`` grows by its values in the rounds that ask all pairs."""
        everyone = np.arange(len(part.places), dtype=np.int64)
        unsettled = everyone

        def evaluate(item: tuple[int, Index]) -> tuple[int, Index, Float64]:
            number, chosen = item
            return number, chosen, part.values(self._order(number), chosen)

        def items() -> Iterator[tuple[int, Index]]:
            # Round -1 is the data as they are. Rounds begun before a pair is settled still ask it; what they
            # give is not counted, so that nothing depends on how many rounds run at a time.
            for number in range(-1, len(self.seeds)):
                if len(unsettled) == 0:
                    return
                yield number, unsettled

        results = ordered_map(evaluate, items(), n_jobs)
        tally = _Tally.of(next(results)[2])
        for number, chosen, values in results:
            if number >= self.n_full:
                if len(chosen) != len(unsettled):
                    values = values[np.isin(chosen, unsettled, assume_unique=True)]
                tally.add(unsettled, values)
            else:
                tally.add(everyone, values)
                largest[number] = max(largest[number], standard(values))
            if self.stop_after is not None and number >= self.n_full - 1:
                open_still = tally.reached[unsettled] < self.stop_after
                if not open_still.all():
                    unsettled = unsettled[open_still]
        return tally

    def _ask_elsewhere(
        self, part: Divisible, location: Float64, scale: Float64, largest: Float64, threads: int
    ) -> _Tally:
        """As :meth:`_ask`, some pairs a task: a pair's counts and sums do not depend on the other pairs."""
        tally = _Tally.of(np.empty(len(part.places)))
        cuts = part.cuts(_TASKS_PER_THREAD * threads)
        shares = [(part.share(cut), location[cut], scale[cut]) for cut in cuts]
        for cut, (some, most) in zip(cuts, mapped(_Share(self, part.whole()), shares, 1), strict=True):
            tally.put(cut, some)
            np.maximum(largest, most, out=largest)
        return tally

    def _pvalues(self, tally: _Tally) -> Float64:
        """(1 + b) / (1 + m); b / m for pairs settled by the last of their m rounds."""
        pvalues = np.asarray((1.0 + tally.reached) / (1.0 + tally.n_used), dtype=np.float64)
        if self.stop_after is not None:
            late = (tally.n_used > self.n_full) & (tally.reached == self.stop_after)
            pvalues[late] = self.stop_after / tally.n_used[late]
        return pvalues

    def _family(self, values: Float64, null: Null, largest: Float64) -> Float64:
        """Family-wise p-values: in how many full rounds the largest of all pairs reached each one."""
        ascending = np.sort(largest)
        least = (values - null.location) / null.scale - _STANDARD_TIE
        reached = self.n_full - np.searchsorted(ascending, least, side="left")
        return np.asarray((1.0 + reached) / (1.0 + self.n_full), dtype=np.float64)


def draw_seeds(generator: np.random.Generator, n_permutations: int) -> npt.NDArray[np.int64]:
    """One seed a round."""
    return generator.integers(2**63 - 1, size=n_permutations, endpoint=True)
