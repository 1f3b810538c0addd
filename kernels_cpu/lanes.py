"""Vector operations that every processor has: written as plain LLVM, cut by it into registers of what width there is.

The kernels between the products (attention, normalization) are made of these alone, 16 tokens a vector, so that one
source serves every level: 512-bit, 256-bit and 128-bit registers, x86 or not, with the same bits.
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from sparsefab.kernels_cpu.intrinsics import splat, view
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lowering import invoke, pointer, referenced_type, require_vectors, shuffle
from sparsefab.kernels_cpu.vector import VectorType, f32x16, i32x16, vector

__all__ = ["ROUND", "ROUND_BITS", "dot_pairs", "interleave", "rounded", "square_root", "store_low_bytes", "widen"]

# Adding 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even, and leaves it in the low bits.
ROUND = 12582912.0
ROUND_BITS = 0x4B400000


class _Division(AbstractTemplate):
    """`a / b` of float vectors, rounded once."""

    def generic(self, operands: Any, keywords: Any) -> Any:
        if len(operands) != 2 or not isinstance(operands[0], VectorType) or operands[0] != operands[1]:
            return None
        return signature(operands[0], *operands) if operands[0].element == "f32" else None


infer_global(operator.truediv)(_Division)


@lower_builtin(operator.truediv, VectorType, VectorType)
def _divide(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
    return builder.fdiv(*arguments)


@intrinsic
def square_root(typing_context: Any, value: Any) -> Any:
    """`square_root(f32 vector)`: rounded once (vsqrtps)."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return invoke(builder, f"llvm.sqrt.{value.suffix}", value.llvm, [arguments[0]])

    return value(value), emit


@intrinsic
def widen(typing_context: Any, kind: Any, value: Any) -> Any:
    """`widen(i16x16, i8x16)`: as many wider integers, with their signs (vpmovsxbw)."""
    result = referenced_type(kind)
    if not isinstance(value, VectorType) or value.lanes != result.lanes or value.bits > result.bits:
        raise TypingError(f"widen needs as many wider elements, not {value} to {result}")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.sext(arguments[1], result.llvm)

    return result(kind, value), emit


@intrinsic
def interleave(typing_context: Any, a: Any, b: Any) -> Any:
    """`interleave(a, b)`: a0 b0 a1 b1 ... in a vector of twice the width."""
    require_vectors(a, b)
    result = vector(a.element, 2 * a.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return shuffle(builder, arguments, [i // 2 + (a.lanes if i % 2 else 0) for i in range(result.lanes)])

    return result(a, b), emit


@intrinsic
def dot_pairs(typing_context: Any, acc: Any, a: Any, b: Any) -> Any:
    """`dot_pairs(acc i32, a i16, b i16)`: acc + two products a dword, exact but for -2^15 four times.

    LLVM makes vpmaddwd and vpaddd of it, or vpdpwssd, or what the processor has instead.
    """
    require_vectors(acc, a, b)
    wide = ir.VectorType(ir.IntType(32), a.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        products = builder.mul(builder.sext(arguments[1], wide), builder.sext(arguments[2], wide))
        even = shuffle(builder, (products, products), list(range(0, a.lanes, 2)))
        odd = shuffle(builder, (products, products), list(range(1, a.lanes, 2)))
        return builder.add(arguments[0], builder.add(even, odd))

    return acc(acc, a, b), emit


@intrinsic
def store_low_bytes(typing_context: Any, address: Any, value: Any) -> Any:
    """`store_low_bytes(address, i32x16)`: the low byte of each element, side by side, anywhere (vpmovdb)."""
    require_vectors(value)
    narrow = ir.VectorType(ir.IntType(8), value.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        builder.store(builder.trunc(arguments[1], narrow), pointer(builder, arguments[0], narrow), align=1)
        return context.get_dummy_value()

    from numba import types

    return types.void(types.intp, value), emit


@piece
def rounded(value):  # type: ignore[no-untyped-def]
    """Round floats below 2^22 in magnitude to integers, ties to even, as s32."""
    return view(i32x16, value + splat(f32x16, ROUND)) - splat(i32x16, ROUND_BITS)
