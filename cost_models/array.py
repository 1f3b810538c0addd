"""Cycles of the array of chains, from its dataflow; vectorized over layers.

A tile of floor(L / slots) * 16 inputs sits in the activation banks while the rows' weight beats pass, one a cycle; a
partial sum a (tile, row, token) comes out. The next tile's activations are written into the other bank meanwhile,
`fill_beats` of them, so a tile never lasts less. Two tokens share a pass.

    single = max(rows, fill)        pair = max(2 rows, 2 fill, rows + fill + segment + 2)
    layer  = fill + pairs of tiles * pair (+ single for an odd one) + rows of the last + latency + handshakes

A left bank is still read by the skewed DSPs for a segment's length before it may be written: hence the pair.
One chain is exact against its RTL; rows (and, for few rows, tiles) are spread over the chains.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import AcceleratorArch, ChainArch

__all__ = ["ArrayCycles", "array_cycles", "chain_cycles"]

Floats = NDArray[np.float64]

_HANDSHAKE_CYCLES = 3  # bank complete -> first beat, and the output FIFO: counted in Verilator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayCycles:
    """Cycles of each layer, float64[layers]: all, those with a weight beat, and the rest (fill, drain, bubbles)."""

    total: Floats
    beats: Floats
    fill: Floats


def chain_cycles(chain: ChainArch, rows: Floats, columns: Floats, slots: Floats, tokens: Floats) -> ArrayCycles:
    """Return the cycles of one chain that does whole products [tokens, columns] x [columns, rows].

    Parameters
    ----------
    rows, columns, slots, tokens : float64[layers]      `slots` stored weights a block of 16 inputs; 16 is dense.
    """
    return _cycles(chain, rows, _tiles(chain, columns, slots), np.ceil(tokens / chain.lanes))


def array_cycles(
    arch: AcceleratorArch, rows: Floats, columns: Floats, slots: Floats, tokens: Floats, copies: Floats
) -> ArrayCycles:
    """Return the cycles of the whole array.

    Rows are spread over all chains. Where that leaves a chain less than a bank's refill, chains share out the tiles
    as well and their partial sums are added; the best split into powers of two is taken. `copies` are independent
    products of the same shape (groups of a convolution, heads of an attention), spread over the chains first.

    Parameters
    ----------
    rows, columns, slots, tokens, copies : float64[layers]
    """
    chains = arch.cores * arch.chains_per_core
    abreast = np.minimum(copies, chains)
    rounds, left = np.ceil(copies / abreast), np.floor(chains / abreast)
    tiles, passes = _tiles(arch.chain, columns, slots), np.ceil(tokens / arch.chain.lanes)
    best: ArrayCycles | None = None
    split = 1
    while split <= chains:
        shared = np.minimum(float(split), np.minimum(left, tiles))
        lanes = np.maximum(np.floor(left / shared), 1.0)
        option = _cycles(arch.chain, np.ceil(rows / lanes), np.ceil(tiles / shared), passes * rounds)
        if best is None:
            best = option
        else:
            better = option.total < best.total
            best = ArrayCycles(
                total=np.where(better, option.total, best.total),
                beats=np.where(better, option.beats, best.beats),
                fill=np.where(better, option.fill, best.fill),
            )
        split *= 2
    assert best is not None  # the loop runs at least once
    return best


def _tiles(chain: ChainArch, columns: Floats, slots: Floats) -> Floats:
    return np.asarray(np.ceil(columns / (np.floor(chain.dsps / slots) * chain.block)))


def _cycles(chain: ChainArch, rows: Floats, tiles: Floats, passes: Floats) -> ArrayCycles:
    refill = float(chain.fill_beats())
    beats = passes * tiles * rows
    single = np.maximum(rows, refill)
    pair = np.maximum(2.0 * single, rows + refill + chain.segment + 2.0)
    starts = np.maximum(passes * tiles - 1.0, 0.0)  # tiles that start before the last one does
    last = np.floor(starts / 2.0) * pair + np.mod(starts, 2.0) * single
    total = refill + last + rows + chain.latency_cycles + _HANDSHAKE_CYCLES
    return ArrayCycles(total=total, beats=beats, fill=total - beats)
