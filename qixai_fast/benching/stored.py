"""The user's own activations: a sample of a store's layers, what is peculiar to them, and cases with a truth.

Three truths are to be had on data of which none is known. Columns shuffled against one another share nothing,
so each estimator must say 0 on the user's own marginals. Gaussian pairs given those marginals share what
:mod:`qixai_fast.benching.truths` works out. And what is a definition (singular values, cosines, KSG where no
values are tied) can be computed slowly in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .._memory import format_bytes, release_pages
from .._validate import Array, Float64
from ..errors import MemoryBudgetError
from ..mutual_info.lattice import find_lattice
from ..store.reader import ActivationStore
from .cases import Case
from .information import MOST_BRUTE, binned_case, definition_case, distinguishable, ksg_case
from .similarity import cka_case, cosine_case, top_k_case
from .spectrum import spectrum_case
from .truths import ATOM_SHARE, Marginal, cut_gaussian, normals

Step = Callable[[], Case | str]

DEFAULT_SAMPLES = 10_000
MOST_LAYERS = 4
LEAST_SAMPLES = 50
_MOST_FEATURES = 512
_MAPS = 10  # of which all pairs are looked at
_RHO = 0.8
_MOST_ROWS = 2000
# A value of a layer at work, and of the one it is compared with, in bytes: ours, and the copies of the most
# wasteful peer. A value of a layer that waits. And matrices of rows by rows, whatever the sample.
VALUE_BYTES = 200
_WAITING_BYTES = 8
FIXED_BYTES = 160 * 10**6
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Sample:
    """Some samples and some features of a layer, and how many the layer has."""

    name: str
    X: Array
    n_features: int


def features_within(budget: int | None, n: int, wanted: int, n_layers: int = 1) -> int:
    """How many features fit the budget beside n samples: two or more, else an error tells what would do."""
    if budget is None:
        return wanted
    each = (VALUE_BYTES + _WAITING_BYTES * (n_layers - 1)) * n
    fit = (budget - FIXED_BYTES) // each
    if fit < min(2, wanted):
        required = FIXED_BYTES + 2 * each
        raise MemoryBudgetError(
            f"max_memory: a bench on {n} samples needs {format_bytes(required)}, the budget is "
            f"{format_bytes(budget)}; max_memory={required} or fewer samples would do",
            required,
        )
    return min(wanted, int(fit))


def draw(
    store: ActivationStore,
    name: str,
    rows: npt.NDArray[np.int64],
    rng: np.random.Generator,
    budget: int | None,
    n_layers: int = 1,
) -> Sample:
    """The given samples of a layer, and of its features as many as fit, drawn at random.

    Raises
    ------
    ValueError
        Where the sample is not finite.
    """
    layer = store[name]
    d = int(np.prod(layer.shape[1:]))
    taken = features_within(budget, len(rows), min(d, _MOST_FEATURES), n_layers)
    columns = np.sort(rng.choice(d, taken, replace=False))
    flat = layer.reshape(len(layer), d)
    X = np.empty((len(rows), taken), layer.dtype)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        X[start : start + len(some)] = flat[some[:, None], columns]
        release_pages(flat[some[0] : some[-1] + 1])
    if not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0]
        raise ValueError(
            f"layer {name!r}: {X[row, column]} in sample {rows[row]}, feature {columns[column]}: "
            "estimators need finite values"
        )
    return Sample(name, X, d)


def _held(column: Array) -> tuple[float, float]:
    """The value that most samples share, and their share."""
    values, counts = np.unique(column, return_counts=True)
    most = int(counts.argmax())
    return float(values[most]), float(counts[most] / len(column))


def findings(sample: Sample) -> list[str]:
    """What these data have that makes estimators wrong, in plain sentences."""
    name, X = sample.name, sample.X
    n, d = X.shape
    wide = X.astype(np.float64)
    spread, mean = wide.std(axis=0), np.abs(wide.mean(axis=0))
    moving = np.ptp(wide, axis=0) > 0
    found = []
    if d < sample.n_features:
        found.append(f"{name}: {d} of {sample.n_features:,} features were drawn.")
    if not moving.all():
        dead = int((~moving).sum())
        found.append(
            f"{name}: {dead} of {d} maps have one value in every sample; they are left out of pairs."
        )
    held = [_held(X[:, j]) for j in np.flatnonzero(moving)]
    atoms = [(value, share) for value, share in held if share > max(ATOM_SHARE, 3 / n)]
    if atoms:
        value, share = max(atoms, key=lambda one: one[1])
        found.append(
            f"{name}: {len(atoms)} of {d} maps have an atom, one value that up to {min(share, 0.99):.0%} of "
            f"samples share ({value:g}). Nearest-neighbour tools that know no atoms can be far off on them."
        )
    lattices = {
        lattice.name
        for j in np.flatnonzero(moving)[:16]
        if (lattice := find_lattice(np.unique(X[:, j]).astype(np.float64), n, X.dtype)) is not None
    }
    if lattices:
        kinds = " and ".join(sorted(lattices))
        found.append(
            f"{name}: values lie on a lattice ({kinds}): equal distances, where neighbours need none."
        )
    if moving.any():
        ratio = float((mean[moving] / spread[moving]).max())
        if ratio > 30:
            found.append(
                f"{name}: means are up to {ratio:,.0f} times the spread: covariances in float32 lose digits."
            )
    if n < 5 * d:
        found.append(
            f"{name}: {n:,} samples of {d:,} features are few: spectrum and CKA lean towards structure."
        )
    return found


def _maps(sample: Sample, rng: np.random.Generator) -> Array:
    """Some maps that are not constant, drawn at random."""
    moving = np.flatnonzero(np.ptp(sample.X.astype(np.float64), axis=0) > 0)
    chosen = rng.choice(moving, min(_MAPS, len(moving)), replace=False) if len(moving) else moving
    return np.ascontiguousarray(sample.X[:, np.sort(chosen)])


def _all_pairs(d: int) -> list[tuple[int, int]]:
    return [(i, j) for j in range(d) for i in range(j)]


def shuffled(X: Array, rng: np.random.Generator) -> Array:
    """Each column in an order of its own: they share nothing, and keep their marginals."""
    return np.column_stack([rng.permutation(X[:, j]) for j in range(X.shape[1])])


def planted(X: Array, rng: np.random.Generator) -> tuple[Array, Float64] | None:
    """Gaussian pairs on the marginals of the columns, and the mutual information of all their pairs.

    None where fewer than two columns allow an exact truth (:meth:`Marginal.of`).
    """
    marginals = [one for j in range(X.shape[1]) if (one := Marginal.of(X[:, j])) is not None]
    if len(marginals) < 2:
        return None
    base = normals(rng, len(X), [(len(marginals), _RHO)])
    values = np.column_stack([one.at(base[:, j]) for j, one in enumerate(marginals)]).astype(X.dtype)
    shares = [one.share for one in marginals]
    pairs = _all_pairs(len(marginals))
    return values, np.array([cut_gaussian(_RHO, shares[i], shares[j]) for i, j in pairs])


def steps(samples: list[Sample], *, n_jobs: int, seed: int) -> Iterator[Step]:
    """All cases on a store, each made when it is called for; or a sentence why one is left out."""
    for make in (ksg_case, binned_case):
        for index, sample in enumerate(samples):
            yield lambda s=sample, i=index, make=make: _null(s, make, n_jobs, [seed, i, 3])  # type: ignore[misc]
            yield lambda s=sample, i=index, make=make: _planted(s, make, n_jobs, [seed, i, 4])  # type: ignore[misc]
    for index, sample in enumerate(samples):
        yield lambda s=sample, i=index: _definition(s, n_jobs, [seed, i, 5])  # type: ignore[misc]
    for sample in samples:
        yield lambda s=sample: _spectrum(s, n_jobs, seed)  # type: ignore[misc]
    for compare in (cosine_case, top_k_case):
        for sample in samples:
            yield lambda s=sample, compare=compare: _rows(s, compare, n_jobs)  # type: ignore[misc]
    for first, second in pairwise(samples):
        yield lambda a=first, b=second: _cka(a, b, n_jobs, None)  # type: ignore[misc]
        yield lambda a=first, b=second: _cka(a, b, n_jobs, [seed, 6])  # type: ignore[misc]


def _size(X: Array) -> str:
    return f"N={len(X):,}"


def _null(sample: Sample, make: Callable[..., Case], n_jobs: int, seed: list[int]) -> Case | str:
    rng = np.random.default_rng(seed)
    X = _maps(sample, rng)
    if X.shape[1] < 2:
        return f"{sample.name}: fewer than two maps vary, so no pairs"
    X, pairs = shuffled(X, rng), _all_pairs(X.shape[1])
    data = f"{sample.name}, maps shuffled against each other, {_size(X)}"
    truth = "0 for every pair; error: root mean square over the pairs"
    return make(X, pairs, np.zeros(len(pairs)), data, truth, n_jobs=n_jobs, source=sample.name)


def _planted(sample: Sample, make: Callable[..., Case], n_jobs: int, seed: list[int]) -> Case | str:
    rng = np.random.default_rng(seed)
    made = planted(_maps(sample, rng), rng)
    if made is None:
        return (
            f"{sample.name}: no dependence planted: fewer than two of the maps drawn have distributions for "
            "which the truth would be exact (an atom at the minimum at most, and many distinct values)"
        )
    X, truths = made
    pairs = _all_pairs(X.shape[1])
    data = f"{sample.name}, dependence planted on the maps' own distributions, {_size(X)}"
    ends = list(dict.fromkeys(f"{value:.3f}" for value in (truths.min(), truths.max())))
    truth = f"{' to '.join(ends)} nats, exact; error: root mean square over the pairs"
    if not distinguishable(truths, len(X)):
        truth += "; too little to be told from 0 by so few samples"
    return make(X, pairs, truths, data, truth, n_jobs=n_jobs, source=sample.name)


def _definition(sample: Sample, n_jobs: int, seed: list[int]) -> Case | str:
    X = sample.X[:MOST_BRUTE]
    untied = [j for j in range(X.shape[1]) if len(np.unique(X[:, j])) == len(X)]
    if len(untied) < 2:
        return f"{sample.name}: KSG by its definition, which no ties allow: fewer than two maps have none"
    chosen = np.random.default_rng(seed).choice(untied, min(5, len(untied)), replace=False)
    X = np.ascontiguousarray(X[:, np.sort(chosen)])
    data = f"{sample.name}, maps scaled to a spread of 1, {_size(X)}"
    return definition_case(X, _all_pairs(X.shape[1]), data, n_jobs=n_jobs, source=sample.name)


def _spectrum(sample: Sample, n_jobs: int, seed: int) -> Case | str:
    X = sample.X
    if min(X.shape) < 2:
        return f"{sample.name}: one feature, so no spectrum"
    if np.ptp(X.astype(np.float64), axis=0).max() == 0:
        return f"{sample.name}: constant, so no spectrum"
    data = f"{sample.name}, {len(X):,} x {X.shape[1]}"
    return spectrum_case(X, data, n_jobs=n_jobs, seed=seed, source=sample.name)


def _rows(sample: Sample, compare: Callable[..., Case], n_jobs: int) -> Case:
    half = min(_MOST_ROWS, len(sample.X) // 2)
    X, Y = sample.X[:half], sample.X[half : 2 * half]
    data = f"{sample.name}, {half:,} x {half:,} rows of {X.shape[1]}"
    return compare(X, Y, data, n_jobs=n_jobs, source=sample.name)


def _cka(a: Sample, b: Sample, n_jobs: int, seed: list[int] | None) -> Case | str:
    X, Y = a.X, b.X
    if min(np.ptp(rows.astype(np.float64), axis=0).max() for rows in (X, Y)) == 0:
        return f"{a.name} and {b.name}: one is constant, so no CKA"
    data = f"{a.name} and {b.name}, {_size(X)}"
    if seed is not None:
        Y = np.random.default_rng(seed).permutation(Y)
        data = f"{a.name} and {b.name}, rows shuffled, {_size(X)}"
    return cka_case(X, Y, data, n_jobs=n_jobs, independent=seed is not None, source=f"{a.name} and {b.name}")
