"""Epilogues of the 512-bit kernels: what becomes of the 16 accumulators of four rows and 64 tokens.

Accumulator j of a row holds, in lane L and dword i, token 16 L + 4 j + i.  Packs work inside lanes, so that packing
the four accumulators of a row restores the order of tokens for nothing; sums and reals take a transpose of lanes.
Packing the four rows of one j instead gives the interleaved form that aligned 4x4 kernels read.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

from typing import Any

from sparsefab.kernels_cpu.intrinsics import broadcast, pack_i8, pack_i16, pack_u8, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.reals import added_up_of, real_of
from sparsefab.kernels_cpu.requantizing import finished_of, scaled_of, shifted_of
from sparsefab.kernels_cpu.shuffles import load_lanes, transpose_bytes, transpose_lanes
from sparsefab.kernels_cpu.vector import f32x16, i8x64, i16x32, i32x16

__all__ = ["epilogue_of"]

_shifted_16 = shifted_of(i32x16)
_scaled = scaled_of(i16x32)


def epilogue_of(output: Output, *, permute: bool) -> Any:
    """Return epilogue(to, row_bytes, layer, tokens, row, a, b, c, d) for one kind of output.

    Parameters
    ----------
    permute : bool               Whether vpermi2b is there for tables.
    """
    if output.kind == "s32":
        return _by_rows(_store_sums)
    if output.kind == "f32":
        return _reals(real_of(f32x16, residual=output.residual), added_up_of(f32x16, kind=output.statistics))
    finished = finished_of(i8x64, signed=output.kind == "s8", lookup=output.lookup, permute=permute)
    if output.kind == "interleaved":
        return _interleaved(finished)
    return _by_rows(_codes(pack_u8 if output.kind == "u8" else pack_i8, finished))


def _by_rows(store_row: Any) -> Any:
    """Make the epilogue of a group from that of a row."""

    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d):
        store_row(to, layer, row, a)
        store_row(to + row_bytes, layer, row + 1, b)
        store_row(to + 2 * row_bytes, layer, row + 2, c)
        store_row(to + 3 * row_bytes, layer, row + 3, d)

    return epilogue


@piece
def _store_sums(to, layer, row, x):
    t0, t1, t2, t3 = transpose_lanes(x[0], x[1], x[2], x[3])
    store(to, t0)
    store(to + 64, t1)
    store(to + 128, t2)
    store(to + 192, t3)


def _reals(real: Any, added_up: Any) -> Any:
    @piece
    def of_row(to, layer, row, tokens, x):
        t0, t1, t2, t3 = transpose_lanes(x[0], x[1], x[2], x[3])
        y0, y1 = real(to, layer, row, tokens, t0), real(to + 64, layer, row, tokens + 64, t1)
        return y0, y1, real(to + 128, layer, row, tokens + 128, t2), real(to + 192, layer, row, tokens + 192, t3)

    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d):
        a0, a1, a2, a3 = of_row(to, layer, row, tokens, a)
        b0, b1, b2, b3 = of_row(to + row_bytes, layer, row + 1, tokens, b)
        c0, c1, c2, c3 = of_row(to + 2 * row_bytes, layer, row + 2, tokens, c)
        d0, d1, d2, d3 = of_row(to + 3 * row_bytes, layer, row + 3, tokens, d)
        added_up(layer, row, tokens, a0, b0, c0, d0)
        added_up(layer, row, tokens + 64, a1, b1, c1, d1)
        added_up(layer, row, tokens + 128, a2, b2, c2, d2)
        added_up(layer, row, tokens + 192, a3, b3, c3, d3)

    return epilogue


@piece
def _shifted(layer, row, x):
    x0, x1, x2, x3 = x
    x0, x1 = _shifted_16(layer, row, x0), _shifted_16(layer, row, x1)
    return x0, x1, _shifted_16(layer, row, x2), _shifted_16(layer, row, x3)


def _codes(pack: Any, finished: Any) -> Any:
    @piece
    def store_row(to, layer, row, x):
        """Store the 64 codes of a row."""
        x0, x1, x2, x3 = _shifted(layer, row, x)
        multiplier = broadcast(i16x32, layer.multiplier_lanes + 8 * row)
        low, high = _scaled(layer, pack_i16(x0, x1), multiplier), _scaled(layer, pack_i16(x2, x3), multiplier)
        store(to, finished(layer, pack(low, high)))

    return store_row


def _interleaved(finished: Any) -> Any:
    @piece
    def of_16(to, layer, a, b, c, d, ab, cd):
        low, high = _scaled(layer, pack_i16(a, b), ab), _scaled(layer, pack_i16(c, d), cd)
        store(to, transpose_bytes(finished(layer, pack_u8(low, high))))

    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d):
        """Store u8 codes as [16 tokens][4 rows] for each j: four rows are four consecutive inputs of the next layer."""
        a0, a1, a2, a3 = _shifted(layer, row, a)
        b0, b1, b2, b3 = _shifted(layer, row + 1, b)
        c0, c1, c2, c3 = _shifted(layer, row + 2, c)
        d0, d1, d2, d3 = _shifted(layer, row + 3, d)
        at = layer.multiplier_lanes + 8 * row
        ab, cd = load_lanes(i16x32, at), load_lanes(i16x32, at + 16)
        of_16(to, layer, a0, b0, c0, d0, ab, cd)
        of_16(to + 64, layer, a1, b1, c1, d1, ab, cd)
        of_16(to + 128, layer, a2, b2, c2, d2, ab, cd)
        of_16(to + 192, layer, a3, b3, c3, d3, ab, cd)

    return epilogue
