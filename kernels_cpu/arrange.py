"""Activation codes of a few tokens in the order in which the kernels of group-quantized weights read them.

lanes    s8 [tokens][groups + a line][32 * parts]  each group filled up to parts of 32 inputs, and minus the group's sum
groups   u8 [passes][inputs / 16 + 3][side][16]    code + 128: units of 16 inputs, 1, 4 or 16 tokens side by side
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.gemv_groups import side_of, spread_tables
from sparsefab.kernels_cpu.group_weights import GROUP_UNIT, GroupWeights
from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.lane_weights import LaneWeights
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros

__all__ = ["arranged_groups", "arranged_lanes"]

_PART = 32  # inputs of a part
_LINE_BYTES = 64
_SPARE_UNITS = 3  # that a register takes beyond a group of the last inputs

Arranged = tuple[Callable[[], bool], tuple[NDArray[Any], ...]]


def arranged_lanes(weights: LaneWeights, codes: NDArray[np.int8]) -> Arranged:
    """Return what arranges codes int8[tokens, columns], and says whether one is -128; and what a kernel then reads."""
    _, groups, parts, _ = weights.values.shape
    # A line between tokens: with a power of two of inputs, one input of 16 tokens would share one set of the cache.
    spare = -(-_LINE_BYTES // (_PART * parts))
    grouped = aligned_empty((len(codes), groups + spare, _PART * parts), np.int8)
    shifts = np.empty((len(codes), groups), np.int32)
    factor = -int(weights.zeros[0, 0, 0]) if weights.zeros.size == 1 else -1
    return functools.partial(_arrange_lanes, codes, weights.group_size, factor, grouped, shifts), (grouped, shifts)


def arranged_groups(weights: GroupWeights, codes: NDArray[np.int8], level: Level) -> Arranged:
    """Do the same for group-sparse weights; what a kernel reads includes its tables, and room for sums."""
    side = 1 if level is Level.PORTABLE else side_of(len(codes))
    passes = -(-len(codes) // side)
    units = aligned_zeros((passes, weights.columns // GROUP_UNIT + _SPARE_UNITS, side, GROUP_UNIT), np.uint8)
    tables = spread_tables(weights.units, wide=level is Level.AVX512_VNNI)
    sums = aligned_empty((passes, weights.rows, side), np.int32)
    return functools.partial(_arrange_units, codes, units), (tables, units, sums)


@kernel
def _arrange_lanes(codes, group_size, factor, grouped, shifts):
    """Fill groups up with zeros, and sum each, times a factor."""
    least = 0
    for token in range(codes.shape[0]):
        for group in range(shifts.shape[1]):
            begin = group * group_size
            count = min(group_size, codes.shape[1] - begin)
            total = 0
            for i in range(count):
                code = codes[token, begin + i]
                grouped[token, group, i] = code
                total += code
                least = min(least, code)
            grouped[token, group, count:] = 0
            shifts[token, group] = factor * total
    return least < -127


@kernel
def _arrange_units(codes, units):
    side = units.shape[2]
    least = 0
    for token in range(codes.shape[0]):
        for unit in range(codes.shape[1] // 16):
            for i in range(16):
                code = codes[token, 16 * unit + i]
                units[token // side, unit, token % side, i] = code + 128
                least = min(least, code)
    return least < -127
