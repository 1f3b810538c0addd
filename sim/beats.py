"""Stimuli as the bits of the chain's streams, with its own ports or as AXI4-Stream."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import ChainArch
from sparsefab.hw.chain_axis import axis_bytes
from sparsefab.sim.stimuli import ChainStimuli

__all__ = ["BeatFormat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatFormat:
    """Bits of each field, and where the fields that follow the first begin."""

    arch: ChainArch
    weight_bits: int
    activation_bits: int
    sum_bits: int
    index_pitch: int
    last_of_weights: int
    last_of_acts: int

    @staticmethod
    def stream(arch: ChainArch) -> "BeatFormat":
        """The layouts of `hw.chain`: no gaps."""
        acts = arch.segment * arch.lanes * arch.activation_bits
        return BeatFormat(
            arch=arch,
            weight_bits=arch.weight_bits,
            activation_bits=arch.activation_bits,
            sum_bits=arch.sum_bits,
            index_pitch=arch.index_bits,
            last_of_weights=arch.dsps * (arch.weight_rows * arch.weight_bits + arch.index_bits)
            + (arch.dsps // arch.group if arch.ends else 0),
            last_of_acts=acts + arch.index_bits + arch.segments + int(arch.matrix_vector),
        )

    @staticmethod
    def axis(arch: ChainArch) -> "BeatFormat":
        """The bytes of `hw.chain_axis`, tlast above them."""
        size = axis_bytes(arch)
        return BeatFormat(
            arch=arch,
            weight_bits=8,
            activation_bits=8,
            sum_bits=32,
            index_pitch=8,
            last_of_weights=8 * size["weights"],
            last_of_acts=8 * size["acts"],
        )

    def weights(self, stimuli: ChainStimuli) -> list[int]:
        """Weight beats: weights, indices, starts of rows, last; lane 1's weight beside lane 0's."""
        arch = self.arch
        rows = np.stack((stimuli.weights, stimuli.seconds)[: arch.weight_rows], axis=2).reshape(stimuli.beats, -1)
        above = arch.weight_rows * arch.dsps * self.weight_bits
        indices = _pack(stimuli.indices, arch.index_bits)
        if stimuli.starts is not None:
            starts = _pack(stimuli.starts, 1)
            indices = [low | high << arch.dsps * arch.index_bits for low, high in zip(indices, starts, strict=True)]
        fields = (_pack(rows, self.weight_bits), indices, stimuli.last)
        return [
            weights | indices << above | int(last) << self.last_of_weights
            for weights, indices, last in zip(*fields, strict=True)
        ]

    def acts(self, stimuli: ChainStimuli) -> list[int]:
        """Activation beats, index by index and segment by segment: pairs, index, segment mask, vector, last."""
        arch = self.arch
        shape = (-1, arch.segments, arch.segment, arch.block, arch.lanes)
        banks = stimuli.banks.reshape(shape).transpose(0, 3, 1, 2, 4)  # [tiles, block, segments, segment, lanes]
        above = arch.segment * arch.lanes * self.activation_bits
        payloads = []
        for number, pairs in enumerate(_pack(banks.reshape(-1, arch.segment * arch.lanes), self.activation_bits)):
            index, segment = number // arch.segments % arch.block, number % arch.segments
            last = index == arch.block - 1 and segment == arch.segments - 1
            mask = 1 << (above + self.index_pitch + segment)
            vector = int(stimuli.vector[number // (arch.segments * arch.block)]) << (
                above + self.index_pitch + arch.segments
            )
            payloads.append(pairs | index << above | mask | vector | int(last) << self.last_of_acts)
        return payloads

    def sums(self, stimuli: ChainStimuli) -> list[int]:
        """The expected sums: lanes, last; with arch.ends the lanes of all parts, which are used, last."""
        arch = self.arch
        top = arch.parts * arch.lanes * self.sum_bits
        if arch.ends:
            sums, used = stimuli.expected_parts(arch.segment)
            lanes = _pack(sums.reshape(stimuli.beats, -1), self.sum_bits)
            lanes = [low | high << top for low, high in zip(lanes, _pack(used, 1), strict=True)]
            top += arch.parts
        else:
            lanes = _pack(stimuli.expected(), self.sum_bits)
        return [lane | int(last) << top for lane, last in zip(lanes, stimuli.last, strict=True)]


def _pack(values: NDArray[np.int64], bits: int) -> list[int]:
    """Join the columns of int64[rows, columns] into one integer a row, the first column lowest."""
    planes = (values[:, :, None] >> np.arange(bits)) & 1
    packed = np.packbits(planes.reshape(values.shape[0], -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
