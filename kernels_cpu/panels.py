"""Buffers of activations and results: 64 tokens side by side, one 64-byte line for each (panel, input).

    rows     codes [tokens, inputs]                 as the rest of the world keeps them
    panels   u8 [ceil(tokens / 64)][inputs][64]     as kernels read and write them; base on a 64-byte boundary
             u8 [ceil(tokens / width)][inputs][width]     width 32 or 16, for so many tokens or fewer
             u8 [tokens][inputs][1]                       width 1: the rows themselves

    interleaved  u8 [panels][inputs / 4][4 j][4 lanes][4 i][4 inputs]    for aligned weights; token 16 lane + 4 j + i
                 u8 [panels][inputs / 4][16 tokens][4 inputs]          for 16 tokens or fewer

s8 codes enter as code + 128, so that the first factor of vpdpbusd is unsigned; the start value of each sum takes the
128 off again.  Tokens that fill up the last panel are zero bytes; results in their place mean nothing.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.scalars import read_f32, read_i32, write_f32, write_i32

__all__ = [
    "WIDTHS",
    "aligned_empty",
    "aligned_zeros",
    "fill_interleaved",
    "fill_rows",
    "interleaved",
    "misaligned",
    "panels_of",
    "rows_of",
]

WIDTHS = (64, 32, 16, 1)  # tokens a panel
_LINE_BYTES = 64
_HUGE_BYTES = 2 << 20  # a huge page, which Linux gives an array of some MiB that starts on its boundary


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return a C-contiguous array whose first byte is on a 64-byte boundary; its content is undefined.

    From two huge pages on, the boundary is that of a huge page: streaming weights reads 6 % faster. What is skipped is
    never touched, so that it takes no memory.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    boundary = _HUGE_BYTES if size >= 2 * _HUGE_BYTES else _LINE_BYTES
    raw = np.empty(size + boundary, np.uint8)
    skip = -raw.ctypes.data % boundary
    return raw[skip : skip + size].view(kind).reshape(shape)


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return `aligned_empty(shape, dtype)` filled with zeros."""
    result = aligned_empty(shape, dtype)
    result.fill(0)
    return result


@kernel
def misaligned(array):
    """Say whether an array starts off a 64-byte boundary; compiled, because NumPy takes a microsecond to tell."""
    return array.ctypes.data % 64 != 0


def panels_of(codes: NDArray[Any], *, width: int = 64, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return activation codes as panels.

    Parameters
    ----------
    codes : uint8 or int8[tokens, inputs]     s8 codes are stored as code + 128.
    width : int                               Tokens a panel, 64, 32, 16 or 1.
    out : uint8[panels, inputs, width] | None Buffer to fill, made by `aligned_empty`; None makes one.

    Returns
    -------
    uint8[panels, inputs, width]              `out`, or a new buffer.

    Raises
    ------
    TypeError, ValueError                     If the type is neither u8 nor s8, or the shapes do not match.
    """
    if codes.dtype not in (np.uint8, np.int8):
        raise TypeError(f"codes must be uint8 or int8, not {codes.dtype}")
    if codes.ndim != 2:
        raise ValueError(f"codes must have the axes (tokens, inputs), not {codes.ndim} axes")
    if width not in WIDTHS:
        raise ValueError(f"width must be 64, 32, 16 or 1, not {width}")
    tokens, inputs = codes.shape
    shape = (-(-tokens // width), inputs, width)
    if out is None:
        out = aligned_empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out must be uint8 of shape {shape}, not {out.dtype} of {out.shape}")
    whole = tokens // width
    full = whole * width
    source = codes.view(np.uint8)
    out[:whole] = source[:full].reshape(whole, width, inputs).transpose(0, 2, 1)
    if full < tokens:
        out[whole, :, : tokens - full] = source[full:].T
        out[whole, :, tokens - full :] = 0
    if codes.dtype == np.int8:
        out ^= 0x80
    return out


def interleaved(panels: NDArray[np.uint8], *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return panels of 64, 16 or 1 tokens as aligned weights read them: the four inputs of a token side by side.

    Parameters
    ----------
    panels : uint8[P, inputs, width]          Of 64, 16 or 1 tokens; inputs that fill up the last four are zero bytes.
    out : uint8[P, ceil(inputs / 4), 4 * width] | None   Buffer to fill; None makes one.
    """
    count, inputs, width = panels.shape
    if panels.dtype != np.uint8 or width not in (64, 16, 1):
        raise ValueError(f"panels must be uint8[panels, inputs, 64, 16 or 1], not {panels.dtype} of {panels.shape}")
    shape = (count, -(-inputs // 4), 4 * width)
    if out is None:
        out = aligned_empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out must be uint8 of shape {shape}, not {out.dtype} of {out.shape}")
    whole = inputs // 4
    lanes, four = (width // 16, 4) if width > 1 else (1, 1)
    target = out.reshape(count, -1, four, lanes, four, 4)  # j, lane, i, input
    tokens = panels.reshape(count, inputs, lanes, four, four)  # lane, j, i
    source = tokens[:, : 4 * whole].reshape(count, whole, 4, lanes, four, four)
    target[:, :whole] = source.transpose(0, 1, 4, 3, 5, 2)
    if rest := inputs - 4 * whole:
        target[:, whole] = 0
        target[:, whole, ..., :rest] = tokens[:, 4 * whole :].transpose(0, 3, 2, 4, 1)
    return out


@kernel
def fill_interleaved(codes, out):
    """Bring rows straight into the panels that `interleaved` makes of `panels_of`, of 64 or 16 tokens.

    Parameters
    ----------
    codes : uint8[tokens, inputs]             Inputs are a multiple of four.
    out : uint8[P, inputs / 4, 4 * width]     What lies beyond the tokens stays.
    """
    tokens, inputs = codes.shape
    width = out.shape[2] // 4
    for token in range(tokens):
        panel, place = token // width, token % width
        lane, rest = place // 16, place % 16
        slot = rest // 4 * (width // 4) + 4 * lane + rest % 4
        source = codes.ctypes.data + token * inputs
        target = out.ctypes.data + panel * inputs * width + 4 * slot
        for at in range(0, inputs, 4):
            write_i32(target + at * width, read_i32(source + at))


@kernel
def fill_rows(panels, out):
    """Bring results float32[P, rows, width] into rows float32[tokens, outputs], 16 outputs of a token at a time."""
    width, (tokens, outputs) = panels.shape[2], out.shape
    for first in range(0, outputs, 16):
        last = min(first + 16, outputs)
        for token in range(tokens):
            source = panels.ctypes.data + 4 * (token // width * panels.shape[1] * width + token % width)
            target = out.ctypes.data + 4 * token * outputs
            for row in range(first, last):
                write_f32(target + 4 * row, read_f32(source + 4 * row * width))


def rows_of(panels: NDArray[Any], *, tokens: int, outputs: int | None = None) -> NDArray[Any]:
    """Return results [panels, rows, width] as a new array [tokens, outputs]; extra tokens and rows are dropped."""
    outputs = panels.shape[1] if outputs is None else outputs
    if not 0 <= tokens <= panels.shape[0] * panels.shape[2] or not 0 <= outputs <= panels.shape[1]:
        raise ValueError(f"panels of shape {panels.shape} do not hold {tokens} tokens of {outputs} outputs")
    rows = panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])
    return np.ascontiguousarray(rows[:tokens, :outputs])
