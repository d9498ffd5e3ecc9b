"""A tile of a matrix product in registers: vector code for :mod:`qixai_fast.kernels.products_cpu`.

Sixteen registers of 64 bytes hold the sums of a tile of eight rows, two registers wide; each step loads
two registers of columns and multiplies them by eight numbers, one after the other, spread over all lanes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._emit import F32, F64, I32, I64, integer

# Rows of a tile, and bytes of a register.
TILE_ROWS = 8
_BYTES = 64
_KINDS = {types.float32: (F32, 4, "f32"), types.float64: (F64, 8, "f64")}


def _spread(builder, scalar, kind):
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    same = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, first, same)


def _vector(builder, data, at, kind, size):
    place = builder.bitcast(builder.gep(data, [at]), kind.as_pointer())
    return builder.load(place, align=size)


def _add_into(builder, sums, out, at):
    """Add a register to float64 memory, eight at a time."""
    eight = ir.VectorType(F64, 8)
    for part in range(sums.type.count // 8):
        lanes = ir.Constant(ir.VectorType(I32, 8), list(range(8 * part, 8 * part + 8)))
        piece = builder.shuffle_vector(sums, sums, lanes)
        if piece.type != eight:
            piece = builder.fpext(piece, eight)
        place = builder.gep(out, [builder.add(at, integer(8 * part))])
        place = builder.bitcast(place, eight.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=8), piece), place, align=8)


def _prefetch(builder, out, at):
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    place = builder.bitcast(builder.gep(out, [at]), ir.IntType(8).as_pointer())
    builder.call(function, [place, ir.Constant(I32, 1), ir.Constant(I32, 3), ir.Constant(I32, 1)])


@intrinsic
def add_tile(typing, left, right, depth, out, stride):
    """Add the products of eight columns and two registers of columns to float64 memory.

    Parameters
    ----------
    left : pointer to float32 or float64
        Eight columns of a panel. A row of a panel is two registers long; the next row follows it.
    right : pointer, the same kind
        A panel.
    depth : int64
        Rows of both; one at least.
    out : pointer to float64
        Eight rows of the tile.
    stride : int64
        From one of its rows to the next.
    """
    scalar, size, name = _KINDS[left.dtype]
    lanes = _BYTES // size
    width = 2 * lanes

    def generate(context, builder, signature, args):
        left, right, depth, out, stride = args
        kind = ir.VectorType(scalar, lanes)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{lanes}{name}"
        )
        rows = [builder.mul(stride, integer(i)) for i in range(TILE_ROWS)]
        for row in rows:
            for line in range(0, width, 8):
                _prefetch(builder, out, builder.add(row, integer(line)))
        before = builder.block
        top, end = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
        builder.branch(top)
        builder.position_at_end(top)
        step = builder.phi(I64)
        step.add_incoming(integer(0), before)
        nothing = ir.Constant(kind, [ir.Constant(scalar, 0.0)] * lanes)
        sums = []
        for _ in range(2 * TILE_ROWS):
            sums.append(builder.phi(kind))
            sums[-1].add_incoming(nothing, before)
        at = builder.mul(step, integer(width))
        columns = [
            _vector(builder, right, builder.add(at, integer(half * lanes)), kind, size) for half in range(2)
        ]
        totals = []
        for i in range(TILE_ROWS):
            number = builder.load(builder.gep(left, [builder.add(at, integer(i))]))
            factor = _spread(builder, number, kind)
            totals += [builder.call(fma, [factor, columns[half], sums[2 * i + half]]) for half in range(2)]
        following = builder.add(step, integer(1))
        step.add_incoming(following, top)
        for phi, total in zip(sums, totals, strict=True):
            phi.add_incoming(total, top)
        builder.cbranch(builder.icmp_signed("<", following, depth), top, end)
        builder.position_at_end(end)
        for i, row in enumerate(rows):
            for half in range(2):
                _add_into(builder, totals[2 * i + half], out, builder.add(row, integer(half * lanes)))
        return context.get_dummy_value()

    return types.void(left, right, types.int64, out, types.int64), generate


@intrinsic
def offset(typing, data, count):
    """A pointer ``count`` elements on."""

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return data(data, types.int64), generate
