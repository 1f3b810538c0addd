"""N:M s8 weights times u8 activations: groups of rows expanded into the cache, then the aligned kernel on them.

    for run of panels:                             of 1 MiB at most, so that they stay in the second-level cache
      for batch of groups:                         of 16 KiB expanded
        expand                                     see `expand`: 64 dense bytes of 64 N / M stored ones and 8 of mask
        the aligned kernel                         of the level and width, unchanged, on the expanded bytes

Why not only the products of stored weights: rows keep different inputs, so that each row would bring the four inputs of
its quad together by itself, 8 shuffles for 4 dot products of 64 tokens.  For 2:4 these 12 operations stand for 8 dense
dot products of the aligned kernel.  Expanding takes 3 operations for 64 weights, where 4 rows of 64 tokens take 64: the
rate of dense products, 5 % less, and 5/8 of the bytes.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.ahead import ahead
from sparsefab.kernels_cpu.expand import expand_of
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.scalars import read_i64

__all__ = ["spmm"]

_PANEL_BYTES = 1 << 20


@functools.cache
def spmm(aligned_kernel: Any, *, level: Level) -> Any:
    """Return the compiled kernel that expands for an aligned one of any level, width and output.

    Returns
    -------
    kernel                       With the signature that `layer` describes; a record for each task.
    """
    return _assemble(aligned_kernel, expand_of(level))


def _assemble(aligned_kernel: Any, expand: Any) -> Any:
    @kernel
    def spmm_masked(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        own = layers[task : task + 1]
        layer = own[0]
        tiles, batch = layer.tiles, layer.batch
        group_bytes = 16 * (read_i64(layer.steps + 8) - read_i64(layer.steps))
        panels = max(1, _PANEL_BYTES // (activations.shape[1] * activations.shape[2]))
        for panel in range(first_panel, last_panel, panels):
            for begin in range(first_group, last_group, batch):
                end = min(begin + batch, last_group)
                source, mask = layer.packed + layer.tile_bytes * tiles * begin, layer.masks + 8 * tiles * begin
                for group in range(end - begin):
                    # A last tile of fewer than 16 inputs writes zeros into the next group, which comes after it.
                    to = layer.values + group_bytes * group
                    for _ in range(tiles):
                        ahead(source)
                        expand(to, source, mask, layer.controls)
                        to, source, mask = to + 64, source + layer.tile_bytes, mask + 8
                own[0].pointers = layer.steps - 8 * begin
                until = min(panel + panels, last_panel)
                aligned_kernel(own, activations, out, token_scales, task, panel, until, begin, end)

    return spmm_masked
