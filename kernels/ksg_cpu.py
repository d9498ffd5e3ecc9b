"""k-th neighbour distances and marginal counts of two scalars, for the KSG estimators.

The plane is cut into strips of points with neighbouring x ranks; within a strip points ascend in y.
Eight consecutive points of a strip are queries together, a lane each: points of their own strip are
offered to them upward and downward until none can be near enough for any lane, then those of the strips
to the right and left, outward, until a strip's border is too far. Each strip keeps a cursor near the
query's y, which only moves up. So every lane sees all points that can be its neighbours, and more.
"""

import numpy as np

from ._emit import LANES
from ._jit import jit
from ._lanes import (
    begin_block,
    reaches_left,
    reaches_right,
    sweep_down,
    sweep_up,
    touches_left,
    touches_right,
    widen_down,
    widen_up,
)
from ._windows import count_lanes, hold, pointer
from .axis_cpu import PAD, count_by_bisection, just_above

# y ranks worked through in all strips before the next: what the cursors and counts touch stays in cache.
TILE = 32768


@jit
def into_strips(x_values, y_values, x_position, width, strip_x, strip_y):
    """Lay points out in strips of ``width`` by x rank, each ascending in y, with NaN around each.

    Parameters
    ----------
    x_values, y_values : (PAD + n + PAD,) float64
        As in :class:`~qixai_fast.kernels.axis_cpu.Axis`.
    x_position : (n,) int32
        Rank in x of the sample with the j-th smallest y.
    width : int
    strip_x, strip_y : float64, written
        At least ``PAD + n_strips * (width + PAD)``.
    """
    n = len(x_position)
    stride = width + PAD
    n_strips = (n + width - 1) // width
    cursor = np.empty(n_strips, np.int64)
    for strip in range(n_strips):
        cursor[strip] = PAD + strip * stride
        for slot in range(cursor[strip] - PAD, cursor[strip]):
            strip_x[slot] = strip_y[slot] = np.nan
    # 32-bit division takes a fraction of the time of the 64-bit one.
    divisor = np.uint32(width)
    for j in range(n):
        position = x_position[j]
        strip = np.uint32(position) // divisor
        slot = cursor[strip]
        cursor[strip] = slot + 1
        strip_x[slot] = x_values[PAD + position]
        strip_y[slot] = y_values[PAD + j]
    for slot in range(cursor[n_strips - 1], PAD + n_strips * stride):
        strip_x[slot] = strip_y[slot] = np.nan


@jit
def strip_order(x_position, width, order):
    """For each point, strip after strip: which j it is in ``x_position``."""
    cursor = np.empty((len(x_position) + width - 1) // width, np.int64)
    for strip in range(len(cursor)):
        cursor[strip] = strip * width
    for j in range(len(x_position)):
        strip = x_position[j] // width
        order[cursor[strip]] = j
        cursor[strip] += 1


@jit
def _advance(cursor, strip, strip_y, stride, y):
    """Move a strip's cursor to its first point at or above ``y``: by steps where near, else by bisection."""
    at = cursor[strip]
    near = at + 2 * LANES
    while at < near and strip_y[at] < y:
        at += 1
    if at == near:
        # What follows the points is NaN, which is not below y.
        end = (strip + 1) * stride
        while at < end:
            middle = (at + end) >> 1
            if strip_y[middle] < y:
                at = middle + 1
            else:
                end = middle
    cursor[strip] = at
    return at


@jit
def _count_block(values, n, table, scheme, strip, block, lanes, radii, row, counts, at):
    """Count, on one axis, the values nearer to each of a block's points than its radius."""
    if count_lanes(values, table, scheme, strip, block, radii, row, counts, at):
        for lane in range(lanes):
            if counts[at + lane] < 0:
                counts[at + lane] = count_by_bisection(
                    values, n, table, scheme, strip[block + lane], radii[row + lane]
                )


@jit
def marginal_counts(
    x_axis, y_axis, n_neighbors, width, strips_x, strips_y, nearest_rows, ranks, side_rows, counts_x, counts_y
):
    """Marginal neighbour counts of every point, as KSG-1 or KSG-2 defines them.

    Parameters
    ----------
    x_axis, y_axis : Axis
    n_neighbors : int
    width : int
    strips_x, strips_y : float64
        As :func:`into_strips` takes and fills them.
    nearest_rows : (LANES * m,) float64
        Scratch for the m >= n_neighbors nearest.
    ranks : tuple of m zeros, or () with m = n_neighbors
        See :mod:`qixai_fast.kernels._lanes`.
    side_rows : None for KSG-1, (16,) float64 scratch for KSG-2
    counts_x, counts_y : (n + LANES,) int32, written
        Point after point of strip after strip; the last ones are scratch.
    """
    n = len(counts_x) - LANES
    row = LANES * (n_neighbors - 1)
    x_values, x_table, x_scheme = pointer(x_axis.values), pointer(x_axis.table), x_axis.scheme
    y_values, y_table, y_scheme = pointer(y_axis.values), pointer(y_axis.table), y_axis.scheme
    strip_x, strip_y, nearest = pointer(strips_x), pointer(strips_y), pointer(nearest_rows)
    n_x, n_y = pointer(counts_x), pointer(counts_y)
    stride = width + PAD
    n_strips = (n + width - 1) // width
    # Where each strip's next block begins, and where its cursor begins in this tile.
    block_of = np.empty(n_strips, np.int64)
    cursor_of = np.empty(n_strips, np.int64)
    cursors = np.empty(n_strips, np.int64)
    cursor = pointer(cursors)
    for strip in range(n_strips):
        block_of[strip] = cursor_of[strip] = cursor[strip] = PAD + strip * stride
    for tile in range(TILE, n + TILE, TILE):
        limit = y_values[PAD + tile] if tile < n else np.inf
        for home in range(n_strips):
            block = block_of[home]
            end = PAD + home * stride + min(width, n - home * width)
            low = high = home
            while block < end and strip_y[block] < limit:
                if len(ranks) == 0:
                    nearest_rows[:] = np.inf
                begin_block(strip_x, strip_y, block, nearest, row, ranks)
                sweep_up(strip_x, strip_y, block + LANES, block, nearest, row, ranks)
                sweep_down(strip_x, strip_y, block - 1, block, nearest, row, ranks)
                y = strip_y[block]
                strip = home + 1
                while strip < n_strips and reaches_right(
                    strip_x, block, x_values[PAD + strip * width], nearest, row
                ):
                    at = _advance(cursor, strip, strip_y, stride, y)
                    sweep_up(strip_x, strip_y, at, block, nearest, row, ranks)
                    sweep_down(strip_x, strip_y, at - 1, block, nearest, row, ranks)
                    strip += 1
                high = max(high, strip)
                strip = home - 1
                while strip >= 0 and reaches_left(
                    strip_x, block, x_values[PAD + (strip + 1) * width - 1], nearest, row
                ):
                    at = _advance(cursor, strip, strip_y, stride, y)
                    sweep_up(strip_x, strip_y, at, block, nearest, row, ranks)
                    sweep_down(strip_x, strip_y, at - 1, block, nearest, row, ranks)
                    strip -= 1
                low = min(low, strip)
                at = block - PAD - home * PAD
                lanes = min(LANES, end - block)
                if side_rows is None:
                    _count_block(x_values, n, x_table, x_scheme, strip_x, block, lanes, nearest, row, n_x, at)
                    _count_block(y_values, n, y_table, y_scheme, strip_y, block, lanes, nearest, row, n_y, at)
                else:
                    side_rows[:] = 0.0
                    sides = pointer(side_rows)
                    left, right = _widen_block(
                        x_values, n_strips, home, width, strip_x, strip_y, cursor, block, nearest, row, sides
                    )
                    low, high = min(low, left), max(high, right)
                    _count_block(x_values, n, x_table, x_scheme, strip_x, block, lanes, sides, 0, n_x, at)
                    _count_block(y_values, n, y_table, y_scheme, strip_y, block, lanes, sides, LANES, n_y, at)
                block += LANES
            block_of[home] = block
            for strip in range(max(low, 0), min(high + 1, n_strips)):
                cursor[strip] = cursor_of[strip]
        for strip in range(n_strips):
            # The points before a strip's next block but one were below the limit, all of them.
            cursor_of[strip] = cursor[strip] = max(PAD + strip * stride, block_of[strip] - LANES + 1)
    hold(cursors)


@jit
def _widen_block(x_values, n_strips, home, width, strip_x, strip_y, cursor, block, radius, row, sides):
    """For KSG-2: the radius that on each axis includes all points at most as far as the k-th neighbour."""
    widen_up(strip_x, strip_y, block, block, radius, row, sides)
    widen_down(strip_x, strip_y, block - 1, block, radius, row, sides)
    y = strip_y[block]
    stride = width + PAD
    right = home + 1
    while right < n_strips and touches_right(strip_x, block, x_values[PAD + right * width], radius, row):
        at = _advance(cursor, right, strip_y, stride, y)
        widen_up(strip_x, strip_y, at, block, radius, row, sides)
        widen_down(strip_x, strip_y, at - 1, block, radius, row, sides)
        right += 1
    left = home - 1
    while left >= 0 and touches_left(strip_x, block, x_values[PAD + (left + 1) * width - 1], radius, row):
        at = _advance(cursor, left, strip_y, stride, y)
        widen_up(strip_x, strip_y, at, block, radius, row, sides)
        widen_down(strip_x, strip_y, at - 1, block, radius, row, sides)
        left -= 1
    for at in range(2 * LANES):
        sides[at] = just_above(sides[at])
    return left, right


@jit
def sum_digamma(n_x, n_y, offset, psi, times):
    """Sum psi(n + offset) over all counts of both axes, in an order that the points have no part in.

    ``times`` is (n,) int32 scratch.
    """
    times[:] = 0
    for i in range(len(times)):
        times[n_x[i]] += 1
        times[n_y[i]] += 1
    total = 0.0
    for count in range(len(times)):
        if times[count]:
            total += times[count] * psi[count + offset]
    return total
