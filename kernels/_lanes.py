"""Eight float64 lanes in one register, for the nearest-neighbour kernels.

LLVM does not turn a loop that keeps the k smallest distances of eight queries into vector minima, so
the few steps that need them are written as vector code here. ``<8 x double>`` is one AVX-512 register,
two of AVX2, four of NEON or SSE2: the same code runs on all of them.

A block is eight consecutive points of a strip (see :mod:`qixai_fast.kernels.ksg_cpu`), all of them
queries. ``nearest`` holds their k smallest distances so far, ascending: lane i of the j-th smallest is
``nearest[8 * j + i]``. NaN stands before and after a strip's points: it is near nothing, so it ends a
sweep and never keeps one alive, whether it is met as a point or as a query.

``ranks`` is a tuple of zeros: its length, part of its type, tells how many registers to keep, k or more
of :data:`REGISTERS`. Beyond them it is empty, and the distances stay in ``nearest``. Row ``row`` is the k-th.

Arrays come as pointers (:func:`pointer`): no reference is counted and no index is wrapped, which takes
longer than the work itself. The caller keeps the arrays alive, and every index within them.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
# Each is compiled when first needed; more of them would spill on most processors.
REGISTERS = (3, 4, 6, 8, 12)

_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_FLOATS = ir.VectorType(_F64, LANES)
_INTS = ir.VectorType(_I64, LANES)
_SHORTS = ir.VectorType(_I32, LANES)
_SINGLES = ir.VectorType(_F32, LANES)
_INF = ir.Constant(_F64, float("inf"))


def _int(value):
    return ir.Constant(_I64, value)


def _row(index):
    return _int(index * LANES)


def _splat(builder, scalar, kind=_FLOATS):
    empty = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _address(builder, data, at, kind):
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def _load(builder, data, at):
    return builder.load(_address(builder, data, at, _FLOATS), align=8)


def _store(builder, vector, data, at):
    builder.store(vector, _address(builder, data, at, vector.type), align=8)


def _zeros():
    return ir.Constant(_FLOATS, [ir.Constant(_F64, 0.0)] * LANES)


def _element(builder, data, at):
    return builder.load(builder.gep(data, [at]))


def _call(builder, name, kind, value):
    function = ir.FunctionType(kind, [kind])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [value])


def _abs(builder, vector):
    return _call(builder, f"llvm.fabs.v{LANES}f64", _FLOATS, vector)


def _less(builder, a, b):
    return builder.fcmp_ordered("<", a, b)


def _larger(builder, a, b):
    return builder.select(_less(builder, a, b), b, a)


def _any(builder, flags):
    return builder.icmp_unsigned("!=", builder.bitcast(flags, _I8), ir.Constant(_I8, 0))


def _gaps(builder, x, y, at, queries):
    """Distances on both axes from one point of a strip to the queries."""
    return [
        _abs(builder, builder.fsub(_splat(builder, _element(builder, data, at)), query))
        for data, query in zip((x, y), queries, strict=True)
    ]


class _Registers:
    """The k smallest distances, each in a register; a candidate is sorted in by minima and maxima."""

    def __init__(self, builder, nearest, size):
        self.builder = builder
        self.nearest = nearest
        self.held = [_load(builder, nearest, _row(i)) for i in range(size)]

    @property
    def farthest(self):
        return self.held[-1]

    def clear(self):
        self.held = [ir.Constant(_FLOATS, [_INF] * LANES)] * len(self.held)

    def offer(self, distance):
        for i, vector in enumerate(self.held):
            nearer = _less(self.builder, distance, vector)
            self.held[i] = self.builder.select(nearer, distance, vector)
            distance = self.builder.select(nearer, vector, distance)

    def enter_loop(self, before):
        """At the top of a loop: each value comes from before it, or from its last round."""
        self.merged = []
        for vector in self.held:
            self.merged.append(self.builder.phi(_FLOATS))
            self.merged[-1].add_incoming(vector, before)
        self.held = list(self.merged)

    def repeat_loop(self, last):
        for merged, vector in zip(self.merged, self.held, strict=True):
            merged.add_incoming(vector, last)
        self.held = self.merged

    def save(self):
        for i, vector in enumerate(self.held):
            _store(self.builder, vector, self.nearest, _row(i))


class _Memory:
    """The k smallest distances in memory, for any k. The caller sets them to infinity."""

    def __init__(self, builder, nearest, last):
        self.builder = builder
        self.nearest = nearest
        self.last = last

    @property
    def farthest(self):
        return _load(self.builder, self.nearest, self.last)

    def offer(self, distance):
        # From the farthest down, each takes the middle one of itself, the next nearer, and the candidate.
        builder = self.builder
        with builder.if_then(_any(builder, _less(builder, distance, self.farthest))):
            with cgutils.for_range_slice(builder, self.last, _int(0), _row(-1), inc=False) as (place, _):
                nearer = _load(builder, self.nearest, builder.sub(place, _row(1)))
                shifted = _larger(builder, nearer, distance)
                self._lower(place, shifted)
            self._lower(_int(0), distance)

    def _lower(self, place, distance):
        held = _load(self.builder, self.nearest, place)
        lower = self.builder.select(_less(self.builder, distance, held), distance, held)
        _store(self.builder, lower, self.nearest, place)

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
def pointer(typing, array):
    """Pointer to an array's first element."""

    def generate(context, builder, signature, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def begin_block(typing, strip_x, strip_y, block, nearest, row, ranks):
    """Start ``nearest`` with the block's own points, each without itself."""

    def generate(context, builder, signature, args):
        x, y, at = args[:3]
        best = _nearest(builder, args[3], args[4], ranks)
        best.clear()
        queries = _load(builder, x, at), _load(builder, y, at)
        for lane in range(LANES):
            gaps = _gaps(builder, x, y, builder.add(at, _int(lane)), queries)
            distance = builder.insert_element(_larger(builder, *gaps), _INF, ir.Constant(_I32, lane))
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
    at = builder.phi(_I64)
    at.add_incoming(start, before)
    state.enter_loop(before)
    point = _splat(builder, _element(builder, y, at))
    gap = builder.fsub(point, query) if step > 0 else builder.fsub(query, point)
    builder.cbranch(_any(builder, is_live(gap)), body, end)
    builder.position_at_end(body)
    for ahead in range(2):
        visit(builder.add(at, _int(step * ahead)))
    at.add_incoming(builder.add(at, _int(2 * step)), builder.block)
    state.repeat_loop(builder.block)
    builder.branch(top)
    builder.position_at_end(end)


def _sweep(step):
    def sweep(typing, strip_x, strip_y, start, block, nearest, row, ranks):
        def generate(context, builder, signature, args):
            x, y, start, block = args[:4]
            best = _nearest(builder, args[4], args[5], ranks)
            queries = _load(builder, x, block), _load(builder, y, block)

            def is_live(gap):
                return _less(builder, gap, best.farthest)

            def visit(at):
                best.offer(_larger(builder, *_gaps(builder, x, y, at, queries)))

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
        self.held = [_load(builder, sides, _row(axis)) for axis in range(2)]

    enter_loop = _Registers.enter_loop
    repeat_loop = _Registers.repeat_loop

    def include(self, gaps, radius):
        inside = self.builder.fcmp_ordered("<=", _larger(self.builder, *gaps), radius)
        for axis, gap in enumerate(gaps):
            seen = self.builder.select(inside, gap, self.held[axis])
            self.held[axis] = _larger(self.builder, self.held[axis], seen)

    def save(self):
        for axis, vector in enumerate(self.held):
            _store(self.builder, vector, self.sides, _row(axis))


def _closed(builder, radius):
    """A radius for <=, where 0 reaches nothing: points in the same place widen nothing."""
    nothing = ir.Constant(_FLOATS, [ir.Constant(_F64, float("-inf"))] * LANES)
    zero = _zeros()
    return builder.select(_less(builder, zero, radius), radius, nothing)


def _widen(step):
    def widen(typing, strip_x, strip_y, start, block, radius, row, sides):
        def generate(context, builder, signature, args):
            x, y, start, block = args[:4]
            reach = _closed(builder, _load(builder, args[4], args[5]))
            widest = _Widest(builder, args[6])
            queries = _load(builder, x, block), _load(builder, y, block)

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
            queries = _load(builder, args[0], args[1])
            reach = _load(builder, args[3], args[4])
            if closed:
                reach = _closed(builder, reach)
            edge = _splat(builder, args[2])
            gap = builder.fsub(edge, queries) if side > 0 else builder.fsub(queries, edge)
            return _any(builder, builder.fcmp_ordered("<=" if closed else "<", gap, reach))

        return types.boolean(strip_x, types.int64, types.float64, radius, types.int64), generate

    return intrinsic(reaches)


# Whether a border to the right (left) of a block is nearer than any lane's radius, or at most as far.
reaches_right = _reaches(1, closed=False)
reaches_left = _reaches(-1, closed=False)
touches_right = _reaches(1, closed=True)
touches_left = _reaches(-1, closed=True)


def _buckets(builder, values, scheme):
    """The buckets of eight values; ``kernels.axis_cpu.bucket`` is the same for one. NaN has one, too."""
    centre, inverse, last = scheme
    offset = builder.fsub(values, _splat(builder, centre))
    one = ir.Constant(_FLOATS, [ir.Constant(_F64, 1.0)] * LANES)
    reach = builder.fadd(builder.fmul(_abs(builder, offset), _splat(builder, inverse)), one)
    most = _splat(builder, builder.sitofp(last, _F32), _SINGLES)
    inward = builder.fdiv(most, builder.fptrunc(reach, _SINGLES))
    inward = builder.select(_less(builder, inward, most), inward, most)
    last = _splat(builder, builder.trunc(last, _I32), _SHORTS)
    steps = builder.sub(last, builder.fptosi(inward, _SHORTS))
    below = _less(builder, offset, _zeros())
    return builder.select(below, builder.sub(last, steps), builder.add(last, steps))


def _beyond(builder, window, centre, radius):
    """How many of eight ascending values are below the centre by at least the radius."""
    flags = builder.fcmp_ordered(">=", builder.fsub(centre, window), radius)
    return _call(builder, "llvm.ctpop.i8", _I8, builder.bitcast(flags, _I8))


def _nearer(builder, window, centre, radius):
    """How many of eight ascending values are above the centre by less than the radius, or below it."""
    flags = _less(builder, builder.fsub(window, centre), radius)
    return _call(builder, "llvm.ctpop.i8", _I8, builder.bitcast(flags, _I8))


def _window_count(builder, values, table, below, above, centre, radius):
    """Number of other values nearer than the radius, or -1 where the two windows do not show it."""
    start, decided = [], []
    for index, inside in ((below, _beyond), (above, _nearer)):
        first = builder.sext(_element(builder, table, index), _I64)
        # From the value before the bucket on; ``values`` begins with as many infinities as there are lanes.
        window = _load(builder, values, builder.add(first, _int(LANES - 1)))
        found = inside(builder, window, centre, radius)
        start.append(builder.add(first, builder.zext(found, _I64)))
        decided.append(builder.and_(found, ir.Constant(_I8, LANES - 1)))
    count = builder.sub(builder.sub(start[1], start[0]), _int(1))
    seen = [builder.icmp_unsigned("!=", found, ir.Constant(_I8, 0)) for found in decided]
    return builder.select(builder.and_(*seen), count, _int(-1))


@intrinsic
def count_lanes(typing, values, table, scheme, strip, block, radii, row, counts, at):
    """Write how many other values are nearer to each of a block's points than its radius, or less than 0.

    ``values``, ``table`` and ``scheme`` are an :class:`~qixai_fast.kernels.axis_cpu.Axis`. All eight
    entries of ``counts`` from ``at`` on are written; whether one is less than 0 is returned.
    """

    def generate(context, builder, signature, args):
        ascending, table_data, _, points, block, reach, row, out, at = args
        centre = _load(builder, points, block)
        radius = _load(builder, reach, row)
        parts = cgutils.unpack_tuple(builder, args[2])
        below = _buckets(builder, builder.fsub(centre, radius), parts)
        above = _buckets(builder, builder.fadd(centre, radius), parts)
        found = ir.Constant(_SHORTS, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(_I32, lane)
            ends = [builder.sext(builder.extract_element(buckets, place), _I64) for buckets in (below, above)]
            query = [_splat(builder, builder.extract_element(vector, place)) for vector in (centre, radius)]
            count = _window_count(builder, ascending, table_data, *ends, *query)
            found = builder.insert_element(found, builder.trunc(count, _I32), place)
        none = ir.Constant(_SHORTS, [0] * LANES)
        # Nothing is nearer than 0, and the windows cannot show it where many values are equal.
        found = builder.select(builder.fcmp_ordered("<=", radius, _zeros()), none, found)
        _store(builder, found, out, at)
        return _any(builder, builder.icmp_signed("<", found, none))

    kinds = (values, table, scheme, strip, types.int64, radii, types.int64, counts, types.int64)
    return types.boolean(*kinds), generate


@intrinsic
def count_window(typing, values, table, below, above, centre, radius):
    """How many other values are nearer than a radius to a value, given its two buckets, or -1."""

    def generate(context, builder, signature, args):
        query = [_splat(builder, scalar) for scalar in args[4:]]
        return _window_count(builder, *args[:4], *query)

    kinds = (values, table, types.int64, types.int64, types.float64, types.float64)
    return types.int64(*kinds), generate


@intrinsic
def bits_of(typing, value):
    """The bits of a float64 as an int64."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], _I64)

    return types.int64(types.float64), generate


@intrinsic
def from_bits(typing, bits):
    """The float64 with the given bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], _F64)

    return types.float64(types.int64), generate
