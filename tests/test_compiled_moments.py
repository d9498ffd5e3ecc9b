"""Kernels of moments as compiled for GPUs."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("numba_cuda")

from compiled_kernels import ARCHITECTURES, compiled
from numba import types
from qixai_fast.kernels.moments_cuda import shift_rows

DOUBLES = types.float64[::1]


def shift_signature(dtype, layout):
    rows = types.Array(dtype, 2, layout)
    return rows, DOUBLES, DOUBLES, types.Array(types.float64, 2, "A"), types.float64[:, :, ::1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", ["C", "A"])
@pytest.mark.parametrize("dtype", [types.float16, types.float32, types.float64])
def test_rows_about_a_shift(dtype, layout, architecture):
    """Four loads are under way before the first store, and no value passes through another precision."""
    made = compiled(shift_rows, shift_signature(dtype, layout), architecture)
    assert (made.spilled, made.stack, made.shared) == (0, 0, 0)
    assert made.registers <= 64
    access = re.compile(r"\b(?:(ld)|st)(?:\.global)?\.[bfu](?:16|32|64)\b")
    orders = ["".join("L" if m[1] else "S" for m in access.finditer(body)) for body in made.innermost_loops()]
    assert any(re.search("LLLLSSSS", order) for order in orders), orders
    if dtype != types.float32:
        assert made.count(r"\.f32") == 0
    # Scale and shift are loaded once, not in the loop.
    assert all(order.count("L") == order.count("S") for order in orders)
