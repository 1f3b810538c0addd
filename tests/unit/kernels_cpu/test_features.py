"""Feature detection: whatever Numba is told about the processor, a product runs and is right, and nothing aborts."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sparsefab.kernels_cpu.features import Level, best_level, effective_features, runs

SCRIPT = """
import numpy as np
from sparsefab.kernels_cpu.features import best_level
from sparsefab.kernels_cpu.panels import panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Product, Sums
weights = BlockWeights(rows=4, columns=5, ptr=np.array([0, 1]), offsets=np.array([[0, 64, 192, 256]], np.int32),
                       values=np.arange(-8, 8, dtype=np.int8).reshape(1, 4, 4))
codes = (np.arange(15, dtype=np.uint8) * 17).reshape(3, 5)
result = rows_of(Product(weights, Sums()).run(panels_of(codes)), tokens=3, outputs=4)
expected = codes[:, [0, 1, 3, 4]].astype(np.int64) @ np.arange(-8, 8).reshape(4, 4).T
assert (result == expected).all()
print(best_level().value)
"""

ON_X86 = platform.machine() in ("x86_64", "AMD64")


def level_under(tmp_path, **variables):
    root = str(Path(__file__).resolve().parents[3])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": root, "NUMBA_CACHE_DIR": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not ON_X86, reason="names x86 features")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, "portable"),
        pytest.param(
            {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": ""},
            "portable",
            marks=pytest.mark.skipif(not runs(Level.AVX512), reason="Numba's code for that processor needs AVX512"),
        ),
        ({"NUMBA_CPU_FEATURES": "-avx512vnni"}, "portable"),
        ({"NUMBA_ENABLE_AVX": "0"}, "portable"),
        ({"NUMBA_CPU_FEATURES": "+avx,+avx2"}, "avx2"),
        ({"NUMBA_CPU_FEATURES": "+avx,+avx2,+avxvnni"}, "avx-vnni"),
        ({"NUMBA_CPU_FEATURES": "+avx,+avx2,+avx512f,+avx512bw,+avx512vl"}, "avx512"),
    ],
)
def test_a_missing_feature_never_ends_the_process(tmp_path, variables, expected):
    if not runs(Level(expected)):
        pytest.skip(f"the host lacks {expected}")
    assert level_under(tmp_path, **variables) == expected


@pytest.mark.skipif(not ON_X86 or runs(Level.AVX512), reason="the host has what the named processor has")
def test_a_processor_that_is_not_there_is_an_error_and_no_crash(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "NUMBA_CACHE_DIR": str(tmp_path)}
    environment |= {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "compile for skylake-avx512, but this processor lacks" in done.stderr


@pytest.mark.skipif(not ON_X86, reason="names x86 features")
def test_an_older_cpu_name_alone_keeps_the_features_of_the_host(tmp_path):
    assert level_under(tmp_path, NUMBA_CPU_NAME="x86-64-v2") == best_level().value


@pytest.mark.skipif(not ON_X86, reason="names x86 features")
def test_features_that_the_host_lacks_are_not_believed(monkeypatch):
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", "+avx512bogus,+avx2,-avx2,+avx")
    assert effective_features() <= {"avx"}


def test_portable_always_runs_and_levels_are_ordered():
    assert runs(Level.PORTABLE)
    assert best_level() == next(level for level in Level if runs(level))
    assert list(Level)[-1] is Level.PORTABLE
