"""Kernels with plain pointers on arrays that end, or begin, where no memory may be touched.

A script of its own (:mod:`test_kernel_memory` runs it): what reads or writes too far ends the process.
"""

import ctypes
import mmap

import numpy as np
from qixai_fast.kernels.products_cpu import add_panels, map_rows, pack
from qixai_fast.kernels.trapezoids_cpu import add_trapezoid

PAGE = mmap.PAGESIZE
C = ctypes.CDLL(None)
C.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Makes arrays between two closed pages, at either end of what is between them."""

    def __init__(self, rng, at_end):
        self.rng, self.at_end = rng, at_end

    def array(self, shape, dtype=np.float64):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        room = -(-size // PAGE) * PAGE
        mapped = mmap.mmap(-1, room + 2 * PAGE)
        data = np.frombuffer(mapped, np.uint8)
        for page in (data.ctypes.data, data.ctypes.data + PAGE + room):
            assert C.mprotect(page, PAGE, 0) == 0
        first = PAGE + (room - size if self.at_end else 0)
        values = data[first : first + size].view(dtype).reshape(shape)
        values[...] = self.rng.integers(-9, 10, shape)
        return values


def products(guarded, m, d, dtype):
    rows, sums = guarded.array((m, d), dtype), guarded.array((d, d))
    width = 128 // rows.itemsize
    panels = guarded.array((-(-d // width), m, width), dtype)
    expected = sums + rows.T.astype(float) @ rows
    pack(rows, panels)
    add_panels(panels, m, sums)
    np.testing.assert_array_equal(np.triu(sums), np.triu(expected))


def mapped(guarded, m, d, k, dtype):
    n_panels = -(-k // 24)
    width = -(-k // (8 * n_panels)) * 8
    rows, before, weights = guarded.array((m, d), dtype), guarded.array(d), guarded.array((d, k))
    panels, out = guarded.array((n_panels, d, width)), guarded.array((m, k))
    pack(weights, panels)
    map_rows(rows, before, panels, out)
    np.testing.assert_array_equal(out, (rows - before) @ weights)


def trapezoids(guarded, m, dtype):
    before, after, slope_before, slope_after = (guarded.array(m, dtype) for _ in range(4))
    total = guarded.array(m)
    expected = total + (after - before) * (slope_before + slope_after) / 2
    add_trapezoid(before, after, slope_before, slope_after, total)
    np.testing.assert_array_equal(total, expected)


def main():
    rng = np.random.default_rng(0)
    for d in [*range(1, 71), 127, 128, 129, 255, 256, 257]:
        for at_end in (False, True):
            for dtype in (np.float32, np.float64):
                guarded = Guarded(rng, at_end)
                m = int(rng.integers(1, 25))
                products(guarded, m, d, dtype)
                mapped(guarded, m, d, int(rng.integers(1, 75)), dtype)
                trapezoids(guarded, d, dtype)


if __name__ == "__main__":
    main()
