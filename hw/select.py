"""Selection: distributed RAM written ahead and read by the weights' indices, and two-way multiplexers."""

from functools import partial
from typing import Any, Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.lut6_2 import LUT6_2
from sparsefab.hw.primitives.lutram import RAM32M, RAM32M16

__all__ = ["LutRam", "choose", "extended"]

_READER_BITS: Final = 2
# inputs: I0, I1 the two choices of O5, I2, I3 those of O6, I4 picks, I5 = 1
_CHOOSE_LOW, _CHOOSE_HIGH = 0xCCCCAAAA, 0xFF00F0F0


class LutRam(wiring.Component):
    """Memories of 32 words side by side, of RAM32M16 and RAM32M: written together, each read at its own address.

    A RAM32M16 has seven 2-bit readers, each with an address of its own, so readers of different memories share
    primitives: 8 memories of 16 bits take 76 LUT sites, 9.5 each, where a 16:1 multiplexer for each lane takes 64 at
    best. In a chain's segment a memory is a DSP's banks: the address is bank and index, the word both lanes'
    activations. With one memory it is the store of an output FIFO. The read is combinational.

    Parameters
    ----------
    memories : int             Memories side by side.
    width : int                Bits of a word.
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where the primitives' wrappers come from.

    Members
    -------
    read_address<k> : In(5)    read_data<k> : Out(width)
    write_address : In(5)      write_enable : In(1)        The same for all memories.
    write_data<k> : In(width)

    Notes
    -----
    A port for each memory: as one wide vector, every bit that changes wakes all readers, and Icarus is 4 times slower.
    """

    def __init__(self, *, memories: int, width: int, body: str, placer: Placer) -> None:
        for name, value in (("memories", memories), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be positive, not {value}")
        self.memories, self.width, self.body, self.placer = memories, width, body, placer
        super().__init__(
            {"write_address": In(5), "write_enable": In(1)}
            | {f"read_address{k}": In(5) for k in range(memories)}
            | {f"read_data{k}": Out(width) for k in range(memories)}
            | {f"write_data{k}": In(width) for k in range(memories)}
        )

    @property
    def lut_sites(self) -> int:
        """LUT sites that the primitives take."""
        return sum(8 if kind is RAM32M16 else 4 for kind in self._primitives())

    def _readers(self) -> list[tuple[int, slice]]:
        """Memory and bits of each reader."""
        lows = range(0, self.width, _READER_BITS)
        return [(k, slice(low, min(low + _READER_BITS, self.width))) for k in range(self.memories) for low in lows]

    def _primitives(self) -> list[type[RAM32M16] | type[RAM32M]]:
        full, rest = divmod(len(self._readers()), len(RAM32M16.letters) - 1)
        narrow = 0 < rest < len(RAM32M.letters)
        return [RAM32M16] * (full + (rest > 0 and not narrow)) + [RAM32M] * narrow

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        readers = iter(self._readers())
        for number, kind in enumerate(self._primitives()):
            module = f"sparsefab_{kind.primitive.lower()}"
            ram: Any = self.placer.place(m, f"ram{number}", module, partial(kind, body=self.body))
            read_letters, write_letter = kind.letters[:-1], kind.letters[-1]
            m.d.comb += [getattr(ram, f"ADDR{write_letter}").eq(self.write_address), ram.WE.eq(self.write_enable)]
            for letter, (memory, bits) in zip(read_letters, readers, strict=False):
                m.d.comb += [
                    getattr(ram, f"ADDR{letter}").eq(getattr(self, f"read_address{memory}")),
                    getattr(ram, f"DI{letter}").eq(getattr(self, f"write_data{memory}")[bits]),
                    getattr(self, f"read_data{memory}")[bits].eq(getattr(ram, f"DO{letter}")),
                ]
        return m


def choose(m: Module, name: str, pick: Value, one: Value, zero: Value, *, body: str, placer: Placer) -> Value:
    """Return `one` while `pick`, else `zero`: two bits a LUT site; Yosys by itself never shares a LUT."""
    width = len(one)
    result = []
    for low in range(0, width, 2):
        lut: Any = placer.place(
            m,
            f"{name}{low // 2}",
            "sparsefab_lut6_2",
            partial(LUT6_2, init=_CHOOSE_HIGH << 32 | _CHOOSE_LOW, body=body),
            clocked=False,
        )
        high = min(low + 1, width - 1)
        m.d.comb += [
            lut.I0.eq(zero[low]),
            lut.I1.eq(one[low]),
            lut.I2.eq(zero[high]),
            lut.I3.eq(one[high]),
            lut.I4.eq(pick),
            lut.I5.eq(Const(1, 1)),
        ]
        result += [lut.O5, lut.O6][: width - low]
    return Cat(result)


def extended(value: Value, width: int) -> Value:
    """Repeat the sign up to `width` bits."""
    return Cat(value, value[-1].replicate(width - len(value)))
