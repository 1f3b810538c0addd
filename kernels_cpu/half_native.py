"""4x1 block-sparse binary16 weights times binary16 activations, 128 tokens wide, by AVX512-FP16.

    for panel in P:                                128 tokens
      for group in M / 4:                          4 output rows; sums in binary32 in the results' own buffer
        for run of 64 stored inputs:               16 accumulators of 32 tokens, from 0
          for input:                               4 loads of a line, 4 weight broadcasts
            16 x vfmadd231ph
          results += accumulators, widened         32 conversions, additions, loads and stores

A weight is stored twice in 32 bits, because a broadcast of 16 takes the shuffle port.  At best 8 cycles an input; the
runs' ends add some 60 to 512.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import broadcast, fma, load, splat, store, view
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.scalars import read_f32, read_i32
from sparsefab.kernels_cpu.shuffles import widen_half
from sparsefab.kernels_cpu.vector import f16x32, f32x16, i16x32
from sparsefab.sim.reference.half import HALF_RUN

__all__ = ["spmm"]


@functools.cache
def spmm() -> Any:
    """Return the compiled kernel.

    Returns
    -------
    kernel(pointers, offsets, values, bias, activations, out, first, last)
        pointers int64[groups + 1], offsets int32[n], values uint32[n, 4], bias float32[4 * groups], activations
        uint16[P, K, 128], out float32[P, 4 * groups, 128]; groups first to last are computed.
    """

    @kernel
    def half_4x1(pointers, offsets, values, bias, activations, out, first, last):
        panel_bytes, out_bytes = 256 * activations.shape[1], 512 * out.shape[1]
        for panel in range(activations.shape[0]):
            lines = activations.ctypes.data + panel_bytes * panel
            for group in range(first, last):
                to = out.ctypes.data + out_bytes * panel + 2048 * group
                for r in range(4):
                    start = splat(f32x16, read_f32(bias.ctypes.data + 4 * (4 * group + r)))
                    for part in range(8):
                        store(to + 512 * r + 64 * part, start)
                end = pointers[group + 1]
                for begin in range(pointers[group], end, HALF_RUN):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = view(f16x32, splat(i16x32, 0))
                    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = view(f16x32, splat(i16x32, 0))
                    for i in range(begin, min(begin + HALF_RUN, end)):
                        x = lines + read_i32(offsets.ctypes.data + 4 * i)
                        x0, x1 = load(f16x32, x), load(f16x32, x + 64)
                        x2, x3 = load(f16x32, x + 128), load(f16x32, x + 192)
                        at = values.ctypes.data + 16 * i
                        w = broadcast(f16x32, at)
                        a0, a1, a2, a3 = fma(w, x0, a0), fma(w, x1, a1), fma(w, x2, a2), fma(w, x3, a3)
                        w = broadcast(f16x32, at + 4)
                        b0, b1, b2, b3 = fma(w, x0, b0), fma(w, x1, b1), fma(w, x2, b2), fma(w, x3, b3)
                        w = broadcast(f16x32, at + 8)
                        c0, c1, c2, c3 = fma(w, x0, c0), fma(w, x1, c1), fma(w, x2, c2), fma(w, x3, c3)
                        w = broadcast(f16x32, at + 12)
                        d0, d1, d2, d3 = fma(w, x0, d0), fma(w, x1, d1), fma(w, x2, d2), fma(w, x3, d3)
                    _add_row(to, a0, a1, a2, a3)
                    _add_row(to + 512, b0, b1, b2, b3)
                    _add_row(to + 1024, c0, c1, c2, c3)
                    _add_row(to + 1536, d0, d1, d2, d3)

    return half_4x1


@piece
def _add_row(to, x0, x1, x2, x3):
    _add(to, x0)
    _add(to + 128, x1)
    _add(to + 256, x2)
    _add(to + 384, x3)


@piece
def _add(to, x):
    low, high = widen_half(x)
    store(to, load(f32x16, to) + low)
    store(to + 64, load(f32x16, to + 64) + high)
