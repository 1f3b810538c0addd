"""An engine of the accelerator: dequantizers, an array of chains with its accumulators, requantizers."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Elaboratable, Module, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ArrayArch
from sparsefab.hw.accumulate import results_layout, rows_layout
from sparsefab.hw.array import ChainArray
from sparsefab.hw.chain import acts_layout, weights_layout
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.dequantize.dequantizer import Dequantizer
from sparsefab.hw.dequantize.unpack import COUNT_BITS
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.requantize import CODE_BITS, RequantizeUnit
from sparsefab.hw.tiles import tiles_layout

__all__ = ["ArrayEngine", "EngineArch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArch:
    """Parameters of an engine.

    array : ArrayArch
    requantize : bool          Codes leave, not accumulators.
    dequantize : DequantizeArch | None
                               In front of each chain; None takes the chains' weight beats.
    """

    array: ArrayArch
    requantize: bool = True
    dequantize: DequantizeArch | None = None

    def __post_init__(self) -> None:
        chain, decoded = self.array.chain, self.dequantize
        if decoded is not None and decoded.dsps != chain.dsps:
            raise ValueError(f"dequantize.dsps must be the chains' {chain.dsps}, not {decoded.dsps}")
        if decoded is not None and decoded.rows > chain.weight_rows:
            raise ValueError("dequantize.pairs must be False, not True: the chains have no matrix-vector mode")


class ArrayEngine(wiring.Component):
    """Take compressed weights, give codes: dequantizers, chains, accumulators and requantizers in a row.

    Parameters
    ----------
    arch : EngineArch
    body, placer               As for SparseChain.

    Members
    -------
    weights : In(stream)       Memory beats, arch.dequantize.beat_bits[chains]: chain c's own section of pieces. Without
                               dequantizers weight beats, as ChainArray takes them.
    acts, tiles, rows : In(stream)
                               As for ChainArray.
    tile_rows, tile_count : In(16)
                               Only with dequantizers: beats of a tile, tiles of the weights, as for Dequantizer.
    zero_point, code_min, code_max : In(signed(9))
                               Only with requantizers.
    results : Out(stream)      signed(9) codes[chains * lanes], in the order of ChainArray's results; without
                               requantizers those results.

    Notes
    -----
    Units of one kind run in step, from the same reset with the same counts: the handshakes of the first stand for all.
    One weight beat a cycle while memory delivers arch.dequantize.beats_per_piece beats a cycle.
    """

    weights: stream.Interface
    acts: stream.Interface
    tiles: stream.Interface
    rows: stream.Interface
    results: stream.Interface

    def __init__(self, *, arch: EngineArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch = arch
        self.body, self.placer = body, placer if placer is not None else Inline()
        array, decoded = self.arch.array, self.arch.dequantize
        chain, chains = array.chain, array.chains
        beat: Any = weights_layout(chain) if decoded is None else decoded.beat_bits
        codes = ArrayLayout(signed(CODE_BITS), chains * chain.lanes)
        super().__init__(
            {
                "weights": In(stream.Signature(ArrayLayout(beat, chains))),
                "acts": In(stream.Signature(acts_layout(chain))),
                "tiles": In(stream.Signature(tiles_layout())),
                "rows": In(stream.Signature(rows_layout(chain, array.accumulators, chains))),
                "results": Out(stream.Signature(codes if self.arch.requantize else results_layout(chain, chains))),
            }
            | ({name: In(COUNT_BITS) for name in ("tile_rows", "tile_count")} if decoded is not None else {})
            | (
                {name: In(signed(CODE_BITS)) for name in ("zero_point", "code_min", "code_max")}
                if self.arch.requantize
                else {}
            )
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.array = array = ChainArray(arch=self.arch.array, body=self.body, placer=self.placer)
        for name in ("acts", "tiles", "rows"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(array, name))
        if self.arch.dequantize is None:
            wiring.connect(m, wiring.flipped(self.weights), array.weights)
        else:
            self._dequantize(m, self.arch.dequantize, array)
        if self.arch.requantize:
            self._requantize(m, array)
        else:
            wiring.connect(m, array.results, wiring.flipped(self.results))
        return m

    def _dequantize(self, m: Module, arch: DequantizeArch, array: ChainArray) -> None:
        """A dequantizer for each chain."""
        for c in range(self.arch.array.chains):
            unit: Any = self.placer.place(
                m,
                f"dequantize{c}",
                "sparsefab_dequantize_unit",
                lambda: Dequantizer(arch=arch, body=self.body, placer=self.placer),
            )
            beat = array.weights.payload[c]
            m.d.comb += [
                unit.i.valid.eq(self.weights.valid),
                unit.i.payload.eq(self.weights.payload[c]),
                Value.cast(unit.rows).eq(self.tile_rows),
                Value.cast(unit.tiles).eq(self.tile_count),
                unit.o.ready.eq(array.weights.ready),
                Value.cast(beat.indices).eq(Value.cast(unit.o.payload.indices)),
                beat.last.eq(unit.o.payload.last),
                *(
                    beat.weights[dsp][row].eq(unit.o.payload.weights[dsp][row])
                    for dsp in range(arch.dsps)
                    for row in range(arch.rows)
                ),
            ]
            if c == 0:
                m.d.comb += [self.weights.ready.eq(unit.i.ready), array.weights.valid.eq(unit.o.valid)]

    def _requantize(self, m: Module, array: ChainArray) -> None:
        """A requantizer for each set of lanes that have a row in common."""
        chain = self.arch.array.chain
        lanes = chain.lanes // chain.weight_rows
        for number in range(self.arch.array.chains * chain.weight_rows):
            unit: Any = self.placer.place(
                m,
                f"requantize{number}",
                "sparsefab_requantize_unit",
                lambda: RequantizeUnit(
                    accumulator_bits=chain.accumulator_bits, lanes=lanes, body=self.body, placer=self.placer
                ),
            )
            m.d.comb += [
                unit.i.valid.eq(array.results.valid),
                Value.cast(unit.i.payload).eq(Value.cast(array.results.payload[number])),
                unit.o.ready.eq(self.results.ready),
                *(getattr(unit, name).eq(getattr(self, name)) for name in ("zero_point", "code_min", "code_max")),
                *(self.results.payload[number * lanes + k].eq(unit.o.payload[k]) for k in range(lanes)),
            ]
            if number == 0:
                m.d.comb += [array.results.ready.eq(unit.i.ready), self.results.valid.eq(unit.o.valid)]
