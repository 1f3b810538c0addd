"""Packed products as the streams of an array of chains and of its accumulators, and what must come out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Shape
from numpy.typing import NDArray

from sparsefab.arch import ArrayArch
from sparsefab.errors import LayoutError
from sparsefab.formats import Chain, unpack
from sparsefab.formats.bits import unpack_bits
from sparsefab.hw.chain import weights_layout
from sparsefab.hw.requantize import MULTIPLIER_BITS, SHIFT_BITS
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.products import Product, reference_accumulators
from sparsefab.sim.reference.chain import fill_banks
from sparsefab.sim.stimuli import ChainStimuli
from sparsefab.sim.streams import StreamVectors

__all__ = ["ArrayJob", "accumulate_streams", "array_streams"]

Integers = NDArray[np.int64]


def array_streams(arch: ArrayArch, *products: Product) -> StreamVectors:
    """Payloads of every input stream of `hw.array.ChainArray`, and of its results.

    Product by product; passes outermost, then blocks of as many rows as the accumulators hold, tiles, rows.

    Raises
    ------
    LayoutError                     If a layout is not that of the array's chains, or a group ends inside a tile.
    """
    streams: dict[str, list[int]] = {"weights": [], "acts": [], "tiles": [], "rows": []}
    results: list[int] = []
    for product in products:
        job = ArrayJob.of(arch, product)
        for lanes, banks in job.passes():
            for part in job.row_blocks():
                streams["weights"] += _weights(job, part, banks)
                for tile, bank in enumerate(banks):
                    final = tile == len(banks) - 1
                    streams["acts"] += _fill(job, bank)
                    streams["tiles"].append(int(tile == 0) | int(final) << 1)
                    if arch.accumulators.multiplier_bits or final:
                        streams["rows"] += job.beats(job.row_fields(tile, final), part)
                results += job.beats(job.result_fields(lanes), part)
    return StreamVectors(inputs=streams, outputs={"results": results}, measured=("weights",))


def accumulate_streams(arch: ArrayArch, *products: Product) -> StreamVectors:
    """The same for `hw.accumulate.AccumulateUnit`: what the chains would give it."""
    whole = array_streams(arch, *products)
    chain, sums = arch.chain, list[int]()
    for product in products:
        job = ArrayJob.of(arch, product)
        for _, banks in job.passes():
            found = _stimuli(job.layout, job.raw, banks).expected().reshape(len(banks), -1, chain.lanes)
            for part in job.row_blocks():
                for tile in found:
                    beats = job.beats([(chain.sum_bits, tile[:, lane]) for lane in range(chain.lanes)], part)
                    beats[-1] |= 1 << chain.sum_bits * chain.lanes * arch.chains
                    sums += beats
    inputs = {"sums": sums, "tiles": whole.inputs["tiles"], "rows": whole.inputs["rows"]}
    return StreamVectors(inputs=inputs, outputs=whole.outputs, measured=("sums",))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayJob:
    """A product on an array. A unit is what one chain does in one beat: a row, or the two of a pair.

    raw : uint8[tiles, units, beat]     Weight beats, with as many units as fill the chains.
    multipliers : int64[tiles, rows]    Group scales; rows here and below fill the units.
    constants : int64[3, rows]          Bias, shift, multiplier.
    accumulators : int64[tokens, rows]  What must come out.
    """

    arch: ArrayArch
    layout: Chain
    activations: Integers
    raw: NDArray[np.uint8]
    multipliers: Integers
    constants: Integers
    accumulators: Integers

    @staticmethod
    def of(arch: ArrayArch, product: Product) -> "ArrayJob":
        layout, spec, kept = product.layout, product.packed.spec, arch.accumulators
        if layout.dsps != arch.chain.dsps:
            raise LayoutError(f"packed must be in the layout of chains of {arch.chain.dsps} DSPs, not {layout.name}")
        if layout.pairs and not arch.chain.matrix_vector:
            raise LayoutError(f"matrix_vector must be true for pairs of rows, layout {layout.name}")
        tensor = unpack(product.packed)
        multipliers = product.tile_multipliers(tensor)
        if int(multipliers.max()) >> max(kept.multiplier_bits, 1):
            raise LayoutError(
                f"multiplier_bits must be at least {int(multipliers.max()).bit_length()} for these group scales, "
                f"not {kept.multiplier_bits}"
            )
        units = arch.row_beats(spec.rows, vector=layout.pairs) * arch.chains
        stored = product.packed.sections["beats"].reshape(layout.tiles(spec.columns), -1, layout.beat_bytes)
        raw = np.zeros((stored.shape[0], units, layout.beat_bytes), np.uint8)
        raw[:, : stored.shape[1]] = stored
        rows = units * layout.beat_rows
        constants = np.stack((product.bias, product.requantizer.shifts, product.requantizer.multipliers))
        return ArrayJob(
            arch=arch,
            layout=layout,
            activations=product.activations,
            raw=raw,
            multipliers=_widen(multipliers, rows),
            constants=_widen(constants, rows),
            accumulators=_widen(reference_accumulators(tensor, product.activations, product.bias), rows),
        )

    @property
    def dense(self) -> bool:
        """All positions are stored, so that they need no index."""
        return self.layout.slots == self.layout.block

    def passes(self) -> Iterator[tuple[Integers, Integers]]:
        """(what must come out int64[lanes, units], banks int64[tiles, dsps, block, lanes]) of a token, or of two."""
        chain, (tokens, columns) = self.arch.chain, self.activations.shape
        together = 1 if self.layout.pairs else chain.lanes
        for first in range(0, tokens, together):
            codes = np.zeros((chain.lanes, columns), np.int64)
            given = self.activations[first : first + together]
            codes[: len(given)] = given
            banks = fill_banks(codes, self.layout.slots, chain.dsps, chain.block)
            if self.dense:  # each DSP meets its own input, in word 0
                slot = np.arange(chain.dsps)
                banks[:, :, 0] = banks[:, slot, slot % chain.block]
            found = self.accumulators[first : first + together]
            if self.layout.pairs:
                yield found.reshape(-1, chain.lanes).T, banks
            else:  # a lane without a token has only the bias
                yield np.concatenate((found, self.constants[:1]))[: chain.lanes], banks

    def row_blocks(self) -> Iterator[slice]:
        """Units that the accumulators hold at a time."""
        capacity = self.arch.accumulators.rows * self.arch.chains
        return (slice(low, low + capacity) for low in range(0, self.raw.shape[1], capacity))

    def row_fields(self, tile: int, final: bool) -> list[tuple[int, Integers]]:
        """Fields of `hw.accumulate.rows_layout`; only final tiles look at all but the group's scale."""
        widths = (self.arch.accumulators.multiplier_bits, self.arch.chain.accumulator_bits, SHIFT_BITS, MULTIPLIER_BITS)
        values = np.concatenate((self.multipliers[tile : tile + 1], self.constants * int(final)))
        return [(bits, words) for own in self._own(values) for bits, words in zip(widths, own, strict=True)]

    def result_fields(self, lanes: Integers) -> list[tuple[int, Integers]]:
        """Fields of the results: accumulators and, once for those that share them, shift and multiplier."""
        bits, sets = self.arch.chain.accumulator_bits, self._own(self.constants[1:])
        fields: list[tuple[int, Integers]] = []
        for accumulators, (shift, multiplier) in zip(np.split(lanes, len(sets)), sets, strict=True):
            fields += [(bits, lane) for lane in accumulators]
            fields += [(SHIFT_BITS, shift), (MULTIPLIER_BITS, multiplier)]
        return fields

    def _own(self, values: Integers) -> list[Integers]:
        """What belongs to each lane, int64[.., units], or to all where they cannot be rows; values int64[.., rows]."""
        rows = values.reshape(len(values), -1, self.layout.beat_rows)
        return [rows[:, :, lane % self.layout.beat_rows] for lane in range(self.arch.chain.weight_rows)]

    def beats(self, fields: Sequence[tuple[int, Integers]], part: slice) -> list[int]:
        """Payloads of some units, a word for each chain: fields (bits, int64[units]), the first one lowest."""
        words = [0] * len(fields[0][1][part])
        place = 0
        for bits, values in fields:
            words = [
                word | (value & ((1 << bits) - 1)) << place
                for word, value in zip(words, values[part].tolist(), strict=True)
            ]
            place += bits
        chains = self.arch.chains
        return [
            sum(word << place * c for c, word in enumerate(words[first : first + chains]))
            for first in range(0, len(words), chains)
        ]


def _widen(values: NDArray[Any], rows: int) -> Integers:
    """Append zeros to the last axis: rows that only fill up the last beat."""
    space = [(0, 0)] * (values.ndim - 1) + [(0, rows - values.shape[-1])]
    return np.pad(values.astype(np.int64), space)


def _weights(job: ArrayJob, part: slice, banks: Integers) -> list[int]:
    """Weight beats of tiles x units."""
    chain, chains = job.arch.chain, job.arch.chains
    width = Shape.cast(weights_layout(chain)).width
    beats: list[int] = []
    for c in range(chains):
        payloads = BeatFormat.stream(chain).weights(_stimuli(job.layout, job.raw[:, part][:, c::chains], banks))
        beats = [a | b << width * c for a, b in zip(beats or [0] * len(payloads), payloads, strict=True)]
    return beats


def _stimuli(layout: Chain, raw: NDArray[np.uint8], banks: Integers) -> ChainStimuli:
    """One chain's part: raw uint8[tiles, units, beat]."""
    flat = np.ascontiguousarray(raw).reshape(-1, layout.beat_bytes)
    above = layout.beat_rows * layout.dsps
    indices = unpack_bits(np.ascontiguousarray(flat[:, above:]), 4, layout.dsps)
    weights = flat[:, :above].view(np.int8).astype(np.int64).reshape(-1, layout.dsps, layout.beat_rows)
    tiles = raw.shape[0]
    return ChainStimuli(
        weights=np.ascontiguousarray(weights[:, :, 0]),
        seconds=np.ascontiguousarray(weights[:, :, -1]),  # of no effect where there is but one
        indices=indices.astype(np.int64) * int(layout.slots < layout.block),  # dense: word 0
        tile_of_beat=np.repeat(np.arange(tiles), raw.shape[1]),
        banks=banks,
        vector=np.full(tiles, int(layout.pairs)),
        slots=np.full(tiles, layout.slots),
    )


def _fill(job: ArrayJob, bank: Integers) -> list[int]:
    """Activation beats of one tile's bank, int64[dsps, block, lanes]; segments of one block are written together."""
    chain, beat = job.arch.chain, BeatFormat.stream(job.arch.chain)
    words, together, used = chain.tile_fill(job.layout.slots, -(-job.activations.shape[1] // chain.block))
    above = chain.segment * chain.lanes * beat.activation_bits
    vector = int(job.layout.pairs) << (above + beat.index_pitch + chain.segments)
    mask, payloads = (1 << beat.activation_bits) - 1, []
    for index in range(words):
        for segment in range(0, used, together):
            values = bank[segment * chain.segment : (segment + 1) * chain.segment, index].reshape(-1)
            pairs = sum((int(value) & mask) << beat.activation_bits * place for place, value in enumerate(values))
            segments = ((1 << together) - 1) << segment
            payloads.append(pairs | index << above | segments << (above + beat.index_pitch) | vector)
    payloads[-1] |= 1 << beat.last_of_acts
    return payloads
