"""Permutations of samples, or of whole groups of samples, under which a null is drawn."""

from __future__ import annotations

from math import exp, inf, lgamma
from typing import Any

import numpy as np
import numpy.typing as npt

from .._device import to_numpy
from .._validate import check_finite
from ..kernels.permute_cpu import permute

Index = npt.NDArray[np.int64]


def inverse(order: Index) -> Index:
    """The permutation that undoes ``order``."""
    undone = np.empty_like(order)
    undone[order] = np.arange(len(order))
    return undone


def moves_first(first: Index, second: Index) -> bool:
    """Whether the first columns of pairs are fewer than the second, so that permuting them costs less.

    Pairing x in the inverse order with y is pairing x with y in the order: the same samples meet.
    """
    return len(np.unique(first)) < len(np.unique(second))


class Exchange:
    """The permutations that independence leaves the data exchangeable under.

    Parameters
    ----------
    n_samples : int
    groups : array_like, shape (n_samples,), optional
        Label of the group (video, sentence, image) of each sample. Samples of a group stay together and in
        order; whole groups trade places with groups of the same size. A group whose size no other has stays
        where it is.

    Raises
    ------
    ValueError
        For another shape, or where no two groups (or samples) can trade places.
    """

    def __init__(self, n_samples: int, groups: Any = None) -> None:
        self.n_samples = n_samples
        self.members: list[Index] | None = None
        if groups is None:
            if n_samples < 2:
                raise ValueError(f"X: wanted at least 2 samples to permute, got {n_samples}")
            sizes = [n_samples]
        else:
            self.members = self._by_size(groups)
            sizes = [len(members) for members in self.members]
        log_count = sum(lgamma(size + 1.0) for size in sizes)
        self.n_arrangements = exp(log_count) if log_count < 700 else inf

    def _by_size(self, groups: Any) -> list[Index]:
        """One (n_groups, size) array of sample numbers for every size that at least two groups have."""
        labels = to_numpy(groups, "groups")
        if labels.shape != (self.n_samples,):
            raise ValueError(f"groups: wanted shape ({self.n_samples},), got {labels.shape}")
        check_finite(labels, "groups")
        try:
            _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        except TypeError as error:
            raise TypeError(f"groups: wanted values that can be sorted ({error})") from None
        order = np.argsort(index.reshape(-1), kind="stable").astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        members = []
        for size in np.unique(sizes):
            begin = starts[sizes == size]
            if len(begin) > 1:
                members.append(order[begin[:, None] + np.arange(size)])
        if not members:
            raise ValueError(
                f"groups: none of the {len(sizes)} groups has the size of another, so none can trade places; "
                "cut them to equal sizes, or use groups=None if samples are independent"
            )
        return members

    def draw(self, seed: int) -> Index:
        """One permutation: sample i takes the place of sample ``order[i]``."""
        if self.members is None:
            order = np.empty(self.n_samples, dtype=np.int64)
            permute(order, seed, 0)
            return order
        order = np.arange(self.n_samples, dtype=np.int64)
        for stream, members in enumerate(self.members):
            places = np.empty(len(members), dtype=np.int64)
            permute(places, seed, stream)
            order[members] = members[places]
        return order
