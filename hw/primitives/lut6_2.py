"""AMD's LUT6_2: one LUT site as two functions of the same five inputs."""

from amaranth.hdl import Cat, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.primitives.dsp48e2 import BODIES

__all__ = ["LUT6_2"]

_ENTRIES = 1 << 6


class LUT6_2(wiring.Component):
    """Two outputs of one LUT: O6 of all six inputs, O5 of I0 to I4.

    Parameters
    ----------
    init : int                 Truth table, 64 bits; the lower half is O5's, and O6's while I5 is 0.
    body : 'behavioural' | 'vendor'

    Members
    -------
    I0..I5 In(1), O5, O6 Out(1): as in AMD UG974.
    """

    def __init__(self, *, init: int, body: str = "behavioural") -> None:
        if body not in BODIES:
            raise ValueError(f"body must be one of {BODIES}, not {body!r}")
        if not 0 <= init < 1 << _ENTRIES:
            raise ValueError(f"init must be a number of {_ENTRIES} bits, not {init!r}")
        self.init, self.body = init, body
        super().__init__({f"I{k}": In(1) for k in range(6)} | {"O5": Out(1), "O6": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        table = Const(self.init, _ENTRIES)
        inputs = [getattr(self, f"I{k}") for k in range(6)]
        if self.body == "vendor":
            ports = {f"i_I{k}": value for k, value in enumerate(inputs)}
            m.submodules.lut = Instance("LUT6_2", p_INIT=table, **ports, o_O5=self.O5, o_O6=self.O6)
        else:
            low, both = (Signal(_ENTRIES, name=name) for name in ("from_o5", "from_o6"))
            m.d.comb += [
                low.eq(table >> Cat(inputs[:5])),
                both.eq(table >> Cat(inputs)),
                self.O5.eq(low[0]),
                self.O6.eq(both[0]),
            ]
        return m
