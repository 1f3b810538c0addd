"""The decoder: one stored code to the s8 that the chain multiplies."""

from amaranth.hdl import Elaboratable, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.formats import get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.hw.dequantize.arch import CHAIN_BITS

__all__ = ["CodeDecoder"]


class CodeDecoder(wiring.Component):
    """value(code) - zero_point on the format's integer grid.

    Parameters
    ----------
    format : str               An integer, or a minifloat or MX element type whose fixed-point values fit s8.
    asymmetric : bool          There is a zero point; integers only.

    Members
    -------
    code : In                  The stored bits.
    zero_point : In            Likewise, where asymmetric.
    value : Out(signed(8))     A cycle later. The difference must fit: `pack` refuses tensors where it does not.

    Notes
    -----
    An integer is its own value. A minifloat is looked up, in a table of 2^bits entries that the format gives; NaN and
    infinities are 0.
    """

    def __init__(self, *, format: str, asymmetric: bool = False) -> None:
        self.format, self.asymmetric = get_format(format), asymmetric
        bits = self.format.bits
        zero = {"zero_point": In(bits)} if asymmetric else {}
        super().__init__({"code": In(bits), **zero, "value": Out(signed(CHAIN_BITS))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        value = Signal(signed(CHAIN_BITS), name="s0_value", reset_less=True)
        m.d.comb += self.value.eq(value)
        if isinstance(self.format, IntFormat):
            code = self._integer(self.code)
            m.d.sync += value.eq(code - self._integer(self.zero_point) if self.asymmetric else code)
            return m
        table = self.format.fixed_point().values
        with m.Switch(self.code):
            for pattern, number in enumerate(table.tolist()):
                with m.Case(pattern):
                    m.d.sync += value.eq(number)
        return m

    def _integer(self, pattern: Value) -> Value:
        signed_format = isinstance(self.format, IntFormat) and self.format.signed
        return pattern.as_signed() if signed_format else pattern
