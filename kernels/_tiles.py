"""A tile of a matrix product in registers: vector code for :mod:`qixai_fast.kernels.products_cpu`.

Registers of 64 bytes hold the sums of a tile of eight rows, one to three registers wide; each step loads as
many registers of columns and multiplies them by eight numbers, one after the other, spread over all lanes.
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


def _prefetch(builder, data, at, write):
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    place = builder.bitcast(builder.gep(data, [at]), ir.IntType(8).as_pointer())
    builder.call(function, [place, ir.Constant(I32, int(write)), ir.Constant(I32, 3), ir.Constant(I32, 1)])


def _tile(builder, kind, registers, left_of, columns_of, depth, each_step=None):
    """A loop over ``depth`` steps; returns the sums, a list of registers for each of eight rows."""
    scalar, size, name = kind
    lanes = _BYTES // size
    kind = ir.VectorType(scalar, lanes)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{lanes}{name}"
    )
    before = builder.block
    top, end = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
    builder.branch(top)
    builder.position_at_end(top)
    step = builder.phi(I64)
    step.add_incoming(integer(0), before)
    nothing = ir.Constant(kind, [ir.Constant(scalar, 0.0)] * lanes)
    sums = [[builder.phi(kind) for _ in range(registers)] for _ in range(TILE_ROWS)]
    if each_step:
        each_step(step)
    columns = [_vector(builder, *columns_of(step, i * lanes), kind, size) for i in range(registers)]
    totals = []
    for i, row in enumerate(sums):
        factor = _spread(builder, builder.load(builder.gep(*left_of(step, i))), kind)
        totals.append([builder.call(fma, [factor, *pair]) for pair in zip(columns, row, strict=True)])
    following = builder.add(step, integer(1))
    step.add_incoming(following, top)
    for row, results in zip(sums, totals, strict=True):
        for phi, total in zip(row, results, strict=True):
            phi.add_incoming(nothing, before)
            phi.add_incoming(total, top)
    builder.cbranch(builder.icmp_signed("<", following, depth), top, end)
    builder.position_at_end(end)
    return totals


@intrinsic
def add_tile(typing, left, right, depth, out, stride):
    """Add the products of eight columns with two registers of columns to float64 memory.

    Parameters
    ----------
    left : pointer to float32 or float64
        Eight columns of a panel, whose rows are two registers long and follow each other.
    right : pointer, the same kind
        A panel.
    depth : int64
        Rows of both; one at least.
    out : pointer to float64
        Eight rows of the tile.
    stride : int64
        From one of its rows to the next.
    """
    kind = _KINDS[left.dtype]
    lanes = _BYTES // kind[1]
    width = 2 * lanes

    def generate(context, builder, signature, args):
        left, right, depth, out, stride = args
        rows = [builder.mul(stride, integer(i)) for i in range(TILE_ROWS)]
        for row in rows:
            for line in range(0, width, 8):
                _prefetch(builder, out, builder.add(row, integer(line)), write=True)

        def at(step, column):
            return builder.add(builder.mul(step, integer(width)), integer(column))

        sums = _tile(
            builder,
            kind,
            2,
            lambda step, i: (left, [at(step, i)]),
            lambda step, column: (right, at(step, column)),
            depth,
        )
        for row, registers in zip(rows, sums, strict=True):
            for i, total in enumerate(registers):
                _add_into(builder, total, out, builder.add(row, integer(i * lanes)))
        return context.get_dummy_value()

    return types.void(left, right, types.int64, out, types.int64), generate


def _row_tile(registers):
    def row_tile(typing, left, stride, right, depth, out, ahead):
        width = 8 * registers

        def generate(context, builder, signature, args):
            left, stride, right, depth, out, ahead = args
            rows = [builder.mul(stride, integer(i)) for i in range(TILE_ROWS)]

            def fetch(step):
                _prefetch(builder, ahead, builder.mul(step, integer(TILE_ROWS)), write=False)

            sums = _tile(
                builder,
                _KINDS[types.float64],
                registers,
                lambda step, i: (left, [builder.add(rows[i], step)]),
                lambda step, column: (
                    right,
                    builder.add(builder.mul(step, integer(width)), integer(column)),
                ),
                depth,
                fetch,
            )
            for i, row in enumerate(sums):
                for j, total in enumerate(row):
                    place = builder.gep(out, [integer(i * width + 8 * j)])
                    builder.store(total, builder.bitcast(place, total.type.as_pointer()), align=8)
            return context.get_dummy_value()

        kinds = left, types.int64, right, types.int64, out, ahead
        return types.void(*kinds), generate

    return intrinsic(row_tile)


# The products of eight rows with a panel of one, two or three registers, all float64.
#
# left : pointer; eight rows
# stride : int64; from one of them to the next
# right : pointer; the panel, as many rows as the eight are long
# depth : int64; how many products are added up, one at least
# out : pointer; eight rows of the panel's width, overwritten
# ahead : pointer to float32 or float64; as many values as in the eight rows, soon to be read
row_tile_1, row_tile_2, row_tile_3 = (_row_tile(registers) for registers in (1, 2, 3))


@intrinsic
def offset(typing, data, count):
    """A pointer ``count`` elements on."""

    def generate(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return data(data, types.int64), generate


@intrinsic
def prefetch(typing, data, at):
    """Begin to read the line of memory that holds element ``at``; harmless beyond the end."""

    def generate(context, builder, signature, args):
        _prefetch(builder, *args, write=False)
        return context.get_dummy_value()

    return types.void(data, types.int64), generate
