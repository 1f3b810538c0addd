"""Layer normalization down the rows of a panel, with the residual addition before it and the codes after it.

    16 tokens:  h = x + added          sums of h, four of them in turn
                mean                   sums of (h - mean)^2, likewise
                x = (h - mean) * r * gain + bias,  code = round(x * inverse_scale) + zero_point

Tokens are lanes, so that no sum crosses a register, and the order of every float operation is fixed; it is that of
`sparsefab.models.evaluate.encoder`. The three passes over 16 tokens stay in the first-level cache.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import numpy as np

from sparsefab.kernels_cpu.intrinsics import load, splat, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lanes import bytes_of, rounded, square_root, store_rows
from sparsefab.kernels_cpu.scalars import read_f32
from sparsefab.kernels_cpu.vector import f32x16, i32x16

__all__ = ["NORM", "normalize"]

# Constants of one normalization and of the codes after it.
NORM = np.dtype(
    [
        ("gain", np.int64),  # address of float32[rows]
        ("bias", np.int64),  # of float32[rows]
        ("share", np.float32),  # 1 / rows
        ("epsilon", np.float32),
        ("inverse_scale", np.float32),  # of the codes, u8
        ("zero_point", np.int32),
    ]
)


@piece
def normalize(norm, x, added, codes, lanes):
    """Normalize the tokens of one panel.

    Parameters
    ----------
    norm : NORM
    x : float32[W / 16, rows, 16]             In: what enters (with `added`); out: the normalized values. rows is a
                                              multiple of 4.
    added : float32[rows, W] | None           Added before; the next layer's result.
    codes : uint8[rows, W]                    Codes of the normalized values.
    lanes : int                               W, a constant where it is compiled.
    """
    rows = codes.shape[0]
    for lane in range(0, lanes, 16):
        place = x.ctypes.data + 4 * rows * lane
        if added is not None:
            other = added.ctypes.data + 4 * lane
            a = b = c = d = splat(f32x16, 0.0)
            for row in range(0, rows, 4):
                at, line = place + 64 * row, other + 4 * row * lanes
                a = a + _added(at, line)
                b = b + _added(at + 64, line + 4 * lanes)
                c = c + _added(at + 128, line + 8 * lanes)
                d = d + _added(at + 192, line + 12 * lanes)
        else:
            a = b = c = d = splat(f32x16, 0.0)
            for row in range(0, rows, 4):
                at = place + 64 * row
                a, b = a + load(f32x16, at), b + load(f32x16, at + 64)
                c, d = c + load(f32x16, at + 128), d + load(f32x16, at + 192)
        mean = ((a + b) + (c + d)) * splat(f32x16, norm.share)
        a = b = c = d = splat(f32x16, 0.0)
        for row in range(0, rows, 4):
            at = place + 64 * row
            a, b = a + _squared(at, mean), b + _squared(at + 64, mean)
            c, d = c + _squared(at + 128, mean), d + _squared(at + 192, mean)
        variance = ((a + b) + (c + d)) * splat(f32x16, norm.share)
        r = splat(f32x16, 1.0) / square_root(variance + splat(f32x16, norm.epsilon))
        inverse, zero_point = splat(f32x16, norm.inverse_scale), splat(i32x16, norm.zero_point)
        gains, biases = norm.gain, norm.bias  # read once: a store may change the record, for all the compiler knows
        for row in range(0, rows, 4):
            at, gain, bias = place + 64 * row, gains + 4 * row, biases + 4 * row
            a = _code(at, mean, r, gain, bias, inverse) + zero_point
            b = _code(at + 64, mean, r, gain + 4, bias + 4, inverse) + zero_point
            c = _code(at + 128, mean, r, gain + 8, bias + 8, inverse) + zero_point
            d = _code(at + 192, mean, r, gain + 12, bias + 12, inverse) + zero_point
            store_rows(codes.ctypes.data + lane + row * lanes, lanes, bytes_of(a, b, c, d))


@piece
def _added(at, other):
    h = load(f32x16, at) + load(f32x16, other)
    store(at, h)
    return h


@piece
def _code(at, mean, r, gain, bias, inverse):
    """Normalize 16 values in place, and return them in steps of the codes."""
    y = (load(f32x16, at) - mean) * r * splat(f32x16, read_f32(gain)) + splat(f32x16, read_f32(bias))
    store(at, y)
    return rounded(y * inverse)


@piece
def _squared(at, mean):
    d = load(f32x16, at) - mean
    return d * d
