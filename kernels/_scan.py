"""Which of many scores are above a bar, 64 at a time: what plain loops do not compile to, as LLVM code."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 64
_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def above(typingctx, scores, place, bar):
    """Compare the 64 scores from ``place`` on with ``bar``: bit i is set where score i is larger.

    ``scores`` is a contiguous flat float array with at least 64 elements from ``place`` on; ``bar`` is
    of its dtype.
    """

    def generate(context, builder, sig, args):
        base = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).data
        kind = ir.VectorType(base.type.pointee, WIDTH)
        loaded = builder.load(builder.bitcast(builder.gep(base, [args[1]]), kind.as_pointer()))
        loaded.align = 4
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), args[2], _I32(0))
        everywhere = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, WIDTH), None))
        return builder.bitcast(builder.fcmp_ordered(">", loaded, everywhere), _I64)

    return types.uint64(scores, types.intp, scores.dtype), generate
