"""Moments of all layers, for spectra, cosines, CKA and Schmidt modes: in one read where they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import psutil

from .._layer_products import LayerProducts, Pair, blocks_of, layer_products, layer_view, products_memory
from .._memory import workers_within
from .._validate import Matrix
from .kept_moments import KeptMoments

# Wider layers have their spectrum from qixai_fast.pca, which need not form all products.
_WIDEST = 1024


class LayerMoments:
    """Products of layers and of pairs of layers, computed when they are first asked for.

    All that fit a quarter of the budget are computed in one read of each layer. Where not all fit, they
    are cut into groups in the order in which an audit wants them; one group is held at a time. The numbers
    do not depend on the groups, to the bit.

    Parameters
    ----------
    matrices : mapping of str to Matrix
        Layers, with the same samples.
    n_jobs : int
    budget : int or None
        Bytes; None for the memory that is free.
    between : sequence of pair of str, optional
        Pairs of two of these layers that are compared; None for all.
    kept : KeptMoments, optional
        Where an audit that is resumed finds them again.

    Attributes
    ----------
    groups : list of list of pair of int
        Pairs of layers that are computed together; the same layer twice for its own products.
    n_reads : int
        Groups that were read so far.
    """

    def __init__(
        self,
        matrices: Mapping[str, Matrix],
        n_jobs: int,
        budget: int | None,
        between: Sequence[tuple[str, str]] | None = None,
        kept: KeptMoments | None = None,
    ) -> None:
        self._numbers = {name: i for i, name in enumerate(matrices)}
        self._matrices = list(matrices.values())
        self._n_jobs, self._budget = n_jobs, budget
        self._limit = (psutil.virtual_memory().available if budget is None else budget) // 4
        self._held: LayerProducts | None = None
        self._kept = kept
        pairs = combinations(matrices, 2) if between is None else between
        self.groups = self._cut([(self._numbers[a], self._numbers[b]) for a, b in pairs])
        self.n_reads = 0

    def _cut(self, between: Sequence[Pair]) -> list[list[Pair]]:
        widths = [matrix.n_features for matrix in self._matrices]
        n = self._matrices[0].n_samples
        wanted = [(i, i) for i, width in enumerate(widths) if width <= min(n, _WIDEST)]
        # Gram matrices are smaller for the others.
        wanted += [(i, j) for i, j in between if widths[i] + widths[j] <= n]
        groups: list[list[Pair]] = []
        for pair in wanted:
            if groups and sum(self.memory([*groups[-1], pair])) <= self._limit:
                groups[-1].append(pair)
            else:
                groups.append([pair])
        return groups

    def plan(self) -> str:
        """How many reads it takes, for a person; empty where it is one read of each layer."""
        if len(self.groups) < 2:
            return ""
        reads = Counter(i for group in self.groups for i in {i for pair in group for i in pair})
        whole = [pair for group in self.groups for pair in group]
        return (
            f"moments of {len(reads)} layers in {len(self.groups)} groups, up to {max(reads.values())} reads "
            f"of a layer; max_memory={4 * sum(self.memory(whole))} would do with one"
        )

    def group_of(self, a: str, b: str) -> int | None:
        """Number of the group that holds the products of two layers; None where no group does."""
        pair = self._numbers[a], self._numbers[b]
        return next((i for i, group in enumerate(self.groups) if pair in group), None)

    def memory(self, pairs: Sequence[Pair]) -> tuple[int, int]:
        """Bytes that products of some pairs take: once, and for each worker."""
        return products_memory(self._matrices, blocks_of(pairs))

    def products(self, a: str, b: str) -> tuple[LayerProducts, int, int] | None:
        """Products that hold those of two layers, and the numbers of the layers in them.

        None where they are better computed otherwise: for layers too wide for the samples, or for their
        own products to be of use.

        Raises
        ------
        MemoryBudgetError
            Where the budget is too small for this pair alone.
        ValueError
            For NaN and infinite values.
        """
        pair = self._numbers[a], self._numbers[b]
        if self._held is None or pair not in self._held.sums.products:
            group = next((group for group in self.groups if pair in group), None)
            if group is None:
                return None
            self._held = None
            self._held = self._found(group)
        return self._held, *pair

    def forget(self) -> None:
        """Let go of what is held."""
        self._held = None

    def _found(self, group: Sequence[Pair]) -> LayerProducts:
        """Read back, or read from the layers."""
        used = {i for pair in group for i in pair}
        if self._kept is not None:
            found = self._kept.read(group, {i: self._matrices[i] for i in used})
            if found is not None:
                return found
        computed = self._read(group)
        self.n_reads += 1
        if self._kept is not None:
            self._kept.write(group, computed)
        return computed

    def _read(self, group: Sequence[Pair]) -> LayerProducts:
        fixed, per_worker = self.memory(group)
        alone = fixed + per_worker > self._limit
        workers = workers_within(
            self._budget if alone else self._limit,
            self._n_jobs,
            fixed=fixed,
            per_worker=per_worker,
            work=f"products of {len({i for pair in group for i in pair})} layers",
        )
        used = {i for pair in group for i in pair}
        views = {i: layer_view(matrix, workers) for i, matrix in enumerate(self._matrices) if i in used}
        return layer_products(views, blocks_of(group), workers)
