"""What a decoder computes between its products, row by row: norms, rotations, attention over a cache, the gate.

    normalize    x += added;  codes of x * r * gain, r = 1 / sqrt(mean of squares + epsilon)
    attend       rotate queries and keys, keys and values into the cache;  codes of softmax(q k / sqrt(head)) v
    gate         codes of silu(gate) * up

Each ends with the quantization of its rows: scale = greatest magnitude / 127, code = round(y / scale), as
`formats.activations` defines it. A row is one token, its channels are the lanes; a multiple of 16 of them.
The cache holds keys [head channel][token], so that 16 tokens are lanes too and a score needs no sum across a register.
Sums are made in an order of their own: results are near those of the float operators, not their bits.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import math

import numpy as np

from sparsefab.kernels_cpu.intrinsics import (
    fma,
    load,
    load_unaligned,
    maximum,
    minimum,
    select_negative,
    splat,
    store,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.lanes import ROUND, ROUND_BITS, rounded, store_low_bytes
from sparsefab.kernels_cpu.scalars import read_f32, write_f32
from sparsefab.kernels_cpu.vector import f32x16, i32x16

__all__ = ["attend", "gate", "normalize", "quantize"]

_LOG2_E = math.log2(math.e)
_LEAST = 126.0  # octaves: 2^-126 is the least normal number
# 2^-f for |f| <= 1/2, by Taylor to f^6: 1.3e-8 of it
_POWERS = tuple((-math.log(2)) ** n / math.factorial(n) for n in range(7))
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = map(np.float32, _POWERS)
_FAR = np.float32(-1e30)


@kernel
def normalize(x, added, gain, epsilon, codes, scales, offset, scratch):
    """Add, normalize and quantize.

    Parameters
    ----------
    x : float32[tokens, width]   In: the residual stream; out: with `added` in it. From `aligned_zeros`.
    added : float32[tokens, width] | None
    gain : float32[width]
    epsilon : float32
    codes : uint8[tokens, width]              Codes plus `offset`.
    scales : float32[tokens]                  One a token.
    offset : int                 0 or 128.
    scratch : float32[width + 16]             From `aligned_zeros`.
    """
    width = len(gain)
    for token in range(len(x)):
        at, row = x[token].ctypes.data, scratch.ctypes.data
        total = splat(f32x16, 0.0)
        for place in range(0, 4 * width, 64):
            h = load_unaligned(f32x16, at + place)
            if added is not None:
                h = h + load_unaligned(f32x16, added[token].ctypes.data + place)
                store(at + place, h)
            total = fma(h, h, total)
        mean = _across(total, row + 4 * width) / np.float32(width)
        r = splat(f32x16, np.float32(1) / np.sqrt(mean + epsilon))
        for place in range(0, 4 * width, 64):
            y = load_unaligned(f32x16, at + place) * r * load_unaligned(f32x16, gain.ctypes.data + place)
            store(row + place, y)
        _quantize(row, width, codes[token].ctypes.data, scales.ctypes.data + 4 * token, offset, row + 4 * width)


@kernel
def gate(both, codes, scales, offset, scratch):
    """Open the gate and quantize.

    Parameters
    ----------
    both : float32[tokens, 2 * inner]         Gate, then up.
    codes, scales, offset, scratch            As for `normalize`, width `inner`.
    """
    inner = both.shape[1] // 2
    for token in range(len(both)):
        at, row = both[token].ctypes.data, scratch.ctypes.data
        for place in range(0, 4 * inner, 64):
            g = load_unaligned(f32x16, at + place)
            magnitude = view(f32x16, view(i32x16, g) & splat(i32x16, 0x7FFFFFFF))
            e = _halved(magnitude * splat(f32x16, _LOG2_E))
            one = splat(f32x16, 1.0)
            above = view(f32x16, select_negative(view(i32x16, g), view(i32x16, e), view(i32x16, one)))
            store(row + place, g * (above / (one + e)) * load_unaligned(f32x16, at + 4 * inner + place))
        _quantize(row, inner, codes[token].ctypes.data, scales.ctypes.data + 4 * token, offset, row + 4 * inner)


@kernel
def quantize(x, codes, scales, offset, scratch):
    """Quantize rows float32[tokens, width] from `aligned_zeros`; the rest as for `normalize`."""
    for token in range(len(x)):
        _quantize(x[token].ctypes.data, x.shape[1], codes[token].ctypes.data, scales.ctypes.data + 4 * token, offset,
                  scratch.ctypes.data)  # fmt: skip


@kernel
def attend(projected, cos, sin, position, keys, values, heads, mixed, scratch):
    """Attend from some tokens that follow the cached ones.

    Parameters
    ----------
    projected : float32[tokens, (heads + 2 * kv_heads) * head]     Queries, keys, values.
    cos, sin : float32[context, head / 2]
    position : int               Of the first token; so many are cached.
    keys : float32[kv_heads, head, room]      Cache, takes the new ones; room is a multiple of 16, beyond all positions.
    values : float32[kv_heads, room, head]
    heads : int                  A multiple of kv_heads.
    mixed : float32[tokens, heads * head]     Takes the result; from `aligned_zeros`.
    scratch : float32[room + 16]              From `aligned_zeros`.
    """
    kv_heads, head, _ = keys.shape
    half, group = head // 2, heads // kv_heads
    for token in range(len(projected)):
        row, place = projected[token], position + token
        for part in range(heads + kv_heads):
            for channel in range(half):
                a, b = row[part * head + channel], row[part * head + half + channel]
                c, s = cos[place, channel], sin[place, channel]
                row[part * head + channel], row[part * head + half + channel] = a * c - b * s, b * c + a * s
        for part in range(kv_heads):
            for channel in range(head):
                keys[part, channel, place] = row[(heads + part) * head + channel]
                values[part, place, channel] = row[(heads + kv_heads + part) * head + channel]
        for part in range(heads):
            query = row[part * head :].ctypes.data
            _one_head(query, keys[part // group], values[part // group], place + 1, mixed[token, part * head :],
                      scratch.ctypes.data)  # fmt: skip


@piece
def _one_head(query, keys, values, count, mixed, scratch):
    """Average `count` values by one query."""
    head, room = keys.shape
    scale = np.float32(1) / np.sqrt(np.float32(head)) * np.float32(_LOG2_E)
    for token in range(0, count, 16):
        a = b = splat(f32x16, 0.0)
        at = keys.ctypes.data + 4 * token
        for channel in range(0, head, 2):
            a = fma(splat(f32x16, read_f32(query + 4 * channel)), load_unaligned(f32x16, at), a)
            b = fma(splat(f32x16, read_f32(query + 4 * channel + 4)), load_unaligned(f32x16, at + 4 * room), b)
            at += 8 * room
        store(scratch + 4 * token, (a + b) * splat(f32x16, scale))
    greatest = read_f32(scratch)
    for token in range(1, count):
        greatest = max(greatest, read_f32(scratch + 4 * token))
    for token in range(count, (count + 15) // 16 * 16):
        write_f32(scratch + 4 * token, _FAR)
    total = splat(f32x16, 0.0)
    for token in range(0, count, 16):
        power = _halved(splat(f32x16, greatest) - load(f32x16, scratch + 4 * token))
        store(scratch + 4 * token, power)
        total = total + power
    sums = _across(total, scratch + 4 * room)
    for channel in range(0, head, 16):
        a = b = splat(f32x16, 0.0)
        at = values.ctypes.data + 4 * channel
        for token in range(0, count & ~1, 2):
            a = fma(splat(f32x16, read_f32(scratch + 4 * token)), load_unaligned(f32x16, at), a)
            b = fma(splat(f32x16, read_f32(scratch + 4 * token + 4)), load_unaligned(f32x16, at + 4 * head), b)
            at += 8 * head
        if count & 1:
            a = fma(splat(f32x16, read_f32(scratch + 4 * (count - 1))), load_unaligned(f32x16, at), a)
        store(mixed.ctypes.data + 4 * channel, (a + b) / splat(f32x16, sums))


@piece
def _halved(octaves):
    """Return 2^-octaves of floats from 0 on."""
    octaves = view(f32x16, minimum(view(i32x16, octaves), view(i32x16, splat(f32x16, _LEAST))))
    whole = octaves + splat(f32x16, ROUND)
    f = octaves - (whole - splat(f32x16, ROUND))
    y = fma(splat(f32x16, _P6), f, splat(f32x16, _P5))
    y = fma(fma(y, f, splat(f32x16, _P4)), f, splat(f32x16, _P3))
    y = fma(fma(y, f, splat(f32x16, _P2)), f, splat(f32x16, _P1))
    y = fma(y, f, splat(f32x16, _P0))
    exponent = (view(i32x16, whole) - splat(i32x16, ROUND_BITS)) << splat(i32x16, 23)
    return view(f32x16, view(i32x16, y) - exponent)


@piece
def _across(vector, at):
    """Add up the elements, by way of 64 bytes of memory."""
    store(at, vector)
    total = np.float32(0)
    for lane in range(16):
        total += read_f32(at + 4 * lane)
    return total


@piece
def _quantize(row, width, codes, scale, offset, spare):
    """Quantize one row of floats at an address that is a multiple of 64; `spare` is that of 64 bytes."""
    greatest = splat(i32x16, 0)  # of magnitudes, whose bits have the order of the numbers
    for place in range(0, 4 * width, 64):
        greatest = maximum(greatest, view(i32x16, load(f32x16, row + place)) & splat(i32x16, 0x7FFFFFFF))
    store(spare, greatest)
    most = np.float32(0)
    for lane in range(16):
        most = max(most, read_f32(spare + 4 * lane))
    step = most / np.float32(127) if most > 0 else np.float32(1)
    write_f32(scale, step)
    for place in range(0, width, 16):
        code = rounded(load(f32x16, row + 4 * place) / splat(f32x16, step)) + splat(i32x16, offset)
        store_low_bytes(codes + place, code)
