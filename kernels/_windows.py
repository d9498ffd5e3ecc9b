"""Marginal counts of eight points at once: vector code for :mod:`qixai_fast.kernels.axis_cpu`."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._emit import (
    F32,
    F64,
    I8,
    I32,
    I64,
    LANES,
    SHORTS,
    SINGLES,
    any_lane,
    call,
    element,
    everywhere,
    integer,
    less,
    load,
    magnitude,
    packed,
    splat,
    store,
)


@intrinsic
def pointer(typing, array):
    """Pointer to an array's first element; it does not keep the array alive, :func:`hold` does."""

    def generate(context, builder, signature, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def hold(typing, array):
    """Keep an array that the kernel made until here: it is freed after the last line that names it."""

    def generate(context, builder, signature, args):
        return context.get_dummy_value()

    return types.void(array), generate


def _buckets(builder, values, scheme):
    """The buckets of eight values; ``kernels.axis_cpu.bucket`` is the same for one. NaN has one, too."""
    centre, inverse, last = scheme
    offset = builder.fsub(values, splat(builder, centre))
    one = everywhere(1.0)
    reach = builder.fadd(builder.fmul(magnitude(builder, offset), splat(builder, inverse)), one)
    most = splat(builder, builder.sitofp(last, F32), SINGLES)
    inward = builder.fdiv(most, builder.fptrunc(reach, SINGLES))
    inward = builder.select(less(builder, inward, most), inward, most)
    last = splat(builder, builder.trunc(last, I32), SHORTS)
    steps = builder.sub(last, builder.fptosi(inward, SHORTS))
    below = less(builder, offset, everywhere(0.0))
    return builder.select(below, builder.sub(last, steps), builder.add(last, steps))


def _beyond(builder, window, centre, radius):
    """How many of eight ascending values are below the centre by at least the radius."""
    flags = builder.fcmp_ordered(">=", builder.fsub(centre, window), radius)
    return call(builder, "llvm.ctpop.i8", I8, packed(builder, flags))


def _nearer(builder, window, centre, radius):
    """How many of eight ascending values are above the centre by less than the radius, or below it."""
    flags = less(builder, builder.fsub(window, centre), radius)
    return call(builder, "llvm.ctpop.i8", I8, packed(builder, flags))


def _window_count(builder, values, table, below, above, centre, radius):
    """Number of other values nearer than the radius, or -1 where the two windows do not show it."""
    start, decided = [], []
    for index, inside in ((below, _beyond), (above, _nearer)):
        first = builder.sext(element(builder, table, index), I64)
        # From the value before the bucket on; ``values`` begins with as many infinities as there are lanes.
        window = load(builder, values, builder.add(first, integer(LANES - 1)))
        found = inside(builder, window, centre, radius)
        start.append(builder.add(first, builder.zext(found, I64)))
        decided.append(builder.and_(found, ir.Constant(I8, LANES - 1)))
    count = builder.sub(builder.sub(start[1], start[0]), integer(1))
    seen = [builder.icmp_unsigned("!=", found, ir.Constant(I8, 0)) for found in decided]
    return builder.select(builder.and_(*seen), count, integer(-1))


@intrinsic
def count_lanes(typing, values, table, scheme, strip, block, radii, row, counts, at):
    """Write how many other values are nearer to each of a block's points than its radius, or less than 0.

    ``values``, ``table`` and ``scheme`` are an :class:`~qixai_fast.kernels.axis_cpu.Axis`. All eight
    entries of ``counts`` from ``at`` on are written; whether one is less than 0 is returned.
    """

    def generate(context, builder, signature, args):
        ascending, table_data, _, points, block, reach, row, out, at = args
        centre = load(builder, points, block)
        radius = load(builder, reach, row)
        parts = cgutils.unpack_tuple(builder, args[2])
        below = _buckets(builder, builder.fsub(centre, radius), parts)
        above = _buckets(builder, builder.fadd(centre, radius), parts)
        found = ir.Constant(SHORTS, ir.Undefined)
        for lane in range(LANES):
            place = ir.Constant(I32, lane)
            ends = [builder.sext(builder.extract_element(buckets, place), I64) for buckets in (below, above)]
            query = [splat(builder, builder.extract_element(vector, place)) for vector in (centre, radius)]
            count = _window_count(builder, ascending, table_data, *ends, *query)
            found = builder.insert_element(found, builder.trunc(count, I32), place)
        none = ir.Constant(SHORTS, [0] * LANES)
        # Nothing is nearer than 0, and the windows cannot show it where many values are equal.
        found = builder.select(builder.fcmp_ordered("<=", radius, everywhere(0.0)), none, found)
        store(builder, found, out, at)
        return any_lane(builder, builder.icmp_signed("<", found, none))

    kinds = (values, table, scheme, strip, types.int64, radii, types.int64, counts, types.int64)
    return types.boolean(*kinds), generate


@intrinsic
def bits_of(typing, value):
    """The bits of a float64 as an int64."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], I64)

    return types.int64(types.float64), generate


@intrinsic
def from_bits(typing, bits):
    """The float64 with the given bits."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], F64)

    return types.float64(types.int64), generate
