"""The code that LLVM makes of the kernels: the promised instructions in the innermost loop, nothing spilled there."""

import re

import numpy as np
import pytest
from numba import njit

from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product, Reals, Sums

WEIGHTS = BlockWeights(
    rows=4, columns=4, ptr=np.array([0, 1]), offsets=np.zeros((1, 4), np.int32), values=np.ones((1, 4, 4), np.int8)
)
EPILOGUES = {
    "s32": Sums(),
    "f32": Reals(row_scales=np.ones(4, np.float32)),
    "u8": Codes(requantizer=Requantizer.of(np.ones(4), 0, 0, 255)),
}


def assembly(level, output, width=64):
    product = Product(WEIGHTS, EPILOGUES[output], level=level)
    cached = product._kernels[width]
    options = {name: value for name, value in cached.targetoptions.items() if name != "nopython"}
    fresh = njit(**options)(cached.py_func)  # code from the disk cache cannot be inspected
    product._kernels[width] = fresh
    product.run(aligned_zeros((1, 4, width), np.uint8))
    listings = fresh.inspect_asm().values()
    return max(listings, key=len)


def innermost_loops(text, marker):
    """Lines of each loop without a label inside that holds the instruction `marker`."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(("#", ".cfi"))]
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"j[a-z]+\s+(\.LBB\w+)", line)
        if not jump:
            continue
        starts = [at for at in range(end) if lines[at].startswith(jump[1] + ":")]
        if starts:
            body = lines[starts[-1] + 1 : end]
            if not any(re.match(r"\.LBB\w+:", other) for other in body) and any(marker in other for other in body):
                loops.append(body)
    return loops


def count(body, pattern):
    return sum(bool(re.match(pattern, line)) for line in body)


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
@pytest.mark.parametrize("output", list(EPILOGUES))
def test_the_wide_loop_is_16_dot_products_8_unpacks_and_no_spill(output):
    text = assembly(Level.AVX512_VNNI, output)
    loops = innermost_loops(text, "vpdpbusd")
    assert len(loops) == 1
    body = loops[0]
    copies, rest = divmod(count(body, r"vpdpbusd\s.*zmm"), 16)
    assert copies >= 1
    assert rest == 0
    assert count(body, r"vpdpbusd") == 16 * copies
    assert count(body, r"vpunpck[lh](bw|wd)\s.*zmm") == 8 * copies
    assert count(body, r"(vpermt2|vpermi2|vpshuf|vperm[bwdq]\b|call|vinsert)") == 0
    assert count(body, r"vmovdqa64\s|vmovdqu64\s|vmovaps\s|vmovups\s|vpunpck.*\(") <= 8 * copies  # the lines, no copies
    # A spilled vector is read back; the frame's own zeroing only writes.
    assert not [line for line in text.splitlines() if re.search(r"\(%rsp\).*%zmm", line)]
    assert not [line for line in body if "(%rsp)" in line and "zmm" in line]


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
@pytest.mark.parametrize("output", list(EPILOGUES))
def test_the_loop_of_32_tokens_keeps_two_quads_in_flight(output):
    text = assembly(Level.AVX512_VNNI, output, width=32)
    loops = innermost_loops(text, "vpdpbusd")
    assert len(loops) == 1
    body = loops[0]
    assert count(body, r"vpdpbusd\s.*zmm") == 16
    assert count(body, r"vpunpck[lh]bw\s.*zmm") == 4
    assert count(body, r"vpermw\s.*zmm") == 4
    assert count(body, r"vinserti64x4\s.*\(.*zmm") == 4
    assert count(body, r"(vpermt2|vpermi2|vpshuf|call)") == 0
    assert not [line for line in text.splitlines() if re.search(r"\(%rsp\).*%zmm", line)]


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
def test_the_loop_of_16_tokens_transposes_in_two_shuffles():
    text = assembly(Level.AVX512_VNNI, "u8", width=16)
    loops = innermost_loops(text, "vpdpbusd")
    assert len(loops) == 1
    body = loops[0]
    assert count(body, r"vpdpbusd\s.*zmm") == 8
    assert count(body, r"vpermd\s.*zmm") == 2
    assert count(body, r"vpshufb\s.*zmm") == 2
    assert count(body, r"vinserti(32x4|64x2|128|64x4)\s|vinsertf") == 6
    assert count(body, r"(vpermt2|vpermi2|vpunpck|call)") == 0


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
def test_one_token_takes_its_weights_straight_from_memory():
    text = assembly(Level.AVX512_VNNI, "u8", width=1)
    four, one = sorted(innermost_loops(text, "vpdpbusd"), key=len, reverse=True)[:2]
    assert count(four, r"(\{vex\}\s*)?vpdpbusd\s[^,]*\(.*xmm") == 4
    assert count(one, r"(\{vex\}\s*)?vpdpbusd\s[^,]*\(.*xmm") >= 1
    assert not [line for line in four + one if "call" in line]


@pytest.mark.skipif(not runs(Level.AVX_VNNI), reason="needs AVX-VNNI")
def test_the_narrow_loop_is_8_dot_products_4_unpacks():
    loops = innermost_loops(assembly(Level.AVX_VNNI, "u8"), "vpdpbusd")
    assert len(loops) in (2, 4)  # two sweeps, of both halves if the loop over them was unrolled
    for body in loops:
        copies, rest = divmod(count(body, r"(\{vex\}\s*)?vpdpbusd\s.*ymm"), 8)
        assert copies >= 1
        assert rest == 0
        assert count(body, r"vpunpck[lh](bw|wd)\s.*ymm") == 4 * copies
        assert not [line for line in body if "rsp" in line]


@pytest.mark.parametrize("level", [Level.AVX512, Level.AVX2])
def test_widening_needs_no_vnni(level):
    if not runs(level):
        pytest.skip(f"needs {level.value}")
    text = assembly(level, "u8")
    assert "vpdpbusd" not in text
    # Where the host has VNNI, LLVM joins the product of words with the sum: vpdpwssd.
    assert innermost_loops(text, "vpmaddwd") or innermost_loops(text, "vpdpwssd")


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
def test_the_epilogues_use_the_cheap_route():
    text = assembly(Level.AVX512_VNNI, "u8")
    assert len(re.findall(r"vpmulhrsw\s.*zmm", text)) == 8
    assert len(re.findall(r"vpackuswb\s.*zmm", text)) == 4
    assert not re.search(r"vpmovusdb|vpmovsdb", text)
    reals = assembly(Level.AVX512_VNNI, "f32")
    assert not re.search(r"vfmadd|vfmsub|vfnmadd", reals)
    assert not re.search(r"vpermt2|vpermi2", reals)
