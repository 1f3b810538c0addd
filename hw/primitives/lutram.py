"""AMD's distributed RAMs RAM32M16 and RAM32M: 32 words, asynchronous read, written by the last port."""

from typing import Final

from amaranth.hdl import ClockSignal, Const, Elaboratable, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sparsefab.hw.primitives.dsp48e2 import BODIES

__all__ = ["RAM32M", "RAM32M16"]

_DEPTH: Final = 32


class _RAM32(wiring.Component):
    """Ports A.. of two bits each; the last one's address is the write address as well."""

    primitive: str
    letters: str

    def __init__(self, *, body: str = "behavioural") -> None:
        if body not in BODIES:
            raise ValueError(f"body must be one of {BODIES}, not {body!r}")
        self.body = body
        super().__init__(
            {f"ADDR{letter}": In(5) for letter in self.letters}
            | {f"DI{letter}": In(2) for letter in self.letters}
            | {f"DO{letter}": Out(2) for letter in self.letters}
            | {"WE": In(1)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if self.body == "vendor":
            ports = {
                f"i_{kind}{letter}": getattr(self, kind + letter) for kind in ("ADDR", "DI") for letter in self.letters
            }
            ports |= {f"o_DO{letter}": getattr(self, f"DO{letter}") for letter in self.letters}
            parameters = {f"p_INIT_{letter}": Const(0, 64) for letter in self.letters}
            m.submodules.ram = Instance(
                self.primitive,
                **parameters,
                p_IS_WCLK_INVERTED=Const(0, 1),
                i_WCLK=ClockSignal(),
                i_WE=self.WE,
                **ports,
            )
            return m
        write_address = getattr(self, f"ADDR{self.letters[-1]}")
        for letter in self.letters:
            memory = Memory(shape=2, depth=_DEPTH, init=[])
            m.submodules[f"memory_{letter.lower()}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(write_address),
                write.data.eq(getattr(self, f"DI{letter}")),
                write.en.eq(self.WE),
                read.addr.eq(getattr(self, f"ADDR{letter}")),
                getattr(self, f"DO{letter}").eq(read.data),
            ]
        return m


class RAM32M16(_RAM32):
    """Eight 32 x 2 memories in one slice: 8 LUT sites, 14 bits where read and write addresses differ.

    Parameters
    ----------
    body : 'behavioural' | 'vendor'

    Members
    -------
    ADDRA..ADDRH In(5), DIA..DIH In(2), DOA..DOH Out(2), WE In(1): as in AMD UG974; WCLK is the `sync` clock.
    """

    primitive = "RAM32M16"
    letters = "ABCDEFGH"


class RAM32M(_RAM32):
    """Four 32 x 2 memories: 4 LUT sites, 6 bits where read and write addresses differ; members as RAM32M16, A to D."""

    primitive = "RAM32M"
    letters = "ABCD"
