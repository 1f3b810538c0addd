"""A packed product as the streams of an array of chains, and what must come out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from amaranth.hdl import Shape
from numpy.typing import NDArray

from sparsefab.arch import ArrayArch
from sparsefab.errors import LayoutError
from sparsefab.formats import NM, Chain, Dense, IntFormat, PackedTensor, QuantTensor, pack, unpack
from sparsefab.formats.bits import unpack_bits
from sparsefab.formats.requantize import Requantizer
from sparsefab.hw.chain import weights_layout
from sparsefab.hw.requantize import MULTIPLIER_BITS, SHIFT_BITS
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.reference.chain import fill_banks
from sparsefab.sim.reference.linear import Operand, accumulate
from sparsefab.sim.stimuli import ChainStimuli
from sparsefab.sim.streams import StreamVectors

__all__ = ["Product", "accumulate_streams", "array_streams", "random_product", "reference_accumulators"]

_S8: Final = (-128, 127, *range(-128, 128, 5))  # every fifth value, the corners more often

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """activations x weights + bias, as an array of chains does it.

    packed : PackedTensor           In a Chain layout without pairs.
    activations : int64[tokens, in] Signed codes.
    bias : int64[out]
    requantizer : Requantizer       Its multipliers and shifts leave with the rows.
    """

    packed: PackedTensor
    activations: Integers
    bias: Integers
    requantizer: Requantizer

    @property
    def layout(self) -> Chain:
        """The weights' layout."""
        if not isinstance(self.packed.layout, Chain) or self.packed.layout.pairs:
            raise LayoutError(f"packed must be in a chain layout of single rows, not {self.packed.layout.name}")
        return self.packed.layout

    def tile_multipliers(self, tensor: QuantTensor) -> Integers:
        """int64[tiles, out]: the scale of the group that each tile lies in.

        Raises
        ------
        LayoutError                 If a group ends inside a tile.
        """
        layout, spec = self.layout, self.packed.spec
        tiles = layout.tiles(spec.columns)
        if spec.groups > 1 and spec.group_size % layout.tile_columns:
            raise LayoutError(
                f"group_size must be a multiple of {layout.tile_columns}, the inputs of a tile of {layout.dsps} DSPs "
                f"at {layout.slots}:{layout.block}, or the whole row, not {spec.group_size}: a tile has one group scale"
            )
        if tensor.group_multipliers is None:
            return np.ones((tiles, spec.rows), np.int64)
        group_of_tile = np.arange(tiles) * layout.tile_columns // spec.group_size
        return tensor.group_multipliers.T.astype(np.int64)[group_of_tile]


def random_product(
    *, rows: int, columns: int, slots: int, tokens: int, dsps: int, group_size: int | None = None, seed: int = 0
) -> Product:
    """Draw s8 weights slots:16, corners among them, and group scales of 8 bits where there is a group_size."""
    random = np.random.default_rng(seed)
    rank = random.random((rows, columns // 16, 16)).argsort(-1).argsort(-1)
    mask = None if slots == 16 else (rank < slots).reshape(rows, columns)
    codes = random.choice(_S8, (rows, columns))
    scales = None
    if group_size is not None:
        scales = random.choice([1, 255, *range(2, 255)], (rows, -(-columns // group_size))).astype(np.uint16)
    tensor = QuantTensor(
        codes=(codes if mask is None else np.where(mask, codes, 0)).astype(np.int16),
        format=IntFormat(bits=8),
        row_scales=np.ones(rows, np.float32),
        group_size=group_size or columns,
        pattern=Dense() if mask is None else NM(slots, 16),
        mask=mask,
        group_multipliers=scales,
    )
    return Product(
        packed=pack(tensor, Chain(dsps=dsps, slots=slots)),
        activations=random.choice(_S8, (tokens, columns)),
        bias=random.integers(-(1 << 24), 1 << 24, rows),
        requantizer=Requantizer(
            multipliers=random.integers(1 << 14, 1 << 15, rows).astype(np.int32),
            shifts=random.integers(-47, 63, rows).astype(np.int32),
            zero_point=0,
            code_min=-128,
            code_max=127,
        ),
    )


def reference_accumulators(tensor: QuantTensor, activations: Integers, bias: Integers) -> Integers:
    """int64[tokens, out] by `sim.reference.accumulate`, from the tensor's codes and s8 activations."""
    table, (tokens, columns) = tensor.format.decode_table(), activations.shape
    codes = np.arange(256, dtype=np.int64).astype(np.int8).astype(np.int64)
    zeros, ones = np.zeros((tokens, 1), np.int64), np.ones((tokens, 1), np.int64)
    weights = Operand(
        patterns=tensor.format.to_pattern(tensor.codes),
        stored=tensor.stored_mask,
        significands=table.significand,
        exponents=table.shifts,
        zero_points=np.zeros_like(tensor.multipliers)
        if tensor.zero_points is None
        else tensor.zero_points.astype(np.int64),
        multipliers=tensor.multipliers,
        shifts=tensor.shifts,
        group_size=tensor.group_size,
    )
    operand = Operand(
        patterns=(activations & 0xFF).astype(np.uint16),
        stored=np.ones(activations.shape, np.bool_),
        significands=codes,
        exponents=np.zeros_like(codes),
        zero_points=zeros,
        multipliers=ones,
        shifts=zeros,
        group_size=columns,
    )
    return np.asarray(accumulate(weights, operand, 0, bias))


def array_streams(arch: ArrayArch, product: Product) -> StreamVectors:
    """Payloads of every input stream of `hw.array.ChainArray`, and of its results.

    Token pairs outermost, then blocks of as many rows as the accumulators hold, tiles, rows.

    Raises
    ------
    LayoutError                     If the layout is not that of the array's chains, or a group ends inside a tile.
    """
    layout, chain, kept = product.layout, arch.chain, arch.accumulators
    raw, codes = _padded(arch, product)
    tiles, rows = raw.shape[:2]
    tensor = unpack(product.packed)
    multipliers = _widen(product.tile_multipliers(tensor), rows)
    if int(multipliers.max()) >> max(kept.multiplier_bits, 1):
        raise LayoutError(
            f"multiplier_bits must be at least {int(multipliers.max()).bit_length()} for these group scales, "
            f"not {kept.multiplier_bits}"
        )
    acc = np.zeros((len(codes), tensor.shape[0]), np.int64) + product.bias  # a lane without a token has only that
    acc[: len(product.activations)] = reference_accumulators(tensor, product.activations, product.bias)
    acc, bias = _widen(acc, rows), _widen(product.bias, rows)
    shifts, factors = (_widen(part, rows) for part in (product.requantizer.shifts, product.requantizer.multipliers))
    constants = [(SHIFT_BITS, shifts), (MULTIPLIER_BITS, factors)]
    nothing = np.zeros(rows, np.int64)

    streams: dict[str, list[int]] = {"weights": [], "acts": [], "tiles": [], "rows": []}
    expected: list[int] = []
    capacity = kept.rows * arch.chains
    for pair, tokens in enumerate(codes.reshape(-1, chain.lanes, codes.shape[1])):
        banks = fill_banks(np.ascontiguousarray(tokens), layout.slots, chain.dsps, chain.block)
        lanes = acc[pair * chain.lanes : (pair + 1) * chain.lanes]
        for low in range(0, rows, capacity):
            part = slice(low, low + capacity)
            streams["weights"] += _weights(arch, layout, raw[:, part], banks)
            for tile in range(tiles):
                final = tile == tiles - 1
                streams["acts"] += _fill(arch, layout, banks[tile])
                streams["tiles"].append(int(tile == 0) | int(final) << 1)
                if kept.multiplier_bits or final:
                    last = [(bits, values if final else nothing) for bits, values in constants]
                    words = [
                        (kept.multiplier_bits, multipliers[tile]),
                        (chain.accumulator_bits, bias if final else nothing),
                        *last,
                    ]
                    streams["rows"] += _beats(arch, words, part)
            expected += _beats(arch, [*((chain.accumulator_bits, lane) for lane in lanes), *constants], part)
    return StreamVectors(inputs=streams, outputs={"results": expected}, measured=("weights",))


def accumulate_streams(arch: ArrayArch, product: Product) -> StreamVectors:
    """The same for `hw.accumulate.AccumulateUnit`: what the chains would give it."""
    whole = array_streams(arch, product)
    layout, chain = product.layout, arch.chain
    raw, codes = _padded(arch, product)
    tiles, rows = raw.shape[:2]
    capacity = arch.accumulators.rows * arch.chains
    sums: list[int] = []
    for tokens in codes.reshape(-1, chain.lanes, codes.shape[1]):
        banks = fill_banks(np.ascontiguousarray(tokens), layout.slots, chain.dsps, chain.block)
        found = _stimuli(layout, raw, banks).expected().reshape(tiles, rows, chain.lanes)
        for low in range(0, rows, capacity):
            part = slice(low, low + capacity)
            for tile in found:
                beats = _beats(arch, [(chain.sum_bits, tile[:, lane]) for lane in range(chain.lanes)], part)
                beats[-1] |= 1 << chain.sum_bits * chain.lanes * arch.chains
                sums += beats
    inputs = {"sums": sums, "tiles": whole.inputs["tiles"], "rows": whole.inputs["rows"]}
    return StreamVectors(inputs=inputs, outputs=whole.outputs, measured=("sums",))


def _padded(arch: ArrayArch, product: Product) -> tuple[NDArray[np.uint8], Integers]:
    """Weight beats uint8[tiles, rows, beat] with as many rows as fill the chains, codes int64[tokens, in] the lanes."""
    layout, spec = product.layout, product.packed.spec
    if layout.dsps != arch.chain.dsps:
        raise LayoutError(f"packed must be in the layout of chains of {arch.chain.dsps} DSPs, not {layout.name}")
    raw = product.packed.sections["beats"].reshape(layout.tiles(spec.columns), spec.rows, layout.beat_bytes)
    filled = np.zeros((raw.shape[0], arch.row_beats(spec.rows) * arch.chains, layout.beat_bytes), np.uint8)
    filled[:, : spec.rows] = raw
    codes = np.zeros((-(-len(product.activations) // arch.chain.lanes) * arch.chain.lanes, spec.columns), np.int64)
    codes[: len(product.activations)] = product.activations
    return filled, codes


def _widen(values: NDArray[Any], rows: int) -> Integers:
    """Append zeros to the last axis: rows that only fill up the last beat."""
    space = [(0, 0)] * (values.ndim - 1) + [(0, rows - values.shape[-1])]
    return np.pad(values.astype(np.int64), space)


def _beats(arch: ArrayArch, fields: Sequence[tuple[int, Integers]], part: slice) -> list[int]:
    """Payloads of some rows, a word for each chain: fields (bits, int64[rows]), the first one lowest."""
    words = [0] * len(fields[0][1][part])
    place = 0
    for bits, values in fields:
        words = [
            word | (value & ((1 << bits) - 1)) << place
            for word, value in zip(words, values[part].tolist(), strict=True)
        ]
        place += bits
    return [
        sum(word << place * c for c, word in enumerate(words[first : first + arch.chains]))
        for first in range(0, len(words), arch.chains)
    ]


def _weights(arch: ArrayArch, layout: Chain, raw: NDArray[np.uint8], banks: Integers) -> list[int]:
    """Weight beats of tiles x rows; `raw` is uint8[tiles, rows, beat], rows a multiple of the chains."""
    width = Shape.cast(weights_layout(arch.chain)).width
    beats: list[int] = []
    for c in range(arch.chains):
        payloads = BeatFormat.stream(arch.chain).weights(_stimuli(layout, raw[:, c :: arch.chains], banks))
        beats = [a | b << width * c for a, b in zip(beats or [0] * len(payloads), payloads, strict=True)]
    return beats


def _stimuli(layout: Chain, raw: NDArray[np.uint8], banks: Integers) -> ChainStimuli:
    """One chain's part: raw uint8[tiles, rows, beat]."""
    flat = np.ascontiguousarray(raw).reshape(-1, layout.beat_bytes)
    indices = unpack_bits(np.ascontiguousarray(flat[:, layout.dsps :]), 4, layout.dsps)
    weights = flat[:, : layout.dsps].view(np.int8).astype(np.int64)
    tiles = raw.shape[0]
    return ChainStimuli(
        weights=weights,
        seconds=np.zeros_like(weights),
        indices=indices.astype(np.int64),
        tile_of_beat=np.repeat(np.arange(tiles), raw.shape[1]),
        banks=banks,
        vector=np.zeros(tiles, np.int64),
        slots=np.full(tiles, layout.slots),
    )


def _fill(arch: ArrayArch, layout: Chain, bank: Integers) -> list[int]:
    """Activation beats of one tile's bank, int64[dsps, block, lanes]; segments of one block are written together."""
    chain, beat = arch.chain, BeatFormat.stream(arch.chain)
    together = max(layout.slots // chain.segment, 1) if layout.slots % chain.segment == 0 else 1
    used = -(-layout.blocks_per_tile * layout.slots // chain.segment)
    above = chain.segment * chain.lanes * beat.activation_bits
    mask, payloads = (1 << beat.activation_bits) - 1, []
    for index in range(chain.block):
        for segment in range(0, used, together):
            values = bank[segment * chain.segment : (segment + 1) * chain.segment, index].reshape(-1)
            pairs = sum((int(value) & mask) << beat.activation_bits * place for place, value in enumerate(values))
            segments = ((1 << together) - 1) << segment
            payloads.append(pairs | index << above | segments << (above + beat.index_pitch))
    payloads[-1] |= 1 << beat.last_of_acts
    return payloads
