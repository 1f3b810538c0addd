"""Vector instructions as functions: what kernels are written with, each emitting the one instruction its text names.

Addresses are ``intp`` in bytes (``array.ctypes.data`` plus an offset).  They keep no array alive: the caller of a
kernel holds its arrays for the whole call.  Vectors of one type also take ``+ - *`` and, for integers, ``& | ^ <<``
and (arithmetic) ``>>`` per element; no operation of this module is ever contracted or reassociated.

Names follow the page of the instruction; "inside lanes" means in each 128-bit piece by itself.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from sparsefab.kernels_cpu.emulation import emulated, native
from sparsefab.kernels_cpu.lowering import (
    intrinsic_named,
    invoke,
    pointer,
    referenced_type,
    require_vectors,
    splat_lanes,
)
from sparsefab.kernels_cpu.vector import VectorType

__all__ = [
    "broadcast",
    "dot",
    "element",
    "fma",
    "load",
    "load_bytes",
    "load_unaligned",
    "maximum",
    "maximum_unsigned",
    "minimum",
    "minimum_unsigned",
    "multiply_add_bytes",
    "multiply_add_words",
    "multiply_round",
    "pack_i8",
    "pack_i16",
    "pack_u8",
    "prefetch",
    "prefetch_far",
    "saturating_add",
    "select_negative",
    "splat",
    "store",
    "store_unaligned",
    "to_float",
    "view",
]

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


# --- memory -----------------------------------------------------------------------------------------------------------
@intrinsic
def load(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load(i8x64, address)`: an aligned load; the address is a multiple of the vector's width."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.load(pointer(builder, arguments[1], result.llvm), align=result.bytes)

    return result(kind, types.intp), emit


@intrinsic
def load_unaligned(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load_unaligned(i8x16, address)`: a load from anywhere."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.load(pointer(builder, arguments[1], result.llvm), align=1)

    return result(kind, types.intp), emit


@intrinsic
def load_bytes(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load_bytes(i32x16, address)`: a byte for each element, widened without sign (vpmovzxbd)."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        narrow = ir.VectorType(_I8, result.lanes)
        return builder.zext(builder.load(pointer(builder, arguments[1], narrow), align=1), result.llvm)

    return result(kind, types.intp), emit


@intrinsic
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """`store(address, vector)`: an aligned store; the address is a multiple of the vector's width."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        builder.store(arguments[1], pointer(builder, arguments[0], value.llvm), align=value.bytes)
        return context.get_dummy_value()

    return types.void(types.intp, value), emit


@intrinsic
def store_unaligned(typing_context: Any, address: Any, value: Any) -> Any:
    """`store_unaligned(address, vector)`: a store to anywhere."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        builder.store(arguments[1], pointer(builder, arguments[0], value.llvm), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, value), emit


@intrinsic
def broadcast(typing_context: Any, kind: Any, address: Any) -> Any:
    """`broadcast(i8x64, address)`: the four bytes at `address` in every dword (vpbroadcastd from memory)."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        word = builder.load(pointer(builder, arguments[1], _I32), align=1)
        return builder.bitcast(splat_lanes(builder, word, result.bits // 32), result.llvm)

    return result(kind, types.intp), emit


def _prefetch(locality: int, document: str) -> Callable[..., Any]:
    def prefetch(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.PointerType())
            kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), _I32, _I32, _I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [pointer, _I32(0), _I32(locality), _I32(1)])
            return context.get_dummy_value()

        return types.void(types.intp), emit

    prefetch.__doc__ = document
    return intrinsic(prefetch)


prefetch = _prefetch(3, "`prefetch(address)`: ask for the cache line, to be read soon (prefetcht0).")
prefetch_far = _prefetch(2, "`prefetch_far(address)`: ask for it into the second-level cache (prefetcht1).")


# --- making and viewing -----------------------------------------------------------------------------------------------
@intrinsic
def splat(typing_context: Any, kind: Any, value: Any) -> Any:
    """`splat(i32x16, scalar)`: the scalar, cut to the element's width, in every element."""
    result = referenced_type(kind)
    scalar = types.float32 if result.element == "f32" else types.int64

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        element = arguments[1]
        if isinstance(result.llvm.element, ir.IntType) and result.llvm.element.width < 64:
            element = builder.trunc(element, result.llvm.element)
        return splat_lanes(builder, element, result.lanes)

    return result(kind, scalar), emit


@intrinsic
def view(typing_context: Any, kind: Any, value: Any) -> Any:
    """`view(i16x32, vector)`: the same bits as other elements; no instruction."""
    result = referenced_type(kind)
    if not isinstance(value, VectorType) or value.bits != result.bits:
        raise TypingError(f"view needs vectors of one width, not {value} and {result}")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[1], result.llvm)

    return result(kind, value), emit


@intrinsic
def element(typing_context: Any, value: Any, index: Any) -> Any:
    """`element(i32 vector, 2)`: one element, an integer with its sign; the index is written as a number."""
    require_vectors(value)
    if not isinstance(index, types.IntegerLiteral):
        raise TypingError("the index of an element is a number in the source")
    place = index.literal_value

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.sext(builder.extract_element(arguments[0], _I32(place)), ir.IntType(64))

    return types.int64(value, index), emit


@intrinsic
def select_negative(typing_context: Any, mask: Any, a: Any, b: Any) -> Any:
    """`select_negative(mask, a, b)`: elements of a where the mask's are negative, else of b (vpblendvb, vpblendmb)."""
    require_vectors(mask, a, b)
    if mask != a or a != b:
        raise TypingError(f"select_negative takes vectors of one type, not {mask}, {a} and {b}")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        zero = ir.Constant(a.llvm, [a.llvm.element(0)] * a.lanes)
        return builder.select(builder.icmp_signed("<", arguments[0], zero), arguments[1], arguments[2])

    return a(mask, a, b), emit


# --- arithmetic -------------------------------------------------------------------------------------------------------
def _define_operator(which: Callable[..., Any], integer: str, real: str | None) -> None:
    """Give vectors the operator `which`: llvmlite's builder method `integer`, or `real` for floats."""

    class Template(AbstractTemplate):
        def generic(self, operands: Any, keywords: Any) -> Any:
            if len(operands) != 2 or not isinstance(operands[0], VectorType) or operands[0] != operands[1]:
                return None
            return signature(operands[0], *operands) if real or operands[0].element[0] != "f" else None

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        method = real if real and typed.return_type.element[0] == "f" else integer
        return getattr(builder, method)(*arguments)

    infer_global(which)(Template)
    lower_builtin(which, VectorType, VectorType)(emit)


for _operator, _integer, _real in (
    (operator.add, "add", "fadd"),
    (operator.sub, "sub", "fsub"),
    (operator.mul, "mul", "fmul"),
    (operator.and_, "and_", None),
    (operator.or_, "or_", None),
    (operator.xor, "xor", None),
    (operator.lshift, "shl", None),
    (operator.rshift, "ashr", None),
):
    _define_operator(_operator, _integer, _real)


def _call(name: str, shape: Callable[[VectorType], tuple[VectorType, tuple[VectorType, ...]]]) -> Callable[..., Any]:
    """Make an intrinsic of LLVM's function `name`; ``{bits}`` and ``{type}`` in it follow the first argument."""

    def typed(typing_context: Any, *operands: Any) -> Any:
        require_vectors(*operands)
        result, expected = shape(operands[0])
        if tuple(operands) != expected:
            raise TypingError(f"{name} takes {expected}, not {operands}")

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            x86 = _X86_NAMES.get((name, operands[0].bits))
            if x86 is not None and not native(name, operands[0].bits):
                return emulated(name)(builder, list(arguments), result.llvm)
            full = name.format(type=operands[0].suffix) if x86 is None else x86
            return invoke(builder, full, result.llvm, list(arguments))

        return result(*operands), emit

    return typed


# LLVM names the 128-bit forms after SSE, the 256-bit forms after AVX2 and the 512-bit forms after AVX512.
_X86_NAMES = {
    ("dpbusd", 512): "llvm.x86.avx512.vpdpbusd.512",
    ("dpbusd", 256): "llvm.x86.avx512.vpdpbusd.256",
    ("dpbusd", 128): "llvm.x86.avx512.vpdpbusd.128",
    ("maddwd", 512): "llvm.x86.avx512.pmaddw.d.512",
    ("maddwd", 256): "llvm.x86.avx2.pmadd.wd",
    ("maddwd", 128): "llvm.x86.sse2.pmadd.wd",
    ("maddubsw", 512): "llvm.x86.avx512.pmaddubs.w.512",
    ("maddubsw", 256): "llvm.x86.avx2.pmadd.ub.sw",
    ("maddubsw", 128): "llvm.x86.ssse3.pmadd.ub.sw.128",
    ("mulhrsw", 512): "llvm.x86.avx512.pmul.hr.sw.512",
    ("mulhrsw", 256): "llvm.x86.avx2.pmul.hr.sw",
    ("mulhrsw", 128): "llvm.x86.ssse3.pmul.hr.sw.128",
    ("packssdw", 512): "llvm.x86.avx512.packssdw.512",
    ("packssdw", 256): "llvm.x86.avx2.packssdw",
    ("packssdw", 128): "llvm.x86.sse2.packssdw.128",
    ("packsswb", 512): "llvm.x86.avx512.packsswb.512",
    ("packsswb", 256): "llvm.x86.avx2.packsswb",
    ("packsswb", 128): "llvm.x86.sse2.packsswb.128",
    ("packuswb", 512): "llvm.x86.avx512.packuswb.512",
    ("packuswb", 256): "llvm.x86.avx2.packuswb",
    ("packuswb", 128): "llvm.x86.sse2.packuswb.128",
}


def _make(public: str, name: str, arity: int, shape: Any, document: str) -> Any:
    body = _call(name, shape)
    # Numba reads the number of arguments from the signature, so each arity is spelled out.
    if arity == 2:

        def two(typing_context: Any, a: Any, b: Any) -> Any:
            return body(typing_context, a, b)

        two.__doc__ = document
        return intrinsic_named(public, two)

    def three(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
        return body(typing_context, a, b, c)

    three.__doc__ = document
    return intrinsic_named(public, three)


def _same(first: VectorType) -> Any:
    return first, (first, first)


def _narrowing(element: str) -> Any:
    return lambda first: (first.of(element), (first, first))


dot = _make(
    "dot",
    "dpbusd",
    3,
    lambda acc: (acc, (acc, acc.of("i8"), acc.of("i8"))),
    "`dot(acc i32, u i8, s i8)`: acc + four products u8 * s8 a dword, wrapping (vpdpbusd).",
)
multiply_add_words = _make(
    "multiply_add_words", "maddwd", 2, _narrowing("i32"), "Two products of s16 a dword, added (vpmaddwd)."
)
multiply_add_bytes = _make(
    "multiply_add_bytes",
    "maddubsw",
    2,
    lambda codes: (codes.of("i16"), (codes, codes)),
    "Two products u8 * s8 a word, added, saturating to s16 (vpmaddubsw).",
)
multiply_round = _make("multiply_round", "mulhrsw", 2, _same, "(a * b + 2^14) >> 15 of s16 (vpmulhrsw).")
pack_i16 = _make(
    "pack_i16", "packssdw", 2, _narrowing("i16"), "s32 to s16, saturating, inside lanes a then b (vpackssdw)."
)
pack_i8 = _make("pack_i8", "packsswb", 2, _narrowing("i8"), "s16 to s8, saturating, inside lanes a then b (vpacksswb).")
pack_u8 = _make("pack_u8", "packuswb", 2, _narrowing("i8"), "s16 to u8, saturating, inside lanes a then b (vpackuswb).")
saturating_add = _make(
    "saturating_add", "llvm.sadd.sat.{type}", 2, _same, "a + b, saturating, signed (vpaddsw, vpaddsb)."
)
minimum = _make("minimum", "llvm.smin.{type}", 2, _same, "The smaller of signed integers (vpminsd, vpminsw).")
maximum = _make("maximum", "llvm.smax.{type}", 2, _same, "The larger of signed integers (vpmaxsd, vpmaxsw).")
minimum_unsigned = _make("minimum_unsigned", "llvm.umin.{type}", 2, _same, "The smaller of unsigned ones (vpminub).")
maximum_unsigned = _make("maximum_unsigned", "llvm.umax.{type}", 2, _same, "The larger of unsigned ones (vpmaxub).")
fma = _make("fma", "llvm.fma.{type}", 3, lambda a: (a, (a, a, a)), "a * b + c, rounded once (vfmadd).")


@intrinsic
def to_float(typing_context: Any, value: Any) -> Any:
    """`to_float(i32 vector)`: to binary32, nearest even (vcvtdq2ps)."""
    require_vectors(value)
    result = value.of("f32")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], result.llvm)

    return result(value), emit
