"""Cycles of chains and of arrays of chains, from their dataflow; vectorized over layers.

A tile of floor(L / slots) * 16 inputs sits in the activation banks while the rows' weight beats pass, one a cycle; a
partial sum a (tile, row, token) comes out. The next tile's activations are written into the other bank meanwhile, so
that a tile never lasts less than that takes. Chains of an array share the activations and run in step: in a beat each
does a row for two tokens, or two rows for one token.

    single = max(beats, fill)       pair = max(2 beats, 2 fill, beats + fill + segment + 2)
    layer  = fill + pairs of tiles * pair (+ single for an odd one) + beats of the last + latency + handshakes

A left bank is still read by the skewed DSPs for a segment's length before it may be written: hence the pair. More rows
than the accumulators hold are done in parts, the last one shorter; then tile after tile is followed. Counted in
Verilator: `data/rtl.toml` for chains, `data/array_cycles.csv` for arrays.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import AcceleratorArch, ArrayArch, ChainArch

__all__ = ["ArrayCycles", "accelerator_cycles", "array_cycles", "chain_cycles"]

Floats = NDArray[np.float64]

_HANDSHAKE_CYCLES = 3  # bank complete -> first beat, and the output FIFO: counted in Verilator
_ACCUMULATE_CYCLES = 7  # from a sum of a final tile to its result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayCycles:
    """Cycles of each layer, float64[layers]: all, those with a weight beat, and the rest (fill, drain, bubbles)."""

    total: Floats
    beats: Floats
    fill: Floats

    def least(self, other: "ArrayCycles", allowed: NDArray[np.bool_]) -> "ArrayCycles":
        """Layer by layer the other, where it is allowed and takes less."""
        better = allowed & (other.total < self.total)
        return ArrayCycles(
            total=np.where(better, other.total, self.total),
            beats=np.where(better, other.beats, self.beats),
            fill=np.where(better, other.fill, self.fill),
        )


def chain_cycles(chain: ChainArch, rows: Floats, columns: Floats, slots: Floats, tokens: Floats) -> ArrayCycles:
    """Return the cycles of one chain that does whole products [tokens, columns] x [columns, rows].

    Every segment's bank is written by itself, and sums leave without accumulators.

    Parameters
    ----------
    rows, columns, slots, tokens : float64[layers]      `slots` stored weights a block of 16 inputs; 16 is dense.
    """
    fill = np.full_like(rows, float(chain.fill_beats()))
    tiles = np.ceil(tokens / chain.lanes) * _tiles(chain, columns, slots)
    return _cycles(tiles, rows, fill, _until_last(chain, rows, fill, tiles), rows, chain.latency_cycles)


def array_cycles(
    array: ArrayArch, rows: Floats, columns: Floats, slots: Floats, passes: Floats, *, vector: bool = False
) -> ArrayCycles:
    """Return the cycles of one array of chains.

    Parameters
    ----------
    rows, columns, slots : float64[layers]
    passes : float64[layers]        Times that the whole matrix passes: pairs of tokens, in `vector` mode tokens.
    vector : bool                   Two rows a DSP, not two tokens.
    """
    chain, held = array.chain, float(array.accumulators.rows)
    beats = np.ceil(rows / (array.chains * (chain.lanes if vector else 1)))
    blocks = np.ceil(columns / chain.block)
    together = np.where(np.mod(slots, chain.segment) == 0, slots // chain.segment, 1.0)
    used = np.ceil(np.minimum(blocks, chain.dsps // slots) * slots / chain.segment)
    fill = np.where(slots == chain.block, used, chain.block * np.ceil(used / together))  # `ChainArch.tile_fill`
    tiles = _tiles(chain, columns, slots)
    before = _until_last(chain, np.minimum(beats, held), fill, passes * tiles * np.ceil(beats / held))
    for index in np.flatnonzero((beats > held) & (np.mod(beats, held) > 0)):
        shape = (int(value[index]) for value in (beats, fill, tiles, passes))
        before[index] = _followed(chain, int(held), *shape)
    last = np.where(np.mod(beats, held) > 0, np.mod(beats, held), held)
    latency = chain.latency_cycles + _ACCUMULATE_CYCLES
    return _cycles(passes * tiles, beats, fill, before, last, latency)


def accelerator_cycles(
    arch: AcceleratorArch,
    rows: Floats,
    columns: Floats,
    slots: Floats,
    tokens: Floats,
    copies: Floats,
    paired: NDArray[np.bool_],
) -> ArrayCycles:
    """Return the cycles of all cores, each an array of its chains, in the mode that takes fewer.

    Copies are spread over the cores; where there are fewer copies than cores, rows are, too.

    Parameters
    ----------
    rows, columns, slots, tokens, copies : float64[layers]
        `copies` are independent products of the same shape: groups of a convolution, heads of an attention.
    paired : bool[layers]           Two rows can share a DSP: they store the same positions.
    """
    abreast = np.minimum(copies, arch.cores)
    rounds, own = np.ceil(copies / abreast), np.ceil(rows / np.floor(arch.cores / abreast))
    core, lanes = arch.core, arch.chain.lanes
    matrix = array_cycles(core, own, columns, slots, np.ceil(tokens / lanes) * rounds)
    if not arch.chain.matrix_vector:
        return matrix
    return matrix.least(array_cycles(core, own, columns, slots, tokens * rounds, vector=True), paired)


def _tiles(chain: ChainArch, columns: Floats, slots: Floats) -> Floats:
    return np.asarray(np.ceil(columns / (np.floor(chain.dsps / slots) * chain.block)))


def _until_last(chain: ChainArch, beats: Floats, fill: Floats, tiles: Floats) -> Floats:
    """Cycles from the first tile's first beat to the last tile's, when all have as many beats."""
    single = np.maximum(beats, fill)
    pair = np.maximum(2.0 * single, beats + fill + chain.segment + 2.0)
    starts = np.maximum(tiles - 1.0, 0.0)
    return np.asarray(np.floor(starts / 2.0) * pair + np.mod(starts, 2.0) * single)


@lru_cache(maxsize=4096)
def _followed(chain: ChainArch, held: int, beats: int, fill: int, tiles: int, passes: int) -> float:
    """The same where a pass has `tiles` tiles for every `held` rows, and then `tiles` shorter ones.

    What a bank does depends on the one before, so runs of equal tiles, and passes, repeat two by two after a few: those
    few are followed, the others multiplied.
    """
    State = tuple[float, float, float]  # cycles at which the newest bank was filled, it was read, the other was read

    def run(state: State, length: int, count: int) -> State:
        followed = min(count, 6 + count % 2)
        for _ in range(followed):
            filled = max(state[0], state[2] + chain.segment + 1) + fill
            state = (filled, max(state[1], filled + 1) + length, state[1])
        pair = max(2 * length, 2 * fill, length + fill + chain.segment + 2)
        later = (count - followed) // 2 * pair
        return state[0] + later, state[1] + later, state[2] + later

    whole, rest = divmod(beats, held)
    followed = min(passes, 4 + passes % 2)
    state: State = (0.0, 0.0, -2.0 * (chain.segment + 1))
    ends = []
    for _ in range(followed):
        state = run(run(state, held, whole * tiles), rest, tiles)
        ends.append(state[1])
    later = (passes - followed) // 2 * (ends[-1] - ends[-3]) if passes > followed else 0.0
    return ends[-1] + later - rest - (fill + 1)


def _cycles(tiles: Floats, beats: Floats, fill: Floats, before: Floats, last: Floats, latency: int) -> ArrayCycles:
    """Sum up: the first bank, all tiles but the last, the last one's beats, and what its last sum has before it."""
    total, busy = fill + before + last + latency + _HANDSHAKE_CYCLES, tiles * beats
    return ArrayCycles(total=total, beats=busy, fill=total - busy)
