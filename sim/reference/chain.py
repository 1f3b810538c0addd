"""The meaning of the sparse DSP chain: what a weight beat and a bank of activations give."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["accumulate_tiles", "beat_sums", "fill_banks"]

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
