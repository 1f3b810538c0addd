"""Which kernel runs a product: by level, width of panels, kind of weights and of results."""

from dataclasses import replace
from typing import Any

from sparsefab.kernels_cpu import (
    spmm_avx2,
    spmm_masked,
    spmm_masked1,
    spmm_portable,
    spmm_tiles,
    spmm_vnni,
    spmm_vnni1,
    spmm_vnni16,
    spmm_vnni32,
)
from sparsefab.kernels_cpu.expand import native_expansion
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.layer import Output

__all__ = [
    "TABLES",
    "TILED_WIDTHS",
    "WIDE",
    "fastest_width",
    "kernel_of",
    "masked_kernel_of",
    "masked_width",
    "tiled_kernel_of",
    "tiles_are_faster",
]

WIDE = (Level.AVX512_AMX, Level.AVX512_VNNI, Level.AVX512)  # levels with kernels on 512-bit registers
TILED_WIDTHS = (64, 32, 16)  # that have a kernel on AMX
TABLES = {64: 0, 32: spmm_vnni32.tables(), 16: spmm_vnni16.tables(), 1: 0}  # what a width's kernel reads beside


def masked_width(tokens: int, level: Level, *, expands: bool) -> int:
    """Return the same for N:M weights; `expands` is `native_expansion(level)`.

    Where single tokens have a kernel of their own, five of them take as long as a panel of 16; and two panels of 16,
    whose weights are expanded once, take less than half a panel of 64.
    """
    if expands:
        return 1 if tokens <= 5 else 16 if tokens <= 32 else 64
    return fastest_width(tokens, level, aligned=True, interleaved=False)


def fastest_width(tokens: int, level: Level, *, aligned: bool, interleaved: bool) -> int:
    """Return the width of panels, 64, 32, 16 or 1, that is fastest for so many tokens.

    Parameters
    ----------
    aligned : bool               Weights are read in four consecutive inputs.
    interleaved : bool           Results are stored so.
    """
    if tokens <= _most_single(level, aligned=aligned):
        return 1
    if tokens <= (32 if aligned else 16) and level in WIDE:
        return 16
    return 32 if tokens <= 32 and not aligned and not interleaved else 64


def _most_single(level: Level, *, aligned: bool) -> int:
    """Return the most tokens that are multiplied one at a time: a panel of 16 takes as long as two or three.

    On tiles it takes no longer than one.
    """
    if level is Level.PORTABLE:
        return 0
    return 1 if not aligned or level is Level.AVX512_AMX else 2 if level in WIDE else 3


def masked_kernel_of(level: Level, *, product: str, output: Output, width: int, aligned: bool, permute: bool) -> Any:
    """Return a kernel for N:M weights, which are aligned; arguments as in `kernel_of`."""
    if width == 1 and native_expansion(level):
        return spmm_masked1.spmm(output=output)
    inner = kernel_of(level, product=product, output=output, width=width, aligned=aligned, permute=permute)
    return spmm_masked.spmm(inner, level=level)


def kernel_of(level: Level, *, product: str, output: Output, width: int, aligned: bool, permute: bool) -> Any:
    """Return a kernel with the signature that `layer` describes, not compiled yet.

    Parameters
    ----------
    product : str                How four products are added up, a name in `products`.
    aligned, permute             As in `spmm_vnni.spmm`.
    """
    if level is not Level.PORTABLE and width == 1:
        return spmm_vnni1.spmm(product=product, aligned=aligned, output=output)
    if level in WIDE and width != 32:
        module = spmm_vnni if width == 64 else spmm_vnni16
        return module.spmm(product=product, permute=permute, aligned=aligned, output=output)
    if level in (Level.AVX512_AMX, Level.AVX512_VNNI):
        return spmm_vnni32.spmm(permute=permute, output=output)
    if level is not Level.PORTABLE and width != 16:
        return spmm_avx2.spmm(product=product, aligned=aligned, tokens=width, output=output)
    if output.kind == "interleaved":
        output = replace(output, kind="u8")
    return spmm_portable.spmm(aligned=aligned, output=output)


def tiled_kernel_of(*, width: int, shared: int, aligned: bool, output: Output, permute: bool, native: bool) -> Any:
    """Return the kernel on AMX, or on the plain loops that stand for it where the processor has none: not `native`."""
    return spmm_tiles.spmm(width=width, shared=shared, aligned=aligned, output=output, permute=permute, native=native)


def tiles_are_faster(quads: int, *, groups: int, columns: int, width: int, panels: int, aligned: bool) -> bool:
    """Say whether dense products on AMX take less time than those of stored quads on vpdpbusd.

    Both are counted in cycles a panel, as they were measured on a processor that has both; see the README.

    Parameters
    ----------
    quads, groups, columns       Of the matrix.
    width, panels                Of the activations that are multiplied at a time.
    aligned : bool               Quads are four consecutive inputs.
    """
    quad, group = (_BLOCK_QUAD_CYCLES if aligned else _QUAD_CYCLES)[width], _GROUP_CYCLES[width]
    blocks, steps = -(-groups // 8), -(-columns // 64)
    step = _STEP_CYCLES[width] + _EXPAND_CYCLES / max(panels, 1)
    tiled = blocks * (steps * step + _BLOCK_CYCLES) + steps * _ARRANGE_CYCLES * width
    return tiled < quads * quad + groups * group


# Cycles of a panel by its width: a quad of 4x1 blocks, of aligned ones, a group of four rows; then of tiles a step of
# 64 inputs and 32 rows, its expansion (once for all panels), a block of 32 rows, and a token's 64 inputs arranged.
_QUAD_CYCLES, _BLOCK_QUAD_CYCLES = {64: 12.5, 32: 8.0, 16: 5.8}, {64: 9.1, 16: 3.4}
_GROUP_CYCLES = {64: 35.0, 32: 40.0, 16: 22.0}
_STEP_CYCLES, _EXPAND_CYCLES, _BLOCK_CYCLES, _ARRANGE_CYCLES = {64: 250.0, 32: 115.0, 16: 100.0}, 45.0, 60.0, 6.0
