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

from sparsefab.kernels_cpu.intrinsics import load, maximum, minimum, splat, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.lanes import rounded, square_root, store_low_bytes
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
def normalize(norm, x, added, codes):
    """Normalize the tokens of one panel.

    Parameters
    ----------
    norm : NORM
    x : float32[W / 16, rows, 16]             In: what enters (with `added`); out: the normalized values. rows is a
                                              multiple of 4.
    added : float32[rows, W] | None           Added before; the next layer's result.
    codes : uint8[rows, W]                    Codes of the normalized values.
    """
    rows, lanes = codes.shape
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
        to = codes.ctypes.data + lane
        for row in range(rows):
            at = place + 64 * row
            gain = splat(f32x16, read_f32(norm.gain + 4 * row))
            y = (load(f32x16, at) - mean) * r * gain + splat(f32x16, read_f32(norm.bias + 4 * row))
            store(at, y)
            code = rounded(y * inverse) + zero_point
            store_low_bytes(to + row * lanes, minimum(maximum(code, splat(i32x16, 0)), splat(i32x16, 255)))


@piece
def _added(at, other):
    h = load(f32x16, at) + load(f32x16, other)
    store(at, h)
    return h


@piece
def _squared(at, mean):
    d = load(f32x16, at) - mean
    return d * d
