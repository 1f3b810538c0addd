"""Stimuli of the benches: random ones that reach the corners, and real packed weights with activation codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import ChainArch
from sparsefab.formats import Chain, ChainRows, PackedTensor
from sparsefab.formats.bits import unpack_bits
from sparsefab.sim.reference.chain import beat_parts, beat_sums, fill_banks

__all__ = [
    "OTHER_SLOTS",
    "SLOTS",
    "ChainStimuli",
    "chain_kinds",
    "packed_stimuli",
    "random_stimuli",
    "steady_stimuli",
]

SLOTS: Final = (0, 1, 2, 4, 8, 16)  # N of N:16 that random stimuli take
OTHER_SLOTS: Final = (3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15)  # and sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChainStimuli:
    """What goes into a chain, in order.

    weights, seconds : int64[beats, dsps]     indices : int64[beats, dsps]
    tile_of_beat : int64[beats]               Ascending from 0; a tile has at least one beat.
    banks : int64[tiles, dsps, block, lanes]  Activations.
    vector : int64[tiles]                     1: two rows share a DSP with the token of lane 0; `seconds` are lane 1's.
    slots : int64[tiles]                      N of N:16, for the coverage report.
    starts : int64[beats, groups] | None      1: a row starts at this group of two DSPs; None: rows take whole beats.
    """

    weights: NDArray[np.int64]
    seconds: NDArray[np.int64]
    indices: NDArray[np.int64]
    tile_of_beat: NDArray[np.int64]
    banks: NDArray[np.int64]
    vector: NDArray[np.int64]
    slots: NDArray[np.int64]
    starts: NDArray[np.int64] | None = None

    @property
    def beats(self) -> int:
        """Weight beats."""
        return int(self.weights.shape[0])

    @property
    def last(self) -> NDArray[np.bool_]:
        """bool[beats]: the last beat of a tile."""
        return np.append(np.diff(self.tile_of_beat) != 0, True)

    def expected(self) -> NDArray[np.int64]:
        """int64[beats, lanes]: the reference's sums."""
        return np.asarray(
            beat_sums(self.weights, self.seconds, self.indices, self.tile_of_beat, self.banks, self.vector)
        )

    def expected_parts(self, segment: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[beats, parts, lanes], int64[beats, parts]: the reference's sums of the rows of each beat."""
        if self.starts is None:
            raise ValueError("starts must be given for parts of beats")
        operands = (self.weights, self.seconds, self.indices, self.tile_of_beat, self.banks, self.vector)
        sums, used = beat_parts(*operands, self.starts, segment)
        return np.asarray(sums), np.asarray(used)

    def kinds(self) -> list[str]:
        """What each beat exercises, as `chain_kinds` names it."""
        names = [_kind(int(n), int(vector)) for n, vector in zip(self.slots, self.vector, strict=True)]
        return [names[tile] for tile in self.tile_of_beat]

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """The fields by name, for the process that runs inside the simulator."""
        starts = {} if self.starts is None else {"starts": self.starts}
        return starts | {
            "weights": self.weights,
            "seconds": self.seconds,
            "indices": self.indices,
            "tile_of_beat": self.tile_of_beat,
            "banks": self.banks,
            "vector": self.vector,
            "slots": self.slots,
        }

    @staticmethod
    def load(path: Path) -> "ChainStimuli":
        """Read an archive of `arrays`."""
        with np.load(path) as archive:
            return ChainStimuli(**{name: archive[name] for name in archive.files})


def chain_kinds(arch: ChainArch, slots: tuple[int, ...]) -> tuple[str, ...]:
    """Every mode with every N of `slots`: what random stimuli must have exercised."""
    return tuple(_kind(n, vector) for vector in range(arch.weight_rows) for n in slots)


def _kind(n: int, vector: int) -> str:
    return f"{'vector' if vector else 'matrix'} {n}:16"


def random_stimuli(
    arch: ChainArch, *, beats: int, slots: tuple[int, ...], seed: int, others: tuple[int, ...] = ()
) -> ChainStimuli:
    """Tiles of random length whose blocks store at most N weights, N drawn from `slots`; one weight in four is extreme.

    The first tile, and with arch.matrix_vector the second, is the corner that fills both lanes: all -128 times all
    -128, then times 127. Every N in every mode comes once, in short tiles, before any comes twice; of the tiles after
    these one in two has an N of `others`.
    """
    random = np.random.default_rng(seed)
    low_w, low_a = -(1 << (arch.weight_bits - 1)), -(1 << (arch.activation_bits - 1))
    kinds = [(n, vector) for n in slots for vector in range(arch.weight_rows)]
    weights: list[NDArray[np.int64]] = []
    indices: list[NDArray[np.int64]] = []
    tiles: list[NDArray[np.int64]] = []
    banks: list[NDArray[np.int64]] = []
    modes: list[tuple[int, int]] = []
    order = [(arch.block, vector) for vector in range(arch.weight_rows)]
    order += [kinds[k] for k in random.permutation(len(kinds))]
    count = 0
    while count < beats:
        corner, first = len(banks) < arch.weight_rows, len(banks) < len(order)
        longest = min(2 * arch.fill_beats(), max(beats // len(order), 1) if first else beats)
        rows = min(int(random.integers(longest)) + 1, beats - count)
        n, vector = order[len(banks)] if first else kinds[random.integers(len(kinds))]
        if not first and others and random.random() < 0.5:
            n = others[random.integers(len(others))]
        both = random.integers(low_w, -low_w, (2, rows, arch.dsps))
        extreme = random.random(both.shape) < 0.25
        both = np.where(extreme, random.choice([low_w, -low_w - 1], both.shape), both)
        positions = random.integers(0, arch.block, (rows, arch.dsps))
        # DSPs that serve a block; the rest holds weight 0, index 0. Short chains serve no whole dense block
        served = n * max(arch.dsps // n, 1) if n else 0
        both[:, :, served:], positions[:, served:] = 0, 0
        bank = random.integers(low_a, -low_a, (arch.dsps, arch.block, arch.lanes))
        bank = np.where(random.random(bank.shape) < 0.25, random.choice([low_a, -low_a - 1], bank.shape), bank)
        if n:
            bank = bank[np.minimum(np.arange(arch.dsps) // n * n, arch.dsps - 1)]  # N DSPs hold the same block
        if corner:
            both[:], bank[:] = low_w, low_a
            both[:, 1::2] = -low_w - 1
        weights.append(both)
        indices.append(positions)
        tiles.append(np.full(rows, len(banks)))
        banks.append(bank)
        modes.append((n, vector))
        count += rows
    first, second = np.concatenate(weights, axis=1)
    lengths = random.integers(1, 2 * arch.dsps // arch.group, count * arch.segments + len(banks)) if arch.ends else None
    tile_of_beat = np.concatenate(tiles)
    return ChainStimuli(
        weights=first,
        seconds=second,
        indices=np.concatenate(indices),
        tile_of_beat=tile_of_beat,
        banks=np.stack(banks),
        vector=np.array([vector for _, vector in modes]),
        slots=np.array([n for n, _ in modes]),
        starts=None if lengths is None else _starts(arch, tile_of_beat, lengths),
    )


def _starts(arch: ChainArch, tile_of_beat: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lay rows of so many groups back to back; where a segment holds a start already, a row waits for the next one."""
    groups = arch.dsps // arch.group
    starts = np.zeros((len(tile_of_beat), groups), np.int64)
    rows = iter(lengths.tolist())
    for tile in range(int(tile_of_beat[-1]) + 1):
        beats = np.flatnonzero(tile_of_beat == tile)
        place, since = 0, -1  # of the row's start, and the segment that holds it
        while True:
            place += next(rows)
            if place // arch.segment_groups == since:
                place = (since + 1) * arch.segment_groups
            if place >= len(beats) * groups:
                break
            starts[beats[0] + place // groups, place % groups] = 1
            since = place // arch.segment_groups
    return starts


def steady_stimuli(arch: ChainArch, *, tiles: int, seed: int) -> ChainStimuli:
    """Dense tiles twice as long as a bank takes to fill, modes in turn: what utilisation is measured on.

    With arch.ends a row starts in every segment.
    """
    random = np.random.default_rng(seed)
    rows = 2 * arch.fill_beats()
    shape = (tiles * rows, arch.dsps)
    tile_of_beat = np.repeat(np.arange(tiles), rows)
    shortest = np.ones(tiles * rows * arch.segments + tiles, np.int64)
    return ChainStimuli(
        weights=random.integers(-127, 128, shape),
        seconds=random.integers(-127, 128, shape),
        indices=random.integers(0, arch.block, shape),
        tile_of_beat=tile_of_beat,
        banks=random.integers(-128, 128, (tiles, arch.dsps, arch.block, arch.lanes)),
        vector=np.arange(tiles) % arch.weight_rows,
        slots=np.full(tiles, arch.block),
        starts=_starts(arch, tile_of_beat, shortest) if arch.ends else None,
    )


def packed_stimuli(
    arch: ChainArch, packed: PackedTensor, activations: NDArray[np.integer], *, max_beats: int | None = None
) -> ChainStimuli:
    """Feed a packed weight matrix and activation codes.

    Parameters
    ----------
    arch : ChainArch
    packed : PackedTensor            In a Chain layout of arch.dsps, where pairs of rows need arch.matrix_vector, or in
                                     ChainRows, which needs arch.ends.
    activations : int[tokens, in]    Signed codes; tokens go two by two through the lanes, an odd last one with zeros,
                                     or one by one when the lanes are a pair of rows.
    max_beats : int | None           Stop after the tiles that fit; None = all.

    Returns
    -------
    ChainStimuli                     Tokens or token pairs outermost, then tiles, then rows or row pairs.
    """
    layout = packed.layout
    if not isinstance(layout, Chain | ChainRows) or layout.dsps != arch.dsps:
        raise ValueError(f"packed must be in the chain layout of {arch.dsps} DSPs, not {layout.name}")
    pairs = isinstance(layout, Chain) and layout.pairs
    if pairs and not arch.matrix_vector:
        raise ValueError(f"matrix_vector must be true for pairs of rows, layout {layout.name}")
    columns = packed.spec.columns
    if activations.ndim != 2 or activations.shape[1] != columns:
        raise ValueError(f"activations must be [tokens, {columns}], not {activations.shape}")
    if isinstance(layout, Chain):
        weights, indices, starts, tile_beats = _whole_beats(arch, packed, layout)
    else:
        weights, indices, starts, tile_beats = _row_beats(arch, packed, layout)
    tokens = 1 if pairs else arch.lanes  # of a pass
    passes = -(-activations.shape[0] // tokens)
    codes = np.zeros((passes * tokens, columns), np.int64)
    codes[: activations.shape[0]] = activations
    lanes = np.zeros((passes, arch.lanes, columns), np.int64)
    lanes[:, :tokens] = codes.reshape(passes, tokens, columns)
    ends = np.cumsum(np.tile(tile_beats, passes))
    kept = len(ends) if max_beats is None else max(1, int(np.searchsorted(ends, max_beats, side="right")))
    beats = int(ends[kept - 1])
    first, second = np.tile(weights, (passes, 1, 1))[:beats].transpose(2, 0, 1)
    return ChainStimuli(
        weights=np.ascontiguousarray(first),
        seconds=np.ascontiguousarray(second),
        indices=np.tile(indices, (passes, 1))[:beats],
        tile_of_beat=np.repeat(np.arange(kept), np.diff(ends[:kept], prepend=0)),
        banks=np.concatenate([_banks(arch, layout, each) for each in lanes])[:kept],
        vector=np.full(kept, int(pairs)),
        slots=np.full(kept, layout.slots if isinstance(layout, Chain) else layout.block),
        starts=np.tile(starts, (passes, 1))[:beats] if arch.ends else None,
    )


Beats = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _whole_beats(arch: ChainArch, packed: PackedTensor, layout: Chain) -> Beats:
    """Weights [beats, dsps, 2], indices [beats, dsps], starts [beats, groups] and beats of each tile."""
    tiles, rows, together = (
        layout.tiles(packed.spec.columns),
        -(-packed.spec.rows // layout.beat_rows),
        layout.beat_rows,
    )
    raw = packed.sections["beats"].reshape(tiles * rows, layout.beat_bytes)
    weights = np.zeros((tiles * rows, layout.dsps, 2), np.int64)
    weights[:, :, :together] = (
        raw[:, : together * layout.dsps].view(np.int8).reshape(tiles * rows, layout.dsps, together)
    )
    starts = np.zeros((tiles, rows, layout.dsps // arch.group), np.int64)
    starts[:, 1:, 0] = 1
    indices = _indices(raw[:, together * layout.dsps :], layout.dsps)
    return weights, indices, starts.reshape(tiles * rows, -1), np.full(tiles, rows)


def _row_beats(arch: ChainArch, packed: PackedTensor, layout: ChainRows) -> Beats:
    """The same of rows that end anywhere."""
    if not arch.ends or arch.segment != layout.segment:
        raise ValueError(f"ends must be true and segment {layout.segment} for rows that end anywhere, {layout.name}")
    raw = packed.sections["beats"].reshape(-1, layout.beat_bytes)
    weights = np.zeros((len(raw), layout.dsps, 2), np.int64)
    weights[:, :, 0] = raw[:, : layout.dsps].view(np.int8)
    last = layout.dsps + layout.dsps // 2
    starts = unpack_bits(np.ascontiguousarray(raw[:, last:]), 1, layout.groups).astype(np.int64)
    tile_beats = packed.sections["tile_beats"].view("<u4").astype(np.int64)
    return weights, _indices(raw[:, layout.dsps : last], layout.dsps), starts, tile_beats


def _indices(raw: NDArray[np.uint8], dsps: int) -> NDArray[np.int64]:
    return unpack_bits(np.ascontiguousarray(raw), 4, dsps).astype(np.int64)


def _banks(arch: ChainArch, layout: Chain | ChainRows, activations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bank contents [tiles, dsps, block, lanes] of activations [lanes, in]."""
    if isinstance(layout, Chain):
        return np.asarray(fill_banks(activations, layout.slots, arch.dsps, arch.block))
    groups = fill_banks(activations, arch.group, arch.group * layout.blocks, arch.block)
    return np.tile(groups, (1, layout.groups // layout.blocks, 1, 1))
