"""Products of layers on disk, so that a resumed audit need not read the layers again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._layer_products import LayerProducts, LayerSums, Pair
from .._validate import Array, Matrix
from .._views import WithSquaredNorm
from .files import AuditFiles, digest, json_bytes

# Larger products are computed again: the copies that a file takes would not fit a small budget.
_MOST_BYTES = 64 * 2**20


class KeptMoments:
    """Products among the finished stages of an audit.

    Parameters
    ----------
    files : AuditFiles
    depends : Any
        Plain JSON: what products depend on besides their layers' numbers.
    """

    def __init__(self, files: AuditFiles, depends: Any) -> None:
        self._files, self._depends = files, depends

    def _place(self, pairs: Sequence[Pair]) -> tuple[str, str]:
        key = digest(json_bytes([self._depends, [list(pair) for pair in pairs]]))
        return f"moments_{key[:16]}", key

    def read(self, pairs: Sequence[Pair], matrices: Mapping[int, Matrix]) -> LayerProducts | None:
        """The products of these pairs of layers; None where none are kept."""
        found = self._files.read(*self._place(pairs))
        if found is None:
            return None
        noted, arrays = found
        views = {
            i: WithSquaredNorm(
                matrix.name, matrix.data, matrix.home, arrays[f"scale_{i}"][()], arrays[f"shift_{i}"]
            )
            for i, matrix in matrices.items()
        }
        blocks = {(i, j): arrays[f"products_{i}_{j}"] for i, j in noted["blocks"]}
        return LayerProducts(
            views, LayerSums(noted["n"], {i: arrays[f"totals_{i}"] for i in matrices}, blocks)
        )

    def write(self, pairs: Sequence[Pair], products: LayerProducts) -> None:
        """Keep products, where they are small."""
        sums = products.sums
        if sum(block.nbytes for block in sums.products.values()) > _MOST_BYTES:
            return
        arrays: dict[str, Array] = {}
        for i, view in products.views.items():
            arrays |= {
                f"scale_{i}": np.asarray(view.scale),
                f"shift_{i}": view.shift,
                f"totals_{i}": sums.totals[i],
            }
        arrays |= {f"products_{i}_{j}": block for (i, j), block in sums.products.items()}
        noted = {"n": sums.n, "blocks": [list(block) for block in sums.products]}
        self._files.write(*self._place(pairs), (noted, arrays))
