"""The largest centred cosine that chance gives, over all pairs of maps of two layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._cluster import mapped
from .._origins import derived
from .._threads import single_threaded_blas
from .._validate import Array, Float64
from .context import AuditContext, draw_rows
from .memory import take_rows


def _standardised(block: Array) -> Float64:
    """Columns centred and of unit norm; constant ones become zero."""
    centred = block.astype(np.float64)
    centred -= centred.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    centred /= np.where(largest > 0, largest, 1.0)
    norm = np.sqrt((centred**2).sum(axis=0))
    centred /= np.where(norm > 0, norm, 1.0)
    return centred


def largest_cosine(first: Float64, second: Float64, within: bool) -> float:
    """The largest absolute cosine of columns of unit norm; ``within``, of different ones."""
    cosines = np.abs(first.T @ second)
    if within:
        np.fill_diagonal(cosines, 0.0)
    return float(cosines.max())


def _standardised_rows(
    array: Array, rows: npt.NDArray[np.int64], maps: npt.NDArray[np.int64] | None
) -> Float64:
    taken = take_rows(array, rows)
    return _standardised(taken if maps is None else taken[:, maps])


@dataclass(frozen=True)
class _LargestCosine:
    """:func:`largest_cosine` with the samples of one side in some order."""

    first: Float64
    second: Float64
    within: bool

    def __call__(self, order: npt.NDArray[np.int64]) -> float:
        return largest_cosine(self.first, self.second[order], self.within)


@dataclass(frozen=True)
class _Orders:
    """Permutations, drawn one after the other as they are asked for."""

    rng: np.random.Generator
    n: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        return (self.rng.permutation(self.n) for _ in range(self.count))


def chance_threshold(
    context: AuditContext,
    first: Array,
    second: Array,
    within: bool,
    rng: np.random.Generator,
    maps: Sequence[npt.NDArray[np.int64]] = (),
) -> float:
    """The absolute centred cosine beyond which a pair differs from random pairing of the samples.

    The (1 - alpha) quantile of the largest value of the whole table, over permutations of the samples of one
    side (Westfall and Young 1993): right for sparse and heavy-tailed maps too, where single
    cosines are far from normal. Above ``null_samples`` samples a draw of them is permuted, and the threshold
    shrinks with the square root of the samples.

    Parameters
    ----------
    context : AuditContext
    first, second : ndarray of shape (n_samples, n_maps)
    within : bool
        Both are one layer: only pairs of different maps count.
    rng : Generator
    maps : two arrays of int, optional
        The maps of each that are compared; all of them otherwise.

    Returns
    -------
    float
        1 where the plan has too few permutations to reach its alpha.
    """
    plan = context.plan
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    n = context.n_samples
    rank = math.ceil((1 - plan.alpha) * (1 + plan.n_permutations))
    if rank > plan.n_permutations:
        return 1.0
    rows = draw_rows(n, plan.null_samples, rng)
    work = "a permutation null of cosines"
    context.require(8 * len(rows) * (2 * first.shape[1] + 3 * second.shape[1]), work)
    of_first, of_second = maps or (None, None)
    a = derived(_standardised_rows, first, rows, of_first)
    b = derived(_standardised_rows, second, rows, of_second)
    orders = _Orders(rng, len(rows), plan.n_permutations)
    with single_threaded_blas():
        found = mapped(_LargestCosine(a, b, within), orders, 1)
        largest = np.fromiter(found, np.float64, plan.n_permutations)
    threshold = float(np.sort(largest)[rank - 1]) * math.sqrt((len(rows) - 1) / (n - 1))
    return min(1.0, threshold)
