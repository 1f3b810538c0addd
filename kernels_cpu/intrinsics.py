"""Vector instructions as functions: what kernels are written with, each emitting the one instruction its text names.

Addresses are ``intp`` in bytes (``array.ctypes.data`` plus an offset).  They keep no array alive: the caller of a
kernel holds its arrays for the whole call.  Vectors of one type also take ``+ - *`` and, for integers, ``& | ^ <<``
and (arithmetic) ``>>`` per element; no operation of this module is ever contracted or reassociated.

Names follow the page of the instruction; "inside lanes" means in each 128-bit piece by itself.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin

from sparsefab.kernels_cpu.vector import VectorType, vector

__all__ = [
    "broadcast",
    "dot",
    "fma",
    "high_halves",
    "load",
    "low_halves",
    "maximum",
    "minimum",
    "multiply_add_words",
    "multiply_round",
    "pack_i8",
    "pack_i16",
    "pack_u8",
    "prefetch",
    "read_f32",
    "read_i8",
    "read_i16",
    "read_i32",
    "read_i64",
    "saturating_add",
    "splat",
    "store",
    "store_low_halves",
    "to_float",
    "transpose_lanes",
    "unpack_high_bytes",
    "unpack_high_words",
    "unpack_low_bytes",
    "unpack_low_words",
    "view",
    "write_i32",
]

_I1, _I8, _I16, _I32 = ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _named(name: str, definition: Callable[..., Any]) -> Any:
    """Make an intrinsic of a function that a factory returned; the cache tells intrinsics apart by their names."""
    definition.__name__ = definition.__qualname__ = name
    return intrinsic(definition)


# --- memory -----------------------------------------------------------------------------------------------------------
@intrinsic
def load(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load(i8x64, address)`: an aligned load; the address is a multiple of the vector's width."""
    result = _referenced(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.load(_pointer(builder, arguments[1], result.llvm), align=result.bytes)

    return result(kind, types.intp), emit


@intrinsic
def load_bytes(typing_context: Any, kind: Any, address: Any) -> Any:
    """`load_bytes(i32x16, address)`: a byte for each element, widened without sign (vpmovzxbd)."""
    result = _referenced(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        narrow = ir.VectorType(_I8, result.lanes)
        return builder.zext(builder.load(_pointer(builder, arguments[1], narrow), align=1), result.llvm)

    return result(kind, types.intp), emit


@intrinsic
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """`store(address, vector)`: an aligned store; the address is a multiple of the vector's width."""
    _vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        builder.store(arguments[1], _pointer(builder, arguments[0], value.llvm), align=value.bytes)
        return context.get_dummy_value()

    return types.void(types.intp, value), emit


@intrinsic
def broadcast(typing_context: Any, kind: Any, address: Any) -> Any:
    """`broadcast(i8x64, address)`: the four bytes at `address` in every dword (vpbroadcastd from memory)."""
    result = _referenced(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        word = builder.load(_pointer(builder, arguments[1], _I32), align=4)
        return builder.bitcast(_splat(builder, word, result.bits // 32), result.llvm)

    return result(kind, types.intp), emit


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """`prefetch(address)`: ask for the cache line, to be read soon (prefetcht0)."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.PointerType())
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(types.intp), emit


def _scalar_read(element: ir.Type, result: Any, align: int, signed: bool = True) -> Callable[..., Any]:
    def typed(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            value = builder.load(_pointer(builder, arguments[0], element), align=align)
            wide = isinstance(element, ir.FloatType) or element.width == 64
            return value if wide else (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return result(types.intp), emit

    return typed


read_i8 = _named("read_i8", _scalar_read(_I8, types.int64, 1))
read_u8 = _named("read_u8", _scalar_read(_I8, types.int64, 1, signed=False))
read_i16 = _named("read_i16", _scalar_read(_I16, types.int64, 2))
read_i32 = _named("read_i32", _scalar_read(_I32, types.int64, 4))
read_i64 = _named("read_i64", _scalar_read(ir.IntType(64), types.int64, 8))
read_f32 = _named("read_f32", _scalar_read(ir.FloatType(), types.float32, 4))


@intrinsic
def write_i32(typing_context: Any, address: Any, value: Any) -> Any:
    """`write_i32(address, integer)`: the low 32 bits."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        builder.store(builder.trunc(arguments[1], _I32), _pointer(builder, arguments[0], _I32), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


# --- making and viewing -----------------------------------------------------------------------------------------------
@intrinsic
def splat(typing_context: Any, kind: Any, value: Any) -> Any:
    """`splat(i32x16, scalar)`: the scalar, cut to the element's width, in every element."""
    result = _referenced(kind)
    scalar = types.float32 if result.element == "f32" else types.int64

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        element = arguments[1]
        if isinstance(result.llvm.element, ir.IntType) and result.llvm.element.width < 64:
            element = builder.trunc(element, result.llvm.element)
        return _splat(builder, element, result.lanes)

    return result(kind, scalar), emit


@intrinsic
def view(typing_context: Any, kind: Any, value: Any) -> Any:
    """`view(i16x32, vector)`: the same bits as other elements; no instruction."""
    result = _referenced(kind)
    if not isinstance(value, VectorType) or value.bits != result.bits:
        raise TypingError(f"view needs vectors of one width, not {value} and {result}")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[1], result.llvm)

    return result(kind, value), emit


# --- arithmetic -------------------------------------------------------------------------------------------------------
def _define_operator(which: Callable[..., Any], integer: str, real: str | None) -> None:
    """Give vectors the operator `which`: llvmlite's builder method `integer`, or `real` for floats."""

    class Template(AbstractTemplate):
        def generic(self, operands: Any, keywords: Any) -> Any:
            if len(operands) != 2 or not isinstance(operands[0], VectorType) or operands[0] != operands[1]:
                return None
            return signature(operands[0], *operands) if real or operands[0].element != "f32" else None

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        method = real if real and typed.return_type.element == "f32" else integer
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


def _call(
    name: str,
    shape: Callable[[VectorType], tuple[VectorType, tuple[VectorType, ...]]],
    extra: Callable[[VectorType], list[Any]] = lambda first: [],
) -> Callable[..., Any]:
    """Make an intrinsic of LLVM's function `name`; ``{bits}`` and ``{type}`` in it follow the first argument."""

    def typed(typing_context: Any, *operands: Any) -> Any:
        _vectors(*operands)
        result, expected = shape(operands[0])
        if tuple(operands) != expected:
            raise TypingError(f"{name} takes {expected}, not {operands}")

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            return _invoke(
                builder,
                _X86_NAMES.get((name, operands[0].bits), name).format(type=operands[0].suffix),
                result.llvm,
                [*arguments, *extra(operands[0])],
            )

        return result(*operands), emit

    return typed


# LLVM names the 256-bit forms after AVX2 and the 512-bit forms after AVX512.
_X86_NAMES = {
    ("dpbusd", 512): "llvm.x86.avx512.vpdpbusd.512",
    ("dpbusd", 256): "llvm.x86.avx512.vpdpbusd.256",
    ("maddwd", 512): "llvm.x86.avx512.pmaddw.d.512",
    ("maddwd", 256): "llvm.x86.avx2.pmadd.wd",
    ("mulhrsw", 512): "llvm.x86.avx512.pmul.hr.sw.512",
    ("mulhrsw", 256): "llvm.x86.avx2.pmul.hr.sw",
    ("packssdw", 512): "llvm.x86.avx512.packssdw.512",
    ("packssdw", 256): "llvm.x86.avx2.packssdw",
    ("packsswb", 512): "llvm.x86.avx512.packsswb.512",
    ("packsswb", 256): "llvm.x86.avx2.packsswb",
    ("packuswb", 512): "llvm.x86.avx512.packuswb.512",
    ("packuswb", 256): "llvm.x86.avx2.packuswb",
}


def _make(public: str, name: str, arity: int, shape: Any, document: str) -> Any:
    body = _call(name, shape)
    # Numba reads the number of arguments from the signature, so each arity is spelled out.
    if arity == 2:

        def two(typing_context: Any, a: Any, b: Any) -> Any:
            return body(typing_context, a, b)

        two.__doc__ = document
        return _named(public, two)

    def three(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
        return body(typing_context, a, b, c)

    three.__doc__ = document
    return _named(public, three)


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
fma = _make("fma", "llvm.fma.{type}", 3, lambda a: (a, (a, a, a)), "a * b + c, rounded once (vfmadd).")


@intrinsic
def to_float(typing_context: Any, value: Any) -> Any:
    """`to_float(i32 vector)`: to binary32, nearest even (vcvtdq2ps)."""
    _vectors(value)
    result = value.of("f32")

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], result.llvm)

    return result(value), emit


# --- moving elements --------------------------------------------------------------------------------------------------
def _unpack(element: str, high: bool) -> Callable[..., Any]:
    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        _vectors(a, b)
        inner = a.of(element)
        lane = 128 * inner.lanes // inner.bits
        mask = [
            piece + (lane // 2 if high else 0) + i // 2 + (inner.lanes if i % 2 else 0)
            for piece in range(0, inner.lanes, lane)
            for i in range(lane)
        ]

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            parts = [builder.bitcast(argument, inner.llvm) for argument in arguments]
            return builder.bitcast(_shuffle(builder, parts, mask), a.llvm)

        return a(a, b), emit

    return typed


unpack_low_bytes = _named("unpack_low_bytes", _unpack("i8", False))
unpack_high_bytes = _named("unpack_high_bytes", _unpack("i8", True))
unpack_low_words = _named("unpack_low_words", _unpack("i16", False))
unpack_high_words = _named("unpack_high_words", _unpack("i16", True))


@intrinsic
def transpose_lanes(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Transpose the 4 x 4 matrix of 128-bit lanes of four 512-bit vectors (8 vshufi32x4).

    Returns
    -------
    tuple of 4 vectors           Vector m holds lane m of a, b, c, d in turn.
    """
    _vectors(a, b, c, d)
    if a.bits != 512:
        raise TypingError(f"transpose_lanes takes 512-bit vectors, not {a}")
    result = types.Tuple((a, a, a, a))
    step = a.lanes // 4

    def pick(builder: Any, left: Any, right: Any, lanes: tuple[int, int, int, int]) -> Any:
        mask = [(lane + (4 if i > 1 else 0)) * step + j for i, lane in enumerate(lanes) for j in range(step)]
        return _shuffle(builder, (left, right), mask)

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
        _vectors(a, b)
        half = a.lanes // 2
        mask = [start + which * half + i for start in (0, a.lanes) for i in range(half)]

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            return _shuffle(builder, arguments, mask)

        return a(a, b), emit

    return typed


low_halves = _named("low_halves", _halves(0))
high_halves = _named("high_halves", _halves(1))


@intrinsic
def transpose_bytes(typing_context: Any, value: Any) -> Any:
    """Transpose the 4 x 4 matrix of bytes in each 128-bit lane (vpshufb)."""
    _vectors(value)
    inner = value.of("i8")
    mask = [16 * (i // 16) + 4 * (i % 4) + i % 16 // 4 for i in range(inner.lanes)]

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        part = builder.bitcast(arguments[0], inner.llvm)
        return builder.bitcast(_shuffle(builder, (part, part), mask), value.llvm)

    return value(value), emit


@intrinsic
def join(typing_context: Any, low: Any, high: Any) -> Any:
    """Make one vector of two of half its width (vinserti64x4, free for the low part)."""
    _vectors(low, high)
    result = vector(low.element, 2 * low.lanes)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return _shuffle(builder, arguments, list(range(2 * low.lanes)))

    return result(low, high), emit


def _permute(element: str, name: str) -> Callable[..., Any]:
    def typed(typing_context: Any, data: Any, index: Any) -> Any:
        _vectors(data, index)
        if data.bits != 512:
            raise TypingError(f"{name} takes 512-bit vectors, not {data}")
        inner = data.of(element)

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            parts = [builder.bitcast(argument, inner.llvm) for argument in arguments]
            return builder.bitcast(_invoke(builder, name, inner.llvm, parts), data.llvm)

        return data(data, index), emit

    return typed


# An index that is loaded from memory pins these; a constant one lets LLVM choose another shuffle.
permute_bytes = _named("permute_bytes", _permute("i8", "llvm.x86.avx512.permvar.qi.512"))
permute_words = _named("permute_words", _permute("i16", "llvm.x86.avx512.permvar.hi.512"))
permute_dwords = _named("permute_dwords", _permute("i32", "llvm.x86.avx512.permvar.si.512"))


@intrinsic
def store_low_halves(typing_context: Any, address: Any, value: Any) -> Any:
    """Store the low 8 bytes of the two lanes of a 256-bit vector at `address` and `address + 16` (vmovq, vpextrq)."""
    _vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        words = builder.bitcast(arguments[1], value.of("i64").llvm)
        for lane in range(value.bits // 128):
            place = builder.add(arguments[0], arguments[0].type(16 * lane))
            word = builder.extract_element(words, _I32(2 * lane))
            builder.store(word, _pointer(builder, place, ir.IntType(64)), align=8)
        return context.get_dummy_value()

    return types.void(types.intp, value), emit


# --- shared by the definitions ----------------------------------------------------------------------------------------
def _referenced(kind: Any) -> VectorType:
    if isinstance(kind, types.TypeRef) and isinstance(kind.instance_type, VectorType):
        return kind.instance_type
    raise TypingError(f"the first argument is a vector type, not {kind}")


def _vectors(*operands: Any) -> None:
    for operand in operands:
        if not isinstance(operand, VectorType):
            raise TypingError(f"a vector is needed, not {operand}")


def _pointer(builder: Any, address: Any, element: ir.Type) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _shuffle(builder: Any, pair: Sequence[Any], mask: list[int]) -> Any:
    a, b = pair
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(mask)), [_I32(i) for i in mask]))


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return _shuffle(builder, (first, first), [0] * lanes)


def _invoke(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
