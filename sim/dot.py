"""Hold the block dot product's Verilog to the definition in `formats.mx`, in rational arithmetic."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.hw.minifloat.dot import DotArch, dot_verilog
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["dot_stimuli", "verify_dot"]

_MOST_BLOCKS = 6  # of a random sum


def dot_stimuli(arch: DotArch, *, sums: int, seed: int, specials: bool = False) -> tuple[list[int], list[int]]:
    """Payloads in and words out: sums of 1 to 6 random blocks, every fourth of extreme products, all ranges of d.

    specials : bool                  Some elements are NaN or infinite; their sums' words are `undefined` alone.
    """
    random = np.random.default_rng(seed)
    elements = [arch.format(name).element for name in (arch.a, arch.b)]
    values = [fmt.decode(fmt.from_pattern(np.arange(1 << fmt.bits, dtype=np.uint16))) for fmt in elements]
    finite = [np.flatnonzero(np.isfinite(v)) for v in values]
    grid = Fraction(2) ** arch.elements.lsb_exponent
    payloads: list[int] = []
    words: list[int] = []
    for number in range(sums):
        blocks = int(random.integers(1, min(_MOST_BLOCKS, arch.blocks) + 1))
        total, undefined = 0, False
        for block in range(blocks):
            codes = []
            for v, pool in zip(values, finite, strict=True):
                if number % 4 == 0:
                    pool = pool[np.abs(v[pool]) == np.abs(v[pool]).max()]
                codes.append(random.choice(pool, arch.pairs))
            if specials and number % 3 == 0:
                v = values[0]
                codes[0][int(random.integers(arch.pairs))] = random.choice(np.flatnonzero(~np.isfinite(v)))
                undefined = True
            d_a, d_b = (int(d) for d in random.integers(0, random.choice([1, 4, 32, 256]), 2))
            payloads.append(_payload(arch, codes, d_a, d_b, block == blocks - 1))
            if not undefined:
                pairs = zip(values[0][codes[0]].tolist(), values[1][codes[1]].tolist(), strict=True)
                total += _floor(
                    sum((Fraction(a) * Fraction(b) for a, b in pairs), start=Fraction(0)) / grid, arch, d_a + d_b
                )
        words.append((1 << arch.window_bits) if undefined else total & ((1 << arch.window_bits) - 1))
    return payloads, words


def _floor(exact: Fraction, arch: DotArch, d: int) -> int:
    """floor(S * 2^(F - d)), a shift to the right by 63 or more being one by 63."""
    return int(exact * Fraction(2) ** max(arch.fraction_bits - d, -63) // 1)


def _payload(arch: DotArch, codes: list[NDArray[np.integer]], d_a: int, d_b: int, last: bool) -> int:
    word = shift = 0
    for operand, name in zip(codes, (arch.a, arch.b), strict=True):
        bits = arch.format(name).element.bits
        for code in operand.tolist():
            word |= code << shift
            shift += bits
    for value, bits in ((d_a, 8), (d_b, 8), (int(last), 1)):
        word |= value << shift
        shift += bits
    return word


def verify_dot(
    arch: DotArch,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    sums: int = 100,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Run random sums through the block dot product: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : DotArch
    sums : int                       Sums of 1 to 6 blocks.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    vectors = StreamVectors.through(*dot_stimuli(arch, sums=sums, seed=seed))
    texts = modules if modules is not None else dot_verilog(arch, primitives="behavioural")
    return verify_streams("mxdot", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)
