"""4x1 and aligned 4x4 block-sparse s8 weights times u8 activations of one token, rows in the lanes.

    for group in M / 4:                            4 output rows, one in each dword of a 128-bit register
      for token:                                   activations [tokens][K]; weights come out of memory for the first
        for quad of the group:
          x = the quad's four inputs, one dword    4 bytes put together (4x1) or one load (aligned), in every dword
          1 x vpdpbusd                             16 bytes of weights, straight from memory

Bound by the weights' bytes out of memory, 32 a quad (20 if aligned); out of the cache by the bytes of 4x1 blocks, which
come one by one.  Four quads keep four sums in flight.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.ahead import ahead_of_blocks, ahead_of_quads
from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    element,
    load,
    load_unaligned,
    maximum,
    minimum,
    pack_i8,
    pack_i16,
    pack_u8,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.requantizing import finished_of, scaled_of
from sparsefab.kernels_cpu.scalars import read_f32, read_i64, read_u8, read_u32, write_f32, write_i32
from sparsefab.kernels_cpu.vector import f32x4, i8x16, i16x8, i32x4

__all__ = ["epilogue_of", "spmm"]

_scaled = scaled_of(i16x8)


@functools.cache
def spmm(*, product: str, aligned: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output.

    Parameters
    ----------
    product : str                How four products are added up, a name in `products`.
    aligned, output              As in `spmm_vnni.spmm`; a row of codes is interleaved as it is.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of one token.
    """
    return _assemble(
        dot_of(i32x4, product),
        *((_place_of_block, _consecutive, ahead_of_blocks) if aligned else (_place_of_quad, _gathered, ahead_of_quads)),
        epilogue_of(output),
    )


def _assemble(dot: Any, place_of: Any, inputs_of: Any, ahead_of: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_1(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        offsets, values = layer.offsets, layer.values
        token_bytes, out_bytes = activations.shape[1] * activations.shape[2], out.shape[1] * out.shape[2] * out.itemsize
        for group in range(first_group, last_group):
            at = layer.pointers + 8 * group
            first, last = 16 * read_i64(at), 16 * read_i64(at + 8)
            fours = first + (last - first) // 64 * 64
            for token in range(first_panel, last_panel):
                x = activations.ctypes.data + token * token_bytes
                a = load(i32x4, layer.start + 16 * group)
                b = c = d = splat(i32x4, 0)
                for quad in range(first, fours, 64):
                    ahead_of(offsets, values, quad)
                    at = values + quad
                    four = place_of(offsets, quad)
                    a = dot(a, inputs_of(x, four, 0), load_unaligned(i8x16, at))
                    b = dot(b, inputs_of(x, four, 1), load_unaligned(i8x16, at + 16))
                    c = dot(c, inputs_of(x, four, 2), load_unaligned(i8x16, at + 32))
                    d = dot(d, inputs_of(x, four, 3), load_unaligned(i8x16, at + 48))
                for quad in range(fours, last, 16):
                    a = dot(a, inputs_of(x, place_of(offsets, quad), 0), load_unaligned(i8x16, values + quad))
                to = out.ctypes.data + token * out_bytes
                epilogue(to, layer, token_scales.ctypes.data + 4 * token, 4 * group, (a + b) + (c + d))

    return spmm_1


@piece
def _place_of_quad(offsets, at):
    """Return the address of the offsets of the quad whose weights begin `at` bytes from the first."""
    return offsets + at


@piece
def _gathered(x, at, which):
    """Put the four bytes of a quad together, in every dword."""
    at += 16 * which
    low = read_u8(x + (read_u32(at) >> 6)) | read_u8(x + (read_u32(at + 4) >> 6)) << 8
    high = read_u8(x + (read_u32(at + 8) >> 6)) | read_u8(x + (read_u32(at + 12) >> 6)) << 8
    return view(i8x16, splat(i32x4, low | high << 16))


@piece
def _place_of_block(offsets, at):
    return offsets + (at >> 2)


@piece
def _consecutive(x, at, which):
    return broadcast(i8x16, x + (read_u32(at + 4 * which) >> 6))


def epilogue_of(output: Output) -> Any:
    """Return epilogue(to, layer, token_scale, row, sums): what becomes of the four sums i32x4 of a group and token."""
    if output.kind == "s32":
        return _store_sums
    if output.kind == "f32":
        return _reals(_plus_residual if output.residual else _as_they_are, _ADDED_UP[output.statistics])
    clamped = finished_of(i8x16, signed=output.kind == "s8", lookup=False, permute=False)
    return _codes(pack_i8 if output.kind == "s8" else pack_u8, clamped, _looked_up if output.lookup else _same)


@piece
def _store_sums(to, layer, token_scale, row, sums):
    store(to + 4 * row, sums)


def _reals(residual: Any, statistics: Any) -> Any:
    @piece
    def epilogue(to, layer, token_scale, row, sums):
        y = to_float(sums) * load(f32x4, layer.row_scales + 4 * row) * splat(f32x4, read_f32(token_scale))
        store(to + 4 * row, residual(layer, to + 4 * row, y))
        statistics(layer, to + 4 * row, token_scale + layer.statistics, row)

    return epilogue


@piece
def _as_they_are(layer, at, y):
    return y


@piece
def _plus_residual(layer, at, y):
    return y + load(f32x4, at + layer.residual)


@piece
def _leave(layer, results, at, row):
    pass


@piece
def _add_up(layer, results, at, row):
    """Take four results into the sums of their token, in the order of `reals`."""
    if row == 0:
        write_f32(at, read_f32(results))
        write_f32(at + layer.plane, np.float32(0))
        write_f32(at + 2 * layer.plane, np.float32(0))
    first, s, q = read_f32(at), read_f32(at + layer.plane), read_f32(at + 2 * layer.plane)
    for r in range(4):
        d = read_f32(results + 4 * r) - first
        s += d
        q += d * d
    write_f32(at + layer.plane, s)
    write_f32(at + 2 * layer.plane, q)


@piece
def _square_up(layer, results, at, row):
    q = np.float32(0) if row == 0 else read_f32(at)
    for r in range(4):
        y = read_f32(results + 4 * r)
        q += y * y
    write_f32(at, q)


_ADDED_UP = {"": _leave, "moments": _add_up, "squares": _square_up}


@piece
def _requantize(layer, row, sums):
    """Return four codes as s16, by the house's requantization; the half that rounds a shift is in the sum."""
    shift, none = load(i32x4, layer.shifts + 4 * row), splat(i32x4, 0)
    x = sums >> maximum(shift, none)
    # Saturating to 16 bits first keeps a shift to the left of up to 16 places exact; packing then saturates again.
    x = maximum(minimum(x, splat(i32x4, 32767)), splat(i32x4, -32768)) << maximum(none - shift, none)
    return _scaled(layer, pack_i16(x, x), load_unaligned(i16x8, layer.multipliers + 2 * row))


def _codes(pack: Any, clamped: Any, lookup: Any) -> Any:
    @piece
    def epilogue(to, layer, token_scale, row, sums):
        words = _requantize(layer, row, sums)
        codes = clamped(layer, pack(words, words))
        write_i32(to + row, lookup(layer, element(view(i32x4, codes), 0)))

    return epilogue


@piece
def _same(layer, codes):
    return codes


@piece
def _looked_up(layer, codes):
    low = read_u8(layer.lookup + (codes & 255)) | read_u8(layer.lookup + (codes >> 8 & 255)) << 8
    return low | (read_u8(layer.lookup + (codes >> 16 & 255)) | read_u8(layer.lookup + (codes >> 24 & 255)) << 8) << 16
