"""Tokens into panels and out of them: word and position embeddings added up, and the mean of a sequence."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import numpy as np

from sparsefab.kernels_cpu.intrinsics import load, prefetch, splat, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.scalars import read_f32, write_f32
from sparsefab.kernels_cpu.vector import f32x16

__all__ = ["embed", "pool"]

_AHEAD = 3  # tokens


@piece
def embed(ids, positions, words, places, x):
    """Write words[id] + places[position] of a panel's tokens; a negative id leaves zeros.

    Parameters
    ----------
    ids, positions : int32[W]
    words : float32[vocabulary, width]
    places : float32[context, width]
    x : float32[W / 16, width, 16]
    """
    width = x.shape[1]
    for slot in range(len(ids)):
        at = x.ctypes.data + slot // 16 * 64 * width + slot % 16 * 4
        if ids[slot] < 0:
            for channel in range(width):
                write_f32(at + 64 * channel, np.float32(0))
            continue
        word, place = words.ctypes.data + 4 * width * ids[slot], places.ctypes.data + 4 * width * positions[slot]
        # rows of the table lie anywhere in memory: ask for a later one while this one is read
        later = words.ctypes.data + 4 * width * max(ids[min(slot + _AHEAD, len(ids) - 1)], 0)
        for first in range(0, width, 16):
            prefetch(later + 4 * first)
            for channel in range(first, min(first + 16, width)):
                value = read_f32(word + 4 * channel) + read_f32(place + 4 * channel)
                write_f32(at + 64 * channel, value)


@piece
def pool(x, start, length, out, scratch):
    """Average the tokens of one sequence: 16 sums of every 16th token, which are added in order in float64.

    Parameters
    ----------
    x : float32[P, W / 16, width, 16]
    start, length : int          First token, a multiple of 16, and tokens; of none, the mean is 0.
    out : float32[width]
    scratch : intp               Address of 64 bytes, on a 64-byte boundary.
    """
    block_bytes = 64 * len(out)
    first = x.ctypes.data + start // 16 * block_bytes
    whole, rest = length // 16, length % 16
    for channel in range(len(out)):
        at = first + 64 * channel
        parts = splat(f32x16, 0.0)
        for block in range(whole):
            parts = parts + load(f32x16, at + block * block_bytes)
        store(scratch, parts)
        total = 0.0
        for lane in range(16):
            part = read_f32(scratch + 4 * lane)
            if lane < rest:
                part = part + read_f32(at + whole * block_bytes + 4 * lane)
            total += np.float64(part)
        out[channel] = total / max(length, 1)
