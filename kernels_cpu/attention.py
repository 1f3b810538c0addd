"""Self-attention of short sequences on 8-bit codes, 16 queries side by side, from and to panels.

    arrange     queries s8, keys u8 (code + 128) [channels / 4][W][4], values s8 [channels][W]       once a panel
    for head, sequence in the panel, 16 queries:
      levels    keys x queries, exact, then >> coarse: s16     16 keys a step, 16 accumulators, vpdpbusd
      weights   u8, see `models.evaluate.softmax`              4 keys a step, 32 to a register
      result    weights x values / sum of weights              16 channels a step, 16 accumulators, then output codes

A query is a lane (of 32 bits), so that greatest and sum run down the keys without a horizontal step. A dword holds four
channels of a query, then two keys' levels for it, then four keys' weights: what the next step reads.
The 128 on the keys adds the same to all sums of a query; they start with what takes it off again.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import numpy as np

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    load_unaligned,
    maximum,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lanes import (
    bytes_of,
    dot_bytes,
    interleave,
    multiply_fractions,
    opaque,
    rounded,
    saturating_difference,
    shift_left,
    shift_right,
    store_rows,
)
from sparsefab.kernels_cpu.ticks import lap, ticks
from sparsefab.kernels_cpu.vector import f32x16, i8x16, i8x64, i16x32, i32x16
from sparsefab.models.evaluate.softmax import HALVED, LEAST_LEVEL, POWERS

__all__ = ["ATTENTION", "BLOCK", "MIX", "SCORES", "SOFTMAX", "arrange", "attend", "scratch_bytes"]

SCORES, SOFTMAX, MIX = 0, 1, 2  # parts whose time is told apart

BLOCK = 16  # queries side by side; sequences begin at multiples of it

# Constants of one layer's attention; the first three are those of `models.evaluate.softmax.Softmax`.
ATTENTION = np.dtype(
    [
        ("coarse", np.int32),
        ("multiplier", np.int32),
        ("fraction_bits", np.int32),
        ("ratio", np.float32),  # value scale / output scale
        ("zero_point", np.int32),  # of the output codes, u8
    ]
)

_A, _B, _C, _D = POWERS


def scratch_bytes(tokens: int) -> int:
    """Return the scratch that `attend` needs for sequences of up to `tokens` tokens, a multiple of BLOCK."""
    return (2 + 1) * BLOCK * tokens


@piece
def arrange(projected, arranged, lanes):
    """Lay four channels of a token side by side, for queries and keys; values stay as they are.

    Parameters
    ----------
    lanes : int                              W, a constant where it is compiled.
    projected : int8[3 * width, W]           Codes of queries, keys and values of a panel, zero point 0.
    arranged : int8[3 * width, W]            Two thirds of it hold [width / 4][W][4]; keys are u8, code + 128.
    """
    rows = projected.shape[0]
    width = rows // 3
    source, to = projected.ctypes.data, arranged.ctypes.data
    for part in range(2):
        offset = splat(i8x64, -128 * part)
        for channel in range(part * width, (part + 1) * width, 4):
            for lane in range(0, lanes, BLOCK):
                at = source + channel * lanes + lane
                a, b = load_unaligned(i8x16, at), load_unaligned(i8x16, at + lanes)
                c, d = load_unaligned(i8x16, at + 2 * lanes), load_unaligned(i8x16, at + 3 * lanes)
                four = interleave(interleave(a, c), interleave(b, d))
                store(to + channel * lanes + 4 * lane, four ^ offset)
    for place in range(2 * width * lanes, rows * lanes, BLOCK):
        store(to + place, load(i8x16, source + place))


@piece
def attend(layer, arranged, out, panel, starts, lengths, first, last, heads, lanes, scratch, spent):
    """Attend from the tokens of one panel.

    Parameters
    ----------
    layer : ATTENTION
    arranged : int8[P, 3 * width, W]         What `arrange` makes of each panel.
    out : uint8[width, W]                    Codes of the result, for the panel.
    panel : int                              Which one.
    starts, lengths : int64[sequences]       First token, a multiple of BLOCK, and tokens of each sequence.
    first, last : int                        The sequences with tokens in the panel.
    heads : int                              Divides width; width / heads is a multiple of 4.
    lanes : int                              W, a constant where it is compiled: rows then lie at constant distances.
    scratch : intp                           Address of `scratch_bytes`, on a 64-byte boundary.
    spent : int64[kinds] | None              Takes the ticks of each part.
    """
    since = 0 if spent is None else ticks()
    width = out.shape[0]
    head_width = width // heads
    panel_bytes, part_bytes = 3 * width * lanes, width * lanes
    base = arranged.ctypes.data
    for head in range(heads):
        line = head * head_width * lanes
        for sequence in range(first, last):
            start, length = starts[sequence], lengths[sequence]
            filled = (length + BLOCK - 1) // BLOCK * BLOCK
            levels, codes = scratch, scratch + 2 * BLOCK * filled
            begin, end = max(start, panel * lanes), min(start + filled, (panel + 1) * lanes)
            for place in range(begin, end, BLOCK):
                queries = base + panel * panel_bytes + line + 4 * (place % lanes)
                offset = _offset(queries, lanes, head_width)
                coarse, rest = splat(i32x16, layer.coarse), splat(i32x16, 16 - layer.coarse)
                greatest = splat(i16x32, LEAST_LEVEL)
                for key in range(0, filled, BLOCK):
                    token = start + key
                    keys = base + token // lanes * panel_bytes + part_bytes + line + 4 * (token % lanes)
                    at = levels + 2 * BLOCK * key
                    high = _score(coarse, rest, queries, keys, lanes, head_width, offset, at)
                    if key + BLOCK > length:
                        high = _hide(at, length - key)
                    greatest = maximum(greatest, high)
                since = lap(spent, SCORES, since)
                total = _weigh(layer, levels, codes, length, _of_both(greatest))
                since = lap(spent, SOFTMAX, since)
                values = base + 2 * part_bytes + line
                to = out.ctypes.data + line + place % lanes
                share = splat(f32x16, layer.ratio) / to_float(total)
                whole = head_width // 16 * 16
                for channel in range(0, whole, 16):
                    _mix_16(layer, codes, values + channel * lanes, to + channel * lanes, lanes, panel_bytes,
                            start, length, share)  # fmt: skip
                for channel in range(whole, head_width, 4):
                    _mix_4(layer, codes, values + channel * lanes, to + channel * lanes, lanes, panel_bytes,
                           start, length, share)  # fmt: skip
                since = lap(spent, MIX, since)


@piece
def _offset(queries, lanes, head_width):
    """Return what takes the keys' 128 off the sums of 16 queries."""
    total, ones = splat(i32x16, 0), splat(i8x64, -128)
    for step in range(head_width >> 2):
        total = dot_bytes(total, ones, load(i8x64, queries + 4 * lanes * step))
    return splat(i32x16, 0) - total


@piece
def _score(coarse, rest, queries, keys, lanes, head_width, offset, to):
    """Store the levels of 16 keys for 16 queries; return the greatest of both halves of a dword."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = offset
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = offset
    place, end = 0, lanes * head_width
    while True:  # at least once: else the accumulators would be set twice
        x, at = load(i8x64, queries + place), keys + place
        a0, a1 = dot_bytes(a0, broadcast(i8x64, at), x), dot_bytes(a1, broadcast(i8x64, at + 4), x)
        a2, a3 = dot_bytes(a2, broadcast(i8x64, at + 8), x), dot_bytes(a3, broadcast(i8x64, at + 12), x)
        b0, b1 = dot_bytes(b0, broadcast(i8x64, at + 16), x), dot_bytes(b1, broadcast(i8x64, at + 20), x)
        b2, b3 = dot_bytes(b2, broadcast(i8x64, at + 24), x), dot_bytes(b3, broadcast(i8x64, at + 28), x)
        c0, c1 = dot_bytes(c0, broadcast(i8x64, at + 32), x), dot_bytes(c1, broadcast(i8x64, at + 36), x)
        c2, c3 = dot_bytes(c2, broadcast(i8x64, at + 40), x), dot_bytes(c3, broadcast(i8x64, at + 44), x)
        d0, d1 = dot_bytes(d0, broadcast(i8x64, at + 48), x), dot_bytes(d1, broadcast(i8x64, at + 52), x)
        d2, d3 = dot_bytes(d2, broadcast(i8x64, at + 56), x), dot_bytes(d3, broadcast(i8x64, at + 60), x)
        place += 4 * lanes
        if place >= end:
            break
    a = _levels(coarse, rest, to, a0, a1, a2, a3)
    b = _levels(coarse, rest, to + 128, b0, b1, b2, b3)
    c = _levels(coarse, rest, to + 256, c0, c1, c2, c3)
    d = _levels(coarse, rest, to + 384, d0, d1, d2, d3)
    return maximum(maximum(a, b), maximum(c, d))


@piece
def _levels(coarse, rest, to, a, b, c, d):
    """Store four keys' levels in pairs, a below c and b below d; a level of 16 bits is a sum without its low ones."""
    even = _two(shift_right(a, coarse), shift_left(c, rest))
    odd = _two(shift_right(b, coarse), shift_left(d, rest))
    store(to, even)
    store(to + 64, odd)
    return maximum(even, odd)


@piece
def _two(low, high):
    return view(i16x32, (low & splat(i32x16, 0xFFFF)) | (high & splat(i32x16, -0x10000)))


@piece
def _hide(levels, kept):
    """Make the levels of the keys from `kept` on the least there is; return the greatest of all 16."""
    for key in range(kept, BLOCK):
        at = levels + 128 * (key >> 2) + 64 * (key & 1)
        pair = view(i32x16, load(i16x32, at))
        if key & 2:
            pair = (pair & splat(i32x16, 0xFFFF)) | splat(i32x16, LEAST_LEVEL << 16)
        else:
            pair = (pair & splat(i32x16, -0x10000)) | splat(i32x16, LEAST_LEVEL & 0xFFFF)
        store(at, view(i16x32, pair))
    greatest = load(i16x32, levels)
    for place in range(64, 64 * 8, 64):
        greatest = maximum(greatest, load(i16x32, levels + place))
    return greatest


@piece
def _of_both(x):
    """Return the greatest of both halves of each dword, in both."""
    pair = view(i32x16, x)
    swapped = ((pair >> splat(i32x16, 16)) & splat(i32x16, 0xFFFF)) | (pair << splat(i32x16, 16))
    return maximum(x, view(i16x32, swapped))


@piece
def _weigh(layer, levels, codes, length, greatest):
    """Compute the weights of all keys for 16 queries, four keys a dword; return their sums, s32."""
    # Read once: a store may change the record, for all that the compiler knows.
    bits, factor = splat(i16x32, layer.fraction_bits), splat(i16x32, layer.multiplier)
    up = splat(i16x32, 15 - layer.fraction_bits)
    total, ones = splat(i32x16, 0), splat(i8x64, 1)
    groups = length >> 2
    for group in range(groups):
        four = _four_weights(levels + 128 * group, greatest, factor, bits, up)
        store(codes + 64 * group, four)
        total = dot_bytes(total, four, ones)
    if length & 3:
        kept = splat(i32x16, (1 << (8 * (length & 3))) - 1)
        four = _four_weights(levels + 128 * groups, greatest, factor, bits, up)
        four = view(i8x64, view(i32x16, four) & kept)
        store(codes + 64 * groups, four)
        total = dot_bytes(total, four, ones)
    return total


@piece
def _four_weights(at, greatest, factor, bits, up):
    even = _weights(load(i16x32, at), greatest, factor, bits, up)
    odd = _weights(load(i16x32, at + 64), greatest, factor, bits, up)
    return view(i8x64, even | (odd << splat(i16x32, 8)))


@piece
def _weights(level, greatest, factor, bits, up):
    """Return the weights of 32 levels, as `models.evaluate.softmax` defines them."""
    octaves = multiply_fractions(saturating_difference(greatest, level), factor)
    whole = shift_right(octaves, bits)
    f = (octaves << up) & splat(i16x32, 0x7FFF)
    y = multiply_fractions(f, splat(i16x32, _D)) + splat(i16x32, _C)
    y = multiply_fractions(f, y) + splat(i16x32, _B)
    y = multiply_fractions(f, y) + splat(i16x32, _A)
    return multiply_fractions(y, shift_right(splat(i16x32, HALVED), whole))


@piece
def _mix_16(layer, codes, values, to, lanes, panel_bytes, start, length, share):
    """Average 16 channels of the values by the weights and store the output codes of 16 tokens."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = splat(i32x16, 0)
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = splat(i32x16, 0)
    r2, r3, r4, r8, r12 = 2 * lanes, 3 * lanes, 4 * lanes, 8 * lanes, 12 * lanes
    end, token, weights = start + length, start, codes
    while token < end:
        stop = min(end, (token // lanes + 1) * lanes)
        here = values + token // lanes * panel_bytes - token // lanes * lanes
        for place in range(token, stop, 4):
            x = load(i8x64, weights)
            weights += 64
            at = opaque(here + place)
            a0, a1 = dot_bytes(a0, x, broadcast(i8x64, at)), dot_bytes(a1, x, broadcast(i8x64, at + lanes))
            a2, a3 = dot_bytes(a2, x, broadcast(i8x64, at + r2)), dot_bytes(a3, x, broadcast(i8x64, at + r3))
            at += r4
            b0, b1 = dot_bytes(b0, x, broadcast(i8x64, at)), dot_bytes(b1, x, broadcast(i8x64, at + lanes))
            b2, b3 = dot_bytes(b2, x, broadcast(i8x64, at + r2)), dot_bytes(b3, x, broadcast(i8x64, at + r3))
            at += r4
            c0, c1 = dot_bytes(c0, x, broadcast(i8x64, at)), dot_bytes(c1, x, broadcast(i8x64, at + lanes))
            c2, c3 = dot_bytes(c2, x, broadcast(i8x64, at + r2)), dot_bytes(c3, x, broadcast(i8x64, at + r3))
            at += r4
            d0, d1 = dot_bytes(d0, x, broadcast(i8x64, at)), dot_bytes(d1, x, broadcast(i8x64, at + lanes))
            d2, d3 = dot_bytes(d2, x, broadcast(i8x64, at + r2)), dot_bytes(d3, x, broadcast(i8x64, at + r3))
        token = stop
    _store_4(layer, to, lanes, a0, a1, a2, a3, share)
    _store_4(layer, to + r4, lanes, b0, b1, b2, b3, share)
    _store_4(layer, to + r8, lanes, c0, c1, c2, c3, share)
    _store_4(layer, to + r12, lanes, d0, d1, d2, d3, share)


@piece
def _mix_4(layer, codes, values, to, lanes, panel_bytes, start, length, share):
    """Average four channels, of heads that are no multiple of 16 wide."""
    a = b = c = d = splat(i32x16, 0)
    for key in range(0, length, 4):
        token = start + key
        x = load(i8x64, codes + 16 * key)
        at = values + token // lanes * panel_bytes + token % lanes
        a, b = dot_bytes(a, x, broadcast(i8x64, at)), dot_bytes(b, x, broadcast(i8x64, at + lanes))
        at += 2 * lanes
        c, d = dot_bytes(c, x, broadcast(i8x64, at)), dot_bytes(d, x, broadcast(i8x64, at + lanes))
    _store_4(layer, to, lanes, a, b, c, d, share)


@piece
def _store_4(layer, to, lanes, a, b, c, d, share):
    zero_point = splat(i32x16, layer.zero_point)
    a, b = rounded(to_float(a) * share) + zero_point, rounded(to_float(b) * share) + zero_point
    c, d = rounded(to_float(c) * share) + zero_point, rounded(to_float(d) * share) + zero_point
    store_rows(to, lanes, bytes_of(a, b, c, d))
