"""One variable, sorted, with a table that finds where a value belongs.

Counts are decided by comparing differences ``|v_j - v_i|``, as the definition does. A difference of two
floats is monotone in each of them even after rounding, so the values nearer than a radius are a run of
the sorted ones, and its two ends are found in two steps: the table tells about where, and eight
neighbouring values compared at once tell exactly. Where they do not (a crowded bucket), bisection does.

Buckets are narrow near the centre and widen with the square of the distance in the tails, as those of a
Cauchy distribution do: heavy tails neither crowd all other values into one, nor take most of the table.
"""

from typing import NamedTuple

import numpy as np

from ._emit import LANES
from ._jit import jit, jit_inlined
from ._windows import bits_of, from_bits

PAD = LANES
# Buckets on either side of the centre, a value.
BUCKETS = 0.5


class Scheme(NamedTuple):
    """Which bucket a value is in.

    With ``inward = last / (|v - centre| * inverse + 1)``, in float32 and rounded down: bucket
    ``last + (last - inward)`` from the centre up, and ``last - (last - inward)`` below it.
    """

    centre: float
    inverse: float
    last: int


class Axis(NamedTuple):
    """A sorted variable.

    Attributes
    ----------
    values : (PAD + n + PAD,) float64
        Ascending, between ``PAD`` times -inf and ``PAD`` times inf.
    table : (2 * last + 2,) int32
        How many values lie in buckets before each.
    scheme : Scheme
    """

    values: np.ndarray
    table: np.ndarray
    scheme: Scheme


def pad_in_place(values, size):
    """The part of an array that holds ``size`` values from ``PAD`` on, with infinities around them."""
    values[:PAD] = -np.inf
    values[PAD + size : PAD + size + PAD] = np.inf
    return values[: PAD + size + PAD]


def make_axis(padded):
    """Make the table for sorted values that are not all equal, padded as :class:`Axis` wants them."""
    values = padded[PAD:-PAD]
    n = len(values)
    spread = 0.0
    # The interquartile range; with many ties, the next wider range that is not zero.
    for cut in (n // 4, n // 16, n // 64, 0):
        spread = spread or float(values[n - 1 - cut] / 2 - values[cut] / 2)
    inverse = 0.5 / max(spread, float(np.finfo(np.float64).tiny))
    scheme = Scheme(float(values[n // 2]), inverse, int(BUCKETS * n) + 1)
    table = np.empty(2 * scheme.last + 2, np.int32)
    fill_table(padded, scheme, table)
    return Axis(padded, table, scheme)


@jit_inlined
def bucket(value, scheme):
    """The bucket of a value."""
    offset = value - scheme.centre
    most = np.float32(scheme.last)
    inward = most / np.float32(abs(offset) * scheme.inverse + 1.0)
    steps = scheme.last - int(inward)
    return scheme.last - steps if offset < 0.0 else scheme.last + steps


@jit
def fill_table(values, scheme, table):
    """Count the values before each bucket."""
    n = len(values) - 2 * PAD
    following = 0
    for i in range(n):
        here = bucket(values[PAD + i], scheme)
        while following <= here:
            table[following] = i
            following += 1
    table[following:] = n


@jit
def _bisect(values, n, table, place, centre, radius, side):
    """Where the values nearer than a radius begin (side -1) or end (1): near a bucket, or elsewhere."""
    low, high = 0, n
    # The bucket with a value more on both sides, if the border is there.
    first, last = max(table[place] - 1, low), min(table[place + 1], high - 1)
    if _is_before(values[PAD + first], centre, radius, side):
        low = first
        if not _is_before(values[PAD + last], centre, radius, side):
            high = last
    while low < high:
        middle = (low + high) >> 1
        if _is_before(values[PAD + middle], centre, radius, side):
            low = middle + 1
        else:
            high = middle
    return low


@jit_inlined
def _is_before(value, centre, radius, side):
    return value - centre < radius if side > 0 else centre - value >= radius


@jit
def count_by_bisection(values, n, table, scheme, centre, radius):
    """How many other values are nearer than a radius to one of them."""
    if radius <= 0.0:
        return 0
    below, above = bucket(centre - radius, scheme), bucket(centre + radius, scheme)
    begin = _bisect(values, n, table, below, centre, radius, -1)
    return _bisect(values, n, table, above, centre, radius, 1) - begin - 1


@jit
def just_above(radius):
    """The next larger float: nearer than that means at most as far as ``radius``, which is not negative."""
    return from_bits(bits_of(radius) + 1)
