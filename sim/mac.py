"""Hold the MAC's Verilog to exact sums in rational arithmetic."""

from fractions import Fraction
from math import inf, isfinite, isnan, nan
from pathlib import Path
from typing import Final

import numpy as np

from sparsefab.formats import IntFormat
from sparsefab.hw.minifloat.mac import MacArch, mac_verilog
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["expected_word", "mac_stimuli", "verify_mac"]

_LONGEST: Final = 24  # terms of a random sum


def mac_stimuli(arch: MacArch, *, sums: int, seed: int) -> tuple[list[int], list[int]]:
    """Payloads in and words out: sums of 1 to 24 products of random codes, every eighth sum of extreme ones.

    NaN and infinities take part where the result is a code; a fixed-point sum has no defined bits with them.
    """
    random = np.random.default_rng(seed)
    kinds = [arch.number(arch.a), arch.number(arch.b)]
    values = [fmt.decode(fmt.from_pattern(np.arange(1 << fmt.bits, dtype=np.uint16))) for fmt in kinds]
    finite = [np.flatnonzero(np.isfinite(v)) for v in values]
    payloads: list[int] = []
    words: list[int] = []
    for number in range(sums):
        terms = int(random.integers(1, min(_LONGEST, arch.terms) + 1))
        drawn = []
        for v, allowed in zip(values, finite, strict=True):
            pool = allowed if not arch.result or random.random() < 0.7 else np.arange(len(v))
            if number % 8 == 0:
                pool = allowed[np.abs(v[allowed]) == np.abs(v[allowed]).max()]
            drawn.append(random.choice(pool, terms))
        bits_a = kinds[0].bits
        for term, (a, b) in enumerate(zip(*(codes.tolist() for codes in drawn), strict=True)):
            last = int(term == terms - 1)
            payloads.append(a | b << bits_a | last << (bits_a + kinds[1].bits))
        pairs = zip(values[0][drawn[0]].tolist(), values[1][drawn[1]].tolist(), strict=True)
        words.append(expected_word(arch, list(pairs)))
    return payloads, words


def expected_word(arch: MacArch, pairs: list[tuple[float, float]]) -> int:
    """The exact sum of products as the MAC gives it: on the grid, with flags that are all down, or encoded."""
    products = [a * b for a, b in pairs]
    endless = {p for p in products if not isfinite(p)}
    exact = sum((Fraction(a) * Fraction(b) for a, b in pairs if isfinite(a) and isfinite(b)), start=Fraction(0))
    if not arch.result:
        return int(exact / Fraction(2) ** arch.total.product.lsb_exponent) & ((1 << arch.total.bits) - 1)
    result = arch.number(arch.result)
    if isinstance(result, IntFormat):
        code = result.encode_scalar(exact, arch.rounding)  # type: ignore[arg-type]  # a Fraction is exact
        return code & ((1 << result.bits) - 1)
    if endless:
        mixed = any(isnan(p) for p in endless) or len(endless) > 1
        return result.encode_scalar(nan if mixed else inf if inf in endless else -inf, arch.rounding, arch.saturating)
    return result.encode_scalar(exact, arch.rounding, arch.saturating)  # type: ignore[arg-type]  # exact, as above


def verify_mac(
    arch: MacArch,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    sums: int = 100,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Run random sums through the MAC: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : MacArch
    sums : int                       Sums of 1 to 24 terms.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    vectors = StreamVectors.through(*mac_stimuli(arch, sums=sums, seed=seed))
    texts = modules if modules is not None else mac_verilog(arch, primitives="behavioural")
    return verify_streams("mac", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)
