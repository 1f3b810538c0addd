"""Which kernel runs a product: by level, width of panels, kind of weights and of results."""

from dataclasses import replace
from typing import Any

from sparsefab.kernels_cpu import (
    spmm_avx2,
    spmm_masked,
    spmm_masked1,
    spmm_portable,
    spmm_vnni,
    spmm_vnni1,
    spmm_vnni16,
    spmm_vnni32,
)
from sparsefab.kernels_cpu.expand import native_expansion
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.layer import Output

__all__ = ["TABLES", "WIDE", "fastest_width", "kernel_of", "masked_kernel_of", "masked_width"]

WIDE = (Level.AVX512_VNNI, Level.AVX512)  # levels with kernels on 512-bit registers
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
    if tokens <= (3 if aligned else 1) and level is not Level.PORTABLE:
        return 1
    if tokens <= 16 and level in WIDE:
        return 16
    return 32 if tokens <= 32 and not aligned and not interleaved else 64


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
    if level is Level.AVX512_VNNI:
        return spmm_vnni32.spmm(permute=permute, output=output)
    if level is not Level.PORTABLE and width != 16:
        return spmm_avx2.spmm(product=product, aligned=aligned, tokens=width, output=output)
    if output.kind == "interleaved":
        output = replace(output, kind="u8")
    return spmm_portable.spmm(aligned=aligned, output=output)
