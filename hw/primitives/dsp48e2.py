"""AMD's DSP48E2 under its own attribute and port names: a behavioural twin, or the vendor's primitive."""

from typing import Final

from amaranth.hdl import Cat, ClockSignal, Const, Elaboratable, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.sim.reference.dsp48e2_ports import ATTRIBUTES, INPUTS, OUTPUTS

__all__ = [
    "BODIES",
    "DSP48E2",
    "OPMODE_ACCUMULATE",
    "OPMODE_CASCADE",
    "OPMODE_FIRST",
    "OPMODE_FIRST_ROUNDED",
    "OPMODE_MULTIPLY_ADD_C",
]

BODIES: Final = ("behavioural", "vendor")

# W, Z, Y, X multiplexers (UG579): the multiplier's result added to nothing, RND, the neighbour's sum, P, C.
OPMODE_FIRST: Final = 0b00_000_01_01
OPMODE_FIRST_ROUNDED: Final = 0b10_000_01_01
OPMODE_CASCADE: Final = 0b00_001_01_01
OPMODE_ACCUMULATE: Final = 0b00_010_01_01
OPMODE_MULTIPLY_ADD_C: Final = 0b00_011_01_01

_EVEN_BITS: Final = 0x55555555555  # of the 44 bits below the product's sign
_WIDE_ATTRIBUTES: Final = ("RND", "PATTERN", "MASK")
_INVERSIONS: Final = {
    "ALUMODE": 4,
    "CARRYIN": 1,
    "CLK": 1,
    "INMODE": 5,
    "OPMODE": 9,
    "RSTALLCARRYIN": 1,
    "RSTALUMODE": 1,
    "RSTA": 1,
    "RSTB": 1,
    "RSTCTRL": 1,
    "RSTC": 1,
    "RSTD": 1,
    "RSTINMODE": 1,
    "RSTM": 1,
    "RSTP": 1,
}


class DSP48E2(wiring.Component):
    """One DSP slice; its registers' clock is the `sync` domain, its resets are its own ports.

    Parameters
    ----------
    body : 'behavioural' | 'vendor'
        What elaborate() puts into the wrapper; the ports are the same.
    attributes : {name: value}
        The vendor's attributes; a missing one takes the vendor's default.

    Members
    -------
    The vendor's ports but CLK. Clock enables rest at 1, everything else at 0.

    Notes
    -----
    The twin is cycle-accurate for all registers, INMODE, OPMODE, ALUMODE, CARRYINSEL, SIMD, the pre-adder, cascades,
    the pattern detector and the wide XOR. Its meaning is `sparsefab.sim.reference.dsp48e2`. The feedback of P through
    OPMODE needs PREG = 1, as in the device. Source: AMD UG579.
    """

    def __init__(self, *, body: str = "behavioural", attributes: dict[str, int | str] | None = None) -> None:
        if body not in BODIES:
            raise ValueError(f"body must be one of {BODIES}, not {body!r}")
        given = attributes or {}
        unknown = sorted(set(given) - set(ATTRIBUTES))
        if unknown:
            raise ValueError(f"attributes: DSP48E2 has no attribute {unknown[0]}")
        self.body = body
        self.attributes = {name: given.get(name, default) for name, (default, _) in ATTRIBUTES.items()}
        for name, (_, choices) in ATTRIBUTES.items():
            value = self.attributes[name]
            if choices is not None and value not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {value!r}")
            if choices is None and not (isinstance(value, int) and 0 <= value < 1 << 48):
                raise ValueError(f"{name} must be a number of 48 bits, not {value!r}")
        super().__init__(
            {name: In(width, init=int(name.startswith("CE"))) for name, width in INPUTS.items()}
            | {name: Out(width) for name, width in OUTPUTS.items()}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        if self.body == "vendor":
            m.submodules.dsp = self._instance()
        else:
            _Twin(self, m).build()
        return m

    def _instance(self) -> Instance:
        parameters = {
            f"p_{name}": Const(value, 48) if name in _WIDE_ATTRIBUTES else value
            for name, value in self.attributes.items()
        }
        parameters |= {f"p_IS_{name}_INVERTED": Const(0, width) for name, width in _INVERSIONS.items()}
        ports = {f"i_{name}": getattr(self, name) for name in INPUTS}
        ports |= {f"o_{name}": getattr(self, name) for name in OUTPUTS}
        return Instance("DSP48E2", **parameters, i_CLK=ClockSignal(), **ports)


class _Twin:
    """The behavioural body, stage by stage; attributes are resolved while elaborating."""

    def __init__(self, dsp: DSP48E2, m: Module) -> None:
        self.dsp = dsp
        self.m = m
        self.attributes = dsp.attributes

    def has(self, name: str, value: int | str) -> bool:
        return self.attributes[name] == value

    def build(self) -> None:
        self._controls()
        self._operands()
        self._multiply()
        self._add()
        self._detect()
        self._outputs()

    def _register(self, name: str, source: Value, *, enable: Value, reset: Value) -> Signal:
        register = Signal(len(source), name=name, reset_less=True)
        with self.m.If(reset):
            self.m.d.sync += register.eq(0)
        with self.m.Elif(enable):
            self.m.d.sync += register.eq(source)
        return register

    def _optional(self, attribute: str, name: str, source: Value, *, enable: Value, reset: Value) -> Value:
        return source if self.has(attribute, 0) else self._register(name, source, enable=enable, reset=reset)

    def _net(self, name: str, value: Value, width: int) -> Signal:
        net = Signal(width, name=name)
        self.m.d.comb += net.eq(value)
        return net

    def _controls(self) -> None:
        d = self.dsp
        self.opmode = self._optional("OPMODEREG", "opmode", d.OPMODE, enable=d.CECTRL, reset=d.RSTCTRL)
        self.carryinsel = self._optional("CARRYINSELREG", "carryinsel", d.CARRYINSEL, enable=d.CECTRL, reset=d.RSTCTRL)
        self.alumode = self._optional("ALUMODEREG", "alumode", d.ALUMODE, enable=d.CEALUMODE, reset=d.RSTALUMODE)
        self.inmode = self._optional("INMODEREG", "inmode", d.INMODE, enable=d.CEINMODE, reset=d.RSTINMODE)
        self.carryin = self._optional("CARRYINREG", "carryin", d.CARRYIN, enable=d.CECARRYIN, reset=d.RSTALLCARRYIN)

    def _input_pair(
        self, letter: str, source: Value, *, enables: tuple[Value, Value], reset: Value
    ) -> tuple[Value, Value]:
        """Return what INMODE calls register 1 and register 2 of the A or B input."""
        depth = self.attributes[f"{letter.upper()}REG"]
        if depth == 0:
            return Const(0, len(source)), source
        first = self._register(f"{letter}1", source, enable=enables[0], reset=reset)
        second = self._register(f"{letter}2", first if depth == 2 else source, enable=enables[1], reset=reset)
        return first, second

    def _operands(self) -> None:
        d = self.dsp
        a_in = d.ACIN if self.has("A_INPUT", "CASCADE") else d.A
        b_in = d.BCIN if self.has("B_INPUT", "CASCADE") else d.B
        self.a1, self.a2 = self._input_pair("a", a_in, enables=(d.CEA1, d.CEA2), reset=d.RSTA)
        self.b1, self.b2 = self._input_pair("b", b_in, enables=(d.CEB1, d.CEB2), reset=d.RSTB)
        self.c = self._optional("CREG", "c", d.C, enable=d.CEC, reset=d.RSTC)
        d_in = self._optional("DREG", "d", d.D, enable=d.CED, reset=d.RSTD)

        # pre-adder: INMODE picks the register, gates either operand, and subtracts
        gate_a = self.inmode[1] if self.has("PREADDINSEL", "A") else Const(0, 1)
        gate_b = self.inmode[1] if self.has("PREADDINSEL", "B") else Const(0, 1)
        self.a_gated = self._net("a_gated", Mux(gate_a, 0, Mux(self.inmode[0], self.a1, self.a2)[:27]), 27)
        self.b_gated = self._net("b_gated", Mux(gate_b, 0, Mux(self.inmode[4], self.b1, self.b2)), 18)
        d_gated = self._net("d_gated", Mux(self.inmode[2], d_in, 0), 27)
        addend = self._net("addend", self.b_gated.as_signed() if self.has("PREADDINSEL", "B") else self.a_gated, 27)
        preadded = self._net("preadded", Mux(self.inmode[3], d_gated - addend, d_gated + addend), 27)
        self.ad = self._optional("ADREG", "ad", preadded, enable=d.CEAD, reset=d.RSTD)

    def _multiply(self) -> None:
        """Form the product as two partial sums, of its even and its odd bits, as X and Y see it."""
        d = self.dsp
        a = self.ad if self.has("AMULTSEL", "AD") else self.a_gated
        b = self.ad[:18] if self.has("BMULTSEL", "AD") else self.b_gated
        product = self._net("product", a.as_signed() * b.as_signed(), 45)
        u_new = Cat(product[:44] & _EVEN_BITS, Const(1, 1))
        v_new = Cat(product[:44] & (_EVEN_BITS << 1), ~product[44])
        if self.has("USE_MULT", "NONE"):
            u_new, v_new = Const(0, 45), Const(0, 45)
        self.u = self._optional("MREG", "m_u", u_new, enable=d.CEM, reset=d.RSTM)
        self.v = self._optional("MREG", "m_v", v_new, enable=d.CEM, reset=d.RSTM)
        self.rounding = self._optional("MREG", "m_rounding", ~(a[26] ^ b[17]), enable=d.CEM, reset=d.RSTALLCARRYIN)

    def _add(self) -> None:
        m, d, opmode, alumode = self.m, self.dsp, self.opmode, self.alumode
        self.p = Signal(48, name="p", reset_less=True)
        self.cascade_carry = Signal(name="cascade_carry", reset_less=True)
        w, x, y, z = (Signal(48, name=name) for name in ("w_mux", "x_mux", "y_mux", "z_mux"))
        rnd = int(self.attributes["RND"])
        with m.Switch(opmode[7:9]):
            for code, value in enumerate((Const(0, 48), self.p, Const(rnd, 48), self.c)):
                with m.Case(code):
                    m.d.comb += w.eq(value)
        with m.Switch(opmode[0:2]):
            for code, value in enumerate((Const(0, 48), self.u.as_signed(), self.p, Cat(self.b2, self.a2))):
                with m.Case(code):
                    m.d.comb += x.eq(value)
        ones = Mux(opmode[4:7] == 0b100, d.MULTSIGNIN.replicate(48), Const((1 << 48) - 1, 48))
        with m.Switch(opmode[2:4]):
            for code, value in enumerate((Const(0, 48), self.v, ones, self.c)):
                with m.Case(code):
                    m.d.comb += y.eq(value)
        p_shifted = self.p.as_signed() >> 17
        with m.Switch(opmode[4:7]):
            for code, value in enumerate(
                (Const(0, 48), d.PCIN, self.p, self.c, self.p, d.PCIN.as_signed() >> 17, p_shifted, p_shifted)
            ):
                with m.Case(code):
                    m.d.comb += z.eq(value)

        selected = Signal(name="carry_selected")
        with m.Switch(self.carryinsel):
            for code, value in enumerate(
                (
                    self.carryin,
                    ~d.PCIN[47],
                    d.CARRYCASCIN,
                    d.PCIN[47],
                    self.cascade_carry,
                    ~self.p[47],
                    self.rounding,
                    self.p[47],
                )
            ):
                with m.Case(code):
                    m.d.comb += selected.eq(value)

        # X, Y and Z are compressed, then W, then four sections of 12 bits propagate the carry
        z_in = self._net("z_in", Mux(alumode[0], ~z, z), 48)
        majority = self._net("majority", (x & y) | (y & z_in) | (x & z_in), 48)
        self.parity = self._net("parity", x ^ y ^ z_in, 48)
        carries = self._net("carries", Mux(alumode[2], 0, majority), 48)
        sums = self._net("sums", Mux(alumode[3], majority, self.parity), 48)
        cuts = {"ONE48": (), "TWO24": (23,), "FOUR12": (11, 23, 35)}[str(self.attributes["USE_SIMD"])]
        keep = ((1 << 48) - 1) & ~sum(1 << bit for bit in cuts)
        shifted = self._net("shifted", (carries & keep) << 1, 48)
        sums2 = self._net("sums2", sums ^ shifted ^ w, 48)
        carries2 = self._net("carries2", (sums & shifted) | (w & shifted) | (sums & w), 48)
        carry: Value = selected & ~alumode[2] & ~alumode[3]
        sections, outs = [], []
        for k in range(4):
            low = 12 * k
            below = carries2[low - 1] if k and (low - 1) not in cuts else Const(0, 1)
            section = self._net(f"section{k}", Cat(below, carries2[low : low + 11]) + sums2[low : low + 12] + carry, 13)
            out = self._net(f"out{k}", carries2[low + 11] + section[12] + carries[low + 11], 2)
            carry = section[12] if (low + 11) not in cuts else Const(0, 1)
            sections.append(section[:12])
            outs.append(out)
        self.result = self._net("result", Mux(alumode[1], ~Cat(*sections), Cat(*sections)), 48)
        raw = Cat(out[0] for out in outs)
        self.carryout = self._net("carryout", Mux(alumode[0:2] == 0b11, ~raw, raw), 4)
        self.cascout = outs[3][0]
        self.multsign = outs[3][1]

    def _detect(self) -> None:
        attributes = self.attributes
        pattern = self.c if self.has("SEL_PATTERN", "C") else Const(int(attributes["PATTERN"]), 48)
        mask = {
            "MASK": Const(int(attributes["MASK"]), 48),
            "C": self.c,
            "ROUNDING_MODE1": (~self.c << 1)[:48],
            "ROUNDING_MODE2": (~self.c << 2)[:48],
        }[str(attributes["SEL_MASK"])]
        if self.has("USE_PATTERN_DETECT", "NO_PATDET"):
            self.match: Value = Const(1, 1)
            self.match_inverse: Value = Const(1, 1)
        else:
            differ = self._net("differ", pattern ^ self.result, 48)
            self.match = (~differ | mask).all()
            self.match_inverse = (differ | mask).all()
        s = self.parity
        if self.has("USE_WIDEXOR", "FALSE"):
            self.xors: Value = Const(0, 8)
        elif self.has("XORSIMD", "XOR12"):
            self.xors = Cat(s[6 * k : 6 * k + 6].xor() for k in range(8))
        else:
            self.xors = Cat(
                s[:12].xor(),
                s[:24].xor(),
                s[12:24].xor(),
                s.xor(),
                s[24:36].xor(),
                s[24:].xor(),
                s[36:].xor(),
                s[42:].xor(),
            )

    def _outputs(self) -> None:
        m, d = self.m, self.dsp
        m.d.comb += [
            d.ACOUT.eq(self.a1 if self.has("AREG", 2) and self.has("ACASCREG", 1) else self.a2),
            d.BCOUT.eq(self.b1 if self.has("BREG", 2) and self.has("BCASCREG", 1) else self.b2),
            d.PCOUT.eq(d.P),
        ]
        now = (self.result, self.carryout, self.cascout, self.multsign, self.match, self.match_inverse, self.xors)
        ports = (d.P, d.CARRYOUT, d.CARRYCASCOUT, d.MULTSIGNOUT, d.PATTERNDETECT, d.PATTERNBDETECT, d.XOROUT)
        names = ("p", "r_carryout", "cascade_carry", "r_multsign", "r_match", "r_match_inverse", "r_xors")
        if self.has("PREG", 0):
            m.d.comb += [port.eq(value) for port, value in zip(ports, now, strict=True)]
            return
        registers = [
            self.p
            if name == "p"
            else self.cascade_carry
            if name == "cascade_carry"
            else Signal(len(value), name=name, reset_less=True)
            for name, value in zip(names, now, strict=True)
        ]
        match, match_inverse = registers[4], registers[5]
        past, past_inverse = Signal(name="past_match", reset_less=True), Signal(name="past_inverse", reset_less=True)
        reset: Value = d.RSTP
        if not self.has("AUTORESET_PATDET", "NO_RESET"):
            hit = match if self.has("AUTORESET_PATDET", "RESET_MATCH") else past & ~match
            reset = reset | (hit & d.CEP if self.has("AUTORESET_PRIORITY", "CEP") else hit)
        with m.If(reset):
            m.d.sync += [register.eq(0) for register in (*registers, past, past_inverse)]
        with m.Elif(d.CEP):
            m.d.sync += [register.eq(value) for register, value in zip(registers, now, strict=True)]
            m.d.sync += [past.eq(match), past_inverse.eq(match_inverse)]
        m.d.comb += [port.eq(register) for port, register in zip(ports, registers, strict=True)]
        m.d.comb += [
            d.OVERFLOW.eq(past & ~match & ~match_inverse),
            d.UNDERFLOW.eq(past_inverse & ~match & ~match_inverse),
        ]
