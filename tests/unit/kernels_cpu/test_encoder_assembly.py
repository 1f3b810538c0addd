"""The code that LLVM makes of attention and normalization for a processor with 512-bit registers, wherever this runs.

The compiler is told another processor in a process of its own, which compiles and runs nothing.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sparsefab.kernels_cpu.features import Level, runs
from tests.unit.kernels_cpu.test_assembly import count, innermost_loops

SCRIPT = """
import json, sys
import numpy as np
from numba import njit, from_dtype, types
from sparsefab.kernels_cpu.attention import ATTENTION, attend
from sparsefab.kernels_cpu.normalize import NORM, normalize

flags = dict(nogil=True, boundscheck=False, error_model="numpy")

@njit(**flags)
def attention(layers, projected, out, starts, lengths, scratch):
    attend(layers[0], projected, out, 0, starts, lengths, 0, 1, 12, 64, scratch.ctypes.data, None)

@njit(**flags)
def norm(norms, x, added, codes):
    normalize(norms[0], x, added, codes, 64)

def array(kind, axes):
    return types.Array(kind, axes, "C")

attention.compile((array(from_dtype(ATTENTION), 1), array(types.int8, 3), array(types.uint8, 2), array(types.int64, 1),
                   array(types.int64, 1), array(types.uint8, 1)))
norm.compile((array(from_dtype(NORM), 1), array(types.float32, 2), array(types.float32, 2), array(types.uint8, 2)))
print(json.dumps([next(iter(f.inspect_asm().values())) for f in (attention, norm)]))
"""
FEATURES = "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vnni"


@pytest.fixture(scope="module")
def listings(tmp_path_factory):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        "NUMBA_CPU_NAME": "cascadelake",
        "NUMBA_CPU_FEATURES": FEATURES,
        "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not runs(Level.AVX2), reason="compiles for x86")
def test_both_products_of_attention_are_dot_products_on_zmm(listings):
    loops = [
        body for body in innermost_loops(listings[0], "vpdpbusd") if count(body, r"vpbroadcastd|.*\{1to16\}") >= 16
    ]
    assert len(loops) == 2  # scores, and the mix of values
    for body in loops:
        dots, broadcasts = count(body, r"vpdpbusd\s.*zmm"), sum("{1to16}" in line for line in body)
        assert dots % 16 == 0
        assert dots == count(body, r"vpdpbusd")
        assert broadcasts + count(body, r"vpbroadcastd\s.*zmm") == dots
        assert not [line for line in body if "(%rsp)" in line or line.startswith("call")]
        assert len(body) - dots - broadcasts - count(body, r"vpbroadcastd") <= 16  # one address for all lines


@pytest.mark.skipif(not runs(Level.AVX2), reason="compiles for x86")
def test_softmax_is_a_loop_of_16_bit_operations_on_zmm(listings):
    assert not re.search(r"vfn?m(add|sub)", listings[0])  # what is left of floats is not contracted
    (body,) = innermost_loops(listings[0], "vpmulhrsw")
    assert count(body, r"vpmulhrsw\s.*zmm") == 10  # five for 32 weights
    assert count(body, r"v[a-z0-9]+\s.*zmm") - count(body, r"vmovdqa64") <= 29
    assert not [line for line in body if ("(%rsp)" in line and "zmm" in line) or line.startswith("call")]


@pytest.mark.skipif(not runs(Level.AVX2), reason="compiles for x86")
def test_normalization_stays_on_zmm_and_is_not_contracted(listings):
    text = listings[1]
    assert not re.search(r"vfn?m(add|sub)", text)
    assert re.search(r"vsqrtps\s.*zmm", text)
    assert re.search(r"vdivps\s.*zmm", text)
    (body,) = innermost_loops(text, "vpackuswb")  # codes of four rows
    assert count(body, r"vcvtps2dq\s.*zmm") == 4
    assert count(body, r"vpackuswb\s.*zmm") == count(body, r"vpermd\s.*zmm") == 1
    assert not count(body, r"vpmov(us)?db")
    assert not re.search(r"\(%rsp\).*%zmm", text)
