"""An array of chains: activations shared, rows spread over the chains, sums accumulated over tiles."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ArrayArch
from sparsefab.hw.accumulate import AccumulateUnit, rows_layout
from sparsefab.hw.chain import SparseChain, acts_layout, weights_layout
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.requantize import requantize_layout
from sparsefab.hw.tiles import tiles_layout

__all__ = ["ChainArray"]


class ChainArray(wiring.Component):
    """Multiply row by row with the activations of a tile, `chains` rows a beat, and add up the tiles.

    Parameters
    ----------
    arch : ArrayArch
    body, placer               As for SparseChain.

    Members
    -------
    weights : In(stream)       `weights_layout`[chains]: chain c's beat holds row i * chains + c; the first one's `last`
                               counts for all.
    acts : In(stream)          `acts_layout`: into the banks of all chains.
    tiles : In(stream)         `tiles_layout`, one beat a tile.
    rows : In(stream)          `rows_layout`[chains], as for AccumulateUnit.
    results : Out(stream)      `requantize_layout`[chains]: rows i * chains to i * chains + chains - 1, i ascending.

    Notes
    -----
    All chains take and give beats in the same cycles, as all start from the same reset: the handshakes of the first one
    stand for all. One beat a cycle; from a final tile's weight beat to its result chain.latency_cycles + 9 cycles.
    """

    weights: stream.Interface
    acts: stream.Interface
    tiles: stream.Interface
    rows: stream.Interface
    results: stream.Interface

    def __init__(self, *, arch: ArrayArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body = arch, body
        self.placer = placer if placer is not None else Inline()
        chain, chains = arch.chain, arch.chains
        super().__init__(
            {
                "weights": In(stream.Signature(ArrayLayout(weights_layout(chain), chains))),
                "acts": In(stream.Signature(acts_layout(chain))),
                "tiles": In(stream.Signature(tiles_layout())),
                "rows": In(stream.Signature(rows_layout(chain, arch.accumulators, chains))),
                "results": Out(
                    stream.Signature(ArrayLayout(requantize_layout(chain.accumulator_bits, chain.lanes), chains))
                ),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch, weights, acts = self.arch, self.weights, self.acts
        accumulate = AccumulateUnit(
            chain=arch.chain, arch=arch.accumulators, chains=arch.chains, body=self.body, placer=self.placer
        )
        m.submodules.accumulate = accumulate
        for name in ("tiles", "rows", "results"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(accumulate, name))

        beats = Value.cast(weights.payload)
        beat_bits = len(beats) // arch.chains
        last = weights.payload[0].last
        for c in range(arch.chains):
            chain: Any = self.placer.place(
                m,
                f"chain{c}",
                "sparsefab_chain",
                lambda: SparseChain(arch=arch.chain, body=self.body, placer=self.placer),
            )
            m.d.comb += [
                Value.cast(chain.weights.payload).eq(beats.word_select(c, beat_bits)),
                chain.weights.payload.last.eq(last),
                chain.weights.valid.eq(weights.valid),
                Value.cast(chain.acts.payload).eq(Value.cast(acts.payload)),
                chain.acts.valid.eq(acts.valid),
                Value.cast(accumulate.sums.payload.lanes[c]).eq(Value.cast(chain.sums.payload.lanes)),
                chain.sums.ready.eq(accumulate.sums.ready),
            ]
            if c == 0:
                m.d.comb += [
                    weights.ready.eq(chain.weights.ready),
                    acts.ready.eq(chain.acts.ready),
                    accumulate.sums.valid.eq(chain.sums.valid),
                    accumulate.sums.payload.last.eq(chain.sums.payload.last),
                ]
        return m
