"""Sums to real results on registers of any width: scales, a residual, and sums a token for a normalization after it.

    y = float32(float32(sum) * row_scale) * token_scale               two binary32 products
    y = y + residual                                                  where there is one
    d = y - y of row 0;  s = s + d;  q = q + d * d                    'moments': row after row, each step rounded
    q = q + y * y                                                     'squares': likewise

Tokens are the lanes, rows come one after the other, so that the sums need no reduction. Counting from the first row's
value keeps the squares of moments from cancelling; RMSNorm wants the squares as they are. The order is fixed: every
level gives the same bits.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import load, splat, store, to_float
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.scalars import read_f32
from sparsefab.kernels_cpu.vector import VectorType

__all__ = ["added_up_of", "real_of"]


@functools.cache
def real_of(floats: VectorType, *, residual: bool) -> Any:
    """Return real(to, layer, row, tokens, x): the results of one row, from sums in order of tokens, stored at `to`."""

    @piece
    def plain(to, layer, row, tokens, x):
        y = to_float(x) * splat(floats, read_f32(layer.row_scales + 4 * row)) * load(floats, tokens)
        store(to, y)
        return y

    @piece
    def added(to, layer, row, tokens, x):
        y = to_float(x) * splat(floats, read_f32(layer.row_scales + 4 * row)) * load(floats, tokens)
        y = y + load(floats, to + layer.residual)
        store(to, y)
        return y

    return added if residual else plain


@functools.cache
def added_up_of(floats: VectorType, *, kind: str) -> Any:
    """Return added_up(layer, row, tokens, a, b, c, d): four rows' results taken into the sums of their tokens."""
    if kind == "squares":
        return _squared_up(floats)
    return _added_up(floats) if kind == "moments" else _nothing


@piece
def _nothing(layer, row, tokens, a, b, c, d):
    pass


def _added_up(floats: VectorType) -> Any:
    @piece
    def added_up(layer, row, tokens, a, b, c, d):
        at = tokens + layer.statistics
        if row == 0:
            store(at, a)
            s = q = a - a
        else:
            s, q = load(floats, at + layer.plane), load(floats, at + 2 * layer.plane)
        first = load(floats, at)
        a, b, c, d = a - first, b - first, c - first, d - first
        store(at + layer.plane, s + a + b + c + d)
        store(at + 2 * layer.plane, q + a * a + b * b + c * c + d * d)

    return added_up


def _squared_up(floats: VectorType) -> Any:
    @piece
    def squared_up(layer, row, tokens, a, b, c, d):
        at = tokens + layer.statistics
        q = a * a if row == 0 else load(floats, at) + a * a
        store(at, q + b * b + c * c + d * d)

    return squared_up
