"""What every stage of an audit starts from: the store, the plan with nothing left open, the classes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from .._memory import parse_memory, release_pages, require_budget
from .._threads import resolve_n_jobs
from .._validate import Array, Matrix, as_matrix
from ..errors import StoreError
from ..store import ActivationStore
from .files import AuditFiles, digest, json_bytes
from .kept_moments import KeptMoments
from .layer_codes import LayerCodes
from .layer_moments import LayerMoments
from .memory import give_back, take_columns
from .plan import AuditPlan

_MOST_CLASSES = 1000
# Smaller layers stay in the kernel's cache, where columns of rows are read fast enough.
COPIED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Classes:
    """Labels that are classes: ``codes`` (n,) index ``names``."""

    codes: npt.NDArray[np.int64]
    names: list[str]


@dataclass(frozen=True)
class AuditContext:
    """Data and plan of one audit.

    Attributes
    ----------
    store : ActivationStore
    plan : AuditPlan
        As :func:`resolve_plan` returns it.
    classes : Classes or None
        None without labels, and where labels are not classes.
    no_classes : str
        Why ``classes`` is None; empty where it is not.
    files : AuditFiles, optional
        Where work that a resumed audit needs again is kept.
    code : str
        Digest of the code that it depends on.
    """

    store: ActivationStore
    plan: AuditPlan
    classes: Classes | None
    no_classes: str
    files: AuditFiles | None = None
    code: str = ""

    @property
    def layers(self) -> Sequence[str]:
        assert self.plan.layers is not None, "resolve_plan fills in the layers"
        return self.plan.layers

    @property
    def couples(self) -> list[tuple[str, str]]:
        """Pairs of layers that are compared: those between layers first, then layers with themselves."""
        if self.plan.pairs is not None:
            return list(self.plan.pairs)
        within = [(name, name) for name in self.layers if self.store[name].shape[1] > 1]
        return [*combinations(self.layers, 2), *within]

    @property
    def n_samples(self) -> int:
        return self.store.n_samples

    def matrix(self, layer: str) -> Matrix:
        """A layer under a name that errors can show."""
        return as_matrix(self.store[layer], f"layer {layer!r}")

    @cached_property
    def moments(self) -> LayerMoments:
        """Products of all layers, read when they are first asked for."""
        matrices = {layer: self.matrix(layer) for layer in self.layers}
        between = [couple for couple in self.couples if couple[0] != couple[1]]
        kept = None
        if self.files is not None:
            kept = KeptMoments(self.files, [self.code, self.store.checksum_of(self.layers)])
        return LayerMoments(matrices, self.workers(), parse_memory(self.plan.max_memory), between, kept)

    @cached_property
    def _codes(self) -> LayerCodes:
        return LayerCodes(None if self.files is None else self.files.stages)

    def codes(self, layer: str, maps: npt.NDArray[np.int64]) -> Array:
        """Bins of some maps of a layer, (n_samples, n_maps): read and sorted once for all pairs of layers."""
        plan = self.plan
        assert plan.n_bins is not None, "resolve_plan fills it in"
        depends = [self.code, self.store.checksum_of([layer]), maps.tolist(), plan.n_bins, plan.strategy]
        codes = self._codes.of(
            stem("layer", self, layer),
            digest(json_bytes(depends)),
            lambda: self.by_columns(layer),
            maps,
            n_bins=plan.n_bins,
            strategy=plan.strategy,
            **self.options(),
        )
        return codes.T

    def by_columns(self, layer: str) -> Array:
        """A layer with each column in one piece, from the store's feature-major copy; small ones as they are.

        The copy is made once, inside the store. Where it cannot be written, rows are read instead: slower,
        and the values are the same.
        """
        if self.store[layer].nbytes <= COPIED_BYTES:
            return self.store[layer]
        try:
            return self.store.columns(layer)
        except StoreError:
            return self.store[layer]

    def columns(self, layer: str, maps: npt.NDArray[np.int64]) -> Array:
        """Some maps of a layer: the memory map itself where they are all, a copy in memory otherwise."""
        whole = self.store[layer]
        if len(maps) == whole.shape[1]:
            return whole
        size = len(whole) * len(maps) * whole.dtype.itemsize
        self.require(size, f"{len(maps)} maps of layer {layer!r}")
        return take_columns(whole, maps)

    def tidy(self) -> None:
        """Let go of what a stage leaves behind: pages of mapped files, and freed memory."""
        for layer in self.layers:
            release_pages(self.store[layer])
        self._codes.tidy()
        give_back()

    def finish(self) -> None:
        """Let go of everything that stages share: they are done."""
        self.moments.forget()
        self._codes.remove()
        self.tidy()

    def require(self, size: int, work: str) -> None:
        """Raise :class:`MemoryBudgetError` where a stage's own arrays do not fit the plan's budget."""
        require_budget(parse_memory(self.plan.max_memory), size, work)

    def options(self) -> dict[str, Any]:
        """Keywords that every engine takes."""
        return {"n_jobs": self.plan.n_jobs, "max_memory": self.plan.max_memory}

    def workers(self) -> int:
        """Threads, for the stages' own work."""
        return resolve_n_jobs(self.plan.n_jobs)


def draw_rows(n_samples: int, at_most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """All rows, or a random choice of ``at_most`` of them, in order."""
    if n_samples <= at_most:
        return np.arange(n_samples)
    return np.sort(rng.choice(n_samples, size=at_most, replace=False))


def find_classes(store: ActivationStore) -> tuple[Classes | None, str]:
    """Class labels of a store, or why it has none.

    Labels count as classes where there are 2 to 1,000 values, each on two samples on average at least.
    Names come from ``class_names`` in the store's metadata where every label indexes it.
    """
    labels = store.labels
    if labels is None:
        return None, "the store holds no labels"
    values, codes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        return None, "all samples have the same label"
    if len(values) > min(_MOST_CLASSES, store.n_samples // 2):
        return None, f"the labels take {len(values)} values on {store.n_samples} samples: not classes"
    names = store.metadata.get("class_names")
    if isinstance(names, list) and values[0] >= 0 and values[-1] < len(names):
        listed = [str(names[value]) for value in values]
    else:
        listed = [str(value) for value in values]
    return Classes(codes.reshape(-1).astype(np.int64), listed), ""


def stem(kind: str, context: AuditContext, *layers: str) -> str:
    """File stem of a stage: its kind, and number and name of its layers, safe in any file system.

    The number is the layer's place in the store, so it does not change with the choice of layers.
    """
    order = list(context.store)
    parts = [kind]
    for layer in layers:
        safe = re.sub(r"[^A-Za-z0-9]+", "_", layer).strip("_")[:40]
        parts += [f"{order.index(layer):02d}", *([safe] if safe else [])]
    return "_".join(parts)


def number(value: Any) -> float | None:
    """A Python float for JSON; None for NaN and infinity."""
    result = float(value)
    return result if math.isfinite(result) else None


class _Hushed(type):
    """Of which a warning is a kind while its thread is in :func:`quiet`."""

    def __subclasscheck__(cls, category: type) -> bool:
        return category is cls or (_quiet.get() and UserWarning in category.__mro__)


class _HushedWarning(UserWarning, metaclass=_Hushed):
    """What the one filter of ours ignores: no thread's own, so that two audits cannot undo each other's."""


_quiet: ContextVar[bool] = ContextVar("qixai_fast_quiet", default=False)


def _hush() -> None:
    """Put our filter first, unless it is: others change filters for the whole process, and put them back."""
    if not warnings.filters or warnings.filters[0][2] is not _HushedWarning:
        warnings.simplefilter("ignore", _HushedWarning)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide engines' warnings that the audit gives in its own words (dead maps, few permutations).

    Those of this thread: other threads' warnings, the caller's or another audit's, are as they were.
    """
    _hush()
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
