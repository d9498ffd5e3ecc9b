"""Cross moments of pairs of layers, as many as are wanted, in one read of each layer.

Every block of products is computed by itself, over leaves of the same rows whatever is read beside it: so
the bits that two layers give depend on nothing but the two, and not on what is computed in the same
read. Cosine, linear CKA, Procrustes, Schmidt spectra and principal components all follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._cluster import tree
from ._memory import workers_within
from ._threads import single_threaded_blas
from ._validate import PIECE_BYTES, Float64, Matrix
from ._views import WithSquaredNorm, column_scales, layer_scale
from .statistics import check_squares, leaf_shift

Pair = tuple[int, int]

LEAF_ROWS = 4096
# Enough rows that their products take far longer than adding them to those of others.
_PART_ROWS = 2048


def _bounds(n: int) -> list[Pair]:
    return [(start, min(start + LEAF_ROWS, n)) for start in range(0, n, LEAF_ROWS)]


def layer_view(matrix: Matrix, n_jobs: int, *, each: bool = False) -> WithSquaredNorm:
    """View a layer about a shift, with the squared norm of each sample as one more column.

    The shift is the layer's mean over its first leaf. One power of two scales a layer whose values are
    extreme, or where ``each`` is set one for each such feature. The norms are what debiased CKA needs
    beside the products of the features.
    """
    return layer_view_scaled(matrix, column_scales(matrix, n_jobs) if each else layer_scale(matrix, n_jobs))


def layer_view_scaled(matrix: Matrix, scale: Float64 | float) -> WithSquaredNorm:
    """The view of :func:`layer_view` at a scale that is known."""
    first = matrix.block(*_bounds(matrix.n_samples)[0])
    first *= scale
    return WithSquaredNorm(matrix.name, matrix.data, matrix.home, scale, leaf_shift(first))


def blocks_of(pairs: Sequence[Pair]) -> list[Pair]:
    """The blocks of products, each once with its lower number first, that pairs of layers take."""
    return sorted({block for i, j in pairs for block in ((i, i), (j, j), (min(i, j), max(i, j)))})


def products_memory(matrices: Sequence[Matrix], blocks: Sequence[Pair]) -> tuple[int, int]:
    """Bytes that :func:`layer_products` takes for some blocks: once, and for each worker."""
    used = {i for block in blocks for i in block}
    n = matrices[0].n_samples
    widths = [matrix.n_features + 1 for matrix in matrices]
    products = 8 * sum(widths[i] * widths[j] for i, j in blocks)
    total = 8 * sum(widths[i] for i in used)
    held = len(_bounds(n)).bit_length() + 1
    widest = max(widths[i] for i in used)
    part = min(n, _PART_ROWS) * total + 2 * max(PIECE_BYTES, 8 * widest)
    scratch = 8 * max(widths[i] * widths[j] for i, j in blocks)
    shifts = 16 * min(n, LEAF_ROWS) * widest + 32 * sum(widths)
    return held * (products + total) + shifts + 2**16, part + products + scratch + 2 * total + 2**16


@dataclass(frozen=True)
class LayerSums:
    """Partial of :class:`LayerProducts`: rows, sums of the layers' columns, products of the blocks."""

    n: int
    totals: dict[int, Float64]
    products: dict[Pair, Float64]


@dataclass(frozen=True)
class LayerProducts:
    """Centred products of layers, and what they were taken about.

    Attributes
    ----------
    views : mapping of int to WithSquaredNorm
        By the numbers of the layers.
    sums : LayerSums
        Centred; their sums of columns are about the views' shift.
    """

    views: Mapping[int, WithSquaredNorm]
    sums: LayerSums

    def raw_trace(self, i: int) -> float:
        """Sum of squares of a layer's features about the shift: rounding errors are proportional to it."""
        return float(self.sums.totals[i][-1])

    def trace(self, i: int) -> float:
        """Centred sum of squares of a layer's features; exactly 0 for a constant layer."""
        total = self.sums.totals[i][:-1]
        return max(0.0, self.raw_trace(i) - float((total * total).sum()) / self.sums.n)

    def block(self, i: int, j: int) -> Float64:
        """Centred sums of products of the columns of layers ``i`` and ``j``, norms last; a view."""
        products = self.sums.products
        return products[i, j] if (i, j) in products else products[j, i].T

    def means(self, i: int) -> Float64:
        """Means of the columns of a layer as its view reads it."""
        means: Float64 = self.sums.totals[i] / self.sums.n
        return means


def combine_sums(first: LayerSums, second: LayerSums) -> LayerSums:
    """Add two partials into the memory of the first."""
    with np.errstate(over="ignore", invalid="ignore"):
        for key, products in first.products.items():
            products += second.products[key]
        for layer, total in first.totals.items():
            total += second.totals[layer]
    return LayerSums(first.n + second.n, first.totals, first.products)


def chunk_sums(views: Mapping[int, Matrix], blocks: Sequence[Pair], rows: Pair) -> LayerSums:
    """Sums and products of some rows of all layers."""
    totals = {i: np.zeros(view.n_features) for i, view in views.items()}
    products = {(i, j): np.empty((views[i].n_features, views[j].n_features)) for i, j in blocks}
    scratch = np.empty(
        max(block.size for block in products.values()) if rows[1] - rows[0] > _PART_ROWS else 0
    )
    for start in range(*rows, _PART_ROWS):
        part = (start, min(start + _PART_ROWS, rows[1]))
        read = {i: view.block(*part) for i, view in views.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            for i, layer in read.items():
                totals[i] += layer.sum(axis=0)
            for (i, j), block in products.items():
                if start == rows[0]:
                    np.matmul(read[i].T, read[j], out=block)
                else:
                    more = scratch[: block.size].reshape(block.shape)
                    block += np.matmul(read[i].T, read[j], out=more)
        del read
    return LayerSums(rows[1] - rows[0], totals, products)


def finalize_products(views: Mapping[int, WithSquaredNorm], sums: LayerSums) -> LayerProducts:
    """Centre combined products, in place."""
    for (i, j), products in sums.products.items():
        named: list[Matrix] = [views[which] for which in sorted({i, j})]
        check_squares(float(products[-1, -1]) + sum(float(sums.totals[which][-1]) for which in (i, j)), named)
        for start in range(0, len(products), 256):
            some = slice(start, start + 256)
            products[some] -= np.outer(sums.totals[i][some], sums.totals[j]) / sums.n
    return LayerProducts(views, sums)


def layer_products(
    views: Mapping[int, WithSquaredNorm], blocks: Sequence[Pair], n_jobs: int
) -> LayerProducts:
    """Read some layers once, leaf by leaf.

    Parameters
    ----------
    views : mapping of int to WithSquaredNorm
        Those that blocks name, with the same samples, each made by :func:`layer_view`.
    blocks : sequence of pair of int
        As :func:`blocks_of` gives them.
    n_jobs : int
        Threads; each holds one leaf of all layers that are read. Callers check the budget.
    """

    n = next(iter(views.values())).n_samples

    def leaf(rows: Pair) -> LayerSums:
        return chunk_sums(views, blocks, rows)

    with single_threaded_blas():
        sums = tree(leaf, _bounds(n), combine_sums, n_jobs)
    return finalize_products(views, sums)


def _blocks_of_two(across_only: bool) -> list[Pair]:
    return [(0, 1)] if across_only else blocks_of([(0, 1)])


def moments_memory(X: Matrix, Y: Matrix, *, across_only: bool = False, squares: int = 4) -> tuple[int, int]:
    """Bytes that :func:`layer_moments` takes: once, and for each worker."""
    fixed, per_worker = products_memory([X, Y], _blocks_of_two(across_only))
    return fixed + 8 * squares * max(X.n_features, Y.n_features) ** 2, per_worker


def layer_moments(
    X: Matrix,
    Y: Matrix,
    *,
    n_jobs: int,
    budget: int | None,
    across_only: bool = False,
    each: bool = False,
    squares: int = 4,
) -> LayerProducts:
    """Products of two layers, numbered 0 and 1, in one read of each.

    Parameters
    ----------
    X, Y : Matrix
    n_jobs : int
    budget : int or None
    across_only : bool
        Only those of the one layer with the other.
    each : bool
        As in :func:`layer_view`.
    squares : int
        Products of the wider layer with itself that the caller may hold at a time, for the budget.
    """
    fixed, per_worker = moments_memory(X, Y, across_only=across_only, squares=squares)
    work = f"products of {X.n_features} and {Y.n_features} features"
    workers = workers_within(budget, n_jobs, fixed=fixed, per_worker=per_worker, work=work)
    views = {i: layer_view(matrix, workers, each=each) for i, matrix in enumerate((X, Y))}
    return layer_products(views, _blocks_of_two(across_only), workers)
