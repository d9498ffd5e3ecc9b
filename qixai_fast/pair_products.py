"""Products of all pairs of columns of a few rows, added up in float64: one half of X^T X.

Where registers are wide (AVX-512) the tiles of :mod:`qixai_fast.kernels.products_cpu` are at least as fast as
BLAS, twice as fast on processors that BLAS does not know yet; and sums are float64 without a pass of
their own. Elsewhere BLAS does the work.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ._blas import add_products
from ._validate import Array, Float64
from .shifted_rows import aligned_zeros

# Bytes of a row of a panel: two registers.
_PANEL_BYTES = 128


@cache
def has_wide_registers() -> bool:
    """Whether numba compiles for AVX-512 here."""
    from numba.core.registry import cpu_target

    try:
        *_, features = cpu_target.target_context.codegen().magic_tuple()
    except AttributeError:
        return False
    return "+avx512f" in features.split(",")


def scratch_bytes(rows: int, width: int) -> int:
    """Bytes that :class:`PairProducts` takes, at most."""
    return max(8 * rows * (width + _PANEL_BYTES // 4), 4 * width * width)


class PairProducts:
    """Adds the products of rows to float64 memory.

    Parameters
    ----------
    rows : int
        Most rows at a time.
    width : int
        Columns.
    dtype : dtype
        float32 or float64: of rows, and of the products within one call.
    """

    def __init__(self, rows: int, width: int, dtype: np.dtype[Any]) -> None:
        self._tiles = has_wide_registers()
        columns = _PANEL_BYTES // dtype.itemsize
        if self._tiles:
            self._scratch = aligned_zeros((-(-width // columns), rows, columns), dtype)
        elif dtype == np.float32:
            self._scratch = aligned_zeros((width, width), dtype)

    def add(self, rows: Array, products: Float64) -> None:
        """Add ``rows.T @ rows`` to ``products``, on and above the diagonal.

        Some of what is below the diagonal is added to as well.

        Parameters
        ----------
        rows : ndarray of shape (m, width), C order
        products : ndarray of shape (width, width), float64, C order
        """
        from .kernels.moments_cpu import add_upper
        from .kernels.products_cpu import add_panels, pack

        if self._tiles:
            pack(rows, self._scratch)
            add_panels(self._scratch, len(rows), products)
        elif rows.dtype == np.float32:
            add_products(rows, self._scratch, keep=False)
            add_upper(self._scratch, products)
        else:
            add_products(rows, products, keep=True)
