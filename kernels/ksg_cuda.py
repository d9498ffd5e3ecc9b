"""k-th neighbour distances and marginal counts of many pairs of scalars at once, for the KSG estimators.

The strips of :mod:`qixai_fast.kernels.ksg_cpu`: a pair's points are cut by x rank into strips of
``2**shift``, each ascending in y. A thread answers one query. It walks up and down its own strip from its own
place, then the strips to the right and left, outward, and keeps the k smallest distances in registers; a walk
ends where the next point, or a strip's border, is not nearer than the k-th. Neighbouring threads are
neighbours in a strip, so a warp reads few lines. Counts compare differences, as the definition does, and so
equal the CPU's.

On paper, for 10,000 normal points and k = 3: counted on a CPU, a warp takes 40 steps over candidates (14 a
lane), 35 of bisection within strips, and 54 along the axes, some 1,400 instructions with the loops around
them. The 313 warps of a pair are 0.44 million; an H200 starts 0.9 million a microsecond, so that a pair
takes 0.5 us if nothing waits, and 1.5 us at a third of that rate. Its float64 units (64 lanes a
multiprocessor a clock) take 0.3 us of that for 450 operations a warp; the 56 bytes a point that are written
and read, 0.1 us of memory. Beside the 400 us that a pair takes one CPU core, a hundredfold allows 4 us.
"""

from functools import cache

import numpy as np
from numba import cuda

from ._cuda_jit import jit_cuda, jit_device

# A block sorts a strip in shared memory: 2**MAX_SHIFT keys of 8 bytes.
MAX_SHIFT = 10
_ROOM = 1 << MAX_SHIFT
_LAST = 1 << 62
# The k smallest distances that stay in registers; more are found so many at a time.
MAX_HELD = 16
_AND_FLOOR = MAX_HELD + 1


@jit_device
def at(row, place):
    """An element; an unsigned place needs no test for counting back from the end."""
    return row[np.uint32(place)]


@jit_cuda
def partner_ranks(orders, ranks, x_rows, y_rows, n_blocks, partners):
    """For each pair, the rank in y of the sample with the r-th smallest x.

    Parameters
    ----------
    orders, ranks : (variables, n) int32
        Which sample is the r-th smallest, and which r a sample is.
    x_rows, y_rows : (pairs,) int32
        Variables of each pair.
    n_blocks : int
        Blocks for each pair.
    partners : (pairs, n) int32, written
    """
    pair = cuda.blockIdx.x // n_blocks
    place = (cuda.blockIdx.x % n_blocks) * cuda.blockDim.x + cuda.threadIdx.x
    if place < partners.shape[1]:
        partners[pair, place] = at(ranks[y_rows[pair]], at(orders[x_rows[pair]], place))


@jit_device
def sort_keys(keys, size):
    """Sort a power of two of keys in shared memory, by all threads of the block (bitonic network)."""
    span = 2
    while span <= size:
        step = span >> 1
        while step > 0:
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, size >> 1, cuda.blockDim.x):
                low = 2 * i - (i & (step - 1))
                first, second = keys[low], keys[low + step]
                if (first > second) == (low & span == 0):
                    keys[low], keys[low + step] = second, first
            step >>= 1
        span <<= 1
    cuda.syncthreads()


@jit_cuda
def into_strips(
    x_values, x_rows, y_values, y_rows, partners, sizes, shifts, n_blocks, least, strips_x, strips_y
):
    """Lay the points of each pair out in strips of ``2**shift`` by x rank, each ascending in y.

    Parameters
    ----------
    x_values, y_values : (variables, n) float64
        Ascending.
    x_rows, y_rows : (pairs,) int32
    partners : (pairs, n) int32
        Rank in y of the sample with the r-th smallest x.
    sizes : (pairs,) int32
        Points; nothing is done for fewer than ``least``.
    shifts : (pairs,) int32
        At most ``MAX_SHIFT``.
    n_blocks : int
        Blocks for each pair, one a strip; there may be more than strips.
    least : int
    strips_x, strips_y : (pairs, n) float64, written
    """
    keys = cuda.shared.array(_ROOM, np.int64)
    pair = cuda.blockIdx.x // n_blocks
    shift = shifts[pair]
    begin = (cuda.blockIdx.x % n_blocks) << shift
    size = sizes[pair]
    if begin >= size or size < least:
        return
    width = 1 << shift
    members = min(width, size - begin)
    xs, ys, partner = x_values[x_rows[pair]], y_values[y_rows[pair]], partners[pair]
    strip_x, strip_y = strips_x[pair], strips_y[pair]
    for i in range(cuda.threadIdx.x, width, cuda.blockDim.x):
        keys[i] = (np.int64(at(partner, begin + i)) << MAX_SHIFT) | i if i < members else _LAST
    sort_keys(keys, width)
    for i in range(cuda.threadIdx.x, members, cuda.blockDim.x):
        key = keys[i]
        strip_x[begin + i] = at(xs, begin + (key & (_ROOM - 1)))
        strip_y[begin + i] = at(ys, key >> MAX_SHIFT)


@jit_device
def is_nearer(gap, state):
    """Whether a point with this gap on one axis can be nearer than the last distance in ``state``."""
    return gap < state[len(state) - 1]


@jit_device
def is_within(gap, state):
    """Whether a point with this gap on one axis can be at most as far as the last distance in ``state``."""
    return gap <= state[len(state) - 1]


@jit_device
def keep_smallest(gap_x, gap_y, state):
    """Sort a distance in among the smallest so far, which ascend."""
    distance = max(gap_x, gap_y)
    if distance < state[len(state) - 1]:
        for i in range(len(state)):
            held = state[i]
            nearer = distance < held
            state[i] = distance if nearer else held
            distance = held if nearer else distance


@jit_device
def keep_smallest_beyond(gap_x, gap_y, state):
    """As :func:`keep_smallest`, of the distances larger than the first in ``state``, which stays."""
    distance = max(gap_x, gap_y)
    if state[0] < distance < state[len(state) - 1]:
        for i in range(1, len(state)):
            held = state[i]
            nearer = distance < held
            state[i] = distance if nearer else held
            distance = held if nearer else distance


@jit_device
def count_point(gap_x, gap_y, state):
    """Add 1 to the first of ``state`` for a point at most as far as the last."""
    if max(gap_x, gap_y) <= state[1]:
        state[0] += 1.0


@jit_device
def widen_sides(gap_x, gap_y, state):
    """Raise the largest gap on each axis, for a point at most as far as the last of ``state``."""
    if max(gap_x, gap_y) <= state[2]:
        state[0] = max(state[0], gap_x)
        state[1] = max(state[1], gap_y)


@jit_device
def sweep_up(is_live, visit, strip_x, strip_y, above, end, x, y, state):
    """Visit a strip's points from ``above`` up to ``end``, while they are live."""
    i = np.int32(above)
    while i < end:
        gap = at(strip_y, i) - y
        if not is_live(gap, state):
            break
        visit(abs(at(strip_x, i) - x), gap, state)
        i = np.int32(i + 1)


@jit_device
def sweep_down(is_live, visit, strip_x, strip_y, below, begin, x, y, state):
    """Visit a strip's points from ``below`` down to ``begin``, while they are live."""
    i = np.int32(below)
    while i >= begin:
        gap = y - at(strip_y, i)
        if not is_live(gap, state):
            break
        visit(abs(at(strip_x, i) - x), gap, state)
        i = np.int32(i - 1)


@jit_device
def first_at_or_above(strip_y, begin, end, y):
    """Where a strip's points with at least this y begin."""
    low, high = np.int32(begin), np.int32(end)
    while low < high:
        middle = np.int32((low + high) >> 1)
        if at(strip_y, middle) < y:
            low = np.int32(middle + 1)
        else:
            high = middle
    return low


@jit_device
def walk(is_live, visit, x_values, strip_x, strip_y, size, shift, query, state):
    """Visit all points but the query itself that are live, and few more.

    Parameters
    ----------
    is_live : device function of (gap, state)
        Whether a point that far on one axis, and any farther, need to be visited.
    visit : device function of (gap on x, gap on y, state)
    x_values : (n,) float64
        Ascending.
    strip_x, strip_y : (n,) float64
        As :func:`into_strips` leaves them.
    size, shift : int
    query : int
        Its place in the strips.
    state : float64, of the functions
    """
    x, y = at(strip_x, query), at(strip_y, query)
    home = query >> shift
    begin = home << shift
    end = min(begin + (1 << shift), size)
    sweep_up(is_live, visit, strip_x, strip_y, query + 1, np.int32(end), x, y, state)
    sweep_down(is_live, visit, strip_x, strip_y, query - 1, np.int32(begin), x, y, state)
    for side in range(2):
        begin = (home + 1 - 2 * side) << shift
        while 0 <= begin < size:
            end = min(begin + (1 << shift), size)
            border = at(x_values, end - 1) if side else at(x_values, begin)
            if not is_live(abs(border - x), state):
                break
            start = first_at_or_above(strip_y, begin, end, y)
            sweep_up(is_live, visit, strip_x, strip_y, start, np.int32(end), x, y, state)
            sweep_down(is_live, visit, strip_x, strip_y, start - 1, np.int32(begin), x, y, state)
            begin += (1 - 2 * side) << shift


@jit_device
def count_nearer(values, size, centre, radius):
    """How many other values are nearer than a radius to one of them."""
    if radius <= 0.0:
        return 0
    first, end = np.int32(0), np.int32(size)
    while first < end:
        middle = np.int32((first + end) >> 1)
        if centre - at(values, middle) >= radius:
            first = np.int32(middle + 1)
        else:
            end = middle
    low, end = first, np.int32(size)
    while low < end:
        middle = np.int32((low + end) >> 1)
        if at(values, middle) - centre < radius:
            low = np.int32(middle + 1)
        else:
            end = middle
    return low - first - 1


@jit_device
def count_within(values, size, centre, radius):
    """How many other values are at most as far as a radius from one of them."""
    first, end = np.int32(0), np.int32(size)
    while first < end:
        middle = np.int32((first + end) >> 1)
        if centre - at(values, middle) > radius:
            first = np.int32(middle + 1)
        else:
            end = middle
    low, end = first, np.int32(size)
    while low < end:
        middle = np.int32((low + end) >> 1)
        if at(values, middle) - centre <= radius:
            low = np.int32(middle + 1)
        else:
            end = middle
    return low - first - 1


@jit_device
def kth_distance(x_values, strip_x, strip_y, size, shift, query, n_neighbors):
    """Distance to the k-th neighbour for any k: some of the nearest at a time, and how many there are."""
    nearest = cuda.local.array(_AND_FLOOR, np.float64)
    within = cuda.local.array(2, np.float64)
    nearest[0] = -1.0
    wanted = n_neighbors
    radius = np.inf
    while wanted > 0:
        for i in range(1, _AND_FLOOR):
            nearest[i] = np.inf
        walk(is_nearer, keep_smallest_beyond, x_values, strip_x, strip_y, size, shift, query, nearest)
        radius = nearest[MAX_HELD]
        if wanted <= MAX_HELD:
            # A place that is not known when this is compiled would put all of them in memory.
            for i in range(1, _AND_FLOOR):
                if i == wanted:
                    radius = nearest[i]
            break
        # All as far as the last one count, also those that there was no room for.
        within[0], within[1] = 0.0, radius
        walk(is_within, count_point, x_values, strip_x, strip_y, size, shift, query, within)
        wanted = n_neighbors - int(within[0])
        nearest[0] = radius
    return radius


@cache
def make_marginal_counts(n_held, algorithm):
    """The kernel :func:`marginal_counts` for a number of neighbours and KSG-1 or KSG-2.

    Parameters
    ----------
    n_held : int
        The number of neighbours, ``MAX_HELD`` at most; 0 for a kernel that takes any number, and finds
        ``MAX_HELD`` more of them with each walk.
    algorithm : {1, 2}
    """

    @jit_cuda
    def marginal_counts(
        x_values, x_rows, y_values, y_rows, sizes, shifts, n_blocks, n_neighbors, strips_x, strips_y, n_x, n_y
    ):
        """Marginal neighbour counts of every point of each pair, as KSG-1 or KSG-2 defines them.

        Parameters
        ----------
        x_values, x_rows, y_values, y_rows, sizes, shifts, strips_x, strips_y
            As in :func:`into_strips`; nothing is done for pairs of ``n_neighbors`` points or fewer.
        n_blocks : int
            Blocks for each pair.
        n_neighbors : int
        n_x, n_y : (pairs, n) int32, written
            Point after point of strip after strip.
        """
        pair = cuda.blockIdx.x // n_blocks
        query = (cuda.blockIdx.x % n_blocks) * cuda.blockDim.x + cuda.threadIdx.x
        size = sizes[pair]
        if query >= size or size <= n_neighbors:
            return
        shift = shifts[pair]
        xs, ys = x_values[x_rows[pair]], y_values[y_rows[pair]]
        strip_x, strip_y = strips_x[pair], strips_y[pair]
        if n_held > 0:
            nearest = cuda.local.array(n_held, np.float64)
            for i in range(n_held):
                nearest[i] = np.inf
            walk(is_nearer, keep_smallest, xs, strip_x, strip_y, size, shift, query, nearest)
            radius = nearest[n_held - 1]
        else:
            radius = kth_distance(xs, strip_x, strip_y, size, shift, query, n_neighbors)
        x, y = at(strip_x, query), at(strip_y, query)
        if algorithm == 1:
            n_x[pair, query] = count_nearer(xs, size, x, radius)
            n_y[pair, query] = count_nearer(ys, size, y, radius)
        else:
            sides = cuda.local.array(3, np.float64)
            sides[0] = sides[1] = 0.0
            sides[2] = radius
            # Points in the very same place widen nothing, and may be many.
            if radius > 0.0:
                walk(is_within, widen_sides, xs, strip_x, strip_y, size, shift, query, sides)
            n_x[pair, query] = count_within(xs, size, x, sides[0])
            n_y[pair, query] = count_within(ys, size, y, sides[1])

    return marginal_counts
