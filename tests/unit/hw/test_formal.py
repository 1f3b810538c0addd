"""The SAT helper on claims whose truth is known; the claims about blocks: proved, and refuted by injected faults."""

import pytest
from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.errors import VerificationError
from sparsefab.hw.claim import Claim, verify_claim
from sparsefab.hw.formal import prove
from sparsefab.hw.packing_proofs import (
    FirstMiter,
    LanesMiter,
    NibbleLanesMiter,
    NibbleStepMiter,
    PackerMiter,
    PairMiter,
)
from sparsefab.hw.pairing import ActivationPacker
from sparsefab.hw.proofs import CLAIMS

pytest.importorskip("pyosys")


class _Square(wiring.Component):
    """A registered square against a sum of shifted operands, but for one value; or a register that holds its value."""

    def __init__(self, *, wrong: int | None = None, holds: bool = False) -> None:
        super().__init__({"x": In(6), "ok": Out(1)})
        self.wrong, self.holds = wrong, holds

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        square = Signal(12, init=7)
        with m.If(~self.x[0] if self.holds else 1):
            m.d.sync += square.eq(self.x * self.x)
        terms: Value = sum(((self.x << k) & self.x[k].replicate(12) for k in range(6)), start=Signal(1))[:12]
        m.d.comb += self.ok.eq(square == (terms if self.wrong is None else Mux(self.x == self.wrong, 0, terms)))
        return m


def test_true_false_and_undecided() -> None:
    true = prove(_Square())
    assert true.proved
    assert true.decided
    false = prove(_Square(wrong=37))
    assert (false.proved, false.counterexample) == (False, {"x": 37})
    assert not prove(_Hard(), timeout_s=1).decided


class _Hard(wiring.Component):
    """Two ways to multiply 24 bits: beyond a second."""

    def __init__(self) -> None:
        super().__init__({"x": In(24), "y": In(24), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        terms: Value = sum(((self.x << k) & self.y[k].replicate(48) for k in range(24)), start=Signal(1))[:48]
        m.d.comb += self.ok.eq(self.x * self.y == terms)
        return m


def test_registers_that_hold_are_refused() -> None:
    with pytest.raises(VerificationError, match="check -assert"):
        prove(_Square(holds=True))


def test_a_miter_needs_ok() -> None:
    with pytest.raises(ValueError, match="needs an output ok, has x"):
        prove(wiring.Component({"x": In(1)}))


def test_cases_are_decided_one_by_one() -> None:
    assert prove(_Square(), cases={"x": range(8)}).proved
    assert prove(_Square(wrong=37), cases={"x[5:3]": (0, 1, 2, 3)}).proved
    assert prove(_Square(wrong=37), cases={"x[5:3]": range(8)}).counterexample == {"x": 37}


# wide tables: seconds each on an idle core
SLOW = ("multiply e4m3", "multiply e5m2", "round to e4m3", "round to e5m2", "round to int8", "cut to")


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(c, marks=pytest.mark.slow) if c.block in ("chain", "pack4") or c.name.startswith(SLOW) else c
        for c in CLAIMS
    ],
    ids=lambda claim: f"{claim.block}: {claim.name}",
)
def test_claims_and_injected_faults(claim: Claim) -> None:
    outcome = verify_claim(claim)
    assert outcome.proof.proved, outcome.proof
    assert outcome.caught > outcome.injected // 2


def test_one_product_more_overflows_a_lane() -> None:
    """The limits are tight: the computed number is proved, one more refuted."""
    assert prove(LanesMiter(products=8)).proved
    assert prove(LanesMiter(products=9)).counterexample
    assert prove(NibbleLanesMiter(products=16)).proved
    assert prove(NibbleLanesMiter(products=17)).counterexample


def test_a_wrong_offset_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"shared": (0x35,)}
    assert prove(FirstMiter(mode="vector, w0 < 0"), cases=cases).proved
    monkeypatch.setattr("sparsefab.hw.step.LANE_OFFSET", 1 << 17)
    assert prove(FirstMiter(mode="vector, w0 < 0"), cases=cases).counterexample
    assert prove(PairMiter(mode="matrix")).counterexample


def test_a_dropped_borrow_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activation pairs without the 1 that a negative lower one borrows; a negative w0 without its correction."""
    cases = {"shared": (3,)}
    assert prove(PackerMiter()).proved
    assert prove(FirstMiter(mode="vector, w0 < 0"), cases=cases).proved
    monkeypatch.setattr("sparsefab.hw.step.later", lambda m, value, name, cycles: Const(0, len(value)))
    assert prove(FirstMiter(mode="vector, w0 < 0"), cases=cases).counterexample
    monkeypatch.setattr(ActivationPacker, "elaborate", _pack_without_borrow)
    assert prove(PackerMiter()).counterexample


def _pack_without_borrow(packer: ActivationPacker, platform: object) -> Elaboratable:
    m = Module()
    pair = Value.cast(packer.pairs[0])
    m.d.comb += packer.words[0].eq(Cat(pair, pair[-1]))
    return m


def test_a_dropped_borrow_of_int4_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"a0": (5, 9)}
    assert prove(NibbleStepMiter(first=True), cases=cases).proved
    monkeypatch.setattr("sparsefab.hw.pack4.LANE_OFFSETS", 0)
    assert prove(NibbleStepMiter(first=True), cases=cases).counterexample
