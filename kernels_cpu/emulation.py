"""x86 vector instructions in plain LLVM IR, for a target that lacks them: slow, exact, and the same on any processor.

A kernel is a text of `intrinsics`; where the target has no such instruction, the text means the IR here.  So every
level's kernels can be run and compared on every machine, by tests (`Product(..., emulate=True)`), never by choice.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from sparsefab.kernels_cpu.features import effective_features
from sparsefab.kernels_cpu.lowering import invoke, shuffle

__all__ = ["clamped", "emulated", "native"]

_I16, _I32 = ir.IntType(16), ir.IntType(32)

# What an instruction needs, by its operands' bits; those of 128 bits are in every x86-64 processor of the AVX2 level.
_NEEDS: dict[str, dict[int, tuple[str, ...]]] = {
    "dpbusd": {512: ("avx512vnni",), 256: ("avx512vnni", "avxvnni"), 128: ("avx512vnni", "avxvnni")},
    "permvar": {512: ("avx512bw",)},
    "permvar of bytes": {512: ("avx512vbmi",)},
    "permi2var": {512: ("avx512vbmi",)},
}
_USUAL: dict[int, tuple[str, ...]] = {512: ("avx512bw",), 256: ("avx2",), 128: ("avx2",)}


def native(name: str, bits: int) -> bool:
    """Say whether the target of this process has instruction `name` on so many bits."""
    return any(feature in effective_features() for feature in _NEEDS.get(name, _USUAL)[bits])


def emulated(name: str) -> Callable[[Any, list[Any], ir.VectorType], Any]:
    """Return what emits `name`: a function of (builder, arguments, type of the result)."""
    return _EMITTERS[name]


def _extended(builder: Any, value: Any, width: int, signed: bool = True) -> Any:
    kind = ir.VectorType(ir.IntType(width), value.type.count)
    return (builder.sext if signed else builder.zext)(value, kind)


def _every(builder: Any, value: Any, step: int, first: int) -> Any:
    return shuffle(builder, (value, value), list(range(first, value.type.count, step)))


def _splat(kind: ir.VectorType, number: int) -> Any:
    return ir.Constant(kind, [kind.element(number)] * kind.count)


def clamped(builder: Any, value: Any, low: int, high: int) -> Any:
    """Emit what keeps the signed integers of a vector from `low` to `high`."""
    kind = value.type
    suffix = f"v{kind.count}i{kind.element.width}"
    value = invoke(builder, f"llvm.smax.{suffix}", kind, [value, _splat(kind, low)])
    return invoke(builder, f"llvm.smin.{suffix}", kind, [value, _splat(kind, high)])


def _dpbusd(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    acc, codes, weights = arguments
    products = builder.mul(_extended(builder, codes, 32, signed=False), _extended(builder, weights, 32))
    for first in range(4):
        acc = builder.add(acc, _every(builder, products, 4, first))
    return acc


def _maddwd(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    products = builder.mul(*(_extended(builder, argument, 32) for argument in arguments))
    return builder.add(_every(builder, products, 2, 0), _every(builder, products, 2, 1))


def _maddubsw(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    codes, weights = arguments
    products = builder.mul(_extended(builder, codes, 32, signed=False), _extended(builder, weights, 32))
    sums = builder.add(_every(builder, products, 2, 0), _every(builder, products, 2, 1))
    return builder.trunc(clamped(builder, sums, -32768, 32767), result)


def _mulhrsw(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    products = builder.mul(*(_extended(builder, argument, 32) for argument in arguments))
    rounded = builder.add(products, _splat(products.type, 1 << 14))
    return builder.trunc(builder.ashr(rounded, _splat(products.type, 15)), result)


def _pack(low: int, high: int) -> Callable[..., Any]:
    def emit(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
        lanes = result.count // 2  # of each operand
        half = ir.VectorType(result.element, lanes)
        parts = [builder.trunc(clamped(builder, argument, low, high), half) for argument in arguments]
        step = 128 // arguments[0].type.element.width  # of an operand in a 128-bit lane
        mask = [start + i for piece in range(0, lanes, step) for start in (piece, lanes + piece) for i in range(step)]
        return shuffle(builder, parts, mask)

    return emit


def _permute(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    """Take elements of all operands but the index, which is the second, by its low bits."""
    index, data = arguments[1], [arguments[0], *arguments[2:]]
    count = result.count
    table = data[0] if len(data) == 1 else shuffle(builder, data, list(range(2 * count)))
    index = builder.and_(index, _splat(index.type, len(data) * count - 1))
    value = ir.Constant(result, ir.Undefined)
    for i in range(count):
        place = builder.zext(builder.extract_element(index, _I32(i)), _I32) if index.type.element.width < 32 else (
            builder.extract_element(index, _I32(i)))  # fmt: skip
        value = builder.insert_element(value, builder.extract_element(table, place), _I32(i))
    return value


def _pshufb(builder: Any, arguments: list[Any], result: ir.VectorType) -> Any:
    table, index = arguments
    value = ir.Constant(result, [result.element(0)] * result.count)
    for i in range(result.count):
        place = builder.extract_element(index, _I32(i))
        inside = builder.zext(builder.and_(place, place.type(15)), _I32)
        entry = builder.extract_element(table, builder.add(inside, _I32(i // 16 * 16)))
        absent = builder.icmp_signed("<", place, place.type(0))
        value = builder.insert_element(value, builder.select(absent, entry.type(0), entry), _I32(i))
    return value


_EMITTERS: dict[str, Callable[..., Any]] = {
    "dpbusd": _dpbusd,
    "maddwd": _maddwd,
    "maddubsw": _maddubsw,
    "mulhrsw": _mulhrsw,
    "packssdw": _pack(-32768, 32767),
    "packsswb": _pack(-128, 127),
    "packuswb": _pack(0, 255),
    "pshufb": _pshufb,
    "permvar": _permute,
    "permvar of bytes": _permute,
    "permi2var": _permute,
}
