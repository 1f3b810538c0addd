"""Vector instructions that move elements: unpacks, transposes, permutations, joining and parting of registers.

"Inside lanes" means in each 128-bit piece by itself.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from sparsefab.kernels_cpu.emulation import emulated, native
from sparsefab.kernels_cpu.lowering import (
    intrinsic_named,
    invoke,
    pointer,
    referenced_type,
    require_vectors,
    shuffle,
)
from sparsefab.kernels_cpu.vector import VectorType, vector

__all__ = [
    "each_lane_sum",
    "every_lane",
    "high_halves",
    "join",
    "lane_sum",
    "load_lanes",
    "look_up_128",
    "look_up_bytes",
    "low_halves",
    "permute_bytes",
    "permute_dwords",
    "permute_words",
    "store_quarters",
    "total",
    "transpose_bytes",
    "transpose_lanes",
    "unpack_high_bytes",
    "unpack_high_words",
    "unpack_low_bytes",
    "unpack_low_words",
    "widen_half",
]

_I32 = ir.IntType(32)


def _unpack(element: str, high: bool) -> Callable[..., Any]:
    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        require_vectors(a, b)
        inner = a.of(element)
        lane = 128 * inner.lanes // inner.bits
        mask = [
            piece + (lane // 2 if high else 0) + i // 2 + (inner.lanes if i % 2 else 0)
            for piece in range(0, inner.lanes, lane)
            for i in range(lane)
        ]

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            parts = [builder.bitcast(argument, inner.llvm) for argument in arguments]
            return builder.bitcast(shuffle(builder, parts, mask), a.llvm)

        return a(a, b), emit

    return typed


unpack_low_bytes = intrinsic_named("unpack_low_bytes", _unpack("i8", False))
unpack_high_bytes = intrinsic_named("unpack_high_bytes", _unpack("i8", True))
unpack_low_words = intrinsic_named("unpack_low_words", _unpack("i16", False))
unpack_high_words = intrinsic_named("unpack_high_words", _unpack("i16", True))


@intrinsic
def transpose_lanes(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Transpose the 4 x 4 matrix of 128-bit lanes of four 512-bit vectors (8 vshufi32x4).

    Returns
    -------
    tuple of 4 vectors           Vector m holds lane m of a, b, c, d in turn.
    """
    require_vectors(a, b, c, d)
    if a.bits != 512:
        raise TypingError(f"transpose_lanes takes 512-bit vectors, not {a}")
    result = types.Tuple((a, a, a, a))
    step = a.lanes // 4

    def pick(builder: Any, left: Any, right: Any, lanes: tuple[int, int, int, int]) -> Any:
        mask = [(lane + (4 if i > 1 else 0)) * step + j for i, lane in enumerate(lanes) for j in range(step)]
        return shuffle(builder, (left, right), mask)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        va, vb, vc, vd = arguments
        ab_low, ab_high = pick(builder, va, vb, (0, 1, 0, 1)), pick(builder, va, vb, (2, 3, 2, 3))
        cd_low, cd_high = pick(builder, vc, vd, (0, 1, 0, 1)), pick(builder, vc, vd, (2, 3, 2, 3))
        rows = [
            pick(builder, ab_low, cd_low, (0, 2, 0, 2)),
            pick(builder, ab_low, cd_low, (1, 3, 1, 3)),
            pick(builder, ab_high, cd_high, (0, 2, 0, 2)),
            pick(builder, ab_high, cd_high, (1, 3, 1, 3)),
        ]
        return cgutils.pack_array(builder, rows)

    return result(a, b, c, d), emit


def _halves(which: int) -> Callable[..., Any]:
    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        require_vectors(a, b)
        half = a.lanes // 2
        mask = [start + which * half + i for start in (0, a.lanes) for i in range(half)]

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            return shuffle(builder, arguments, mask)

        return a(a, b), emit

    return typed


low_halves = intrinsic_named("low_halves", _halves(0))
high_halves = intrinsic_named("high_halves", _halves(1))


@intrinsic
def transpose_bytes(typing_context: Any, value: Any) -> Any:
    """Transpose the 4 x 4 matrix of bytes in each 128-bit lane (vpshufb)."""
    require_vectors(value)
    inner = value.of("i8")
    mask = [16 * (i // 16) + 4 * (i % 4) + i % 16 // 4 for i in range(inner.lanes)]

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        part = builder.bitcast(arguments[0], inner.llvm)
        return builder.bitcast(shuffle(builder, (part, part), mask), value.llvm)

    return value(value), emit


@intrinsic
def join(typing_context: Any, low: Any, high: Any) -> Any:
    """Make one vector of two of half its width (vinserti64x4, free for the low part)."""
    require_vectors(low, high)
    result = vector(low.element, 2 * low.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return shuffle(builder, arguments, list(range(2 * low.lanes)))

    return result(low, high), emit


@intrinsic
def widen_half(typing_context: Any, value: Any) -> Any:
    """`widen_half(f16x32)`: its lower and its upper elements as two f32x16 (vcvtph2psx), exact."""
    require_vectors(value)
    half = value.lanes // 2
    wide = vector("f32", half)
    result = types.Tuple((wide, wide))

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        parts = [shuffle(builder, (arguments[0],) * 2, list(range(start, start + half))) for start in (0, half)]
        return cgutils.pack_array(builder, [builder.fpext(part, wide.llvm) for part in parts])

    return result(value), emit


@intrinsic
def lane_sum(typing_context: Any, value: Any) -> Any:
    """`lane_sum(i32x16)`: the sum of the 128-bit lanes, a vector of one lane."""
    require_vectors(value)
    step = 128 * value.lanes // value.bits
    result = vector(value.element, step)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        part = arguments[0]
        count = value.lanes
        while count > step:
            count //= 2
            halves = [shuffle(builder, (part, part), [start + i for i in range(count)]) for start in (0, count)]
            part = builder.add(*halves)
        return part

    return result(value), emit


@intrinsic
def each_lane_sum(typing_context: Any, value: Any) -> Any:
    """`each_lane_sum(i32 vector)`: the sum of the dwords of each 128-bit lane, side by side."""
    require_vectors(value)
    result = vector(value.element, value.lanes // 4)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        part = arguments[0]
        for far in (1, 2):
            part = builder.add(part, shuffle(builder, (part, part), [i ^ far for i in range(value.lanes)]))
        return shuffle(builder, (part, part), list(range(0, value.lanes, 4)))

    return result(value), emit


@intrinsic
def total(typing_context: Any, value: Any) -> Any:
    """`total(i32 vector)`: the sum of all elements, wrapping, an integer with its sign."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        number = invoke(builder, f"llvm.vector.reduce.add.{value.suffix}", value.llvm.element, [arguments[0]])
        return builder.sext(number, ir.IntType(64))

    return types.int64(value), emit


@intrinsic
def every_lane(typing_context: Any, value: Any, which: Any) -> Any:
    """`every_lane(vector, 2)`: one 128-bit lane in all of them (vshufi32x4); which is written as a number."""
    require_vectors(value)
    if not isinstance(which, types.IntegerLiteral):
        raise TypingError("the index of a lane is a number in the source")
    step = 128 * value.lanes // value.bits
    mask = [step * which.literal_value + i % step for i in range(value.lanes)]

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return shuffle(builder, (arguments[0],) * 2, mask)

    return value(value, which), emit


def _permute(element: str, name: str) -> Callable[..., Any]:
    instruction = "permvar of bytes" if element == "i8" else "permvar"

    def typed(typing_context: Any, data: Any, index: Any) -> Any:
        require_vectors(data, index)
        if data.bits != 512:
            raise TypingError(f"{name} takes 512-bit vectors, not {data}")
        inner = data.of(element)

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            parts = [builder.bitcast(argument, inner.llvm) for argument in arguments]
            return builder.bitcast(_invoke(builder, instruction, 512, name, parts, inner), data.llvm)

        return data(data, index), emit

    return typed


def _invoke(builder: Any, instruction: str, bits: int, name: str, arguments: list[Any], result: VectorType) -> Any:
    if native(instruction, bits):
        return invoke(builder, name, result.llvm, arguments)
    return emulated(instruction)(builder, arguments, result.llvm)


# An index that is loaded from memory pins these; a constant one lets LLVM choose another shuffle.
permute_bytes = intrinsic_named("permute_bytes", _permute("i8", "llvm.x86.avx512.permvar.qi.512"))
permute_words = intrinsic_named("permute_words", _permute("i16", "llvm.x86.avx512.permvar.hi.512"))
permute_dwords = intrinsic_named("permute_dwords", _permute("i32", "llvm.x86.avx512.permvar.si.512"))

_LOOK_UP_NAMES = {
    512: "llvm.x86.avx512.pshuf.b.512",
    256: "llvm.x86.avx2.pshuf.b",
    128: "llvm.x86.ssse3.pshuf.b.128",
}


@intrinsic
def look_up_bytes(typing_context: Any, table: Any, index: Any) -> Any:
    """For each byte, byte `index` of the same lane's 16 of a table; 0 where an index is negative (vpshufb)."""
    require_vectors(table, index)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return _invoke(builder, "pshufb", table.bits, _LOOK_UP_NAMES[table.bits], list(arguments), table)

    return table(table, index), emit


@intrinsic
def look_up_128(typing_context: Any, low: Any, index: Any, high: Any) -> Any:
    """Take byte `index`, its low 7 bits, of the 128 bytes of two vectors for each byte (vpermi2b)."""
    require_vectors(low, index, high)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return _invoke(builder, "permi2var", 512, "llvm.x86.avx512.vpermi2var.qi.512", list(arguments), low)

    return low(low, index, high), emit


@intrinsic
def load_lanes(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load_lanes(i8x32, address)`: the same aligned 16 bytes in every 128-bit lane (vbroadcasti128)."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        lane = ir.VectorType(result.llvm.element, 128 * result.lanes // result.bits)
        part = builder.load(pointer(builder, arguments[1], lane), align=16)
        return shuffle(builder, (part, part), [i % lane.count for i in range(result.lanes)])

    return result(kind, types.intp), emit


@intrinsic
def store_quarters(typing_context: Any, to: Any, row_bytes: Any, far: Any, value: Any) -> Any:
    """Store the four 8-byte pieces of a 256-bit vector: rows 0 and 1 at `to`, then both again `far` bytes on."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        to, row_bytes, far, vector = arguments
        words = builder.bitcast(vector, value.of("i64").llvm)
        second = builder.add(to, far)
        places = [to, builder.add(to, row_bytes), second, builder.add(second, row_bytes)]
        for i, place in enumerate(places):
            builder.store(builder.extract_element(words, _I32(i)), pointer(builder, place, ir.IntType(64)), align=8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, value), emit
