"""The meaning of the sparse DSP chain: what a weight beat and a bank of activations give."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["accumulate_parts", "accumulate_tiles", "beat_parts", "beat_sums", "fill_banks"]

Integers = NDArray[np.int64]


@njit(cache=True)
def beat_sums(
    weights: Integers, seconds: Integers, indices: Integers, tile_of_beat: Integers, banks: Integers, vector: Integers
) -> Integers:
    """Sum weight times selected activation over the DSPs of a chain.

    Parameters
    ----------
    weights, seconds : int64[beats, dsps]      Signed weights, 0 in unused slots; `seconds` of a second row.
    indices : int64[beats, dsps]               Which activation of its bank each weight meets.
    tile_of_beat : int64[beats]                The bank contents in force.
    banks : int64[tiles, dsps, block, lanes]   Activations, one token a lane.
    vector : int64[tiles]                      1: lane 1 is the second row with the token of lane 0; 0: the first row
                                               with the token of lane 1.

    Returns
    -------
    int64[beats, lanes]
    """
    sums = np.zeros((weights.shape[0], banks.shape[3]), dtype=np.int64)
    for beat in range(weights.shape[0]):
        tile = tile_of_beat[beat]
        for dsp in range(weights.shape[1]):
            activations = banks[tile, dsp, indices[beat, dsp]]
            sums[beat, 0] += weights[beat, dsp] * activations[0]
            if vector[tile]:
                sums[beat, 1] += seconds[beat, dsp] * activations[0]
            else:
                sums[beat, 1] += weights[beat, dsp] * activations[1]
    return sums


@njit(cache=True)
def beat_parts(
    weights: Integers,
    seconds: Integers,
    indices: Integers,
    tile_of_beat: Integers,
    banks: Integers,
    vector: Integers,
    starts: Integers,
    segment: int,
) -> tuple[Integers, Integers]:
    """Sum as `beat_sums`, but of each row that shares the beat apart.

    Parameters
    ----------
    weights, seconds, indices, tile_of_beat, banks, vector
                                               As for `beat_sums`.
    starts : int64[beats, groups]              1: a row starts at this group of DSPs; at most one in a segment.
    segment : int                              DSPs of a segment.

    Returns
    -------
    (int64[beats, parts, lanes], int64[beats, parts])
                                               Sums, 0 where unused, and which are used: as many as starts, and one.
                                               All but the last end their row. Part 0 ends a row of an earlier beat, the
                                               last goes on; one from segment i to segment j is part b, i < b <= j, b
                                               the one with the most trailing zero bits.
    """
    dsps = weights.shape[1]
    parts = dsps // segment + 1
    sums = np.zeros((weights.shape[0], parts, banks.shape[3]), dtype=np.int64)
    used = np.zeros((weights.shape[0], parts), dtype=np.int64)
    group = dsps // starts.shape[1]
    for beat in range(weights.shape[0]):
        tile = tile_of_beat[beat]
        lower, upper, since = 0, 0, -1
        for dsp in range(dsps):
            if dsp % group == 0 and starts[beat, dsp // group]:
                part, here = 0, dsp // segment
                if since >= 0:
                    step = 1
                    while here // (2 * step) * (2 * step) > since:
                        step *= 2
                    part = here // step * step
                sums[beat, part, 0], sums[beat, part, 1], used[beat, part] = lower, upper, 1
                lower, upper, since = 0, 0, here
            activations = banks[tile, dsp, indices[beat, dsp]]
            lower += weights[beat, dsp] * activations[0]
            upper += seconds[beat, dsp] * activations[0] if vector[tile] else weights[beat, dsp] * activations[1]
        sums[beat, parts - 1, 0], sums[beat, parts - 1, 1], used[beat, parts - 1] = lower, upper, 1
    return sums, used


@njit(cache=True)
def fill_banks(activations: Integers, slots: int, dsps: int, block: int) -> Integers:
    """Lay activations out as the DSPs' banks: DSP d of a tile holds block d // slots.

    Parameters
    ----------
    activations : int64[lanes, inputs]         One token a lane.
    slots, dsps, block : int                   As in the chain layout.

    Returns
    -------
    int64[tiles, dsps, block, lanes]           Zero where a DSP or an input is unused.
    """
    lanes, inputs = activations.shape
    blocks = dsps // slots
    tiles = (inputs + blocks * block - 1) // (blocks * block)
    banks = np.zeros((tiles, dsps, block, lanes), dtype=np.int64)
    for tile in range(tiles):
        for dsp in range(blocks * slots):
            first = (tile * blocks + dsp // slots) * block
            for index in range(min(block, inputs - first)):
                for lane in range(lanes):
                    banks[tile, dsp, index, lane] = activations[lane, first + index]
    return banks


@njit(cache=True)
def accumulate_tiles(sums: Integers, rows: int) -> Integers:
    """Add partial sums, int64[tiles * rows, lanes] with rows innermost, to int64[lanes, rows]."""
    result = np.zeros((sums.shape[1], rows), dtype=np.int64)
    for beat in range(sums.shape[0]):
        for lane in range(sums.shape[1]):
            result[lane, beat % rows] += sums[beat, lane]
    return result


@njit(cache=True)
def accumulate_parts(sums: Integers, used: Integers, tile_of_beat: Integers, rows: int) -> Integers:
    """Add the parts of `beat_parts` to int64[lanes, rows]; every tile starts at row 0."""
    result = np.zeros((sums.shape[2], rows), dtype=np.int64)
    row = 0
    for beat in range(sums.shape[0]):
        if beat == 0 or tile_of_beat[beat] != tile_of_beat[beat - 1]:
            row = 0
        for part in range(sums.shape[1]):
            if used[beat, part]:
                for lane in range(sums.shape[2]):
                    result[lane, row] += sums[beat, part, lane]
                if part + 1 < sums.shape[1]:
                    row += 1
    return result
