"""Skew of a segment's beats: DSP d sees a beat d cycles after DSP 0, when its neighbour's sum is there."""

from functools import partial
from typing import Any, Final

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.modules import Placer
from sparsefab.hw.select import LutRam

__all__ = ["BeatSkew"]

_REGISTERED: Final = 4  # DSPs whose delay is short enough for flip-flops


class BeatSkew(wiring.Component):
    """Delay DSP d's weights and index by d + 1 cycles.

    Flip-flops for the first DSPs; for the others distributed RAM that a counter writes round and round: 14 bits of any
    delays in a RAM32M16's 8 LUT sites, where shift registers take a LUT a bit.

    Parameters
    ----------
    dsps : int                 DSPs of the segment, at most 32.
    weight_bits, index_bits : int
                               Of one DSP.
    body, placer               As for LutRam.

    Members
    -------
    weights, indices : In      Of all DSPs, taken in every cycle.
    weight<d>, index<d> : Out  The index from a register, since it addresses a memory; the weights of late DSPs straight
                               from the RAM.
    """

    def __init__(self, *, dsps: int, weight_bits: int, index_bits: int, body: str, placer: Placer) -> None:
        if not 1 <= dsps <= 32:
            raise ValueError(f"dsps must be 1 to 32, the depth of a distributed RAM, not {dsps}")
        self.dsps, self.weight_bits, self.index_bits = dsps, weight_bits, index_bits
        self.body, self.placer = body, placer
        super().__init__(
            {"weights": In(dsps * weight_bits), "indices": In(dsps * index_bits)}
            | {f"weight{d}": Out(weight_bits) for d in range(dsps)}
            | {f"index{d}": Out(index_bits) for d in range(dsps)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        for d in range(self.dsps):
            weight = self.weights.word_select(d, self.weight_bits)
            index = self.indices.word_select(d, self.index_bits)
            if d < _REGISTERED:
                m.d.comb += getattr(self, f"weight{d}").eq(_registered(m, weight, d + 1, f"weight{d}"))
                m.d.comb += getattr(self, f"index{d}").eq(_registered(m, index, d + 1, f"index{d}"))
        if self.dsps > _REGISTERED:
            self._stored(m)
        return m

    def _stored(self, m: Module) -> None:
        """The late DSPs: what was written k cycles ago lies where the counter was k cycles ago."""
        late = range(_REGISTERED, self.dsps)
        kinds = (("weight", self.weights, self.weight_bits), ("index", self.indices, self.index_bits))
        counter_bits = (self.dsps - 1).bit_length()
        places = [Signal(counter_bits, name="place")]
        m.d.sync += places[0].eq(places[0] + 1)
        # registers with a reset: a shift register in LUTs would cost what it saves
        for k in range(1, min(self.dsps + 1, 1 << counter_bits)):
            places.append(Signal(counter_bits, name=f"place_{k}_ago"))
            m.d.sync += places[k].eq(places[k - 1])
        for name, source, width in kinds:
            store: Any = self.placer.place(
                m,
                f"{name}_store",
                f"sparsefab_skew_{name}",
                partial(LutRam, memories=len(late), width=width, body=self.body, placer=self.placer),
            )
            m.d.comb += [store.write_address.eq(places[0]), store.write_enable.eq(1)]
            for k, d in enumerate(late):
                delay = d + (name == "weight")
                m.d.comb += [
                    getattr(store, f"write_data{k}").eq(source.word_select(d, width)),
                    getattr(store, f"read_address{k}").eq(places[delay % (1 << counter_bits)]),
                ]
                data = getattr(store, f"read_data{k}")
                out = getattr(self, f"{name}{d}")
                m.d.comb += out.eq(data if name == "weight" else _registered(m, data, 1, f"index{d}"))


def _registered(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Delay by whole cycles; every other register has a reset, so that no shift register in LUTs is made of them."""
    for cycle in range(cycles):
        register = Signal(len(value), name=f"s{cycle}_{name}", reset_less=bool(cycle % 2))
        m.d.sync += register.eq(value)
        value = register
    return value
