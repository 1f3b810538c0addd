"""Exact sums back to codes of any format, rounded once: `encode` of the format, in hardware.

The sum stays in two's complement. For a negative sum x the bits of ~x stand for |x| with ones below the grid, so the
leading one, the window of the result's bits and the sticky bit need no negation; what is missing, one unit below all
kept bits, joins the rounding: it carries into the guard bit exactly when the sticky bits are zero.
"""

from typing import Any, Final, Literal

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.formats import FloatFormat, IntFormat
from sparsefab.hw.minifloat.accumulate import Total
from sparsefab.hw.minifloat.decode import Number, Operand
from sparsefab.hw.minifloat.normalize import Normalizer
from sparsefab.hw.stages import later

__all__ = ["ROUNDINGS", "Converter", "RoundingName", "check_result"]

RoundingName = Literal["nearest-even", "toward-zero"]
ROUNDINGS: Final = ("nearest-even", "toward-zero")
_ROUND_CYCLES: Final = 4


def check_result(total: Total, result: Number, rounding: str, saturating: bool) -> None:
    """Refuse a conversion that cannot be.

    Raises
    ------
    ValueError                 If the sum may be NaN and the result format has no code for it, among others.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding must be one of {ROUNDINGS}, not {rounding!r}")
    Operand(result)  # names a format that is neither an integer nor a float with a zero
    if isinstance(result, IntFormat) and not saturating:
        raise ValueError(f"saturating must be True for {result.name}: an integer has no code beyond its range")
    if "nan" in total.layout.members and (isinstance(result, IntFormat) or result.nan_code is None):
        raise ValueError(f"result {result.name} has no code for NaN, which a sum of these operands may be")


class Converter(wiring.Component):
    """Round a sum to a code.

    Parameters
    ----------
    total : Total              The sum's shape and grid.
    result : IntFormat | FloatFormat
    rounding : 'nearest-even' | 'toward-zero'
    saturating : bool          False: beyond the range is infinity, or else NaN where the format has one. An integer
                               always saturates.

    Members
    -------
    total : In                 total.layout.
    code : Out(result.bits)    result.encode(sum), `latency` cycles later; one a cycle.

    Raises
    ------
    ValueError                 If the sum may be NaN and the result format has no code for it.
    """

    def __init__(
        self,
        *,
        total: Total,
        result: Number,
        rounding: RoundingName = "nearest-even",
        saturating: bool = True,
    ) -> None:
        check_result(total, result, rounding, saturating)
        self.shape, self.result, self.rounding, self.saturating = total, result, rounding, saturating
        grid = total.product.lsb_exponent
        if isinstance(result, IntFormat):
            self._normalizer = Normalizer(
                bits=total.bits, lowest=result.bits - 1 - grid, places=1, tail=result.bits - 1
            )
        else:
            self._normalizer = Normalizer(
                bits=total.bits,
                lowest=result.min_exponent - grid,
                places=max(result.max_code >> result.mantissa_bits, 1),  # binades; subnormals share the lowest one
                tail=result.mantissa_bits,
            )
        super().__init__({"total": In(total.layout), "code": Out(result.bits)})

    @property
    def latency(self) -> int:
        """Cycles from sum to code."""
        return self._normalizer.latency + _ROUND_CYCLES

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.normalize = window = self._normalizer
        m.d.comb += window.sum.eq(Value.cast(self.total.sum))
        if isinstance(self.result, IntFormat):
            m.d.comb += self.code.eq(self._integer(m, window, self.result))
        else:
            m.d.comb += self.code.eq(self._float(m, window, self.result))
        return m

    def _integer(self, m: Module, window: Any, result: IntFormat) -> Value:
        guard, negative = window.window[0], window.negative
        whole = Cat(window.window[1:], negative).as_signed()
        # round
        if self.rounding == "toward-zero":
            up = negative & (guard | window.sticky)
        else:
            up = guard & (window.sticky | whole[0])
        s0_up, s0_whole = later(m, up, "up", 1), later(m, whole, "whole", 1)
        rounded = Signal(signed(result.bits + 2), name="s1_rounded", reset_less=True)
        m.d.sync += rounded.eq(s0_whole + s0_up)
        # compare
        outside, below = later(m, window.outside, "outside", 2), later(m, negative, "negative", 2)
        under = later(m, Mux(outside, below, rounded < result.code_min), "under", 1, first=2)
        over = later(m, Mux(outside, ~below, rounded > result.code_max), "over", 1, first=2)
        inside = later(m, rounded[: result.bits], "inside", 1, first=2)
        # clamp
        clamped = Mux(under, result.code_min, Mux(over, result.code_max, inside))
        return later(m, clamped[: result.bits], "clamped", 1, first=3)

    def _float(self, m: Module, window: Any, result: FloatFormat) -> Value:
        mantissa = result.mantissa_bits
        bits = window.window ^ window.negative.replicate(mantissa + 2)
        guard, fraction, hidden = bits[0], bits[1 : 1 + mantissa], bits[1 + mantissa]
        # round up? a negative sum without sticky bits carries its missing unit into the guard bit
        odd = fraction[0] if mantissa else window.offset[0] ^ hidden
        carried = window.negative & ~window.sticky
        if self.rounding == "toward-zero":
            up = carried & guard
        else:
            up = Mux(carried, guard | odd, guard & (odd | window.sticky))
        # a code is the binade above the lowest, the hidden bit and the fraction, all added
        s0_up, s0_hidden = later(m, up, "up", 1), later(m, hidden, "hidden", 1)
        s0_fraction, s0_offset = later(m, fraction, "fraction", 1), later(m, window.offset, "binade", 1)
        rounded = Signal(result.exponent_bits + mantissa + 1, name="s1_rounded", reset_less=True)
        if mantissa:
            m.d.sync += rounded.eq(Cat(s0_fraction, s0_offset) + Cat(s0_up, Const(0, mantissa - 1), s0_hidden))
        else:
            m.d.sync += rounded.eq(s0_offset + s0_hidden + s0_up)
        # compare
        outside = later(m, window.outside, "outside", 2)
        beyond = later(m, outside | (rounded > result.max_code), "beyond", 1, first=2)
        nonzero = later(m, outside | rounded.any(), "nonzero", 1, first=2)
        code = later(m, rounded, "inside", 1, first=2)
        # clamp, specials, sign; 'fnuz' has no negative zero, its code is NaN
        limit = result.encode_scalar(float("inf"), saturating=self.saturating)
        negative = later(m, window.negative, "negative", 3)
        bound = limit if self.rounding == "nearest-even" else result.max_code
        places = result.exponent_bits + mantissa
        code = Mux(beyond, bound, code)
        if result.specials == "fnuz":
            negative = (negative & nonzero) | (beyond & (bound >> places))
        flags = {
            name: later(m, Value.cast(self.total[name]), name, self.latency - 1)
            for name in self.shape.layout.members
            if name != "sum"
        }
        if "positive_infinity" in flags:
            up_there, down_there = flags["positive_infinity"], flags["negative_infinity"]
            code = Mux(up_there | down_there, limit, code)
            negative = down_there | (negative & ~up_there) | ((up_there | down_there) & (limit >> places))
        if not result.signed:
            code = Mux(negative, 0, code)
        if "nan" in flags and result.nan_code is not None:
            code = Mux(flags["nan"], result.nan_code, code)
            negative = Mux(flags["nan"], result.nan_code >> places, negative)
        encoded = Cat(code[:places], negative[0]) if result.signed else code[:places]
        return later(m, encoded, "encoded", 1, first=3)
