"""Eight floats side by side as one value: a SIMD register, or a few, whatever the processor has.

numba does not vectorise loops over eight local values with minima and maxima in them; these functions
write the vector instructions themselves. Sets of lanes are integers, one bit each.
"""

from llvmlite import ir
from numba import types
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, register_model

from . import _emit
from ._emit import FLOATS, I8, I32, I64, LANES, SHORTS


class Vector(types.Type):
    """Eight float64 values."""

    def __init__(self):
        super().__init__(name="Vector")


VECTOR = Vector()


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOATS)


def _bits(builder, flags):
    return builder.zext(_emit.packed(builder, flags), I64)


def _address(context, builder, kind, array, index):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


@intrinsic
def load(typing, array, index):
    """Eight consecutive entries of a flat float64 array."""

    def generate(context, builder, signature, args):
        return builder.load(_address(context, builder, signature.args[0], *args), align=8)

    return VECTOR(array, types.intp), generate


@intrinsic
def store(typing, array, index, vector):
    """Write eight consecutive entries of a flat float64 array."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), generate


@intrinsic
def splat(typing, value):
    """The same value in all lanes."""

    def generate(context, builder, signature, args):
        return _emit.splat(builder, args[0])

    return VECTOR(types.float64), generate


@intrinsic
def last(typing, vector):
    """The value in the last lane."""

    def generate(context, builder, signature, args):
        return builder.extract_element(args[0], ir.Constant(I32, LANES - 1))

    return types.float64(VECTOR), generate


@intrinsic
def larger(typing, a, b):
    """The larger value of each lane."""

    def generate(context, builder, signature, args):
        return _emit.larger(builder, *args)

    return VECTOR(VECTOR, VECTOR), generate


@intrinsic
def apart(typing, distance, points, value):
    """Maximum-norm distance with one more dimension: max(distance, |points - value|)."""

    def generate(context, builder, signature, args):
        distance, points, value = args
        return _emit.larger(
            builder, _emit.magnitude(builder, builder.fsub(points, _emit.splat(builder, value))), distance
        )

    return VECTOR(VECTOR, VECTOR, types.float64), generate


@intrinsic
def nearest_corner(typing, distance, value, low, high):
    """Distance to boxes with one more dimension: max(distance, low - value, value - high)."""

    def generate(context, builder, signature, args):
        distance, value, low, high = args
        value = _emit.splat(builder, value)
        gap = _emit.larger(builder, builder.fsub(low, value), builder.fsub(value, high))
        return _emit.larger(builder, gap, distance)

    return VECTOR(VECTOR, types.float64, VECTOR, VECTOR), generate


@intrinsic
def farthest_corner(typing, distance, value, low, high):
    """Distance to the far ends of boxes with one more dimension: max(distance, value - low, high - value)."""

    def generate(context, builder, signature, args):
        distance, value, low, high = args
        value = _emit.splat(builder, value)
        reach = _emit.larger(builder, builder.fsub(value, low), builder.fsub(high, value))
        return _emit.larger(builder, reach, distance)

    return VECTOR(VECTOR, types.float64, VECTOR, VECTOR), generate


@intrinsic
def less(typing, a, b):
    """The lanes where a < b."""

    def generate(context, builder, signature, args):
        return _bits(builder, builder.fcmp_ordered("<", *args))

    return types.int64(VECTOR, VECTOR), generate


@intrinsic
def at_most(typing, a, b):
    """The lanes where a <= b."""

    def generate(context, builder, signature, args):
        return _bits(builder, builder.fcmp_ordered("<=", *args))

    return types.int64(VECTOR, VECTOR), generate


@intrinsic
def keep(typing, lanes, vector, otherwise):
    """The vector in the given lanes, another one in all others."""

    def generate(context, builder, signature, args):
        flags = builder.bitcast(builder.trunc(args[0], I8), ir.VectorType(ir.IntType(1), LANES))
        return builder.select(flags, args[1], args[2])

    return VECTOR(types.int64, VECTOR, VECTOR), generate


@intrinsic
def insert(typing, ascending, before, value):
    """Sort a value into ascending lanes that come after ``before``; the largest falls out."""

    def generate(context, builder, signature, args):
        ascending, before, value = args
        places = ir.Constant(SHORTS, [LANES, *range(LANES - 1)])
        shifted = builder.shuffle_vector(ascending, _emit.first_lane(builder, before), places)
        return _emit.smaller(builder, ascending, _emit.larger(builder, shifted, _emit.splat(builder, value)))

    return VECTOR(VECTOR, types.float64, types.float64), generate


@intrinsic
def lowest(typing, lanes):
    """The first of some lanes; there is one."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def how_many(typing, lanes):
    """The number of lanes."""

    def generate(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate
