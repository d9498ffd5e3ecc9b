"""Pieces of LLVM code that the vector intrinsics share: eight float64 lanes, whatever register they take.

``<8 x double>`` is one AVX-512 register, two of AVX2, four of NEON or SSE2: LLVM cuts it to those there
are, with the same values.
"""

from llvmlite import ir
from numba.core import cgutils

LANES = 8

I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
F32 = ir.FloatType()
F64 = ir.DoubleType()
FLOATS = ir.VectorType(F64, LANES)
SHORTS = ir.VectorType(I32, LANES)
SINGLES = ir.VectorType(F32, LANES)


def integer(value):
    """A 64-bit constant."""
    return ir.Constant(I64, value)


def everywhere(value):
    """A float constant in all lanes."""
    return ir.Constant(FLOATS, [ir.Constant(F64, value)] * LANES)


def first_lane(builder, scalar, kind=FLOATS):
    """A vector whose first lane is a scalar; the others are whatever."""
    return builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))


def splat(builder, scalar, kind=FLOATS):
    """A scalar in all lanes."""
    first = first_lane(builder, scalar, kind)
    return builder.shuffle_vector(first, first, ir.Constant(SHORTS, [0] * LANES))


def address(builder, data, at, kind=FLOATS):
    """Pointer to a vector that begins at element ``at`` of ``data``."""
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def load(builder, data, at):
    """Eight consecutive floats."""
    return builder.load(address(builder, data, at), align=8)


def store(builder, vector, data, at):
    """Write a vector from element ``at`` on."""
    builder.store(vector, address(builder, data, at, vector.type), align=8)


def element(builder, data, at):
    """One element."""
    return builder.load(builder.gep(data, [at]))


def call(builder, name, kind, value):
    """A function of LLVM's from a type to itself."""
    function = ir.FunctionType(kind, [kind])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), [value])


def magnitude(builder, vector):
    """Absolute values."""
    return call(builder, f"llvm.fabs.v{LANES}f64", FLOATS, vector)


def less(builder, a, b):
    """a < b; false for NaN."""
    return builder.fcmp_ordered("<", a, b)


def smaller(builder, a, b):
    """The smaller of each lane; b where one is NaN."""
    return builder.select(less(builder, a, b), a, b)


def larger(builder, a, b):
    """The larger of each lane; a where one is NaN."""
    return builder.select(less(builder, a, b), b, a)


def packed(builder, flags):
    """Eight flags as the bits of a byte."""
    return builder.bitcast(flags, I8)


def any_lane(builder, flags):
    """Whether a flag is set in any lane."""
    return builder.icmp_unsigned("!=", packed(builder, flags), ir.Constant(I8, 0))
