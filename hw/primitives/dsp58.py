"""Versal's DSP58 in its int8 mode: three products of 9 by 8 bits, summed, into a 58-bit adder, a slice and a cycle."""

from collections.abc import Mapping
from typing import Final

from amaranth.hdl import ClockSignal, Const, Elaboratable, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.primitives.dsp48e2 import BODIES

__all__ = ["DSP58_REGISTERS", "DSP58Dot"]

DSP58_REGISTERS: Final = ("AREG", "BREG", "CREG", "MREG", "OPMODEREG", "PREG")

_PRODUCTS: Final = 3
_A_BITS: Final = 9
_B_BITS: Final = 8
_P_BITS: Final = 58

# every other attribute of the primitive, at what the mode needs or at the vendor's default
_FIXED: Final[Mapping[str, int | str]] = {
    "DSP_MODE": "INT8",
    "AMULTSEL": "A",
    "A_INPUT": "DIRECT",
    "BMULTSEL": "B",
    "B_INPUT": "DIRECT",
    "PREADDINSEL": "A",
    "USE_MULT": "MULTIPLY",
    "USE_SIMD": "ONE58",
    "USE_WIDEXOR": "FALSE",
    "XORSIMD": "XOR24_34_58_116",
    "AUTORESET_PATDET": "NO_RESET",
    "AUTORESET_PRIORITY": "RESET",
    "SEL_MASK": "MASK",
    "SEL_PATTERN": "PATTERN",
    "USE_PATTERN_DETECT": "NO_PATDET",
    "RESET_MODE": "SYNC",
    "ADREG": 0,
    "ALUMODEREG": 0,
    "CARRYINREG": 0,
    "CARRYINSELREG": 0,
    "DREG": 0,
    "INMODEREG": 0,
}
_WIDE: Final = {"MASK": (1 << _P_BITS - 2) - 1, "PATTERN": 0, "RND": 0}
_INVERSIONS: Final = {"ALUMODE": 4, "INMODE": 5, "NEGATE": 3, "OPMODE": 9} | dict.fromkeys(
    (
        *("CARRYIN", "CLK", "RSTALLCARRYIN", "RSTALUMODE", "RSTA", "RSTB", "RSTCTRL", "RSTC", "RSTD", "RSTINMODE"),
        *("RSTM", "RSTP"),
    ),
    1,
)
_TIED: Final = {
    "ACIN": (0, 34),
    "BCIN": (0, 24),
    "D": (0, 27),
    "ALUMODE": (0, 4),
    "CARRYINSEL": (0, 3),
    "INMODE": (0, 5),
    "NEGATE": (0, 3),
    "CARRYIN": (0, 1),
    "CARRYCASCIN": (0, 1),
    "MULTSIGNIN": (0, 1),
    "ASYNC_RST": (0, 1),
    **{f"CE{name}": (1, 1) for name in ("A1", "A2", "AD", "ALUMODE", "B1", "B2", "C", "CARRYIN", "CTRL", "D")},
    **{f"CE{name}": (1, 1) for name in ("INMODE", "M", "P")},
    **{f"RST{name}": (0, 1) for name in ("A", "ALLCARRYIN", "ALUMODE", "B", "C", "CTRL", "D", "INMODE", "M", "P")},
}


class DSP58Dot(wiring.Component):
    """P = W + Z + sum over k of a_k * b_k, exact.

    Parameters
    ----------
    body : 'behavioural' | 'vendor'
    registers : {name: 0 | 1}  Of DSP58_REGISTERS; a missing one is on.

    Members
    -------
    A : In(34)                 Three signed 9-bit numbers, the first lowest; bits 27 and above are not read.
    B : In(24)                 Three signed 8-bit numbers.
    C, PCIN : In(58)
    OPMODE : In(9)             As of the DSP48E2: W of 0, P, RND (which is 0), C in bits 8:7, Z of 0, PCIN, P, C in bits
                               6:4; bits 3:0 are 0101, the products, or 0000, nothing. No other value is modelled.
    P, PCOUT : Out(58)

    Notes
    -----
    Latency AREG + MREG + PREG, one dot product a cycle. Clock enables are tied high, resets low; feedback of P needs
    PREG. Source: AMD AM004, UG1344.
    """

    def __init__(self, *, body: str = "behavioural", registers: Mapping[str, int] | None = None) -> None:
        if body not in BODIES:
            raise ValueError(f"body must be one of {BODIES}, not {body!r}")
        given = dict(registers or {})
        for name, value in given.items():
            if name not in DSP58_REGISTERS or value not in (0, 1):
                raise ValueError(f"registers must be 0 or 1 for names of {DSP58_REGISTERS}, not {name}: {value!r}")
        self.body, self.registers = body, {name: given.get(name, 1) for name in DSP58_REGISTERS}
        super().__init__(
            {"A": In(34), "B": In(24), "C": In(_P_BITS), "PCIN": In(_P_BITS), "OPMODE": In(9)}
            | {"P": Out(_P_BITS), "PCOUT": Out(_P_BITS)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if self.body == "vendor":
            m.submodules.dsp = self._instance()
            return m
        a, b = self._stage(m, "AREG", self.A, "a"), self._stage(m, "BREG", self.B, "b")
        c, opmode = self._stage(m, "CREG", self.C, "c"), self._stage(m, "OPMODEREG", self.OPMODE, "opmode")
        # three products and their sum
        dot = Signal(signed(_A_BITS + _B_BITS + 2))
        factors = [
            (a.word_select(k, _A_BITS).as_signed(), b.word_select(k, _B_BITS).as_signed()) for k in range(_PRODUCTS)
        ]
        m.d.comb += dot.eq(sum((x * y for x, y in factors), start=Const(0, signed(1))))
        products = self._stage(m, "MREG", dot, "m").as_signed()
        # W, Z and the products
        p = Signal(_P_BITS, name="p", reset_less=True)
        w, z, xy = (Signal(_P_BITS, name=name) for name in ("w_mux", "z_mux", "xy_mux"))
        for field, mux, choices in (
            (opmode[7:9], w, {0b01: p, 0b11: c}),
            (opmode[4:7], z, {0b001: self.PCIN, 0b010: p, 0b011: c}),
            (opmode[0:4], xy, {0b0101: products}),
        ):
            with m.Switch(field):
                for code, value in choices.items():
                    with m.Case(code):
                        m.d.comb += mux.eq(value)
        total = Signal(_P_BITS, name="total")
        m.d.comb += [total.eq(w + z + xy), self.P.eq(p if self.registers["PREG"] else total), self.PCOUT.eq(self.P)]
        m.d.sync += p.eq(total)
        return m

    def _stage(self, m: Module, register: str, value: Value, name: str) -> Value:
        """The value behind an optional register."""
        if not self.registers[register]:
            return value
        held = Signal(len(value), name=name, reset_less=True)
        m.d.sync += held.eq(value)
        return held

    def _instance(self) -> Instance:
        parameters: dict[str, object] = {f"p_{name}": value for name, value in {**_FIXED, **self.registers}.items()}
        parameters |= {f"p_{side}CASCREG": self.registers[f"{side}REG"] for side in "AB"}
        parameters |= {f"p_{name}": Const(value, _P_BITS) for name, value in _WIDE.items()}
        parameters |= {f"p_IS_{name}_INVERTED": Const(0, width) for name, width in _INVERSIONS.items()}
        ports = {f"i_{name}": Const(value, width) for name, (value, width) in _TIED.items()}
        ports |= {f"i_{name}": getattr(self, name) for name in ("A", "B", "C", "PCIN", "OPMODE")}
        ports |= {f"o_{name}": getattr(self, name) for name in ("P", "PCOUT")}
        return Instance("DSP58", **parameters, i_CLK=ClockSignal(), **ports)
