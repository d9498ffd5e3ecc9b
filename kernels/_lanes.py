"""Eight float64 lanes in one register, for the nearest-neighbour kernels.

LLVM does not turn a loop that keeps the k smallest distances of eight queries into vector minima, so
the few steps that need them are written as vector code here.

A block is eight consecutive points of a strip (see :mod:`qixai_fast.kernels.ksg_cpu`), all of them
queries. ``nearest`` holds their k smallest distances so far, ascending: lane i of the j-th smallest is
``nearest[8 * j + i]``. NaN stands before and after a strip's points: it is near nothing, so it ends a
sweep and never keeps one alive, whether it is met as a point or as a query.

``ranks`` is a tuple of zeros: its length, part of its type, tells how many registers to keep, k or more
of :data:`REGISTERS`. Beyond them it is empty, and the distances stay in ``nearest``. Row ``row`` is the k-th.

Arrays come as pointers (``kernels._windows.pointer``): no reference is counted and no index is wrapped,
which takes longer than the work itself. The caller keeps the arrays alive, and every index within them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._emit import (
    F64,
    FLOATS,
    I32,
    I64,
    LANES,
    any_lane,
    element,
    everywhere,
    integer,
    larger,
    less,
    load,
    magnitude,
    splat,
    store,
)

# Each is compiled when first needed; more of them would spill on most processors.
REGISTERS = (3, 4, 6, 8, 12)


def _row(index):
    return integer(index * LANES)


def _gaps(builder, x, y, at, queries):
    """Distances on both axes from one point of a strip to the queries."""
    return [
        magnitude(builder, builder.fsub(splat(builder, element(builder, data, at)), query))
        for data, query in zip((x, y), queries, strict=True)
    ]


class _Registers:
    """The k smallest distances, each in a register; a candidate is sorted in by minima and maxima."""

    def __init__(self, builder, nearest, size):
        self.builder = builder
        self.nearest = nearest
        self.held = [load(builder, nearest, _row(i)) for i in range(size)]

    @property
    def farthest(self):
        return self.held[-1]

    def clear(self):
        self.held = [everywhere(float("inf"))] * len(self.held)

    def offer(self, distance):
        for i, vector in enumerate(self.held):
            nearer = less(self.builder, distance, vector)
            self.held[i] = self.builder.select(nearer, distance, vector)
            distance = self.builder.select(nearer, vector, distance)

    def enter_loop(self, before):
        """At the top of a loop: each value comes from before it, or from its last round."""
        self.merged = []
        for vector in self.held:
            self.merged.append(self.builder.phi(FLOATS))
            self.merged[-1].add_incoming(vector, before)
        self.held = list(self.merged)

    def repeat_loop(self, last):
        for merged, vector in zip(self.merged, self.held, strict=True):
            merged.add_incoming(vector, last)
        self.held = self.merged

    def save(self):
        for i, vector in enumerate(self.held):
            store(self.builder, vector, self.nearest, _row(i))


class _Memory:
    """The k smallest distances in memory, for any k. The caller sets them to infinity."""

    def __init__(self, builder, nearest, last):
        self.builder = builder
        self.nearest = nearest
        self.last = last

    @property
    def farthest(self):
        return load(self.builder, self.nearest, self.last)

    def offer(self, distance):
        # From the farthest down, each takes the middle one of itself, the next nearer, and the candidate.
        builder = self.builder
        with builder.if_then(any_lane(builder, less(builder, distance, self.farthest))):
            with cgutils.for_range_slice(builder, self.last, integer(0), _row(-1), inc=False) as (place, _):
                nearer = load(builder, self.nearest, builder.sub(place, _row(1)))
                shifted = larger(builder, nearer, distance)
                self._lower(place, shifted)
            self._lower(integer(0), distance)

    def _lower(self, place, distance):
        held = load(self.builder, self.nearest, place)
        lower = self.builder.select(less(self.builder, distance, held), distance, held)
        store(self.builder, lower, self.nearest, place)

    def clear(self):
        pass

    def enter_loop(self, before):
        pass

    def repeat_loop(self, last):
        pass

    def save(self):
        pass


def _nearest(builder, nearest, row, ranks):
    if ranks.count:
        return _Registers(builder, nearest, ranks.count)
    return _Memory(builder, nearest, row)


@intrinsic
def begin_block(typing, strip_x, strip_y, block, nearest, row, ranks):
    """Start ``nearest`` with the block's own points, each without itself."""

    def generate(context, builder, signature, args):
        x, y, at = args[:3]
        best = _nearest(builder, args[3], args[4], ranks)
        best.clear()
        queries = load(builder, x, at), load(builder, y, at)
        for lane in range(LANES):
            gaps = _gaps(builder, x, y, builder.add(at, integer(lane)), queries)
            distance = builder.insert_element(
                larger(builder, *gaps), ir.Constant(F64, float("inf")), ir.Constant(I32, lane)
            )
            best.offer(distance)
        best.save()
        return context.get_dummy_value()

    return types.void(strip_x, strip_y, types.int64, nearest, types.int64, ranks), generate


def _strip_loop(builder, start, step, y, query, is_live, state, visit):
    """Visit points of a strip from ``start`` on, up (step 1) or down (-1), while one is live for any lane.

    Two points a round: the second may be one too many, which changes nothing.
    """
    before = builder.block
    top, body, end = (builder.append_basic_block(name) for name in ("sweep", "sweep.body", "sweep.end"))
    builder.branch(top)
    builder.position_at_end(top)
    at = builder.phi(I64)
    at.add_incoming(start, before)
    state.enter_loop(before)
    point = splat(builder, element(builder, y, at))
    gap = builder.fsub(point, query) if step > 0 else builder.fsub(query, point)
    builder.cbranch(any_lane(builder, is_live(gap)), body, end)
    builder.position_at_end(body)
    for ahead in range(2):
        visit(builder.add(at, integer(step * ahead)))
    at.add_incoming(builder.add(at, integer(2 * step)), builder.block)
    state.repeat_loop(builder.block)
    builder.branch(top)
    builder.position_at_end(end)


def _sweep(step):
    def sweep(typing, strip_x, strip_y, start, block, nearest, row, ranks):
        def generate(context, builder, signature, args):
            x, y, start, block = args[:4]
            best = _nearest(builder, args[4], args[5], ranks)
            queries = load(builder, x, block), load(builder, y, block)

            def is_live(gap):
                return less(builder, gap, best.farthest)

            def visit(at):
                best.offer(larger(builder, *_gaps(builder, x, y, at, queries)))

            _strip_loop(builder, start, step, y, queries[1], is_live, best, visit)
            best.save()
            return context.get_dummy_value()

        kinds = (strip_x, strip_y, types.int64, types.int64, nearest, types.int64, ranks)
        return types.void(*kinds), generate

    return intrinsic(sweep)


# Offer a strip's points to a block, from ``start`` up or down, while one can be near enough for any lane.
sweep_up = _sweep(1)
sweep_down = _sweep(-1)


class _Widest:
    """The largest gap on each axis so far, in registers."""

    def __init__(self, builder, sides):
        self.builder = builder
        self.sides = sides
        self.held = [load(builder, sides, _row(axis)) for axis in range(2)]

    enter_loop = _Registers.enter_loop
    repeat_loop = _Registers.repeat_loop

    def include(self, gaps, radius):
        inside = self.builder.fcmp_ordered("<=", larger(self.builder, *gaps), radius)
        for axis, gap in enumerate(gaps):
            seen = self.builder.select(inside, gap, self.held[axis])
            self.held[axis] = larger(self.builder, self.held[axis], seen)

    def save(self):
        for axis, vector in enumerate(self.held):
            store(self.builder, vector, self.sides, _row(axis))


def _closed(builder, radius):
    """A radius for <=, where 0 reaches nothing: points in the same place widen nothing."""
    nothing = everywhere(float("-inf"))
    zero = everywhere(0.0)
    return builder.select(less(builder, zero, radius), radius, nothing)


def _widen(step):
    def widen(typing, strip_x, strip_y, start, block, radius, row, sides):
        def generate(context, builder, signature, args):
            x, y, start, block = args[:4]
            reach = _closed(builder, load(builder, args[4], args[5]))
            widest = _Widest(builder, args[6])
            queries = load(builder, x, block), load(builder, y, block)

            def is_live(gap):
                return builder.fcmp_ordered("<=", gap, reach)

            def visit(at):
                widest.include(_gaps(builder, x, y, at, queries), reach)

            _strip_loop(builder, start, step, y, queries[1], is_live, widest, visit)
            widest.save()
            return context.get_dummy_value()

        kinds = (strip_x, strip_y, types.int64, types.int64, radius, types.int64, sides)
        return types.void(*kinds), generate

    return intrinsic(widen)


# Raise ``sides`` (largest |dx|, then largest |dy|) over a strip's points within the lanes' joint radius.
widen_up = _widen(1)
widen_down = _widen(-1)


def _reaches(side, closed):
    def reaches(typing, strip_x, block, border, radius, row):
        def generate(context, builder, signature, args):
            queries = load(builder, args[0], args[1])
            reach = load(builder, args[3], args[4])
            if closed:
                reach = _closed(builder, reach)
            edge = splat(builder, args[2])
            gap = builder.fsub(edge, queries) if side > 0 else builder.fsub(queries, edge)
            return any_lane(builder, builder.fcmp_ordered("<=" if closed else "<", gap, reach))

        return types.boolean(strip_x, types.int64, types.float64, radius, types.int64), generate

    return intrinsic(reaches)


# Whether a border to the right (left) of a block is nearer than any lane's radius, or at most as far.
reaches_right = _reaches(1, closed=False)
reaches_left = _reaches(-1, closed=False)
touches_right = _reaches(1, closed=True)
touches_left = _reaches(-1, closed=True)
