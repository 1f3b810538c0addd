"""N:M s8 weights times u8 activations of single tokens, expanded in a register.

    for token:                                     its inputs spread once: 64 bytes for 16 inputs, a dword four times
    for group in M / 4:                            4 output rows
      for token:                                   the group's weights come from memory once, then from the cache
        for tile of 16 inputs:                     vpexpandb from memory, then 1 x vpdpbusd with the spread inputs
        sums of four quads, one in each 128-bit lane, are added up

Bound by the weights' bytes out of memory, 40 a tile for 2:4; out of the cache by one port, 3 cycles a tile.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.ahead import ahead
from sparsefab.kernels_cpu.expand import expand_bytes
from sparsefab.kernels_cpu.intrinsics import dot, load, splat, store
from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.scalars import read_i32, read_i64
from sparsefab.kernels_cpu.shuffles import lane_sum
from sparsefab.kernels_cpu.spmm_vnni1 import epilogue_of
from sparsefab.kernels_cpu.vector import i8x64, i32x4, i32x16

__all__ = ["spmm"]


@functools.cache
def spmm(*, output: Output) -> Any:
    """Return the compiled kernel for one kind of output; for processors with AVX512-VNNI and VBMI2.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of one token, a record for each task.
    """
    return _assemble(epilogue_of(output))


def _assemble(epilogue: Any) -> Any:
    @kernel
    def spmm_masked_1(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[task]
        tiles, tile_bytes = layer.tiles, layer.tile_bytes
        token_bytes, out_bytes = activations.shape[1] * activations.shape[2], out.shape[1] * out.shape[2] * out.itemsize
        to = layer.values
        for token in range(first_panel, last_panel):
            x = activations.ctypes.data + token * token_bytes
            for quad in range(4 * tiles):
                dword = read_i32(x + 4 * quad) if quad < activations.shape[1] else 0
                store(to, splat(i32x4, dword))
                to += 16
        for group in range(first_group, last_group):
            first = layer.packed + tile_bytes * tiles * group
            masks = layer.masks + 8 * tiles * group
            spread = layer.values
            for token in range(first_panel, last_panel):
                a = b = splat(i32x16, 0)
                source, mask = first, masks
                for _ in range(tiles // 2):
                    ahead(source)
                    a = dot(a, load(i8x64, spread), expand_bytes(i8x64, source, read_i64(mask)))
                    source += tile_bytes
                    b = dot(b, load(i8x64, spread + 64), expand_bytes(i8x64, source, read_i64(mask + 8)))
                    source, mask, spread = source + tile_bytes, mask + 16, spread + 128
                if tiles % 2:
                    a = dot(a, load(i8x64, spread), expand_bytes(i8x64, source, read_i64(mask)))
                    spread += 64
                sums = load(i32x4, layer.start + 16 * group) + lane_sum(a + b)
                at = token_scales.ctypes.data + 4 * token
                epilogue(out.ctypes.data + token * out_bytes, layer, at, 4 * group, sums)

    return spmm_masked_1
