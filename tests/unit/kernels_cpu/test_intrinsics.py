"""Each vector operation against NumPy, on both register widths."""

import numpy as np
import pytest
from numba import njit

from sparsefab.kernels_cpu import intrinsics as v
from sparsefab.kernels_cpu import shuffles as s
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.vector import f32x8, f32x16, i8x32, i8x64, i16x16, i16x32, i32x8, i32x16

WIDTHS = [
    pytest.param(32, marks=pytest.mark.skipif(not runs(Level.AVX2), reason="needs AVX2")),
    pytest.param(64, marks=pytest.mark.skipif(not runs(Level.AVX512), reason="needs AVX512BW")),
]
TYPES = {
    ("i8", 32): i8x32,
    ("i8", 64): i8x64,
    ("i16", 32): i16x16,
    ("i16", 64): i16x32,
    ("i32", 32): i32x8,
    ("i32", 64): i32x16,
    ("f32", 32): f32x8,
    ("f32", 64): f32x16,
}
NUMPY = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "f32": np.float32}


def operands(element, width, count, seed=3):
    random = np.random.default_rng(seed)
    result = aligned_empty((count, width), np.uint8)
    result[:] = random.integers(0, 256, result.shape)
    values = result.view(NUMPY[element])
    if element == "f32":
        values[:] = random.normal(size=values.shape).astype(np.float32)
    else:  # extremes in every vector
        values[:, 0], values[:, 1] = np.iinfo(NUMPY[element]).min, np.iinfo(NUMPY[element]).max
        values[0, 2], values[-1, 2] = np.iinfo(NUMPY[element]).min, np.iinfo(NUMPY[element]).min
    return values


def apply(operation, values, width, element, result):
    """Run a two-operand operation on the rows of `values`; the result as `result` elements."""
    kind = TYPES[element, width]

    @njit
    def run(a, b, out):
        v.store(out, operation(v.load(kind, a), v.load(kind, b)))

    out = aligned_empty((width,), np.uint8)
    run(values[0].ctypes.data, values[1].ctypes.data, out.ctypes.data)
    return out.view(result)


def lanes(values):
    """View a vector as its 128-bit lanes."""
    return values.view(np.uint8).reshape(-1, 16)


def unpacked(a, b, size, high):
    parts = []
    for left, right in zip(lanes(a), lanes(b), strict=True):
        half = slice(8, 16) if high else slice(0, 8)
        pairs = np.stack([left[half].reshape(-1, size), right[half].reshape(-1, size)], axis=1)
        parts.append(pairs.reshape(-1))
    return np.concatenate(parts)


def saturated(values, kind):
    return np.clip(values, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def packed(a, b, kind):
    size = 16 // a.itemsize
    pieces = zip(a.astype(np.int64).reshape(-1, size), b.astype(np.int64).reshape(-1, size), strict=True)
    return np.concatenate([saturated(np.concatenate(piece), kind) for piece in pieces])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("operation", "size", "high"),
    [
        (s.unpack_low_bytes, 1, False),
        (s.unpack_high_bytes, 1, True),
        (s.unpack_low_words, 2, False),
        (s.unpack_high_words, 2, True),
    ],
)
def test_unpacks_interleave_inside_lanes(width, operation, size, high):
    values = operands("i8", width, 2)
    result = apply(operation, values, width, "i8", np.uint8)
    np.testing.assert_array_equal(result, unpacked(values[0], values[1], size, high))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("operation", "element", "kind"),
    [(v.pack_i16, "i32", np.int16), (v.pack_i8, "i16", np.int8), (v.pack_u8, "i16", np.uint8)],
)
def test_packs_saturate_inside_lanes(width, operation, element, kind):
    values = operands(element, width, 2)
    np.testing.assert_array_equal(apply(operation, values, width, element, kind), packed(values[0], values[1], kind))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("operation", "element", "expected"),
    [
        (v.multiply_round, "i16", lambda a, b: ((a * b + (1 << 14)) >> 15).astype(np.int16)),
        (v.saturating_add, "i16", lambda a, b: saturated(a + b, np.int16)),
        (v.saturating_add, "i8", lambda a, b: saturated(a + b, np.int8)),
        (v.minimum, "i32", lambda a, b: np.minimum(a, b).astype(np.int32)),
        (v.maximum, "i16", lambda a, b: np.maximum(a, b).astype(np.int16)),
        (v.multiply_add_words, "i16", lambda a, b: (a * b).reshape(-1, 2).sum(axis=1).astype(np.int32)),
    ],
)
def test_arithmetic_equals_numpy(width, operation, element, expected):
    values = operands(element, width, 2)
    wanted = expected(values[0].astype(np.int64), values[1].astype(np.int64))
    np.testing.assert_array_equal(apply(operation, values, width, element, wanted.dtype), wanted)
