"""Self-attention of short sequences on 8-bit codes, 16 queries side by side, from and to panels.

    for head, sequence in the panel:
      keys     s16 [pairs of channels][tokens][2], values s16 [channels][tokens]         widened once
      for 16 queries:
        queries  s16 [pairs of channels][16][2]
        sums     keys x queries, exact s32                4 keys a step: 4 accumulators, vpmaddwd (vpdpwssd)
        codes    round(255 * 2^(unit * (sum - greatest)))  u8, lane by lane down the keys
        result   values x codes / sum of codes            4 channels a step, then codes of the next layer

A query is a lane, so that greatest and sum run down the keys without a horizontal step, and the order of every float
operation is fixed: `sparsefab.models.evaluate.encoder` states it in NumPy, and the bits are the same.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import numpy as np

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    load_unaligned,
    maximum,
    minimum,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lanes import ROUND, ROUND_BITS, dot_pairs, interleave, rounded, store_low_bytes, widen
from sparsefab.kernels_cpu.ticks import lap, ticks
from sparsefab.kernels_cpu.vector import f32x16, i8x16, i16x16, i16x32, i32x16
from sparsefab.models.evaluate.encoder import EXPONENTIAL

__all__ = ["ATTENTION", "BLOCK", "MIX", "SCORES", "SOFTMAX", "WIDEN", "attend", "scratch_bytes"]

WIDEN, SCORES, SOFTMAX, MIX = 0, 1, 2, 3  # parts whose time is told apart

BLOCK = 16  # queries side by side; sequences begin at multiples of it

# Constants of one layer's attention.
ATTENTION = np.dtype(
    [
        ("unit", np.float32),  # octaves that one unit of a sum is worth: query scale * key scale * log2(e) / sqrt(head)
        ("least", np.int32),  # differences below this one are code 0
        ("ratio", np.float32),  # value scale / output scale
        ("zero_point", np.int32),  # of the output codes, u8
    ]
)

_C0, _C1, _C2, _C3 = EXPONENTIAL


def scratch_bytes(tokens: int, head: int) -> int:
    """Return the scratch that `attend` needs for sequences of up to `tokens` tokens, a multiple of BLOCK."""
    return 2 * head * BLOCK + 4 * head * tokens + (4 + 2) * BLOCK * tokens


@piece
def attend(layer, projected, out, panel, starts, lengths, first, last, heads, scratch, spent):
    """Attend from the tokens of one panel.

    Parameters
    ----------
    layer : ATTENTION
    projected : int8[P, 3 * width, W]        Codes of queries, keys and values, zero point 0, one panel after another.
    out : uint8[width, W]                    Codes of the result, for the panel.
    panel : int                              Which one.
    starts, lengths : int64[sequences]       First token, a multiple of BLOCK, and tokens of each sequence.
    first, last : int                        The sequences with tokens in the panel.
    heads : int                              Divides width; width / heads is a multiple of 4.
    scratch : intp                           Address of `scratch_bytes`, on a 64-byte boundary.
    spent : int64[kinds] | None              Takes the ticks of each part.
    """
    since = lap(spent, WIDEN, 0) if spent is None else ticks()
    lanes, width = out.shape[1], out.shape[0]
    head_width = width // heads
    panel_bytes = 3 * width * lanes
    base = projected.ctypes.data
    for head in range(heads):
        line = head * head_width * lanes
        for sequence in range(first, last):
            start, length = starts[sequence], lengths[sequence]
            filled = (length + BLOCK - 1) // BLOCK * BLOCK
            queries = scratch
            keys = queries + 2 * head_width * BLOCK
            values = keys + 2 * head_width * filled
            sums = values + 2 * head_width * filled
            codes = sums + 4 * BLOCK * filled
            for token in range(0, filled, BLOCK):
                place = start + token
                source = base + place // lanes * panel_bytes + line + place % lanes
                _pair(source + width * lanes, lanes, keys + 4 * token, 4 * filled, head_width)
                _widen(source + 2 * width * lanes, lanes, values + 2 * token, 2 * filled, head_width)
            since = lap(spent, WIDEN, since)
            begin, end = max(start, panel * lanes), min(start + filled, (panel + 1) * lanes)
            for place in range(begin, end, BLOCK):
                source = base + panel * panel_bytes + line + place % lanes
                _pair(source, lanes, queries, 4 * BLOCK, head_width)
                _score(queries, keys, sums, filled, length, head_width)
                since = lap(spent, SCORES, since)
                total = _weigh(layer, sums, codes, length)
                since = lap(spent, SOFTMAX, since)
                to = out.ctypes.data + line + place % lanes
                _mix(layer, codes, values, to, lanes, (length + 1) >> 1, 2 * filled, head_width, total)
                since = lap(spent, MIX, since)


@piece
def _pair(source, lanes, to, step, count):
    """Widen `count` lines of 16 codes to s16 and lay two and two side by side."""
    for channel in range(0, count, 2):
        a = widen(i16x16, load_unaligned(i8x16, source + channel * lanes))
        b = widen(i16x16, load_unaligned(i8x16, source + (channel + 1) * lanes))
        store(to + (channel >> 1) * step, interleave(a, b))


@piece
def _widen(source, lanes, to, step, count):
    """Widen `count` lines of 16 codes to s16."""
    for channel in range(count):
        store(to + channel * step, widen(i16x16, load_unaligned(i8x16, source + channel * lanes)))


@piece
def _four(columns, steps, rows, row_step, step):
    """Multiply four rows of pairs, `row_step` bytes apart, by 16 columns of pairs: 4 exact sums a column."""
    a = b = c = d = splat(i32x16, 0)
    for k in range(steps):
        x = load(i16x32, columns + 64 * k)
        at = rows + k * step
        a = dot_pairs(a, x, broadcast(i16x32, at))
        b = dot_pairs(b, x, broadcast(i16x32, at + row_step))
        c = dot_pairs(c, x, broadcast(i16x32, at + 2 * row_step))
        d = dot_pairs(d, x, broadcast(i16x32, at + 3 * row_step))
    return a, b, c, d


@piece
def _score(queries, keys, sums, filled, length, head_width):
    """Compute the exact sums of all keys for 16 queries."""
    for key in range(0, length, 4):
        a, b, c, d = _four(queries, head_width >> 1, keys + 4 * key, 4, 4 * filled)
        at = sums + 64 * key
        store(at, a)
        store(at + 64, b)
        store(at + 128, c)
        store(at + 192, d)


@piece
def _weigh(layer, sums, codes, length):
    """Compute the codes of all keys for 16 queries, pairs of keys side by side; return the sums of the codes, s32."""
    greatest = load(i32x16, sums)
    for key in range(1, length):
        greatest = maximum(greatest, load(i32x16, sums + 64 * key))
    total = splat(i32x16, 0)
    even = length & ~1
    for key in range(0, even, 2):
        at = sums + 64 * key
        low = _power(layer, load(i32x16, at) - greatest)
        high = _power(layer, load(i32x16, at + 64) - greatest)
        total = total + (low + high)
        store(codes + 32 * key, low | (high << splat(i32x16, 16)))
    if even < length:
        low = _power(layer, load(i32x16, sums + 64 * even) - greatest)
        total = total + low
        store(codes + 32 * even, low)
    return total


@piece
def _power(layer, difference):
    """Return round(255 * 2^(unit * difference)) of differences up to 0, as s32."""
    t = to_float(maximum(difference, splat(i32x16, layer.least))) * splat(f32x16, layer.unit)
    whole = t + splat(f32x16, ROUND)
    f = t - (whole - splat(f32x16, ROUND))
    y = ((splat(f32x16, _C3) * f + splat(f32x16, _C2)) * f + splat(f32x16, _C1)) * f + splat(f32x16, _C0)
    y = view(f32x16, view(i32x16, y) + (view(i32x16, whole) << splat(i32x16, 23)))
    return view(i32x16, y + splat(f32x16, ROUND)) - splat(i32x16, ROUND_BITS)


@piece
def _mix(layer, codes, values, to, lanes, pairs, row_bytes, head_width, total):
    """Average the values by the codes and store the output codes of 16 tokens."""
    share = splat(f32x16, layer.ratio) / to_float(total)
    for channel in range(0, head_width, 4):
        a, b, c, d = _four(codes, pairs, values + channel * row_bytes, row_bytes, 4)
        at = to + channel * lanes
        store_low_bytes(at, _code(layer, a, share))
        store_low_bytes(at + lanes, _code(layer, b, share))
        store_low_bytes(at + 2 * lanes, _code(layer, c, share))
        store_low_bytes(at + 3 * lanes, _code(layer, d, share))


@piece
def _code(layer, weighted, share):
    code = rounded(to_float(weighted) * share) + splat(i32x16, layer.zero_point)
    return minimum(maximum(code, splat(i32x16, 0)), splat(i32x16, 255))
