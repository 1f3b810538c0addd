"""MAC cores in Amaranth's simulator against exact rational sums: every pair of codes, every kind of format."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator
from gfloat import RoundMode, encode_float, round_float
from gfloat.formats import format_info_ocp_e2m1, format_info_ocp_e4m3

from sparsefab.hw.minifloat.mac import MacArch, MacCore
from sparsefab.sim.mac import expected_word, mac_stimuli


def _run(arch: MacArch, beats: list[tuple[int, int, int, int]]) -> list[int]:
    """Feed (a, b, valid, last) and collect the words that are done."""
    core = MacCore(arch=arch)
    got: list[int] = []

    async def bench(context: Any) -> None:
        for a, b, valid, last in beats + [(0, 0, 0, 0)] * (core.latency + 2):
            for port, value in ((core.a, a), (core.b, b), (core.valid, valid), (core.last, last)):
                context.set(port, value)
            if context.get(core.done):
                got.append(context.get(Value.cast(core.result)))
            await context.tick()

    simulator = Simulator(core)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return got


def _values(arch: MacArch, which: str) -> list[float]:
    fmt = arch.number(which)
    return list(fmt.decode(fmt.from_pattern(np.arange(1 << fmt.bits, dtype=np.uint16))).tolist())


def _all_pairs(arch: MacArch) -> None:
    a, b = _values(arch, arch.a), _values(arch, arch.b)
    pairs = [(p, q) for p, q in product(range(len(a)), range(len(b))) if np.isfinite(a[p]) and np.isfinite(b[q])]
    want = [expected_word(arch, [(a[p], b[q])]) for p, q in pairs]
    mask = (1 << arch.total.bits) - 1
    assert [word & mask for word in _run(arch, [(p, q, 1, 1) for p, q in pairs])] == want


@pytest.mark.parametrize(
    ("a", "b"),
    [("e2m1", "e2m1"), ("e3m0", "e3m0"), ("e2m2", "e3m1"), ("int4", "int4"), ("int4", "e2m2"), ("int3", "uint4")],
)
@pytest.mark.parametrize("multiplier", ["fabric", "dsp"])
def test_every_pair_of_codes(a: str, b: str, multiplier: str) -> None:
    _all_pairs(MacArch(a=a, b=b, terms=4, multiplier=multiplier))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("e4m3fn", "e4m3fn"),
        ("e5m2i", "e5m2i"),
        ("e3m4", "e3m4"),
        ("int8", "int8"),
        ("int8", "uint8"),
        ("e4m3fnuz", "int8"),
    ],
)
def test_every_pair_of_8_bit_codes(a: str, b: str) -> None:
    _all_pairs(MacArch(a=a, b=b, terms=4))


@pytest.mark.parametrize("multiplier", ["fabric", "dsp"])
@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("e4m3", "e4m3", ""),
        ("e5m2", "int8", ""),
        ("e6m3", "e6m3", ""),  # an accumulator cut in two
        ("uint8", "int8", "int8"),
        ("e5m2i", "e4m3fn", "e4m3fnuz"),
        ("e3m4", "e3m4", "e5m2i"),
        ("ue4m3", "e2m1", "ue4m3"),
    ],
)
def test_sums_with_gaps(a: str, b: str, result: str, multiplier: str) -> None:
    arch = MacArch(a=a, b=b, terms=4608, multiplier=multiplier, result=result)
    payloads, want = mac_stimuli(arch, sums=40, seed=3)
    bits_a, bits = arch.number(a).bits, arch.number(a).bits + arch.number(b).bits
    random = np.random.default_rng(0)
    beats: list[tuple[int, int, int, int]] = []
    for payload in payloads:
        while random.random() < 0.2:
            beats.append((0, 1, 0, 1))
        beats.append(
            (payload & ((1 << bits_a) - 1), (payload >> bits_a) & ((1 << bits - bits_a) - 1), 1, payload >> bits)
        )
    mask = -1 if result else (1 << arch.total.bits) - 1
    assert [word & mask for word in _run(arch, beats)] == want


@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero"])
@pytest.mark.parametrize(("name", "info"), [("e2m1", format_info_ocp_e2m1), ("e4m3fn", format_info_ocp_e4m3)])
def test_conversion_against_gfloat(rounding: Any, name: str, info: Any) -> None:
    """Products and sums of two on both sides of every rounding boundary that they reach; gfloat rounds them."""
    arch = MacArch(a="e3m2", b="e3m2", terms=2, result=name, rounding=rounding)
    values = _values(arch, "e3m2")
    random = np.random.default_rng(5)
    quads = random.integers(0, len(values), (1500, 4)).tolist()
    beats = [beat for p, q, r, s in quads for beat in ((p, q, 1, 0), (r, s, 1, 1))]
    exact = [values[p] * values[q] + values[r] * values[s] + 0.0 for p, q, r, s in quads]  # a zero sum is +0
    mode = RoundMode.TiesToEven if rounding == "nearest-even" else RoundMode.TowardZero
    want = [encode_float(info, round_float(info, value, mode, sat=True)) for value in exact]
    assert _run(arch, beats) == want


def test_widths_are_the_papers() -> None:
    # arXiv 2311.12359: 2^Ea + Ma + 2^Eb + Mb + ceil(log2 n) - 1, integers ra + rb + ceil(log2 n) + 1; n = 4608
    widths = {name: MacArch(a=name, b=name).total.bits for name in ("int4", "int8", "e2m1", "e3m4", "e4m3", "e5m2")}
    assert widths == {"int4": 22, "int8": 30, "e2m1": 22, "e3m4": 36, "e4m3": 50, "e5m2": 80}
    total = MacArch(a="e4m3", b="e2m1", terms=100).total
    assert total.bits == 16 + 3 + 4 + 1 + 7 - 1
    largest = Fraction(480) * 6 * 100 / Fraction(2) ** total.product.lsb_exponent
    assert largest < 1 << total.bits - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"terms": 0}, "terms must be 1 to 16777216, not 0"),
        ({"multiplier": "lut"}, "multiplier must be one of"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"result": "int8", "saturating": False}, "saturating must be True for int8"),
        ({"a": "e5m2i", "result": "e2m1"}, "result e2m1 has no code for NaN"),
        ({"a": "mxfp4"}, "mxfp4 is a block format"),
        ({"a": "e8m0fnu"}, "format must be an integer or a float with a zero"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MacArch(**arguments)
