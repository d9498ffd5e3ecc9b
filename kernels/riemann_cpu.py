"""Weighted sums of recorded gradients: a stretch of elements over a few steps at a time, summed in float64.

Every element is a sum of its own, in the order of the steps, so neither the vector width nor the way the
elements and steps are cut can change a bit.
"""

import numpy as np

from ._jit import jit, jit_inlined

_TILE = 2048  # 16 kB of float64 sums: they stay in a core's L1 cache while the steps pass by
_HALF_SCALE = np.float32(2.0**112)


@jit_inlined
def _add(rows, weights, total):
    """Add up to four weighted rows to ``total``, one after the other, in one pass over it."""
    if len(weights) == 4:
        a, b, c, d = weights[0], weights[1], weights[2], weights[3]
        p, q, r, t = rows[0], rows[1], rows[2], rows[3]
        for j in range(len(total)):
            value = total[j] + a * float(p[j])
            value += b * float(q[j])
            value += c * float(r[j])
            total[j] = value + d * float(t[j])
    else:
        for s in range(len(weights)):
            a, p = weights[s], rows[s]
            for j in range(len(total)):
                total[j] += a * float(p[j])


@jit
def add_weighted(steps, weights, start, total):
    """Add ``weights[s] * steps[s, start + j]`` to ``total[j]`` for all s; ``total`` is float64."""
    for first in range(0, len(total), _TILE):
        stop = min(first + _TILE, len(total))
        for s in range(0, len(weights), 4):
            rows = steps[s : s + 4, start + first : start + stop]
            _add(rows, weights[s : s + 4], total[first:stop])


@jit_inlined
def _widen(bits, wide):
    """Turn finite float16, given by their bits, into float32; bit 15 of the result tells of others.

    The exponent's bits go to their place in float32, whose exponents begin 112 lower.
    """
    bad = np.uint32(0)
    for j in range(len(wide)):
        number = np.uint32(bits[j])
        bad = np.uint32(bad | np.uint32(np.uint32(number & np.uint32(0x7C00)) + np.uint32(0x0400)))
        sign = np.uint32(np.uint32(number & np.uint32(0x8000)) << np.uint32(16))
        magnitude = np.uint32(np.uint32(number & np.uint32(0x7FFF)) << np.uint32(13))
        wide[j] = np.uint32(sign | magnitude).view(np.float32) * _HALF_SCALE
    return bad


@jit
def add_weighted_half(steps, weights, start, total):
    """As :func:`add_weighted` for float16, given as uint16; returns whether all are finite."""
    bad = np.uint32(0)
    wide = np.empty((4, _TILE), np.float32)
    for first in range(0, len(total), _TILE):
        stop = min(first + _TILE, len(total))
        for s in range(0, len(weights), 4):
            count = min(4, len(weights) - s)
            for k in range(count):
                bits = steps[s + k, start + first : start + stop]
                bad |= _widen(bits, wide[k, : stop - first])
            _add(wide[:, : stop - first], weights[s : s + count], total[first:stop])
    return (bad & 0x8000) == 0
