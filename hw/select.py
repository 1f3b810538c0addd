"""One DSP's activation bank and selection: distributed RAM written ahead, read by the weight's index."""

from functools import partial
from typing import Any, Final

from amaranth.hdl import Cat, Elaboratable, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.lutram import RAM32M, RAM32M16

__all__ = ["LutRam"]

_WIDE_BITS: Final = 14
_NARROW_BITS: Final = 6


class LutRam(wiring.Component):
    """A 32-deep simple dual-port memory of RAM32M16 and RAM32M primitives; the read is combinational.

    As an activation bank the address is bank and index, the word both lanes' activations (12 LUT sites for 16 bits,
    where a 16:1 multiplexer for each lane takes 64 at best). As an output FIFO it is the store.

    Parameters
    ----------
    width : int                Bits of a word.
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where the primitives' wrappers come from.

    Members
    -------
    read_address : In(5)       read_data : Out(width)
    write_address : In(5)      write_data : In(width)      write_enable : In(1)
    """

    def __init__(self, *, width: int, body: str, placer: Placer) -> None:
        if width < 1:
            raise ValueError(f"width must be positive, not {width}")
        self.width, self.body, self.placer = width, body, placer
        super().__init__(
            {
                "read_address": In(5),
                "read_data": Out(width),
                "write_address": In(5),
                "write_data": In(width),
                "write_enable": In(1),
            }
        )

    @property
    def lut_sites(self) -> int:
        """LUT sites that the primitives take."""
        return sum(8 if kind is RAM32M16 else 4 for kind in self._primitives())

    def _primitives(self) -> list[type[RAM32M16] | type[RAM32M]]:
        wide, rest = divmod(self.width, _WIDE_BITS)
        return [RAM32M16] * (wide + (rest > _NARROW_BITS)) + [RAM32M] * (0 < rest <= _NARROW_BITS)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        low = 0
        for number, kind in enumerate(self._primitives()):
            module = f"sparsefab_{kind.primitive.lower()}"
            ram: Any = self.placer.place(m, f"ram{number}", module, partial(kind, body=self.body))
            readers = kind.letters[:-1]
            bits = min(2 * len(readers), self.width - low)
            m.d.comb += [getattr(ram, f"ADDR{letter}").eq(self.read_address) for letter in readers]
            m.d.comb += [getattr(ram, f"ADDR{kind.letters[-1]}").eq(self.write_address), ram.WE.eq(self.write_enable)]
            data_in: Value = Cat(getattr(ram, f"DI{letter}") for letter in readers)
            data_out: Value = Cat(getattr(ram, f"DO{letter}") for letter in readers)
            m.d.comb += [
                data_in[:bits].eq(self.write_data[low : low + bits]),
                self.read_data[low : low + bits].eq(data_out[:bits]),
            ]
            low += bits
        return m
