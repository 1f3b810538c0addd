"""4x1 and aligned 4x4 block-sparse s8 weights times u8 activations, 64 tokens wide, on 512-bit registers.

    for panel in P:                                64 tokens
      for group in M / 4:                          4 output rows; 16 accumulators of 16 tokens
        for quad in the group's kept k, by four:   4 weight broadcasts, and v0..v3, a token's four inputs a dword:
          4x1       4 lines of 64 tokens, 8 unpacks
          aligned   4 loads: the activations are interleaved already
          16 x vpdpbusd                            v_j, lane L, dword i = token 16 L + 4 j + i
        epilogue                                   see `epilogues`

The innermost loop holds 16 ``vpdpbusd`` on zmm, 8 ``vpunpck*`` (none if aligned) and no spilled register; a test reads
the code for it.  Without VNNI the dot product is two ``vpmaddwd`` on widened bytes, exact too (``vpmaddubsw`` would
saturate).
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.epilogues import epilogue_of
from sparsefab.kernels_cpu.intrinsics import broadcast, load, splat
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.scalars import read_i32, read_i64
from sparsefab.kernels_cpu.shuffles import unpack_high_bytes, unpack_high_words, unpack_low_bytes, unpack_low_words
from sparsefab.kernels_cpu.vector import i8x64, i32x16

__all__ = ["interleaved_lines", "spmm"]


@functools.cache
def spmm(*, product: str, permute: bool, aligned: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output.

    Parameters
    ----------
    product : str                How four products are added up, a name in `products`.
    aligned : bool               Activations come interleaved [P, K / 4, 256], offsets are int32[quads], 256 * (k / 4).
    permute : bool               True uses vpermi2b for tables.
    output : Output              What the epilogue stores.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of 64 tokens.
    """
    return _assemble(
        dot_of(i32x16, product), _aligned if aligned else _interleaved, epilogue_of(output, permute=permute)
    )


def _assemble(dot: Any, tokens_of: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_64(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        panel_bytes, row_bytes = activations.shape[1] * activations.shape[2], out.itemsize * 64
        out_bytes = out.shape[1] * out.shape[2] * out.itemsize
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            tokens = token_scales.ctypes.data + panel * 256
            for group in range(first_group, last_group):
                row, begin = 4 * group, layer.start + 16 * group
                a0 = a1 = a2 = a3 = splat(i32x16, read_i32(begin))
                b0 = b1 = b2 = b3 = splat(i32x16, read_i32(begin + 4))
                c0 = c1 = c2 = c3 = splat(i32x16, read_i32(begin + 8))
                d0 = d1 = d2 = d3 = splat(i32x16, read_i32(begin + 12))
                quads = layer.pointers + 8 * group
                for quad in range(16 * read_i64(quads), 16 * read_i64(quads + 8), 16):
                    v0, v1, v2, v3 = tokens_of(lines, layer.offsets, quad)
                    at = layer.values + quad
                    w = broadcast(i8x64, at)
                    a0, a1, a2, a3 = dot(a0, v0, w), dot(a1, v1, w), dot(a2, v2, w), dot(a3, v3, w)
                    w = broadcast(i8x64, at + 4)
                    b0, b1, b2, b3 = dot(b0, v0, w), dot(b1, v1, w), dot(b2, v2, w), dot(b3, v3, w)
                    w = broadcast(i8x64, at + 8)
                    c0, c1, c2, c3 = dot(c0, v0, w), dot(c1, v1, w), dot(c2, v2, w), dot(c3, v3, w)
                    w = broadcast(i8x64, at + 12)
                    d0, d1, d2, d3 = dot(d0, v0, w), dot(d1, v1, w), dot(d2, v2, w), dot(d3, v3, w)
                to = out.ctypes.data + panel * out_bytes + row * row_bytes
                a, b, c, d = (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3)
                epilogue(to, row_bytes, layer, tokens, row, a, b, c, d)

    return spmm_64


@piece
def _interleaved(lines, offsets, quad):
    at = offsets + quad
    k0, k1 = lines + read_i32(at), lines + read_i32(at + 4)
    return interleaved_lines(k0, k1, lines + read_i32(at + 8), lines + read_i32(at + 12))


@piece
def interleaved_lines(at0, at1, at2, at3):
    """Read four lines of 64 tokens and bring the four inputs of a token together, in the order stated above."""
    k0, k1, k2, k3 = load(i8x64, at0), load(i8x64, at1), load(i8x64, at2), load(i8x64, at3)
    low01, high01 = unpack_low_bytes(k0, k1), unpack_high_bytes(k0, k1)
    low23, high23 = unpack_low_bytes(k2, k3), unpack_high_bytes(k2, k3)
    v0, v1 = unpack_low_words(low01, low23), unpack_high_words(low01, low23)
    return v0, v1, unpack_low_words(high01, high23), unpack_high_words(high01, high23)


@piece
def _aligned(lines, offsets, quad):
    """Read the four registers of four consecutive inputs."""
    at = lines + read_i32(offsets + (quad >> 2))
    return load(i8x64, at), load(i8x64, at + 64), load(i8x64, at + 128), load(i8x64, at + 192)
