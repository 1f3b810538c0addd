"""The code that LLVM makes of the kernels: the promised instructions in the innermost loop, nothing spilled there.

A process compiles them for a processor that has every level's instructions, and runs none: the code is read on any x86.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.ports import LOOPS

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 code")

CODES = ("s32", "f32", "u8")
COMPILER = """
import json, sys
import llvmlite.binding as llvm

names = "avx avx2 fma f16c avx512f avx512bw avx512vl avx512vnni avx512vbmi avx512vbmi2 avxvnni".split()
names += ["amx-tile", "amx-int8"]
llvm.get_host_cpu_features = lambda: dict.fromkeys(names, True)
from numba.core import config

config.CPU_NAME, config.CPU_FEATURES = "sapphirerapids", ",".join("+" + name for name in names)
import numpy as np
from numba import njit, typeof
from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu import features, spmm
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, MaskedWeights, Product, Reals, Sums

features.tiles_granted = lambda: True
spmm.tiles_are_faster = lambda *_, **__: True
gathered = BlockWeights(
    rows=4, columns=4, ptr=np.array([0, 1]), offsets=np.zeros((1, 4), np.int32), values=np.ones((1, 4, 4), np.int8)
)
masked = MaskedWeights(
    rows=4, columns=16, tile_bytes=32, values=np.zeros(40, np.int8), masks=np.array([0xFFFFFFFF], np.uint64)
)
aligned = BlockWeights(
    rows=4, columns=4, ptr=np.array([0, 1]), offsets=np.zeros(1, np.int32), values=np.ones((1, 4, 4), np.int8),
    aligned=True,
)
kinds = {"masked": masked, "aligned": aligned}
epilogues = {
    "s32": (Sums(), np.int32),
    "f32": (Reals(row_scales=np.ones(4, np.float32)), np.float32),
    "u8": (Codes(requantizer=Requantizer.of(np.ones(4), 0, 0, 255)), np.uint8),
    "table": (Codes(requantizer=Requantizer.of(np.ones(4), 0, 0, 255), table=np.zeros(256, np.uint8)), np.uint8),
}
result = {}
for level, output, width in json.loads(sys.argv[1]):
    *kind, name = output.split()
    epilogue, dtype = epilogues[name]
    product = Product(kinds[kind[0]] if kind else gathered, epilogue, level=Level(level))
    cached, layer, _ = product.prepared(width)
    options = {name: value for name, value in cached.targetoptions.items() if name != "nopython"}
    fresh = njit(**options)(cached.py_func)  # code from the disk cache cannot be inspected
    arrays = (layer, np.zeros((1, 4, width), np.uint8), np.zeros((1, 4, width), dtype))
    fresh.compile((*map(typeof, arrays), typeof(np.zeros(1, np.float32)), *[typeof(0)] * 5))
    result[f"{level} {output} {width}"] = max(fresh.inspect_asm().values(), key=len)
print(json.dumps(result))
"""
WANTED = [
    *((Level.AVX512_VNNI.value, output, 64) for output in CODES),
    *((Level.AVX512_VNNI.value, output, 32) for output in CODES),
    (Level.AVX512_VNNI.value, "table", 64),
    (Level.AVX512_VNNI.value, "u8", 16),
    (Level.AVX512_VNNI.value, "u8", 1),
    (Level.AVX512_VNNI.value, "masked u8", 64),
    (Level.AVX512_VNNI.value, "masked u8", 16),
    (Level.AVX512_VNNI.value, "masked u8", 1),
    (Level.AVX512_VNNI.value, "aligned u8", 16),
    (Level.AVX512_VNNI.value, "aligned u8", 1),
    (Level.AVX2.value, "masked u8", 64),
    (Level.AVX512_AMX.value, "u8", 64),
    (Level.AVX512_AMX.value, "f32", 64),
    (Level.AVX512_AMX.value, "u8", 32),
    *((level.value, "u8", 64) for level in (Level.AVX_VNNI, Level.AVX512, Level.AVX2)),
]


@pytest.fixture(scope="module")
def assembly():
    """Return the code of (level, output, width)."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", COMPILER, json.dumps(WANTED)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    listings = json.loads(done.stdout)
    return lambda level, output, width=64: listings[f"{level.value} {output} {width}"]


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


def ports_of(body):
    """Count what `ports.Loop` does: instructions, loads, 512-bit loads, vector instructions, shuffles."""
    loads = wide = vectors = shuffles = 0
    for line in body:
        name, _, operands = re.sub(r"\{vex\}\s*", "", line).partition("\t")
        stored = name.startswith(("vmov", "mov")) and operands.endswith(")")
        reads = "(" in operands and not stored and not name.startswith("lea")
        loads += reads
        wide += reads and "zmm" in operands
        if name == "kmovq":
            vectors, shuffles = vectors + 1, shuffles + 1
        elif name.startswith("vpexpand"):
            vectors, shuffles = vectors + 2, shuffles + 2
        elif name.startswith("v") and not (
            name.startswith(("vmovd", "vmovu", "vmova")) or (reads and "broadcast" in name)
        ):
            vectors += 1
            shuffles += bool(re.match(r"vpunpck|vp?shuf|vperm|vpack|vpbroadcast|vpmovzx", name)) or (
                name.startswith("vinsert") and not reads
            )
    return len(body), loads, wide, vectors, shuffles


@pytest.mark.parametrize(
    ("kind", "output", "width", "marker"),
    [
        ("gathered", "u8", 1, "vpdpbusd"),
        ("gathered", "u8", 16, "vpdpbusd"),
        ("aligned", "aligned u8", 1, "vpdpbusd"),
        ("aligned", "aligned u8", 16, "vpdpbusd"),
        ("aligned", "masked u8", 16, "vpdpbusd"),
        ("masked", "masked u8", 1, "vpexpandb"),
        ("expanded", "masked u8", 16, "vpexpandb"),
    ],
)
def test_the_bounds_of_few_tokens_count_the_emitted_loops(assembly, kind, output, width, marker):
    loop = LOOPS[kind, width]
    body = max(innermost_loops(assembly(Level.AVX512_VNNI, output, width), marker), key=len)
    declared = (loop.instructions, loop.loads, loop.wide_loads, loop.vectors, loop.shuffles)
    assert ports_of(body) == declared


@pytest.mark.parametrize("output", CODES)
def test_the_wide_loop_is_16_dot_products_8_unpacks_and_no_spill(assembly, output):
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


@pytest.mark.parametrize("output", CODES)
def test_the_loop_of_32_tokens_keeps_two_quads_in_flight(assembly, output):
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


def test_the_loop_of_16_tokens_transposes_in_one_shuffle(assembly):
    text = assembly(Level.AVX512_VNNI, "u8", width=16)
    loops = innermost_loops(text, "vpdpbusd")
    assert len(loops) == 1
    body = loops[0]
    assert count(body, r"vpdpbusd\s.*zmm") == 8
    assert count(body, r"vpermb\s.*zmm") == 2
    assert count(body, r"vinserti(32x4|64x2|128|64x4)\s|vinsertf") == 6
    assert count(body, r"(vpermd|vpshufb|vpermt2|vpermi2|vpunpck|call)") == 0


def test_one_token_takes_its_weights_straight_from_memory(assembly):
    text = assembly(Level.AVX512_VNNI, "u8", width=1)
    four, one = sorted(innermost_loops(text, "vpdpbusd"), key=len, reverse=True)[:2]
    assert count(four, r"(\{vex\}\s*)?vpdpbusd\s[^,]*\(.*xmm") == 4
    assert count(one, r"(\{vex\}\s*)?vpdpbusd\s[^,]*\(.*xmm") >= 1
    assert not [line for line in four + one if "call" in line]


def test_the_narrow_loop_is_8_dot_products_4_unpacks(assembly):
    loops = innermost_loops(assembly(Level.AVX_VNNI, "u8"), "vpdpbusd")
    assert len(loops) in (2, 4)  # two sweeps, of both halves if the loop over them was unrolled
    for body in loops:
        copies, rest = divmod(count(body, r"(\{vex\}\s*)?vpdpbusd\s.*ymm"), 8)
        assert copies >= 1
        assert rest == 0
        assert count(body, r"vpunpck[lh](bw|wd)\s.*ymm") == 4 * copies
        assert not [line for line in body if "rsp" in line]


@pytest.mark.parametrize("level", [Level.AVX512, Level.AVX2])
def test_widening_needs_no_vnni(assembly, level):
    text = assembly(level, "u8")
    assert "vpdpbusd" not in text
    # Where the host has VNNI, LLVM joins the product of words with the sum: vpdpwssd.
    assert innermost_loops(text, "vpmaddwd") or innermost_loops(text, "vpdpwssd")


def test_the_epilogues_use_the_cheap_route(assembly):
    text = assembly(Level.AVX512_VNNI, "u8")
    assert len(re.findall(r"vpmulhrsw\s.*zmm", text)) == 8
    assert len(re.findall(r"vpackuswb\s.*zmm", text)) == 4
    assert not re.search(r"vpmovusdb|vpmovsdb", text)
    reals = assembly(Level.AVX512_VNNI, "f32")
    assert not re.search(r"vfmadd|vfmsub|vfnmadd", reals)
    assert not re.search(r"vpermt2|vpermi2", reals)


def test_a_table_is_two_permutations_and_a_blend(assembly):
    text = assembly(Level.AVX512_VNNI, "table")
    assert len(re.findall(r"vperm[it]2b\s.*zmm", text)) == 8  # two for each of four rows
    assert len(re.findall(r"vpmovb2m\s.*zmm", text)) == 4
    assert not re.search(r"vpshufb\s", text)


def test_tiles_are_expanded_by_one_instruction(assembly):
    """A load of the mask, vpexpandb out of memory, a store; for single tokens straight into the dot product."""
    (body,) = innermost_loops(assembly(Level.AVX512_VNNI, "masked u8"), "vpexpandb")
    copies = count(body, r"vpexpandb\s.*\(.*zmm")
    assert copies == count(body, r"kmovq\s.*\(") == count(body, r"vmovdqu\w*\s+%zmm\d+, .*\(") >= 1
    assert not [line for line in body if "rsp" in line or line.startswith("call")]
    (body,) = innermost_loops(assembly(Level.AVX512_VNNI, "masked u8", 1), "vpexpandb")
    assert count(body, r"vpexpandb\s.*\(.*zmm") == count(body, r"vpdpbusd\s.*zmm") == 2
    assert not [line for line in body if "rsp" in line and "zmm" in line]
    (body,) = innermost_loops(assembly(Level.AVX2, "masked u8"), "vpshufb")
    assert count(body, r"vpshufb\s.*xmm") in (1, 8)


def test_products_of_bytes_need_two_multiplications(assembly):
    for loop in innermost_loops(assembly(Level.AVX2, "u8"), "vpmaddubsw"):
        copies, rest = divmod(count(loop, r"vpmaddubsw\s.*ymm"), 8)
        assert copies >= 1
        assert rest == 0
        assert (
            count(loop, r"(\{vex\}\s*)?vp(maddwd|dpwssd)\s.*ymm") == 8 * copies
        )  # joined with the sum where there is VNNI
        assert count(loop, r"vpunpck[lh](bw|wd)\s.*ymm") == 4 * copies
        assert not [line for line in loop if "rsp" in line and "ymm" in line]


@pytest.mark.parametrize(("output", "width"), [("u8", 64), ("f32", 64), ("u8", 32)])
def test_tiles_multiply_four_pairs_beside_everything_else(assembly, output, width):
    """One loop multiplies, expands the next weights and finishes the last sums."""
    lines = [line.strip() for line in assembly(Level.AVX512_AMX, output, width).splitlines()]
    assert count(lines, r"tdpbsud\s") == 4
    assert count(lines, r"tileloadd\s.*tmm[4-7]") == 4
    assert count(lines, r"tileloadd\s.*tmm[0-3]") == count(lines, r"tilestored\s.*tmm[0-3]") == 4
    assert count(lines, r"tilezero\s") == 4
    assert count(lines, r"ldtilecfg\s") == count(lines, r"tilerelease") == 1
    # Rows of one mask, wherever they are expanded: one population count for four permutations, each masked.
    places = count(lines, r"popcnt")
    assert places >= 4
    assert count(lines, r"vpermb\s.*zmm.*\{z\}") == 4 * places
    assert count(lines, r"vpexpandb\s.*zmm.*\{z\}") >= 2 * places  # the order of bytes, and rows that store many
    assert not [line for line in lines if re.search(r"\(%rsp\), %zmm", line)]
