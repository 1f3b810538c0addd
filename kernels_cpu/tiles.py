"""AMX: eight registers of 16 rows by 64 bytes, and sums of their products, 16 x 16 x 64 of them an instruction.

    configure()                   at the start of a kernel, in the thread that runs it; release() at its end
    tile_load(4, address, 64)     rows of 64 bytes, `stride` bytes from one to the next
    tile_dot(0, 4, 6)             C[m, n] += sum over k of s8 A[m, k] * u8 B[k / 4, n, k % 4]             exact, s32
    tile_store(0, address, 256)

Tiles 0 to 3 are sums, 4 and 5 weights, 6 and 7 activations.  LLVM does not allocate these registers: a kernel names
them, and calls nothing that would use them between `configure` and `release`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from sparsefab.kernels_cpu.lowering import intrinsic_named

__all__ = ["TILE_BYTES", "TILE_ROWS", "configure", "release", "tile_dot", "tile_load", "tile_store", "tile_zero"]

TILE_ROWS, TILE_BYTES = 16, 1024
_TILES, _ROW_BYTES = 8, 64
_I8, _I64 = ir.IntType(8), ir.IntType(64)


def _call(builder: Any, name: str, arguments: list[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _numbers(*tiles: Any) -> list[Any]:
    """Tiles are written as numbers in the source: an instruction names its registers."""
    if not all(isinstance(tile, types.IntegerLiteral) and 0 <= tile.literal_value < _TILES for tile in tiles):
        raise TypingError(f"tiles are numbers below {_TILES} in the source, not {tiles}")
    return [_I8(tile.literal_value) for tile in tiles]


@intrinsic
def configure(typing_context: Any) -> Any:
    """`configure()`: all tiles 16 rows of 64 bytes, all zero (ldtilecfg)."""
    # Palette 1, first row to restart at, 14 reserved bytes, bytes a row of 16 tiles, rows of 16 tiles.
    widths = [_ROW_BYTES, 0] * _TILES + [0] * (32 - 2 * _TILES)
    text = [1, 0, *[0] * 14, *widths, *[TILE_ROWS] * _TILES, *[0] * (16 - _TILES)]

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = ir.ArrayType(_I8, len(text))
        at = cgutils.alloca_once_value(builder, ir.Constant(kind, [_I8(byte) for byte in text]))
        _call(builder, "ldtilecfg", [builder.bitcast(at, ir.PointerType())])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def release(typing_context: Any) -> Any:
    """`release()`: give the registers back, so that switching threads need not save them (tilerelease)."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        _call(builder, "tilerelease", [])
        return context.get_dummy_value()

    return types.void(), emit


def _moving(name: str) -> Callable[..., Any]:
    def typed(typing_context: Any, tile: Any, address: Any, stride: Any) -> Any:
        numbers = _numbers(tile)

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            at = builder.inttoptr(arguments[1], ir.PointerType())
            _call(builder, name, [*numbers, at, builder.sext(arguments[2], _I64)])
            return context.get_dummy_value()

        return types.void(tile, types.intp, types.int64), emit

    return typed


def _naming(name: str, count: int) -> Callable[..., Any]:
    def emit_of(tiles: tuple[Any, ...]) -> Any:
        numbers = _numbers(*tiles)

        def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            _call(builder, name, numbers)
            return context.get_dummy_value()

        return types.void(*tiles), emit

    if count == 1:
        return lambda typing_context, tile: emit_of((tile,))
    return lambda typing_context, sums, weights, codes: emit_of((sums, weights, codes))


# `tile_load(4, address, stride)` and `tile_store(0, address, stride)`: stride in bytes from row to row.
tile_load = intrinsic_named("tile_load", _moving("tileloadd64"))
tile_store = intrinsic_named("tile_store", _moving("tilestored64"))
# `tile_zero(0)`; `tile_dot(0, 4, 6)`: tile 0 of s32 plus the products of tile 4 of s8 and tile 6 of u8.
tile_zero = intrinsic_named("tile_zero", _naming("tilezero", 1))
tile_dot = intrinsic_named("tile_dot", _naming("tdpbsud", 3))
