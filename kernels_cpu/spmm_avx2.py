"""4x1 and aligned 4x4 block-sparse s8 weights times u8 activations on 256-bit registers: AVX-VNNI, or plain AVX2.

    for panel in P, group in M / 4:                64 or 32 tokens, 4 output rows
      for 64 quads of the group at a time:         256 lines are as many as the first cache holds
        for 16 tokens of the panel:                the halves of a line, low and high sweep of each
          for quad:                                4 half lines, 4 unpacks, 4 weight broadcasts, 8 dot products
                    aligned                        2 loads, no unpacks
      epilogue                                     8 accumulators: 4 rows of 16 tokens, in the registers that AVX2 has

The low sweep covers tokens 0-7 and 16-23 of a half, the high sweep 8-15 and 24-31: what unpacks inside lanes give.
Between runs of quads the sums wait in the layer's scratch; most groups have one run.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import broadcast, load, pack_i8, pack_u8, splat, store
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.reals import added_up_of, real_of
from sparsefab.kernels_cpu.requantizing import finished_of, row_of, rows_of
from sparsefab.kernels_cpu.scalars import read_i32, read_i64
from sparsefab.kernels_cpu.shuffles import (
    high_halves,
    low_halves,
    store_quarters,
    transpose_bytes,
    unpack_high_bytes,
    unpack_high_words,
    unpack_low_bytes,
    unpack_low_words,
)
from sparsefab.kernels_cpu.vector import f32x8, i8x32, i32x8

__all__ = ["spmm"]

_of_row, _of_rows = row_of(i32x8), rows_of(i32x8)


_RUN_BYTES = 64 * 16  # of weights


@functools.cache
def spmm(*, product: str, aligned: bool, tokens: int, output: Output) -> Any:
    """Return the compiled kernel for one kind of output.

    Parameters
    ----------
    product : str                How four products are added up, a name in `products`.
    aligned : bool               As in `spmm_vnni.spmm`.
    tokens : int                 In a panel, 64 or 32; aligned ones have 64.
    output : Output              What the epilogue stores.

    Returns
    -------
    kernel                       With the signature that `layer` describes, scratch in it.
    """
    dot, shift = dot_of(i32x8, product), 1 if tokens == 32 else 0
    low, high = (_unpacked(unpack_low_bytes, shift), _unpacked(unpack_high_bytes, shift))
    if aligned:
        low, high = _aligned(0), _aligned(128)
    place = 128 if output.kind == "interleaved" else 8
    return _assemble(_sweep(dot, low), _sweep(dot, high), _epilogue(output), tokens, place)


def _assemble(low_sweep: Any, high_sweep: Any, epilogue: Any, width: int, high_place: int) -> Any:
    @kernel
    def spmm_ymm(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        token_bytes = out.itemsize
        panel_bytes, row_bytes = activations.shape[1] * activations.shape[2], width * token_bytes
        out_bytes = out.shape[1] * out.shape[2] * token_bytes
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            for group in range(first_group, last_group):
                row, begin, at = 4 * group, layer.start + 16 * group, layer.pointers + 8 * group
                first, last = 16 * read_i64(at), 16 * read_i64(at + 8)
                run = first
                while True:
                    end = min(run + _RUN_BYTES, last)
                    for half in range(0, width, 32):
                        sums = layer.scratch + 1024 * task + 16 * half
                        to = out.ctypes.data + panel * out_bytes + row * row_bytes + half * token_bytes
                        tokens = token_scales.ctypes.data + 4 * (width * panel + half)
                        a, b, c, d, e, f, g, h = low_sweep(layer, run, end, run == first, sums, lines + half, begin)
                        if end == last:
                            epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h)
                        else:
                            _keep(sums, a, b, c, d, e, f, g, h)
                        sums += 256
                        a, b, c, d, e, f, g, h = high_sweep(layer, run, end, run == first, sums, lines + half, begin)
                        if end == last:
                            to += high_place * token_bytes
                            epilogue(to, row_bytes, layer, tokens + 32, row, a, b, c, d, e, f, g, h)
                        else:
                            _keep(sums, a, b, c, d, e, f, g, h)
                    if end == last:
                        break
                    run = end

    return spmm_ymm


@piece
def _keep(sums, a, b, c, d, e, f, g, h):
    store(sums, a)
    store(sums + 32, b)
    store(sums + 64, c)
    store(sums + 96, d)
    store(sums + 128, e)
    store(sums + 160, f)
    store(sums + 192, g)
    store(sums + 224, h)


def _sweep(dot: Any, tokens_of: Any) -> Any:
    """Make the loop over quads for the 16 tokens that `tokens_of` reads; it returns the 8 accumulators."""

    @piece
    def sweep(layer, first, last, fresh, sums, lines, begin):
        if fresh:
            a = b = splat(i32x8, read_i32(begin))
            c = d = splat(i32x8, read_i32(begin + 4))
            e = f = splat(i32x8, read_i32(begin + 8))
            g = h = splat(i32x8, read_i32(begin + 12))
        else:
            a, b, c, d = load(i32x8, sums), load(i32x8, sums + 32), load(i32x8, sums + 64), load(i32x8, sums + 96)
            e, f = load(i32x8, sums + 128), load(i32x8, sums + 160)
            g, h = load(i32x8, sums + 192), load(i32x8, sums + 224)
        offsets, weights = layer.offsets, layer.values
        for at in range(first, last, 16):
            u, v = tokens_of(lines, offsets, at)
            w = broadcast(i8x32, weights + at)
            a, b = dot(a, u, w), dot(b, v, w)
            w = broadcast(i8x32, weights + at + 4)
            c, d = dot(c, u, w), dot(d, v, w)
            w = broadcast(i8x32, weights + at + 8)
            e, f = dot(e, u, w), dot(f, v, w)
            w = broadcast(i8x32, weights + at + 12)
            g, h = dot(g, u, w), dot(h, v, w)
        return a, b, c, d, e, f, g, h

    return sweep


def _unpacked(unpack_bytes: Any, shift: int) -> Any:
    """Make the reader of a quad's four half lines, from the byte unpack that selects the tokens."""

    @piece
    def tokens_of(lines, offsets, quad):
        at = offsets + quad
        k0 = load(i8x32, lines + (read_i32(at) >> shift))
        k1 = load(i8x32, lines + (read_i32(at + 4) >> shift))
        k2 = load(i8x32, lines + (read_i32(at + 8) >> shift))
        k3 = load(i8x32, lines + (read_i32(at + 12) >> shift))
        k01, k23 = unpack_bytes(k0, k1), unpack_bytes(k2, k3)
        return unpack_low_words(k01, k23), unpack_high_words(k01, k23)

    return tokens_of


def _aligned(first: int) -> Any:
    """Make the reader of interleaved activations: registers 0 and 1 (from byte 0) or 2 and 3 (from byte 128)."""

    @piece
    def tokens_of(lines, offsets, quad):
        at = lines + read_i32(offsets + (quad >> 2))
        return load(i8x32, at + first), load(i8x32, at + first + 64)

    return tokens_of


def _epilogue(output: Output) -> Any:
    """Return epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h): the sums of four rows, two each.

    `to` and `tokens` point at the first of the 16 tokens; the second eight lie 16 tokens further on.
    """
    if output.kind == "s32":
        return _by_rows(_store_sums)
    if output.kind == "f32":
        return _reals(real_of(f32x8, residual=output.residual), added_up_of(f32x8, kind=output.statistics))
    finished = finished_of(i8x32, signed=output.kind == "s8", lookup=output.lookup, permute=False)
    return (
        _interleaved(finished)
        if output.kind == "interleaved"
        else _codes(pack_i8 if output.kind == "s8" else pack_u8, finished)
    )


def _by_rows(store_row: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        store_row(to, a, b)
        store_row(to + row_bytes, c, d)
        store_row(to + 2 * row_bytes, e, f)
        store_row(to + 3 * row_bytes, g, h)

    return epilogue


@piece
def _store_sums(to, x0, x1):
    store(to, low_halves(x0, x1))
    store(to + 64, high_halves(x0, x1))


def _reals(real: Any, added_up: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        a0, b0 = (
            real(to, layer, row, tokens, low_halves(a, b)),
            real(to + row_bytes, layer, row + 1, tokens, low_halves(c, d)),
        )
        c0 = real(to + 2 * row_bytes, layer, row + 2, tokens, low_halves(e, f))
        d0 = real(to + 3 * row_bytes, layer, row + 3, tokens, low_halves(g, h))
        added_up(layer, row, tokens, a0, b0, c0, d0)
        to, tokens = to + 64, tokens + 64
        a1 = real(to, layer, row, tokens, high_halves(a, b))
        b1 = real(to + row_bytes, layer, row + 1, tokens, high_halves(c, d))
        c1 = real(to + 2 * row_bytes, layer, row + 2, tokens, high_halves(e, f))
        d1 = real(to + 3 * row_bytes, layer, row + 3, tokens, high_halves(g, h))
        added_up(layer, row, tokens, a1, b1, c1, d1)

    return epilogue


def _codes(pack: Any, finished: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        codes = pack(_of_row(layer, row, a, b), _of_row(layer, row + 1, c, d))
        store_quarters(to, row_bytes, 16, finished(layer, codes))
        codes = pack(_of_row(layer, row + 2, e, f), _of_row(layer, row + 3, g, h))
        store_quarters(to + 2 * row_bytes, row_bytes, 16, finished(layer, codes))

    return epilogue


def _interleaved(finished: Any) -> Any:
    @piece
    def of_8(to, layer, row, a, b, c, d):
        ab, cd = _of_rows(layer, row, a, b, c, d)
        store(to, transpose_bytes(finished(layer, pack_u8(ab, cd))))

    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        of_8(to, layer, row, a, c, e, g)
        of_8(to + 64, layer, row, b, d, f, h)

    return epilogue
