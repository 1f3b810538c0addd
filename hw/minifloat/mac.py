"""One exact multiply-accumulate of any two formats: codes in, the fixed-point sum or a code of a third format out."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Elaboratable, Fragment, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.formats import FloatFormat, IntFormat, get_format
from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.minifloat.accumulate import Accumulator, Total
from sparsefab.hw.minifloat.convert import ROUNDINGS, Converter, RoundingName, check_result
from sparsefab.hw.minifloat.decode import Number
from sparsefab.hw.minifloat.dsp_mac import DspMac, fits_dsp
from sparsefab.hw.minifloat.multiply import VARIANTS, Multiplier, Product
from sparsefab.hw.modules import Inline, Placer, library_verilog
from sparsefab.hw.stages import later

__all__ = ["Mac", "MacArch", "MacCore", "mac_latency", "mac_layout", "mac_verilog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MacArch:
    """Parameters of a MAC.

    Parameters
    ----------
    a, b : str                 Formats by name, as `formats.get_format` takes them.
    terms : int                The most products of a sum, 1 to 2^24; it sets the accumulator's width.
    multiplier : 'fabric' | 'dsp'
    result : str               Format to convert sums back to; '' gives the fixed-point sum.
    rounding : 'nearest-even' | 'toward-zero'
    saturating : bool          Beyond the result format's range: its largest value, or else infinity or NaN.
    """

    a: str = "e4m3"
    b: str = "e4m3"
    terms: int = 4608
    multiplier: str = "fabric"
    result: str = ""
    rounding: RoundingName = "nearest-even"
    saturating: bool = True

    def __post_init__(self) -> None:
        if self.multiplier not in VARIANTS:
            raise ValueError(f"multiplier must be one of {VARIANTS}, not {self.multiplier!r}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {ROUNDINGS}, not {self.rounding!r}")
        total = self.total
        _ = total.bits  # refuses what is no number format
        if self.result:
            check_result(total, self.number(self.result), self.rounding, self.saturating)

    @staticmethod
    def number(name: str) -> Number:
        """The format of a name, when it is a number's."""
        fmt = get_format(name)
        if not isinstance(fmt, IntFormat | FloatFormat):
            raise ValueError(f"{name} is a block format; a MAC takes its elements")
        return fmt

    @property
    def total(self) -> Total:
        """The sum's shape; its grid is the same whatever multiplies."""
        return Total(Product(self.number(self.a), self.number(self.b)), self.terms)

    @property
    def output(self) -> StructLayout:
        """What a sum becomes: a code, or `Total.layout`."""
        return StructLayout({"code": get_format(self.result).bits}) if self.result else self.total.layout


def mac_layout(arch: MacArch) -> StructLayout:
    """One beat: a pair of codes, and whether it is the last of its sum."""
    return StructLayout({"a": get_format(arch.a).bits, "b": get_format(arch.b).bits, "last": 1})


class MacCore(wiring.Component):
    """Decode, multiply, accumulate and, if asked, convert back; it never stalls.

    Parameters
    ----------
    arch : MacArch
    body, placer               As for SparseChain.

    Members
    -------
    a, b : In                  Codes.
    valid, last : In(1)        The pair counts; it is the last of its sum.
    result : Out               arch.output, while `done` is up.
    done : Out(1)

    Notes
    -----
    One pair a cycle, also across the end of a sum; `latency` cycles from the last pair to `done`. multiplier='dsp' puts
    the whole MAC into one DSP48E2 where factors and accumulator fit it, else the product of the significands.
    """

    def __init__(self, *, arch: MacArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        a, b = (operand.format for operand in arch.total.product.operands)
        self._parts: Any
        if arch.multiplier == "dsp" and fits_dsp(arch.total):
            self._parts = DspMac(total=arch.total, body=body, placer=self.placer)
            self.latency = self._parts.latency
        else:
            multiplier = Multiplier(a=a, b=b, variant=arch.multiplier, body=body, placer=self.placer)
            accumulator = Accumulator(total=Total(multiplier.shape, arch.terms))
            self._parts = (multiplier, accumulator)
            self.latency = multiplier.latency + accumulator.latency
        self._converter = None
        if arch.result:
            self._converter = Converter(
                total=arch.total,
                result=arch.number(arch.result),
                rounding=arch.rounding,
                saturating=arch.saturating,
            )
            self.latency += self._converter.latency
        super().__init__(
            {
                "a": In(a.bits),
                "b": In(b.bits),
                "valid": In(1),
                "last": In(1),
                "result": Out(arch.output),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        total, done = self._sum(m)
        if self._converter is None:
            m.d.comb += [Value.cast(self.result).eq(total), self.done.eq(done)]
            return m
        m.submodules.convert = convert = self._converter
        m.d.comb += [
            Value.cast(convert.total).eq(total),
            self.result.code.eq(convert.code),
            self.done.eq(later(m, done, "converted", convert.latency, reset_less=False)),
        ]
        return m

    def _sum(self, m: Module) -> tuple[Value, Value]:
        """The sum, and whether it is a new one."""
        if isinstance(self._parts, DspMac):
            m.submodules.mac = mac = self._parts
            m.d.comb += [mac.a.eq(self.a), mac.b.eq(self.b), mac.valid.eq(self.valid), mac.last.eq(self.last)]
            return Value.cast(mac.total), mac.done
        multiplier, accumulator = self._parts
        m.submodules.multiply, m.submodules.accumulate = multiplier, accumulator
        wait = multiplier.latency
        m.d.comb += [
            multiplier.a.eq(self.a),
            multiplier.b.eq(self.b),
            Value.cast(accumulator.product).eq(Value.cast(multiplier.product)),
            accumulator.valid.eq(later(m, self.valid, "valid", wait, reset_less=False)),
            accumulator.last.eq(later(m, self.last, "last", wait)),
        ]
        return Value.cast(accumulator.total), accumulator.done


class Mac(wiring.Component):
    """A MAC on streams.

    Parameters
    ----------
    arch : MacArch
    body, placer               As for SparseChain.

    Members
    -------
    i : In(stream)             `mac_layout`.
    o : Out(stream)            arch.output, one beat for each `last`.

    Notes
    -----
    One pair a cycle; MacCore's latency and two cycles for the output FIFO. `i.ready` comes from a register.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, arch: MacArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        super().__init__({"i": In(stream.Signature(mac_layout(arch))), "o": Out(stream.Signature(arch.output))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.core = core = MacCore(arch=self.arch, body=self.body, placer=self.placer)
        m.submodules.fifo = fifo = CreditFifo(shape=self.arch.output, body=self.body, placer=self.placer)
        beat = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(fifo.available),
            core.a.eq(self.i.payload.a),
            core.b.eq(self.i.payload.b),
            core.last.eq(self.i.payload.last),
            core.valid.eq(beat),
            # only the end of a sum needs a place in the FIFO
            fifo.take.eq(later(m, beat & self.i.payload.last, "take", 1, reset_less=False)),
            fifo.push.eq(core.done),
            Value.cast(fifo.data).eq(Value.cast(core.result)),
        ]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m


def mac_verilog(arch: MacArch, *, primitives: str = "vendor", core: bool = False) -> dict[str, str]:
    """Convert a MAC on streams, or its core alone, to Verilog: {module: text}, the block is `top`."""
    block = MacCore if core else Mac
    return library_verilog(lambda library: block(arch=arch, body=primitives, placer=library))


def mac_latency(arch: MacArch) -> int:
    """Cycles from the last pair of codes to the result of a MAC's core."""
    core = MacCore(arch=arch)
    Fragment.get(core, None)
    return core.latency
