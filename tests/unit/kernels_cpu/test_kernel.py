"""The disk cache: a kernel is found again, and never after an edit anywhere in the folder."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import sparsefab.kernels_cpu.kernel as module
if sys.argv[1] != "same":
    module.sources_digest = lambda: sys.argv[1]
from sparsefab.kernels_cpu import spmm_portable
import numpy as np
empty = np.zeros
for output, dtype in (("s32", np.int32), ("u8", np.uint8)):
    kernel = spmm_portable.spmm(output=output)
    parameters = () if output == "s32" else (empty(4, np.int32), empty(4, np.int16), 0, 0, 255)
    kernel(empty(2, np.int64), empty((0, 4), np.int32), empty((0, 4, 4), np.int8), empty((1, 1, 64), np.uint8),
           empty(4, np.int32), parameters, empty((1, 4, 64), dtype), (0, 1), (0, 1), empty((4, 64), np.int32))
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
