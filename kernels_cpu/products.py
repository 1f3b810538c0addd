"""The dot product of four u8 and four s8 a dword, where there is no instruction for it: two ways, both exact."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import dot, multiply_add_bytes, multiply_add_words, splat, view
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.vector import VectorType

__all__ = ["dot_of"]


def dot_of(dwords: VectorType, product: str) -> Any:
    """Return dot(acc, u, s): acc s32 plus four products u8 * s8 a dword.

    Parameters
    ----------
    product : str                'vnni': vpdpbusd. 'paired': vpmaddubsw and vpmaddwd, for weights that saturate nothing
                                 (`BlockWeights.paired`). 'widened': two vpmaddwd on bytes widened to words.
    """
    if product == "vnni":
        return dot
    return _paired_of(dwords) if product == "paired" else _widened_of(dwords)


@functools.cache
def _widened_of(dwords: VectorType) -> Any:
    """Return dot(acc, u, s) by two products of words: 32 multiplications take some 4 operations and their widening."""
    words = dwords.of("i16")

    @piece
    def dot_widened(acc, codes, weights):
        """Add four products a dword: bytes widened to words, even and odd apart, so that nothing saturates."""
        eight, byte = splat(words, 8), splat(words, 255)
        u, s = view(words, codes), view(words, weights)
        even = multiply_add_words(u & byte, (s << eight) >> eight)
        odd = multiply_add_words((u >> eight) & byte, s >> eight)
        return acc + even + odd

    return dot_widened


@functools.cache
def _paired_of(dwords: VectorType) -> Any:
    """Return dot(acc, u, s) by products of bytes, 3 operations; exact if no two neighbours s sum beyond -128..128."""
    words = dwords.of("i16")

    @piece
    def dot_paired(acc, codes, weights):
        return acc + multiply_add_words(multiply_add_bytes(codes, weights), splat(words, 1))

    return dot_paired
