"""Vector operations that every processor has: written as plain LLVM, cut by it into registers of what width there is.

The kernels between the products (attention, normalization) are made of these alone, 16 tokens a vector, so that one
source serves every level: 512-bit, 256-bit and 128-bit registers, x86 or not, with the same bits.
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from sparsefab.kernels_cpu.emulation import clamped, emulated, native
from sparsefab.kernels_cpu.lowering import invoke, pointer, require_vectors, shuffle
from sparsefab.kernels_cpu.vector import VectorType, vector

__all__ = [
    "ROUND",
    "ROUND_BITS",
    "bytes_of",
    "dot_bytes",
    "interleave",
    "multiply_fractions",
    "opaque",
    "rounded",
    "saturating_difference",
    "shift_left",
    "shift_right",
    "square_root",
    "store_low_bytes",
    "store_rows",
]

# Adding 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even, and leaves it in the low bits.
ROUND = 12582912.0
ROUND_BITS = 0x4B400000


# By the bits of a register, widest first.
_FRACTION_PRODUCTS = {512: "llvm.x86.avx512.pmul.hr.sw.512", 256: "llvm.x86.avx2.pmul.hr.sw"}


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
def interleave(typing_context: Any, a: Any, b: Any) -> Any:
    """`interleave(a, b)`: a0 b0 a1 b1 ... in a vector of twice the width."""
    require_vectors(a, b)
    result = vector(a.element, 2 * a.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return shuffle(builder, arguments, [i // 2 + (a.lanes if i % 2 else 0) for i in range(result.lanes)])

    return result(a, b), emit


@intrinsic
def dot_bytes(typing_context: Any, acc: Any, u: Any, s: Any) -> Any:
    """`dot_bytes(acc i32, u i8, s i8)`: acc + four products u8 * s8 a dword (vpdpbusd, or two vpmaddwd on words)."""
    require_vectors(acc, u, s)
    kind, words = acc.llvm, ir.VectorType(ir.IntType(16), 2 * acc.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        if native("dpbusd", 512) and acc.bits == 512:
            return invoke(builder, "llvm.x86.avx512.vpdpbusd.512", kind, list(arguments))
        total, codes, signed = arguments[0], *(builder.bitcast(argument, words) for argument in arguments[1:])
        eight, byte = (ir.Constant(words, [ir.IntType(16)(number)] * words.count) for number in (8, 255))
        for pair in (
            (builder.and_(codes, byte), builder.ashr(builder.shl(signed, eight), eight)),
            (builder.lshr(codes, eight), builder.ashr(signed, eight)),
        ):
            total = builder.add(total, _dot_words(builder, *pair))
        return total

    return acc(acc, u, s), emit


def _dot_words(builder: Any, a: Any, b: Any) -> Any:
    """Two products of s16 a dword; LLVM makes vpmaddwd of it, or what the processor has instead."""
    wide = ir.VectorType(ir.IntType(32), a.type.count)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even = shuffle(builder, (products, products), list(range(0, a.type.count, 2)))
    odd = shuffle(builder, (products, products), list(range(1, a.type.count, 2)))
    return builder.add(even, odd)


@intrinsic
def multiply_fractions(typing_context: Any, a: Any, b: Any) -> Any:
    """`multiply_fractions(i16, i16)`: (a * b + 2^14) >> 15, not for twice -2^15 (vpmulhrsw)."""
    require_vectors(a, b)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        for bits, name in _FRACTION_PRODUCTS.items():
            if a.bits >= bits and native("mulhrsw", bits):
                return _in_parts(builder, name, list(arguments), 16 * a.lanes // bits)
        return emulated("mulhrsw")(builder, list(arguments), a.llvm)

    return a(a, b), emit


def _in_parts(builder: Any, name: str, vectors: list[Any], parts: int) -> Any:
    """Call an instruction on each of `parts` pieces of its arguments, 1 or 2, and join the results."""
    lanes = vectors[0].type.count // parts
    kind = ir.VectorType(vectors[0].type.element, lanes)
    results = [
        invoke(builder, name, kind, [_lanes(builder, vector, first, lanes) for vector in vectors])
        for first in range(0, parts * lanes, lanes)
    ]
    return results[0] if parts == 1 else shuffle(builder, results, list(range(2 * lanes)))


def _lanes(builder: Any, vector: Any, first: int, lanes: int) -> Any:
    return shuffle(builder, (vector, vector), list(range(first, first + lanes)))


@intrinsic
def opaque(typing_context: Any, address: Any) -> Any:
    """`opaque(address)`: the same, but nothing is known of it, so that addresses at constant distances are made of it.

    The loop optimizer else keeps a counter for each of them, more than there are registers.
    """

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.asm(kind, "", "=r,0", list(arguments), False)

    from numba import types

    return types.intp(types.intp), emit


@intrinsic
def saturating_difference(typing_context: Any, a: Any, b: Any) -> Any:
    """`saturating_difference(a, b)`: a - b, saturating, signed (vpsubsw)."""
    require_vectors(a, b)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return invoke(builder, f"llvm.ssub.sat.{a.suffix}", a.llvm, list(arguments))

    return a(a, b), emit


@intrinsic
def shift_right(typing_context: Any, value: Any, counts: Any) -> Any:
    """`shift_right(i16 or i32, counts)`: each by its own count from 0 on; beyond the width it is 0 or -1 (vpsravw)."""
    require_vectors(value, counts)
    letter = {"i16": "w", "i32": "d"}[value.element]

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = value.llvm
        if value.bits == 512 and native("shift", 512):  # a plain shift by equal counts would become two operations
            return invoke(builder, f"llvm.x86.avx512.psrav.{letter}.512", kind, list(arguments))
        most = ir.Constant(kind, [kind.element(kind.element.width - 1)] * kind.count)
        return builder.ashr(arguments[0], invoke(builder, f"llvm.umin.{value.suffix}", kind, [arguments[1], most]))

    return value(value, counts), emit


@intrinsic
def shift_left(typing_context: Any, value: Any, counts: Any) -> Any:
    """`shift_left(i32, counts)`: each by its own count, 0 to 31 (vpsllvd)."""
    require_vectors(value, counts)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        if value.bits == 512 and native("shift", 512):  # as for `shift_right`
            return invoke(builder, "llvm.x86.avx512.psllv.d.512", value.llvm, list(arguments))
        return builder.shl(*arguments)

    return value(value, counts), emit


@intrinsic
def bytes_of(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """`bytes_of(a, b, c, d)`: s32 as u8, saturated, the 16 of a first (vpackssdw, vpackuswb, vpermd)."""
    require_vectors(a, b, c, d)
    result = vector("i8", 4 * a.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        if a.bits == 512 and native("packssdw", 512):
            words = ir.VectorType(ir.IntType(16), 2 * a.lanes)
            low, high = (
                invoke(builder, "llvm.x86.avx512.packssdw.512", words, list(arguments[first : first + 2]))
                for first in (0, 2)
            )
            mixed = builder.bitcast(invoke(builder, "llvm.x86.avx512.packuswb.512", result.llvm, [low, high]), a.llvm)
            return builder.bitcast(
                shuffle(builder, (mixed, mixed), [4 * part + row for row in range(4) for part in range(4)]), result.llvm
            )
        narrow = ir.VectorType(ir.IntType(8), a.lanes)
        rows = [builder.trunc(clamped(builder, argument, 0, 255), narrow) for argument in arguments]
        pairs = [shuffle(builder, tuple(rows[first : first + 2]), list(range(2 * a.lanes))) for first in (0, 2)]
        return shuffle(builder, tuple(pairs), list(range(4 * a.lanes)))

    return result(a, b, c, d), emit


@intrinsic
def store_rows(typing_context: Any, address: Any, stride: Any, rows: Any) -> Any:
    """`store_rows(address, stride, i8x64)`: four rows of 16 bytes, at addresses `stride` apart."""
    require_vectors(rows)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        place, step, value = arguments
        for first in range(0, rows.lanes, 16):
            part = _lanes(builder, value, first, 16)
            builder.store(part, pointer(builder, place, part.type), align=16)
            place = builder.add(place, step)
        return context.get_dummy_value()

    from numba import types

    return types.void(types.intp, types.intp, rows), emit


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


@intrinsic
def rounded(typing_context: Any, value: Any) -> Any:
    """`rounded(f32x16)`: floats below 2^22 in magnitude as s32, nearest, ties to even (vcvtps2dq)."""
    require_vectors(value)
    result = vector("i32", value.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = result.llvm
        if value.bits == 512 and native("cvtps2dq", 512):
            none, every, current = ir.Constant(kind, None), ir.IntType(16)(-1), ir.IntType(32)(4)
            return invoke(builder, "llvm.x86.avx512.mask.cvtps2dq.512", kind, [arguments[0], none, every, current])
        shifted = builder.fadd(arguments[0], ir.Constant(value.llvm, [ir.FloatType()(ROUND)] * value.lanes))
        return builder.sub(
            builder.bitcast(shifted, kind), ir.Constant(kind, [ir.IntType(32)(ROUND_BITS)] * value.lanes)
        )

    return result(value), emit
