"""Single numbers in memory: what kernels read counts, offsets and constants with, beside the vectors of `intrinsics`.

Addresses are as there: ``intp`` in bytes, and they keep no array alive.  Integers come out with 64 bits.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparsefab.kernels_cpu.lowering import intrinsic_named, invoke, pointer

__all__ = [
    "count_bits",
    "read_f32",
    "read_i8",
    "read_i16",
    "read_i32",
    "read_i64",
    "read_u8",
    "read_u16",
    "read_u32",
    "write_f32",
    "write_i8",
    "write_i32",
    "write_i64",
]

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _scalar_read(element: ir.Type, result: Any, align: int, signed: bool = True) -> Callable[..., Any]:
    def typed(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            value = builder.load(pointer(builder, arguments[0], element), align=align)
            wide = isinstance(element, ir.FloatType) or element.width == 64
            return value if wide else (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return result(types.intp), emit

    return typed


read_i8 = intrinsic_named("read_i8", _scalar_read(_I8, types.int64, 1))
read_u8 = intrinsic_named("read_u8", _scalar_read(_I8, types.int64, 1, signed=False))
read_i16 = intrinsic_named("read_i16", _scalar_read(_I16, types.int64, 2))
read_u16 = intrinsic_named("read_u16", _scalar_read(_I16, types.int64, 2, signed=False))
read_i32 = intrinsic_named("read_i32", _scalar_read(_I32, types.int64, 4))
read_u32 = intrinsic_named("read_u32", _scalar_read(_I32, types.int64, 4, signed=False))
read_i64 = intrinsic_named("read_i64", _scalar_read(ir.IntType(64), types.int64, 1))
read_f32 = intrinsic_named("read_f32", _scalar_read(ir.FloatType(), types.float32, 4))


def _scalar_write(element: ir.Type, scalar: Any, align: int) -> Callable[..., Any]:
    def typed(typing_context: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            stored = arguments[1] if isinstance(element, ir.FloatType) else builder.trunc(arguments[1], element)
            builder.store(stored, pointer(builder, arguments[0], element), align=align)
            return context.get_dummy_value()

        return types.void(types.intp, scalar), emit

    return typed


# `write_i32(address, integer)`: the low bits, anywhere.
write_i8 = intrinsic_named("write_i8", _scalar_write(_I8, types.int64, 1))
write_i64 = intrinsic_named("write_i64", _scalar_write(ir.IntType(64), types.int64, 1))
write_i32 = intrinsic_named("write_i32", _scalar_write(_I32, types.int64, 1))
write_f32 = intrinsic_named("write_f32", _scalar_write(ir.FloatType(), types.float32, 4))


@intrinsic
def count_bits(typing_context: Any, value: Any) -> Any:
    """`count_bits(integer)`: how many of its 64 bits are 1 (popcnt)."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return invoke(builder, "llvm.ctpop.i64", ir.IntType(64), [arguments[0]])

    return types.int64(types.int64), emit
