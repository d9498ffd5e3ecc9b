"""Words of 64 bits as vectors: one bit a sample. What plain loops do not compile to, written as LLVM code.

The compiler turns these into whatever the processor has (AVX-512, AVX2, NEON, plain words), with the same
results.
"""

from functools import cache

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

# Planes of each side that :func:`add_joint_counts` takes: 16 sums stay in registers.
BLOCK = 4

# Rows and columns that :func:`code_square` takes.
SQUARE = 16

_LANES = 8
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_BYTES = ir.VectorType(_I8, 64)
_WORDS = ir.VectorType(_I64, _LANES)


@cache
def counts_ones_in_vectors():
    """Whether the processor compiled for has an instruction that counts the ones of all words of a vector."""
    if config.CPU_FEATURES is not None:
        return "+avx512vpopcntdq" in config.CPU_FEATURES
    return bool(binding.get_host_cpu_features().get("avx512vpopcntdq", False))


def _pointer(context, builder, sig, args, index):
    """Address of the first element of an array argument."""
    return cgutils.create_struct_proxy(sig.args[index])(context, builder, value=args[index]).data


@intrinsic
def equal_bits(typingctx, codes, offset, value):
    """Compare the 64 codes from ``offset`` on with ``value``: bit i is set where code i is equal.

    ``codes`` is a contiguous uint8 array with at least 64 elements from ``offset`` on.
    """

    def generate(context, builder, sig, args):
        place = builder.gep(_pointer(context, builder, sig, args, 0), [args[1]])
        loaded = builder.load(builder.bitcast(place, _BYTES.as_pointer()))
        loaded.align = 1
        nothing = ir.Constant(_BYTES, ir.Undefined)
        first = builder.insert_element(nothing, args[2], _I32(0))
        everywhere = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, 64), None))
        return builder.bitcast(builder.icmp_unsigned("==", loaded, everywhere), _I64)

    return types.uint64(codes, types.int64, types.uint8), generate


@intrinsic
def count_ones(typingctx, word):
    """Number of bits that are set."""

    def generate(context, builder, sig, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def lowest_one(typingctx, word):
    """Position of the lowest bit that is set; the word is not 0."""

    def generate(context, builder, sig, args):
        return builder.cttz(args[0], _I1(1))

    return types.int64(types.uint64), generate


def _sums_of_lanes(builder, vectors):
    """One vector with the sum over the lanes of each of eight vectors, in their order.

    Halves are added crosswise: 21 instructions, where one sum after the other takes seven each.
    """
    steps = (
        ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
        ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
        ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
    )
    order = ir.VectorType(_I32, _LANES)
    for step in steps:
        vectors = [
            builder.add(*(builder.shuffle_vector(one, other, ir.Constant(order, half)) for half in step))
            for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def _joint_counts_of(builder, rows, columns, x, y, words, sums, done):
    """Write a loop that counts ``rows`` planes at x with ``columns`` planes at y, and goes on to ``done``."""
    before = builder.block
    loop = builder.append_basic_block(f"loop_{rows}_{columns}")
    after = builder.append_basic_block(f"after_{rows}_{columns}")
    ones = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_WORDS, [_WORDS]), f"llvm.ctpop.v{_LANES}i64"
    )
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(_I64)
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    held = {cell: builder.phi(_WORDS) for cell in cells}

    def plane(base, number):
        index = builder.add(builder.mul(_I64(number), words), at)
        vector = builder.load(builder.bitcast(builder.gep(base, [index]), _WORDS.as_pointer()))
        vector.align = 8
        return vector

    planes_x = [plane(x, row) for row in range(rows)]
    planes_y = [plane(y, column) for column in range(columns)]
    grown = {}
    for row, column in cells:
        both = builder.and_(planes_x[row], planes_y[column])
        grown[row, column] = builder.add(held[row, column], builder.call(ones, [both]))
    further = builder.add(at, _I64(_LANES))
    at.add_incoming(_I64(0), before)
    at.add_incoming(further, loop)
    for cell in cells:
        held[cell].add_incoming(ir.Constant(_WORDS, None), before)
        held[cell].add_incoming(grown[cell], loop)
    builder.cbranch(builder.icmp_unsigned("<", further, words), loop, after)
    builder.position_at_end(after)
    none = ir.Constant(_WORDS, None)
    every = [grown.get((row, column), none) for row in range(BLOCK) for column in range(BLOCK)]
    for first in range(0, len(every), _LANES):
        place = builder.bitcast(builder.gep(sums, [_I64(first)]), _WORDS.as_pointer())
        builder.store(_sums_of_lanes(builder, every[first : first + _LANES]), place).align = 8
    builder.branch(done)


@intrinsic
def add_joint_counts(typingctx, planes, x, rows, y, columns, words, sums):
    """Count the samples that each of some planes shares with each of some others.

    Parameters
    ----------
    planes : contiguous uint64 array
    x, y : int
        Index of the first word of the first plane of each side; planes follow one another.
    rows, columns : int
        Planes of each side, 1 to ``BLOCK``.
    words : int
        Words of a plane, a multiple of 8 above 0.
    sums : contiguous int64 array with ``BLOCK**2`` elements, written
        ``sums[i * BLOCK + j]``: bits set in both plane i of x and plane j of y; 0 beyond the planes given.
    """

    def generate(context, builder, sig, args):
        base, target = (_pointer(context, builder, sig, args, index) for index in (0, 6))
        x, y = builder.gep(base, [args[1]]), builder.gep(base, [args[3]])
        sizes = builder.add(builder.mul(args[2], _I64(BLOCK + 1)), args[4])
        done = builder.append_basic_block("done")
        choice = builder.switch(sizes, done)
        for rows in range(1, BLOCK + 1):
            for columns in range(1, BLOCK + 1):
                case = builder.append_basic_block(f"case_{rows}_{columns}")
                choice.add_case(_I64(rows * (BLOCK + 1) + columns), case)
                builder.position_at_end(case)
                _joint_counts_of(builder, rows, columns, x, y, args[5], target, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    integers = [types.int64] * 5
    return types.void(planes, *integers, sums), generate


def _transposed(builder, rows):
    """Sixteen vectors of sixteen bytes, transposed: interleaved with those eight further on, four times."""
    halves = [[index // 2 + 16 * (index % 2) + start for index in range(16)] for start in (0, 8)]
    order = ir.VectorType(_I32, 16)
    for _ in range(4):
        rows = [
            builder.shuffle_vector(rows[i], rows[i + 8], ir.Constant(order, half))
            for i in range(8)
            for half in halves
        ]
    return rows


@intrinsic
def code_square(typingctx, block, place, stride, low, step, slope, most, zero, codes, target, distance):
    """Write the bins of 16 rows of 16 columns with evenly spaced edges, transposed.

    Parameters
    ----------
    block : contiguous float32 or float64 array
    place, stride : int
        Index of the first value, and from one row to the next.
    low, step, slope : (16,) float64
        Of each column: first edge, distance of edges, and its reciprocal.
    most : float
        The last bin.
    zero : bool
        Whether values that are 0 have bin 0, and all others one more than they would have.
    codes : contiguous uint8 array
    target, distance : int
        Index of the first code, and from one column to the next.
    """
    double = ir.DoubleType()
    doubles, bytes_ = ir.VectorType(double, 16), ir.VectorType(_I8, 16)

    def generate(context, builder, sig, args):
        place, stride, most, zero, target, distance = (args[index] for index in (1, 2, 6, 7, 9, 10))
        base, codes = (_pointer(context, builder, sig, args, index) for index in (0, 8))
        values = ir.VectorType(base.type.pointee, 16)
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(doubles, [doubles]), "llvm.floor.v16f64"
        )
        nothing, one = ir.Constant(doubles, [0.0] * 16), ir.Constant(doubles, [1.0] * 16)

        def load(pointer, kind, align):
            vector = builder.load(builder.bitcast(pointer, kind.as_pointer()))
            vector.align = align
            return vector

        def everywhere(value):
            lone = builder.insert_element(ir.Constant(doubles, ir.Undefined), value, _I32(0))
            return builder.shuffle_vector(lone, lone, ir.Constant(ir.VectorType(_I32, 16), None))

        low, step, slope = (
            load(_pointer(context, builder, sig, args, index), doubles, 8) for index in (3, 4, 5)
        )
        most = everywhere(most)
        is_zero = builder.icmp_unsigned("!=", zero, zero.type(0))
        shift = everywhere(builder.select(is_zero, double(1.0), double(0.0)))
        # NaN where zeros are like all others: no value is equal to it.
        reserved = everywhere(builder.select(is_zero, double(0.0), double(float("nan"))))
        rows = []
        for row in range(16):
            at = builder.add(place, builder.mul(_I64(row), stride))
            value = load(builder.gep(base, [at]), values, 4)
            if values.element != double:
                value = builder.fpext(value, doubles)
            code = builder.call(floor, [builder.fmul(builder.fsub(value, low), slope)])
            code = builder.select(builder.fcmp_ordered("<", code, most), code, most)
            edge = builder.fadd(builder.fmul(code, step), low)
            code = builder.select(builder.fcmp_ordered("<", value, edge), builder.fsub(code, one), code)
            above = builder.fadd(code, one)
            edge = builder.fadd(builder.fmul(above, step), low)
            further = builder.and_(
                builder.fcmp_ordered("<=", above, most), builder.fcmp_ordered(">=", value, edge)
            )
            code = builder.select(further, above, code)
            # None is below the first edge, unless a mapped file changed since it was looked at.
            code = builder.select(builder.fcmp_ordered(">", code, nothing), code, nothing)
            code = builder.fadd(code, shift)
            code = builder.select(builder.fcmp_ordered("==", value, reserved), nothing, code)
            number = builder.fptosi(code, ir.VectorType(_I32, 16))
            rows.append(builder.trunc(number, bytes_))
        for column, vector in enumerate(_transposed(builder, rows)):
            at = builder.gep(codes, [builder.add(target, builder.mul(_I64(column), distance))])
            builder.store(vector, builder.bitcast(at, bytes_.as_pointer())).align = 1
        return context.get_dummy_value()

    number, flag = types.int64, types.boolean
    arguments = (block, number, number, low, step, slope, types.float64, flag, codes, number, number)
    return types.void(*arguments), generate
