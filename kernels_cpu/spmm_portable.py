"""Block-sparse s8 weights times u8 activations in plain loops: any architecture, the same panels and results.

Loop order as in the vector kernels: panel, group of four rows, quad, row, token; LLVM vectorizes over the tokens.
Sums live in the layer's scratch, int32[4, 64] a task, because a kernel allocates nothing.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.scalars import read_f32, read_i8, read_i16, read_i32, read_i64, read_u8, write_f32, write_i32

__all__ = ["spmm"]


@functools.cache
def spmm(*, aligned: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output, not interleaved.

    Parameters
    ----------
    aligned : bool               As in `spmm_vnni.spmm`.
    output : Output              What the epilogue stores.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of any width up to 64.
    """
    return _assemble(_add_aligned if aligned else _add_lines, _epilogue(output))


def _assemble(add: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_portable(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        width, sums = out.shape[2], layer.scratch + 1024 * task
        for panel in range(first_panel, last_panel):
            lines = activations[panel]
            for group in range(first_group, last_group):
                for r in range(4):
                    begin = read_i32(layer.start + 16 * group + 4 * r)
                    for t in range(width):
                        write_i32(sums + 256 * r + 4 * t, begin)
                at = layer.pointers + 8 * group
                for quad in range(16 * read_i64(at), 16 * read_i64(at + 8), 16):
                    add(sums, lines, layer, quad, width)
                for r in range(4):
                    row = 4 * group + r
                    epilogue(out[panel, row], layer, token_scales, width * panel, row, sums + 256 * r)

    return spmm_portable


@piece
def _add_lines(sums, lines, layer, quad, width):
    """Add a quad of four lines, in order of tokens."""
    at = layer.offsets + quad
    k0, k1 = lines[read_i32(at) >> 6], lines[read_i32(at + 4) >> 6]
    k2, k3 = lines[read_i32(at + 8) >> 6], lines[read_i32(at + 12) >> 6]
    for r in range(4):
        at = layer.values + quad + 4 * r
        w0, w1 = np.int32(read_i8(at)), np.int32(read_i8(at + 1))
        w2, w3 = np.int32(read_i8(at + 2)), np.int32(read_i8(at + 3))
        for t in range(width):
            at = sums + 256 * r + 4 * t
            low = w0 * np.int32(k0[t]) + w1 * np.int32(k1[t])
            write_i32(at, read_i32(at) + low + (w2 * np.int32(k2[t]) + w3 * np.int32(k3[t])))


@piece
def _add_aligned(sums, lines, layer, quad, width):
    """Add four consecutive inputs: dword 4 lanes j + 4 L + i of a line holds token 16 L + 4 j + i."""
    lanes = width // 16
    line = lines[read_i32(layer.offsets + (quad >> 2)) >> 8]
    for r in range(4):
        at = layer.values + quad + 4 * r
        w0, w1, w2, w3 = read_i8(at), read_i8(at + 1), read_i8(at + 2), read_i8(at + 3)
        for t in range(width):
            k = 4 * (4 * lanes * (t % 16 // 4) + 4 * (t // 16) + t % 4)
            at = sums + 256 * r + 4 * t
            write_i32(at, read_i32(at) + w0 * line[k] + w1 * line[k + 1] + w2 * line[k + 2] + w3 * line[k + 3])


def _epilogue(output: Output) -> Any:
    """Return epilogue(to, layer, token_scales, token, row, sums)."""
    if output.kind == "s32":
        return _store_sums
    if output.kind == "f32":
        return _reals(_plus_residual if output.residual else _zero, _ADDED_UP[output.statistics])
    return _codes(_looked_up if output.lookup else _same)


@piece
def _store_sums(to, layer, token_scales, token, row, sums):
    for t in range(to.size):
        to[t] = read_i32(sums + 4 * t)


def _reals(residual: Any, statistics: Any) -> Any:
    @piece
    def epilogue(to, layer, token_scales, token, row, sums):
        scale = read_f32(layer.row_scales + 4 * row)
        for t in range(to.size):
            y = np.float32(np.float32(read_i32(sums + 4 * t)) * scale) * token_scales[token + t]
            to[t] = residual(y, layer, to.ctypes.data + 4 * t)
            at = token_scales.ctypes.data + 4 * (token + t)
            statistics(layer, at + layer.statistics, row, to[t])

    return epilogue


@piece
def _zero(y, layer, at):
    return y


@piece
def _plus_residual(y, layer, at):
    return y + read_f32(at + layer.residual)


@piece
def _leave(layer, at, row, y):
    pass


@piece
def _add_up(layer, at, row, y):
    """Take a result into the sums of its token, in the order of `reals`."""
    if row == 0:
        write_f32(at, y)
        write_f32(at + layer.plane, np.float32(0))
        write_f32(at + 2 * layer.plane, np.float32(0))
    d = y - read_f32(at)
    write_f32(at + layer.plane, read_f32(at + layer.plane) + d)
    write_f32(at + 2 * layer.plane, read_f32(at + 2 * layer.plane) + d * d)


@piece
def _square_up(layer, at, row, y):
    write_f32(at, y * y if row == 0 else read_f32(at) + y * y)


_ADDED_UP = {"": _leave, "moments": _add_up, "squares": _square_up}


def _codes(lookup: Any) -> Any:
    @piece
    def epilogue(to, layer, token_scales, token, row, sums):
        """Store codes by the house's requantization; the half that rounds the shift is in the sum."""
        shift, multiplier = read_i32(layer.shifts + 4 * row), read_i16(layer.multipliers + 2 * row)
        for t in range(to.size):
            x = read_i32(sums + 4 * t)
            x = x >> shift if shift >= 0 else x << -shift
            y = ((min(max(x, -32768), 32767) * multiplier + 16384) >> 15) + layer.rounding
            to[t] = lookup(layer, min(max(min(max(y, -32768), 32767) >> 6, layer.code_min), layer.code_max))

    return epilogue


@piece
def _same(layer, code):
    return code


@piece
def _looked_up(layer, code):
    return read_u8(layer.lookup + (code & 255))
