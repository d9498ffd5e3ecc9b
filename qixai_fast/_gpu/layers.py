"""Products of whole layers on a device, for cosine of feature maps and linear CKA, in one read of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .._centred import Grams, grams_memory, prefers_grams
from .._layer_products import (
    LayerProducts,
    LayerSums,
    blocks_of,
    finalize_products,
    layer_view_scaled,
    moments_memory,
)
from .._map_cosine import CrossSums
from .._memory import require_budget
from .._validate import Float64
from .._views import safe_powers
from ..statistics import leaf_bounds, leaf_shift
from .moments import DeviceMatrix, device_leaf_rows, device_sums, sums_bytes
from .spectra import DeviceStrips, strips_bytes


def _largest_magnitudes(matrix: DeviceMatrix) -> Float64:
    """Largest magnitude of each column, in one read."""
    rows = matrix.rows
    largest = torch.zeros(rows.n_features, dtype=rows.dtype, device=rows.backend.device)
    for _, block in rows.blocks(device_leaf_rows(rows.n_features)):
        torch.maximum(largest, torch.maximum(block.amax(0), -block.amin(0)), out=largest)
    found: Float64 = largest.cpu().numpy().astype(np.float64)
    return found


def _column_scales(matrix: DeviceMatrix) -> Float64 | float:
    """Powers of two for columns of extreme values, which only float64 can hold."""
    return safe_powers(_largest_magnitudes(matrix)) if matrix.dtype == np.float64 else 1.0


def _layer_scale(matrix: DeviceMatrix) -> float:
    """One power of two for a whole layer."""
    if matrix.dtype != np.float64:
        return 1.0
    return float(safe_powers(_largest_magnitudes(matrix).max(keepdims=True))[0])


def cross_sums(parts: Sequence[DeviceMatrix]) -> tuple[CrossSums, list[Float64]]:
    """Sums of columns, products of those of the first and the last matrix, and the shifts they are about.

    Columns of extreme values are scaled first.
    """
    with parts[0].backend.current():
        scales = [_column_scales(part) for part in parts]
        first = leaf_bounds(parts)[0]
        shifts = [leaf_shift(part.block(*first) * scale) for part, scale in zip(parts, scales, strict=True)]
        across = (0, len(parts) - 1)
        found = device_sums(parts, shifts, scales, [across])
    totals, squares = [sums[0] for sums in found.sums], [sums[1] for sums in found.sums]
    return CrossSums(parts[0].n_samples, totals, squares, found.products[across]), shifts


def cross_sums_bytes(parts: Sequence[DeviceMatrix]) -> int:
    """Bytes that :func:`cross_sums` takes, of the device or the host, whichever is more."""
    rows = leaf_bounds(parts)[0][1]
    width = sum(part.n_features for part in parts)
    read = sum(0 if part.rows.resident else part.rows.block_bytes(device_leaf_rows(width)) for part in parts)
    host = 8 * parts[0].n_features * parts[-1].n_features + max(read, 24 * rows * width) + 2**16
    return max(host, sums_bytes(parts, [(0, len(parts) - 1)]))


def layer_parts(X: DeviceMatrix, Y: DeviceMatrix, budget: int | None) -> LayerProducts | Grams:
    """Cross moments of two layers with the squared norms of samples, or their Gram matrices where smaller.

    Raises
    ------
    MemoryBudgetError
        Where the budget, or the device, is too small.
    """
    backend = X.backend
    pairs = blocks_of([(0, 1)])
    if prefers_grams(X, Y):
        work, fixed = f"Gram matrices of {X.n_samples} samples", sum(grams_memory(X, Y))
        on_device = max(strips_bytes(X), strips_bytes(Y))
    else:
        work = f"products of {X.n_features} and {Y.n_features} features"
        fixed, on_device = sum(moments_memory(X, Y)), sums_bytes([X, Y], pairs, norm=True)
        leaf = device_leaf_rows(X.n_features + Y.n_features + 2)
        fixed += sum(0 if one.rows.resident else one.rows.block_bytes(leaf) for one in (X, Y))
    require_budget(budget, max(fixed, on_device), work)
    backend.require(backend.budget(budget), on_device, work)
    with backend.current():
        if prefers_grams(X, Y):
            K, L = (DeviceStrips(one, np.zeros(one.n_features), _layer_scale(one)).gram() for one in (X, Y))
            return Grams(K, L)
        views = {i: layer_view_scaled(one, _layer_scale(one)) for i, one in enumerate((X, Y))}
        found = device_sums(
            [X, Y],
            [view.shift for view in views.values()],
            [view.scale for view in views.values()],
            pairs,
            norm=True,
        )
    totals = {i: sums[0] for i, sums in enumerate(found.sums)}
    return finalize_products(views, LayerSums(X.n_samples, totals, found.products))
