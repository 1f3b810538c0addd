"""Panels of 64 tokens: there and back, alignment, signed codes, wrong arguments."""

import numpy as np
import pytest

from sparsefab.kernels_cpu.panels import (
    aligned_empty,
    aligned_zeros,
    fill_interleaved,
    fill_rows,
    interleaved,
    panels_of,
    rows_of,
)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 128, 200])
@pytest.mark.parametrize("inputs", [1, 5, 64, 100])
def test_rows_come_back(tokens, inputs):
    codes = np.random.default_rng(tokens).integers(0, 256, (tokens, inputs)).astype(np.uint8)
    panels = panels_of(codes)
    assert panels.shape == (-(-tokens // 64), inputs, 64)
    assert panels.ctypes.data % 64 == 0
    for token in range(tokens):
        np.testing.assert_array_equal(panels[token // 64, :, token % 64], codes[token])
    assert not panels[-1, :, (tokens - 1) % 64 + 1 :].any()
    np.testing.assert_array_equal(rows_of(panels, tokens=tokens), codes)


def test_signed_codes_gain_128():
    codes = np.array([[-128, -1, 0, 127]], np.int8)
    np.testing.assert_array_equal(panels_of(codes)[0, :, 0], [0, 127, 128, 255])


def test_strided_rows_are_read_where_they_lie():
    codes = np.arange(7 * 12, dtype=np.uint8).reshape(7, 12)
    np.testing.assert_array_equal(rows_of(panels_of(codes[::-2, ::3]), tokens=4), codes[::-2, ::3])


def test_a_given_buffer_is_filled():
    buffer = aligned_empty((1, 3, 64), np.uint8)
    assert panels_of(np.ones((5, 3), np.uint8), out=buffer) is buffer
    assert buffer.sum() == 15


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.int64])
def test_buffers_start_on_a_line(shape, dtype):
    zeros = aligned_zeros(shape, dtype)
    assert zeros.shape == shape
    assert zeros.dtype == dtype
    assert zeros.ctypes.data % 64 == 0
    assert not zeros.any()


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="uint8 or int8, not float32"):
        panels_of(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="axes"):
        panels_of(np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="out must be"):
        panels_of(np.zeros((4, 4), np.uint8), out=aligned_empty((1, 5, 64), np.uint8))
    with pytest.raises(ValueError, match="do not hold"):
        rows_of(aligned_zeros((1, 4, 64), np.uint8), tokens=65)


def test_large_arrays_start_on_a_huge_page():
    assert aligned_empty((5 << 20,), np.uint8).ctypes.data % (2 << 20) == 0
    assert aligned_empty((100,), np.uint8).ctypes.data % 64 == 0


@pytest.mark.parametrize(("tokens", "width"), [(1, 16), (16, 16), (21, 16), (64, 64), (100, 64)])
def test_rows_go_straight_into_interleaved_panels_and_back(tokens, width):
    random = np.random.default_rng(tokens)
    codes = random.integers(0, 256, (tokens, 24)).astype(np.uint8)
    expected = interleaved(panels_of(codes, width=width))
    found = aligned_zeros(expected.shape, np.uint8)
    fill_interleaved(codes, found)
    np.testing.assert_array_equal(found, expected)
    results = random.normal(size=(len(expected), 20, width)).astype(np.float32)
    rows = np.empty((tokens, 17), np.float32)
    fill_rows(results, rows)
    np.testing.assert_array_equal(rows, rows_of(results, tokens=tokens, outputs=17))
