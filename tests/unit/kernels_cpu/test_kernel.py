"""The disk cache: a kernel is found again, and never after an edit anywhere in the folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import sparsefab.kernels_cpu.kernel as module
if sys.argv[1] != "same":
    module.sources_digest = lambda: sys.argv[1]
from sparsefab.kernels_cpu import spmm_portable
import numpy as np
from sparsefab.kernels_cpu.layer import Output, filled
zeros = np.zeros(256, np.int64)
layer = filled(pointers=zeros, start=zeros, shifts=zeros, multipliers=zeros, scratch=zeros)
for output, dtype in (("s32", np.int32), ("u8", np.uint8)):
    kernel = spmm_portable.spmm(aligned=False, output=Output(kind=output))
    kernel(layer, np.zeros((1, 1, 64), np.uint8), np.zeros((1, 4, 64), dtype), np.zeros(1, np.float32), 0, 0, 1, 0, 1)
    print(sum(kernel.stats.cache_hits.values()), end="")
"""


def hits(tmp_path, digest):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, digest], env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_kernels_are_cached_apart_and_by_the_sources(tmp_path):
    assert hits(tmp_path, "same") == "00"
    assert hits(tmp_path, "same") == "11"  # two kernels of one factory function, each found
    assert hits(tmp_path, "another edit") == "00"


SIBLINGS = """
import itertools, sys
import numpy as np
from numba.core.bytecode import FunctionIdentity
from sparsefab.kernels_cpu.kernel import kernel

def scaler(number):
    def scale(x, depth):
        for i in range(x.size):
            x[i] = x[i] * number + i if i % 3 else x[i] - depth
        for i in range(x.size - 1, 0, -1):
            x[i] = (x[i] + x[i - 1] * number) % 1000003 if x[i] % 2 else x[i] // 2 + depth
        for i in range(x.size):
            for j in range(i):
                x[i] = (x[i] ^ (x[j] * number)) % 1000003
    return kernel(scale)

def caller(number):
    inner = scaler(number)
    def call(x):
        for depth in range(x.size):
            inner(x[depth:], depth)
    return inner, kernel(call)

inner, outer = caller(3)
if len(sys.argv) > 1:  # Numba's numbers of functions begin with 1: the caller's; its callee has 2
    FunctionIdentity._unique_ids = itertools.count(2)
    caller(5)[0](np.arange(8), 0)
x = np.arange(8)
outer(x)
print(x.tolist(), sum(outer.stats.cache_hits.values()))
"""


def test_a_kernel_out_of_the_cache_is_not_taken_for_a_sibling(tmp_path):
    """A cached kernel calls another; the next process compiles that one's sibling first, with its number in Numba."""
    (tmp_path / "siblings.py").write_text(SIBLINGS)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, str(tmp_path / "siblings.py")]
    first, second = (
        subprocess.run(
            command + more, env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.split("]")
        for more in ([], ["sibling first"])
    )
    assert (first[1].strip(), second[1].strip()) == ("0", "1")
    assert first[0] == second[0]


def test_processes_write_the_cache_one_after_the_other(tmp_path):
    """Numba picks a file's number, then writes it: two at once once gave one kernel the other's code."""
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "sparsefab-kernels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "NUMBA_CACHE_DIR": str(tmp_path),
        }
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, "same"], env=environment, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        assert not list(tmp_path.rglob("*.nbc"))
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert process.communicate(timeout=120)[0] == b"00"
    assert list(tmp_path.rglob("*.nbc"))
