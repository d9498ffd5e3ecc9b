"""How often random pairings of samples reach the CKA of the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ._centred import centred_view, centred_view_memory, grams_memory, layer_grams
from ._cluster import current, mapped
from ._memory import workers_within
from ._threads import ordered_map, single_threaded_blas
from ._validate import Float64, Matrix
from ._views import Centred
from .kernels.gram_cpu import permuted_inner_product
from .statistics import leaf_bounds, leaf_rows

Order = npt.NDArray[np.int64]


def _gathers(X: Matrix, Y: Matrix) -> bool:
    """Whether n^2 / 2 gathered steps on Gram matrices are cheaper than products of all features.

    One gathered step costs about as much as eight multiply-adds of a product. The matrices may take
    four times the memory of the layers, no more.
    """
    n, d_x, d_y = X.n_samples, X.n_features, Y.n_features
    return 4 * n < d_x * d_y and n <= 4 * (d_x + d_y)


def permutations_memory(X: Matrix, Y: Matrix) -> tuple[int, int]:
    """Bytes that :func:`count_at_least` takes: once, and for each worker."""
    n = X.n_samples
    if _gathers(X, Y):
        fixed, per_worker = grams_memory(X, Y)
        return fixed + 8 * 8 * n, per_worker + 8 * 4 * n
    narrow, wide = sorted((X.n_features, Y.n_features))
    rows = min(n, leaf_rows(narrow, np.dtype(np.float64)))
    products = 8 * (2 * narrow * wide + rows * narrow + 4 * n)
    views = max(centred_view_memory(X), centred_view_memory(Y))
    return 8 * n * (narrow + wide + 8), products + views


def count_at_least(
    X: Matrix,
    Y: Matrix,
    *,
    debiased: bool,
    tolerance: float,
    n_permutations: int,
    generator: np.random.Generator,
    n_jobs: int,
    budget: int | None,
) -> int:
    """Count permutations of the samples of ``Y`` whose CKA with ``X`` is at least the true one.

    Of the three parts of CKA's numerator, permutations change the inner product of the Gram matrices
    and that of their diagonals; only those are computed, of matrices of trace 1. Values that differ by
    no more than ``tolerance`` count as equal. Neither layer may be constant.
    """
    n = X.n_samples
    fixed, per_worker = permutations_memory(X, Y)
    work = f"permutations of {n} samples of {X.n_features} and {Y.n_features} features"
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    statistic = _Statistic(X, Y, n / (n - 2) if debiased else 0.0, workers)
    if current() is None:
        statistic.prepare()

    def orders() -> Iterator[Order]:
        yield np.arange(n)
        for _ in range(n_permutations):
            yield generator.permutation(n)

    with single_threaded_blas():
        observed, *permuted = mapped(statistic, orders(), workers)
    return sum(value >= observed - tolerance for value in permuted)


class _Statistic:
    """What permutations change of CKA; another process is sent the layers, and makes its own matrices."""

    def __init__(self, X: Matrix, Y: Matrix, weight: float, n_jobs: int) -> None:
        self.layers, self.weight, self.n_jobs = (X, Y), weight, n_jobs
        self._ready: Ready | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Statistic, (*self.layers, self.weight, 1)

    def prepare(self) -> Ready:
        """Matrices that all permutations share."""
        if self._ready is None:
            make = _from_grams if _gathers(*self.layers) else _from_features
            self._ready = make(*self.layers, self.n_jobs)
        return self._ready

    def __call__(self, order: Order) -> float:
        inner, p, q = self._ready or self.prepare()
        return inner(order) - self.weight * float((p * q[order]).sum())


Ready = tuple[Callable[[Order], float], Float64, Float64]


def _from_grams(X: Matrix, Y: Matrix, n_jobs: int) -> Ready:
    grams = layer_grams(X, Y, n_jobs=n_jobs, budget=None)
    diagonals = []
    for matrix in (grams.K, grams.L):
        matrix /= np.trace(matrix)
        diagonals.append(_centred(np.diagonal(matrix)))

    def inner(order: Order) -> float:
        return float(permuted_inner_product(grams.K, grams.L, order))

    return inner, diagonals[0], diagonals[1]


def _from_features(X: Matrix, Y: Matrix, n_jobs: int) -> Ready:
    if Y.n_features > X.n_features:
        # The permutation of the one is the inverse permutation of the other; the narrow one is moved.
        swapped, q, p = _from_features(Y, X, n_jobs)
        return lambda order: swapped(_inverse(order)), p, q
    n, d_x, d_y = X.n_samples, X.n_features, Y.n_features
    rows = leaf_rows(d_y, np.dtype(np.float64))
    first, second = (_load(centred_view(matrix, n_jobs), n_jobs) for matrix in (X, Y))

    def inner(order: Order) -> float:
        total = np.zeros((d_x, d_y))
        for start in range(0, n, rows):
            total += first[start : start + rows].T @ second[order[start : start + rows]]
        return float((total * total).sum())

    p, q = (_centred(np.einsum("ij,ij->i", layer, layer)) for layer in (first, second))
    return inner, p, q


def _load(view: Centred, n_jobs: int) -> Float64:
    """A whole layer as its blocks are read, scaled so that its Gram matrix has trace 1."""
    layer = np.empty((view.n_samples, view.n_features))

    def leaf(bounds: tuple[int, int]) -> None:
        layer[slice(*bounds)] = view.block(*bounds)

    for _ in ordered_map(leaf, leaf_bounds([view]), n_jobs):
        pass
    layer /= np.sqrt(np.einsum("ij,ij->", layer, layer))
    return layer


def _centred(values: Float64) -> Float64:
    centred: Float64 = values - values.mean()
    return centred


def _inverse(order: Order) -> Order:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse
