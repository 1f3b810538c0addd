"""Codes of 3, 4 or 8 bits out of a part of the layout Lanes16, as bytes: four inputs of a row in each dword."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.intrinsics import load, splat, view
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.vector import VectorType

__all__ = ["code_of", "codes_of"]


@functools.cache
def codes_of(octets: VectorType, bits: int) -> Any:
    """Return codes(weights): the eight vectors of a part's 32 inputs, u8, four inputs each.

    Parameters
    ----------
    octets : VectorType          i8x64 for 16 rows, i8x32 for the first or second eight: `weights` is 32 bytes on then.
    bits : int                   3, 4 or 8, what the layout stores of a code.
    """
    words = octets.of("i16")

    @piece
    def byte(weights, line):
        return load(octets, weights + 64 * line)

    @piece
    def right(vector, places, mask):
        """Shift the bytes and keep the mask's bits of each; a shift of words only moves bits that the mask drops."""
        return view(octets, (view(words, vector) >> splat(words, places)) & splat(words, mask))

    @piece
    def left(vector, places, mask):
        return view(octets, (view(words, vector) << splat(words, places)) & splat(words, mask))

    @piece
    def of_8(weights):
        a, b, c, d = byte(weights, 0), byte(weights, 1), byte(weights, 2), byte(weights, 3)
        return a, b, c, d, byte(weights, 4), byte(weights, 5), byte(weights, 6), byte(weights, 7)

    @piece
    def of_4(weights):
        a, b, c, d = byte(weights, 0), byte(weights, 1), byte(weights, 2), byte(weights, 3)
        low, high = right(a, 0, 0x0F0F), right(a, 4, 0x0F0F)
        e, f, g = right(b, 0, 0x0F0F), right(b, 4, 0x0F0F), right(c, 0, 0x0F0F)
        return low, high, e, f, g, right(c, 4, 0x0F0F), right(d, 0, 0x0F0F), right(d, 4, 0x0F0F)

    @piece
    def of_3(weights):
        a, b, top = byte(weights, 0), byte(weights, 1), byte(weights, 2)
        p, q = right(a, 0, 0x0303) | left(top, 2, 0x0404), right(a, 2, 0x0303) | left(top, 1, 0x0404)
        r, s = right(a, 4, 0x0303) | right(top, 0, 0x0404), right(a, 6, 0x0303) | right(top, 1, 0x0404)
        t, u = right(b, 0, 0x0303) | right(top, 2, 0x0404), right(b, 2, 0x0303) | right(top, 3, 0x0404)
        v, w = right(b, 4, 0x0303) | right(top, 4, 0x0404), right(b, 6, 0x0303) | right(top, 5, 0x0404)
        return p, q, r, s, t, u, v, w

    return {3: of_3, 4: of_4, 8: of_8}[bits]


@functools.cache
def code_of(bits: int) -> Any:
    """Return code(part, row, k): one code of a part uint8[64 * bits], k of its 32 inputs, by plain arithmetic."""

    @piece
    def of_8(part, row, k):
        return np.int64(part[64 * (k // 4) + 4 * row + k % 4])

    @piece
    def of_4(part, row, k):
        return np.int64(part[64 * (k // 8) + 4 * row + k % 4] >> 4 * (k % 8 // 4)) & 15

    @piece
    def of_3(part, row, k):
        low = np.int64(part[64 * (k // 16) + 4 * row + k % 4] >> 2 * (k % 16 // 4)) & 3
        return low | (np.int64(part[128 + 4 * row + k % 4] >> k // 4) & 1) << 2

    return {3: of_3, 4: of_4, 8: of_8}[bits]
