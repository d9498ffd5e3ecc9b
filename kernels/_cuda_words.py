"""Sixteen bytes in one load, and the numbers in them: what numba's arrays cannot say, in a line of PTX each.

Every function has a plain twin for the simulator, which runs Python.
"""

import numpy as np
from llvmlite import ir
from numba import config, types

from ._cuda_jit import jit_device

if config.ENABLE_CUDASIM:

    def load_words(words, place):
        """Words ``4 * place`` to ``4 * place + 3`` of an array of uint32, which begins at 16 bytes."""
        return words[4 * place], words[4 * place + 1], words[4 * place + 2], words[4 * place + 3]

    def low_half(word):
        """The float16 in the low half of a word, as float32."""
        return np.float32(np.uint16(int(word) & 0xFFFF).view(np.float16))

    def high_half(word):
        """The float16 in the high half of a word, as float32."""
        return np.float32(np.uint16(int(word) >> 16).view(np.float16))

    def as_float(word):
        """The float32 of these bits."""
        return np.uint32(word).view(np.float32)

    def as_double(low, high):
        """The float64 of these bits."""
        return np.uint64(int(low) | int(high) << 32).view(np.float64)

else:
    from numba.cuda import cgutils
    from numba.cuda.extending import intrinsic

    _I32, _F32 = ir.IntType(32), ir.FloatType()

    def _asm(builder, result, code, constraints, arguments):
        kind = ir.FunctionType(result, [one.type for one in arguments])
        return builder.call(ir.InlineAsm(kind, code, constraints), arguments)

    @intrinsic
    def load_words(typingctx, words, place):
        """Words ``4 * place`` to ``4 * place + 3`` of an array of uint32, which begins at 16 bytes.

        Not kept in the L1 cache; nothing may write to the array while the kernel runs.
        """

        def generate(context, builder, signature, arguments):
            array = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
            first = builder.mul(arguments[1], arguments[1].type(4))
            pointer = builder.ptrtoint(builder.gep(array.data, [first]), ir.IntType(64))
            found = _asm(
                builder,
                ir.LiteralStructType([_I32] * 4),
                "ld.global.nc.L1::no_allocate.v4.u32 {$0, $1, $2, $3}, [$4];",
                "=r,=r,=r,=r,l",
                [pointer],
            )
            parts = [builder.extract_value(found, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.uint32, 4)(words, types.int64), generate

    def _half(code):
        @intrinsic
        def convert(typingctx, word):
            def generate(context, builder, signature, arguments):
                return _asm(builder, _F32, code, "=f,r", arguments)

            return types.float32(types.uint32), generate

        return convert

    low_half = _half("{.reg .b16 low, high; mov.b32 {low, high}, $1; cvt.f32.f16 $0, low;}")
    high_half = _half("{.reg .b16 low, high; mov.b32 {low, high}, $1; cvt.f32.f16 $0, high;}")

    @intrinsic
    def as_float(typingctx, word):
        """The float32 of these bits."""

        def generate(context, builder, signature, arguments):
            return builder.bitcast(arguments[0], _F32)

        return types.float32(types.uint32), generate

    @intrinsic
    def as_double(typingctx, low, high):
        """The float64 of these bits."""

        def generate(context, builder, signature, arguments):
            low, high = (builder.zext(one, ir.IntType(64)) for one in arguments)
            bits = builder.or_(low, builder.shl(high, high.type(32)))
            return builder.bitcast(bits, ir.DoubleType())

        return types.float64(types.uint32, types.uint32), generate


_LOW, _HIGH, _SHIFT = np.uint32(0x0000FFFF), np.uint32(0xFFFF0000), np.uint32(16)


@jit_device
def low_brain(word):
    """The bfloat16 in the low half of a word, as float32."""
    return as_float(np.uint32(np.uint32(word & _LOW) << _SHIFT))


@jit_device
def high_brain(word):
    """The bfloat16 in the high half of a word, as float32."""
    return as_float(np.uint32(word & _HIGH))
