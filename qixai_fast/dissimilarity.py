"""Representational similarity analysis: do two layers find the same samples alike?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._device import resolve_device
from ._distances import (
    METRICS,
    Distances,
    all_pairs,
    distances_of,
    draw_pairs,
    drawn_pairs,
    n_pairs_of,
    pair_memory,
)
from ._memory import parse_memory, workers_within
from ._random import as_generator
from ._threads import resolve_n_jobs, single_threaded_blas
from ._validate import Float64, as_matrix, check_choice, check_int, check_same_samples
from .kernels.rank_cpu import centred_ranks
from .statistics import combine_tree

METHODS = ("spearman", "pearson")

# A spread of distances below this fraction of their mean is rounding noise.
_NOISE = 1e-12
# Pairs are numbered in 32 bits where they are ranked.
_MOST_RANKED = 2**32 - 1

# Centred sums over all pairs: of squares in the one layer, of products, of squares in the other.
Products = tuple[float, float, float]


def rsa(
    X: Any,
    Y: Any,
    *,
    metric: str = "correlation",
    method: str = "spearman",
    n_pairs: int | None = None,
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Representational similarity analysis: correlation of two layers' dissimilarity matrices.

    1 where the distances between samples agree (Pearson: up to a positive scale and an offset; Spearman: in
    their order), 0 where they have nothing to do with each other.

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer; any input that the package takes, read block by block.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples.
    metric : {"correlation", "cosine", "euclidean", "sqeuclidean"}
        Distance between two samples, as SciPy's ``pdist`` names them. "correlation" is 1 - Pearson's
        correlation of two samples over the features, the usual choice; it takes each sample's own mean
        away, and from at least 2 features. The Euclidean ones are the same for rotated layers.
    method : {"spearman", "pearson"}
        How the distances are compared. "spearman" makes no assumption on how those of one layer grow with
        those of the other, and takes 24 bytes for every pair of samples: 0.3 GB for 5,000 samples, 1.2 GB
        for 10,000. "pearson" takes a few tiles.
    n_pairs : int, optional
        Draw this many pairs of samples at random, independently, and compare their distances only. None,
        and any number no smaller than that of all pairs, takes all: ``n (n - 1) / 2`` distances in each
        layer, at ``n**2 * (d_x + d_y) / 2`` multiply-adds.
    random_state : None, int, Generator or RandomState
        Seed of that draw.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations. The square of all distances is never held.

    Returns
    -------
    float
        Between -1 and 1.

    Raises
    ------
    ValueError
        For different numbers of samples, fewer than 3, a single feature with "correlation", NaN or
        infinite values, options out of range, and more than 92,681 samples with "spearman" and all pairs.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Where samples have no direction (constant ones for "correlation", zeros for "cosine"): their
        distance from all others is 1. And where all distances of a layer are equal: the result is set to 0.

    Notes
    -----
    Kriegeskorte, Mur and Bandettini 2008 (Frontiers in Systems Neuroscience 2:4), who advise the
    correlation distance and Spearman's rank correlation. The entries above the diagonals are compared;
    distances that agree in single precision share the mean of their ranks. Products are float64;
    Euclidean distances below 1e-7 of the samples' distance from a point near the data count as 0.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 8))
    >>> round(qf.rsa(X, 3 * X[:, ::-1]), 12)
    1.0
    >>> abs(qf.rsa(X, rng.normal(size=(100, 8)), metric="euclidean", method="pearson")) < 0.1
    True
    """
    resolve_device(device)
    check_choice(metric, "metric", METRICS)
    check_choice(method, "method", METHODS)
    features = 2 if metric == "correlation" else 1
    first = as_matrix(X, "X", min_samples=3)
    second = as_matrix(Y, "Y", min_samples=3)
    for matrix in (first, second):
        if matrix.n_features < features:
            raise ValueError(
                f"{matrix.name}: a sample of one feature has no correlation with another; "
                "wanted at least 2 features, or metric='euclidean'"
            )
    check_same_samples(first, second)
    total = n_pairs_of(first.n_samples)
    count = total if n_pairs is None else check_int(n_pairs, "n_pairs", low=3)
    generator = as_generator(random_state)
    everything = count >= total
    count = min(count, total)
    ranked = method == "spearman"
    if ranked and count > _MOST_RANKED:
        raise ValueError(
            f"X and Y: {count} pairs of samples are too many to rank; draw some with n_pairs=, "
            "or compare with method='pearson'"
        )
    workers = workers_within(
        parse_memory(max_memory),
        resolve_n_jobs(n_jobs),
        fixed=(24 if ranked else 0) * count + (0 if everything else 40 * count) + 2 * first.n_samples + 2**20,
        per_worker=pair_memory(first, second),
        work=f"distances of {count} pairs of samples",
    )
    sides = [distances_of(matrix, metric, workers) for matrix in (first, second)]
    compare: Any = _Ranks(count) if ranked else _Sums()
    if everything:
        products: Products = compare.products(all_pairs(sides[0], sides[1], compare.chunk, workers))
    else:
        pairs = draw_pairs(first.n_samples, count, generator)
        products = compare.products(drawn_pairs(sides[0], sides[1], pairs, compare.chunk, workers))
    _warn(sides, products)
    xx, xy, yy = products
    if xx == 0 or yy == 0:
        return 0.0
    return min(1.0, max(-1.0, xy / (math.sqrt(xx) * math.sqrt(yy))))


def _warn(sides: list[Distances], products: Products) -> None:
    """Warn the caller of a public function of samples and layers whose distances mean nothing."""
    texts = []
    for side, square in zip(sides, (products[0], products[2]), strict=True):
        if side.is_zero.any():
            kind = "constant" if side.metric == "correlation" else "zero"
            texts.append(
                f"{side.matrix.name} has {np.count_nonzero(side.is_zero)} {kind} sample(s), the first at row "
                f"{int(np.argmax(side.is_zero))}: their distance from all others is 1"
            )
        if square == 0:
            texts.append(f"{side.matrix.name}: all distances are equal; the correlation is set to 0")
    if texts:
        warnings.warn("; ".join(texts), UserWarning, stacklevel=3)


@dataclass(frozen=True)
class _Moments:
    """Of the distances of some pairs: their number, means, and centred sums of products."""

    n: int
    mean_x: float
    mean_y: float
    xx: float
    xy: float
    yy: float


class _Sums:
    """Pearson's correlation of streamed distances."""

    def chunk(self, place: int, x: Float64, y: Float64) -> _Moments | None:
        """Moments of one tile, which it overwrites."""
        if len(x) == 0:
            return None
        mean_x, mean_y = float(x.mean()), float(y.mean())
        x -= mean_x
        y -= mean_y
        return _Moments(
            len(x), mean_x, mean_y, float((x * x).sum()), float((x * y).sum()), float((y * y).sum())
        )

    def products(self, found: Iterable[_Moments | None]) -> Products:
        """Centred sums of squares and products; exactly 0 for a layer whose distances are all equal."""
        total = combine_tree((moments for moments in found if moments is not None), _add)
        noise = total.n * _NOISE**2
        xx = total.xx if total.xx > noise * total.mean_x**2 else 0.0
        yy = total.yy if total.yy > noise * total.mean_y**2 else 0.0
        return xx, total.xy, yy


def _add(first: _Moments, second: _Moments) -> _Moments:
    """Chan, Golub and LeVeque 1983."""
    n = first.n + second.n
    gap_x, gap_y = second.mean_x - first.mean_x, second.mean_y - first.mean_y
    weight = first.n * (second.n / n)
    return _Moments(
        n,
        first.mean_x + gap_x * (second.n / n),
        first.mean_y + gap_y * (second.n / n),
        first.xx + second.xx + weight * gap_x**2,
        first.xy + second.xy + weight * gap_x * gap_y,
        first.yy + second.yy + weight * gap_y**2,
    )


class _Ranks:
    """Spearman's correlation: all distances, as single precision, in one word each with their place.

    Distances are never negative, so that their bits are in their order: sorting the words sorts them.
    """

    def __init__(self, count: int) -> None:
        self._words = [np.empty(count, dtype=np.uint64) for _ in range(2)]

    def chunk(self, place: int, x: Float64, y: Float64) -> None:
        """Keep one tile."""
        stop = place + len(x)
        places = np.arange(place, stop, dtype=np.uint64)
        for words, distances in zip(self._words, (x, y), strict=True):
            bits = distances.astype(np.float32).view(np.uint32).astype(np.uint64)
            bits <<= np.uint64(32)
            bits |= places
            words[place:stop] = bits

    def products(self, found: Iterable[None]) -> Products:
        """Sums of squares and products of the centred ranks, over the number of pairs cubed."""
        for _ in found:
            pass
        ranks = []
        while self._words:
            words = self._words.pop(0)
            words.sort()
            own = np.empty(len(words))
            centred_ranks(words, own)
            del words
            own /= len(own)
            ranks.append(own)
        x, y = ranks
        with single_threaded_blas():
            return float(x @ x), float(x @ y), float(y @ y)
