"""The dot product of four u8 and four s8 a dword, where there is no instruction for it."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

from typing import Any

from sparsefab.kernels_cpu.intrinsics import multiply_add_words, splat, view
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.vector import i16x8, i16x16, i16x32

__all__ = ["dot_widened", "dot_widened_128", "dot_widened_256"]


def _widened(words: Any) -> Any:
    @piece
    def dot_widened(acc, codes, weights):
        """Add four products a dword: bytes widened to words, even and odd apart, so that nothing saturates."""
        eight, byte = splat(words, 8), splat(words, 255)
        u, s = view(words, codes), view(words, weights)
        even = multiply_add_words(u & byte, (s << eight) >> eight)
        odd = multiply_add_words((u >> eight) & byte, s >> eight)
        return acc + even + odd

    return dot_widened


dot_widened = _widened(i16x32)
dot_widened_256 = _widened(i16x16)
dot_widened_128 = _widened(i16x8)
