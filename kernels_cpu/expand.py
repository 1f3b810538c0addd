"""Expanding a tile of stored bytes into its 64, zeros where its mask has no bit: three ways to the same bytes.

native    vpexpandb from memory, 512 bits at once                  2 operations of one port, and one for the mask
table     8 bytes at a time: vpshufb, its control from a table of 256 by 8 bits of the mask        any x86 level
plain     the same table, byte after byte                                                      any processor
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparsefab.kernels_cpu.features import Level, effective_features
from sparsefab.kernels_cpu.intrinsics import element, splat, store_unaligned, view
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lowering import invoke, referenced_type, require_vectors
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.scalars import read_i8, read_i64, read_u8, write_i8, write_i64
from sparsefab.kernels_cpu.shuffles import look_up_bytes
from sparsefab.kernels_cpu.vector import i8x16, i8x64, i64x2

__all__ = ["controls", "expand_bytes", "expand_of", "keep_bytes", "native_expansion"]

_COUNTS = 2048  # where, behind the controls, the bits of each mask are counted


def native_expansion(level: Level) -> bool:
    """Say whether kernels of a level may use vpexpandb here."""
    return level in (Level.AVX512_AMX, Level.AVX512_VNNI) and "avx512vbmi2" in effective_features()


@functools.cache
def controls() -> Any:
    """Return int8[256, 8], for 8 bits of a mask which byte goes where, -1 for zero; behind it uint8[256], how many."""
    result = aligned_empty((_COUNTS + 256,), np.uint8)
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    places = np.where(bits == 1, bits.cumsum(axis=1) - 1, -1)
    result[:_COUNTS].view(np.int8)[:] = places.reshape(-1)
    result[_COUNTS:] = bits.sum(axis=1)
    return result


@intrinsic
def expand_bytes(typing_context: Any, kind: Any, address: Any, mask: Any) -> Any:
    """`expand_bytes(i8x64, address, mask)`: bytes from memory in the places of a mask's bits, else 0 (vpexpandb)."""
    result = referenced_type(kind)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[2], ir.VectorType(ir.IntType(1), result.lanes))
        zero = ir.Constant(result.llvm, [result.llvm.element(0)] * result.lanes)
        at = builder.inttoptr(arguments[1], ir.PointerType())
        return invoke(builder, f"llvm.masked.expandload.{result.suffix}", result.llvm, [at, bits, zero])

    return result(kind, types.intp, types.int64), emit


@intrinsic
def keep_bytes(typing_context: Any, value: Any, mask: Any) -> Any:
    """`keep_bytes(vector, mask)`: bytes in the places of a mask's bits, else 0 (a mask on what made the vector)."""
    require_vectors(value)

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[1], ir.VectorType(ir.IntType(1), value.lanes))
        zero = ir.Constant(value.llvm, [value.llvm.element(0)] * value.lanes)
        return builder.select(bits, arguments[0], zero)

    return value(value, types.int64), emit


def expand_of(level: Level) -> Any:
    """Return expand(to, source, mask, table): write the 64 bytes of a tile anywhere, reading its mask at an address."""
    if native_expansion(level):
        return _native
    return _plain if level is Level.PORTABLE else _by_table


@piece
def _native(to, source, mask, table):
    store_unaligned(to, expand_bytes(i8x64, source, read_i64(mask)))


@piece
def _by_table(to, source, mask, table):
    for part in range(8):
        bits = read_u8(mask + part)
        eight = view(i8x16, splat(i64x2, read_i64(source)))
        placed = look_up_bytes(eight, view(i8x16, splat(i64x2, read_i64(table + 8 * bits))))
        write_i64(to + 8 * part, element(view(i64x2, placed), 0))
        source += read_u8(table + _COUNTS + bits)


@piece
def _plain(to, source, mask, table):
    for part in range(8):
        bits = read_u8(mask + part)
        for i in range(8):
            place = read_i8(table + 8 * bits + i)
            write_i8(to + 8 * part + i, read_i8(source + max(place, 0)) if place >= 0 else 0)
        source += read_u8(table + _COUNTS + bits)
