"""What an audit will take, stage by stage, without computing anything: the model of cost in one place.

With n samples, d maps of a layer, t threads and R for the rates of :mod:`qixai_fast.auditing.rates`:

- Reading: what is read from disk takes as long as pieces of the store's own files just took; all stages where
  the store is larger than the memory that is free, else ``verify`` alone.
- ``verify``: every byte once, n bytes * R(checksum) / t.
- ``layer``: two passes, for maps and states, R(layer) n d + R(layer squares) n d^2, over t; and products of
  all layers and pairs of a group, n (d_a + 1) (d_b + 1) R(product) / t, with the first that asks for them.
- ``relation``: with r samples, at most ``null_samples``: cosines under m permutations, m r d_a d_b R(cosine),
  on one thread; between layers CKA and its permutations, r d_a d_b (R(CKA) + m R(again)) / t, or with Gram
  matrices r^2 ((d_a + d_b) R(CKA) + m R(again)) / t; and products that no group holds.
- ``mutual_info``: with r samples, at most ``test_samples``: codes, r d R(code) log2 r; then (1 + m) tables of
  every pair, R(count), after a permutation and its columns, r R(permute) + d r R(gather); and the exact mean
  of every pair once, R(expected); over t. Where n > r, codes of all samples are made once a layer, after a
  copy of it by columns, R(transpose); and every pair is counted over all samples.
- ``ksg``: columns and pairs, both as a power of n between 1 and 1.5; one read of every layer.
- ``labels``: a column by nearest neighbours, R(mixed), and the binned test as above with classes for bins.

Attributions run a model that nobody has timed, and another library draws the page: neither is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from .._cka_permutations import _gathers as permutes_grams
from .._cka_permutations import permutations_memory
from .._layer_products import moments_memory
from .._memory import format_bytes, parse_memory, require_budget
from .._threads import usable_cores
from .._validate import Matrix, as_matrix
from ..errors import MemoryBudgetError
from ..joint_histograms import counting_bytes
from ..mutual_info.binned_plan import plan_work
from ..mutual_info.pairwise import plan_memory
from ..mutual_info.rounds import PAIR_BYTES, ROUND_BYTES
from ..statistics import leaf_bounds
from .context import COPIED_BYTES, AuditContext, stem
from .rates import Rates, reading_rate

# As in mutual_info.binned_null: bytes of a round's values of a pair, and of a table besides its cells.
_ASKED_BYTES = 72
_TABLE_OVERHEAD = 400


@dataclass(frozen=True)
class StageCost:
    """What one stage takes.

    Attributes
    ----------
    name, title : str
        Stem of its files, and what it does.
    bytes_read : int
        From the store.
    operations : float
        Multiply-adds, counted samples, neighbours' steps: whatever its inner loop repeats.
    least_memory, peak_memory : int
        Bytes of arrays that it cannot do without, and that it takes where they fit.
    seconds : float
        NaN where it is not predicted.
    """

    name: str
    title: str
    bytes_read: int
    operations: float
    least_memory: int
    peak_memory: int
    seconds: float


def _least(work: Callable[[int], Any]) -> int:
    """The budget below which an engine refuses: it says so itself."""
    try:
        work(1)
    except MemoryBudgetError as error:
        return error.required
    return 0


class CostModel:
    """Costs of the stages of one audit; see the module's text for the formulas."""

    def __init__(self, context: AuditContext, rates: Rates) -> None:
        self._context, self._rates, self._plan = context, rates, context.plan
        self._n = context.n_samples
        self._threads = context.workers()
        self._speed = min(self._threads, usable_cores())
        self._groups_read: set[int] = set()
        self._coded: set[str] = set()
        store = context.store
        self._stored = sum(int(store[name].nbytes) for name in store)
        self._reading = reading_rate([Path(str(store[name].filename)) for name in store])

    def stages(self, *, subject: bool) -> list[StageCost]:
        """All stages in the order in which they run; ``subject`` where inputs are to be attributed."""
        context = self._context
        found = [self._verify()]
        found += [self._layer(name) for name in context.layers]
        for couple in context.couples:
            found += [self._relation(couple), self._mutual_info(couple)]
        if context.couples:
            found.append(self._ksg())
        if context.classes is not None:
            found += [self._labels(name) for name in context.layers]
        found = [self._with_reading(cost) for cost in found]
        if subject:
            found.append(StageCost("attributions", "integrated gradients", 0, math.nan, 0, 0, math.nan))
        return found

    def _with_reading(self, cost: StageCost) -> StageCost:
        """A stage that waits for a disk where it reads faster than that."""
        in_memory = cost.name != "verify" and self._stored <= psutil.virtual_memory().available
        waits = 0.0 if in_memory else cost.bytes_read * self._reading
        return replace(cost, seconds=max(cost.seconds, waits))

    def _size(self, layer: str) -> tuple[int, int]:
        data = self._context.store[layer]
        return int(data.shape[1]), int(data.nbytes)

    def _width(self, layer: str) -> int:
        """Maps that are compared with others."""
        return min(self._plan.max_maps, self._size(layer)[0])

    def _copied(self, layer: str) -> int:
        """Bytes of the maps that are copied where not all are compared."""
        width, size = self._size(layer)
        return 0 if self._width(layer) == width else size * self._width(layer) // width

    def _verify(self) -> StageCost:
        size = self._stored
        seconds = size * self._rates.checksum() / self._speed
        return StageCost("verify", "checksums of all data", size, size, 2**20, 2**20 * self._threads, seconds)

    def _products(self, a: str, b: str) -> tuple[float, int, tuple[int, int]]:
        """Multiply-adds, bytes read and memory of the group that holds a pair, where it is yet to be read."""
        moments = self._context.moments
        number = moments.group_of(a, b)
        if number is None or number in self._groups_read:
            return 0.0, 0, (0, 0)
        self._groups_read.add(number)
        pairs = moments.groups[number]
        names = list(self._context.layers)
        used = {i for pair in pairs for i in pair}
        blocks = {(i, i) for i in used} | {(min(pair), max(pair)) for pair in pairs}
        widths = [self._size(name)[0] + 1 for name in names]
        operations = float(self._n) * sum(widths[i] * widths[j] for i, j in blocks)
        return operations, sum(self._size(names[i])[1] for i in used), moments.memory(pairs)

    def _layer(self, name: str) -> StageCost:
        d, size = self._size(name)
        operations, read, (fixed, each) = self._products(name, name)
        seconds = self._rates.layer(self._n, d) + operations * self._rates.product()
        start, stop = leaf_bounds([self._context.matrix(name)])[0]
        leaf = 4 * 8 * (stop - start) * d
        least = max(fixed + each, 64 * 64 * d + leaf)
        # Entropy and purity hold a state of d by d, its parts and its eigenvectors.
        peak = max(
            fixed + self._threads * each, self._threads * leaf, 8 * (6 + self._threads) * min(d, 5000) ** 2
        )
        return StageCost(
            stem("layer", self._context, name), f"spectrum of {name}", 2 * size + read,
            operations + float(self._n) * d * (d + 1) / 2, least, peak, seconds / self._speed,
        )  # fmt: skip

    def _relation(self, couple: tuple[str, str]) -> StageCost:
        context, plan, (a, b) = self._context, self._plan, couple
        m = plan.n_permutations or 0
        rows = min(self._n, plan.null_samples)
        compared = float(self._width(a) * self._width(b))
        operations = m * rows * compared
        seconds = operations * self._rates.cosine()
        read, (fixed, each) = 0, (0, 0)
        least = 8 * rows * (2 * self._size(a)[0] + 3 * self._size(b)[0])
        if context.moments.group_of(a, b) is None:
            least += sum(self._copied(name) for name in {a, b})
        if a != b:
            products, read, (fixed, each) = self._products(a, b)
            wide = float(self._size(a)[0] * self._size(b)[0])
            if context.moments.group_of(a, b) is None:
                products += 2 * self._n * wide
                read += 4 * (self._size(a)[1] + self._size(b)[1])
            drawn = [Matrix(name, context.store[name][:rows], context.matrix(name).home) for name in couple]
            grams = permutes_grams(*drawn)
            operations += products + m * (4.0 * rows**2 if grams else rows * wide)
            work = products * self._rates.product()
            work += self._rates.cka(rows, (self._size(a)[0], self._size(b)[0]), m, grams)
            seconds += work / self._speed
            if rows == self._n:
                least = max(least, *(sum(memory(*drawn)) for memory in (moments_memory, permutations_memory)))
        title = f"similarity within {a}" if a == b else f"similarity, {a} and {b}"
        layers = (a,) if a == b else couple
        return StageCost(
            stem("relation", context, *layers), title, read, operations,
            max(least, fixed + each), max(least, fixed + self._threads * each), seconds,
        )  # fmt: skip

    def _binned(
        self, names: Sequence[str], widths: list[int], n_pairs: int, n_classes: int
    ) -> tuple[float, float, int, int]:
        """Seconds, counted samples, and memory of a binned permutation test."""
        plan, n, rates = self._plan, min(self._n, self._plan.test_samples), self._rates
        bins, m = plan.n_bins or 2, plan.n_permutations or 0
        other = n_classes or bins
        moving = 1 if n_classes else min(widths)
        seconds = sum(widths) * n * rates.code(n)
        seconds += (1 + m) * n_pairs * rates.count(bins, other, n)
        seconds += m * (rates.permute(n) + moving * rates.gather(n))
        seconds += n_pairs * rates.expected(bins, other, n, plan.strategy == "quantile")
        # As in BinnedNull, which holds all codes.
        column = counting_bytes(n, bins, other)
        moved = column + n * (1 if max(bins, other) <= 256 else 2)
        worker = 24 * n + moved + column + 4 * bins * other + _TABLE_OVERHEAD + _ASKED_BYTES * n_pairs
        margins = 40 * sum(widths) * bins + 40 * n_classes + 8 * n * (n_classes > 0)
        extra = ROUND_BYTES * m + PAIR_BYTES * n_pairs + margins
        least = self._binned_memory(names, widths, n_pairs, n, extra=extra + worker, must_cache=True)
        tile = 32 * (moved + column) + 1024 * (4 * bins * other + _TABLE_OVERHEAD)
        peak = least + (self._threads - 1) * worker + self._threads * tile
        return seconds / self._speed, float(1 + m) * n_pairs * n, least, peak

    def _binned_memory(
        self, names: Sequence[str], widths: list[int], n_pairs: int, n: int, *, extra: int, must_cache: bool
    ) -> int:
        """The budget that counting of pairs cannot do without."""
        value = np.zeros((1, 1), np.result_type(*(self._context.store[name].dtype for name in names)))
        matrices = [as_matrix(np.broadcast_to(value, (n, width))) for width in widths]
        return _least(
            lambda budget: plan_work(
                matrices,
                n_pairs,
                n_bins=self._plan.n_bins or 2,
                strategy=self._plan.strategy,
                n_jobs=1,
                budget=budget,
                extra=extra,
                must_cache=must_cache,
            )
        )

    def _all_samples(
        self, names: Sequence[str], widths: list[int], n_pairs: int
    ) -> tuple[float, float, int, int, int]:
        """Seconds, counted samples, bytes read, and memory of values of all samples, where few are tested."""
        plan, n, rates, bins = self._plan, self._n, self._rates, self._plan.n_bins or 2
        seconds, read = 0.0, 0
        for name, width in zip(names, widths, strict=True):
            if name in self._coded:
                continue
            self._coded.add(name)
            size = self._size(name)[1]
            copied = size > COPIED_BYTES
            read += size * (1 + copied)
            seconds += copied * size * rates.transpose() * self._speed
            seconds += width * n * (rates.code(n) + 2 * rates.checksum())
        seconds += n_pairs * rates.count(bins, bins, n)
        if plan.bias_correction == "permutation-mean":
            seconds += n_pairs * rates.expected(bins, bins, n, plan.strategy == "quantile")
        least = self._binned_memory(names, widths, n_pairs, n, extra=0, must_cache=False)
        least = max(least, 16 * n * (4 + 4 + 1))
        peak = max(least, sum(widths) * n + self._threads * 64 * counting_bytes(n, bins, bins))
        return seconds / self._speed, float(n_pairs) * n, read, least, peak

    def _mutual_info(self, couple: tuple[str, str]) -> StageCost:
        a, b = couple
        if a == b:
            d = self._width(a)
            widths, n_pairs, read, title = [d], d * (d - 1) // 2, self._size(a)[1], f"within {a}"
        else:
            widths = [self._width(a), self._width(b)]
            n_pairs, read = widths[0] * widths[1], self._size(a)[1] + self._size(b)[1]
            title = f"{a} and {b}"
        names = [a] if a == b else [a, b]
        seconds, operations, least, peak = self._binned(names, widths, n_pairs, 0)
        if self._n > self._plan.test_samples:
            more = self._all_samples(names, widths, n_pairs)
            seconds, operations, read = seconds + more[0], operations + more[1], more[2]
            least, peak = max(least, more[3]), max(peak, more[4])
        else:
            read *= 2
            copied = sum(self._copied(name) for name in names)
            least, peak = least + copied, peak + copied
        return StageCost(
            stem("mutual_info", self._context, *names), f"mutual information, {title}", read, operations,
            least, peak, seconds,
        )  # fmt: skip

    def _ksg(self) -> StageCost:
        kinds = {a == b for a, b in self._context.couples}
        n_pairs = self._plan.n_top_pairs * len(kinds)
        column, pair = self._rates.ksg(self._n)
        groups = min(n_pairs, len(self._context.couples))
        sizes = [self._size(name)[1] for name in self._context.layers]
        read = sum(sizes)
        seconds = (n_pairs * pair + 1.5 * n_pairs * column) / self._speed + read * self._rates.checksum()
        least = _least(lambda budget: plan_memory(self._n, 1, budget, "ksg")) if n_pairs else 0
        least += 8 * self._n * n_pairs
        steps = float(n_pairs) * self._n * math.log2(self._n)
        peak = least + self._n * (self._threads * 140 + 60 * n_pairs // max(1, groups))
        return StageCost("ksg", "KSG on the strongest pairs", read, steps, least, peak, seconds)

    def _labels(self, name: str) -> StageCost:
        context = self._context
        assert context.classes is not None, "stages are planned only where there are classes"
        d, size = self._size(name)
        seconds, operations, least, peak = self._binned([name], [d], d, len(context.classes.names))
        seconds += d * self._rates.mixed(self._n) / self._speed
        neighbours = _least(lambda budget: plan_memory(self._n, 1, budget, "labels"))
        return StageCost(
            stem("labels", context, name), f"class information in {name}",
            (size if size > COPIED_BYTES else size * d // (4 * self._threads)) + size, operations,
            max(least, neighbours), max(peak, neighbours + 140 * self._n * self._threads), seconds,
        )  # fmt: skip


def require_memory(costs: list[StageCost], max_memory: int | str | None) -> None:
    """Refuse a plan that does not fit its budget before any work, not in a late stage.

    Raises
    ------
    MemoryBudgetError
        Naming the stage that takes the most.
    """
    most = max(costs, key=lambda cost: cost.least_memory)
    require_budget(parse_memory(max_memory), most.least_memory, f"the stage {most.title!r}")


def table(costs: Sequence[StageCost], actual: Mapping[str, float] | None = None) -> str:
    """The plan for a person to read, a line a stage; with the seconds that they took beside those planned."""
    head = ("stage", "read", "operations", "memory", "planned")
    rows = [
        (
            cost.title,
            format_bytes(cost.bytes_read),
            "–" if math.isnan(cost.operations) else f"{cost.operations:.1e}",
            format_bytes(cost.peak_memory),
            seconds_text(cost.seconds),
        )
        for cost in costs
    ]
    if actual is not None:
        head = (*head, "actual")  # type: ignore[assignment]
        rows = [
            (*row, seconds_text(actual.get(cost.name, math.nan)))  # type: ignore[misc]
            for row, cost in zip(rows, costs, strict=True)
        ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )


def total_seconds(costs: Sequence[StageCost]) -> float:
    """Seconds of all stages that are predicted."""
    return sum(cost.seconds for cost in costs if not math.isnan(cost.seconds))


def seconds_text(seconds: float) -> str:
    """A time for a person to read; "–" where it is not known.

    Examples
    --------
    >>> seconds_text(0.234), seconds_text(75.0), seconds_text(7500.0), seconds_text(float("nan"))
    ('0.23 s', '1.2 min', '2.1 h', '–')
    """
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def as_json(costs: Sequence[StageCost]) -> dict[str, dict[str, Any]]:
    """By stage: what ``timings.json`` keeps of a plan."""
    kept = {}
    for cost in costs:
        fields = {name: value for name, value in asdict(cost).items() if name != "name"}
        kept[cost.name] = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in fields.items()
        }
    return kept
