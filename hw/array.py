"""Arrays of chains: activations shared, rows spread over the chains, sums accumulated over tiles."""

from typing import Any

from amaranth.hdl import Elaboratable, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ArrayArch
from sparsefab.hw.accumulate import AccumulateUnit, partials_layout, results_layout, rows_layout
from sparsefab.hw.chain import SparseChain, acts_layout, weights_layout
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.tiles import tiles_layout

__all__ = ["ChainArray", "ChainGroup"]


class ChainGroup(wiring.Component):
    """Multiply `chains` rows a beat with the activations of a tile, or as many pairs of rows.

    Parameters
    ----------
    arch : ArrayArch           Its accumulators do not matter.
    body, placer               As for SparseChain.

    Members
    -------
    weights, acts : In(stream) As for ChainArray.
    sums : Out(stream)         `partials_layout`.

    Notes
    -----
    All chains take and give beats in the same cycles, as all start from the same reset: the handshakes of the first one
    stand for all. Latency and throughput are a chain's.
    """

    weights: stream.Interface
    acts: stream.Interface
    sums: stream.Interface

    def __init__(self, *, arch: ArrayArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body = arch, body
        self.placer = placer if placer is not None else Inline()
        super().__init__(
            {
                "weights": In(stream.Signature(ArrayLayout(weights_layout(arch.chain), arch.chains))),
                "acts": In(stream.Signature(acts_layout(arch.chain))),
                "sums": Out(stream.Signature(partials_layout(arch.chain, arch.chains))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch, weights, acts, sums = self.arch, self.weights, self.acts, self.sums
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
                Value.cast(sums.payload.lanes[c]).eq(Value.cast(chain.sums.payload.lanes)),
                chain.sums.ready.eq(sums.ready),
            ]
            if c == 0:
                m.d.comb += [
                    weights.ready.eq(chain.weights.ready),
                    acts.ready.eq(chain.acts.ready),
                    sums.valid.eq(chain.sums.valid),
                    sums.payload.last.eq(chain.sums.payload.last),
                ]
        return m


class ChainArray(wiring.Component):
    """Multiply row by row with the activations of a tile, `chains` rows a beat, and add up the tiles.

    Parameters
    ----------
    arch : ArrayArch
    body, placer               As for SparseChain.

    Members
    -------
    weights : In(stream)       `weights_layout`[chains]: chain c's beat holds row i * chains + c, in a `vector` tile the
                               pair of rows of that number; the first one's `last` counts for all.
    acts : In(stream)          `acts_layout`: into the banks of all chains.
    tiles : In(stream)         `tiles_layout`, one beat a tile.
    rows : In(stream)          `rows_layout`[chains], as for AccumulateUnit.
    results : Out(stream)      `results_layout`: rows, or pairs, i * chains to i * chains + chains - 1, i ascending.

    Notes
    -----
    The accumulators do not know modes: a lane's sums are a token's or a row's. All tiles of one sum are of one mode;
    the next sum may be of the other. One beat a cycle; from a final tile's weight beat to its result
    chain.latency_cycles + 9 cycles.
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
                "results": Out(stream.Signature(results_layout(chain, chains))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        m.submodules.group = group = ChainGroup(arch=arch, body=self.body, placer=self.placer)
        m.submodules.accumulate = accumulate = AccumulateUnit(
            chain=arch.chain, arch=arch.accumulators, chains=arch.chains, body=self.body, placer=self.placer
        )
        wiring.connect(m, group.sums, accumulate.sums)
        for name, part in (
            ("weights", group),
            ("acts", group),
            ("tiles", accumulate),
            ("rows", accumulate),
            ("results", accumulate),
        ):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(part, name))
        return m
