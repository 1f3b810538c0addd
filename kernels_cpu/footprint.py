"""Memory of an encoder's plan and of ONNX Runtime's graphs, and how long compiling takes, each in its own process.

In the process of a bench memory that one runtime gave back serves the next, and kernels are compiled already. Here each
is the first: a plan with an empty cache of kernels, the same with the cache that this left, and graphs one by one.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsefab.errors import SparseFabError
from sparsefab.models.evaluate.encoder import QuantizedEncoder

__all__ = ["Footprint", "footprint"]

_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What was measured.

    pack_s : float               To make the plan.
    compile_cold_s, compile_cached_s : float  First calls with all kernels to compile, and with all of them on disk.
    plan_resident_bytes : int    By how much a process grew: packed weights, buffers, loaded kernels, after one batch.
    graph_resident_bytes : name -> int        The same of ONNX Runtime's sessions.
    """

    pack_s: float
    compile_cold_s: float
    compile_cached_s: float
    plan_resident_bytes: int
    graph_resident_bytes: Mapping[str, int]


def footprint(
    source: QuantizedEncoder, graphs: Mapping[str, bytes], *, batch: int, sequence: int, threads: int
) -> Footprint:
    """Measure.

    Parameters
    ----------
    graphs : name -> bytes       ONNX files, with `input_ids`, `attention_mask` and `embedding`.
    batch, sequence : int        Of the batch that each runs.

    Raises
    ------
    SparseFabError               If a process fails; the message has its last line.
    """
    order = {"shape": [batch, sequence], "vocabulary": len(source.graph.words), "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "encoder.pickle").write_bytes(pickle.dumps(source, protocol=5))
        cache = {"NUMBA_CACHE_DIR": str(place / "kernels")}
        cold, cached = (_answer(order | {"plan": str(place / "encoder.pickle")}, cache) for _ in range(2))
        resident = {}
        for name, content in graphs.items():
            (place / "graph.onnx").write_bytes(content)
            resident[name] = int(_answer(order | {"graph": str(place / "graph.onnx")}, {})["resident_bytes"])
    return Footprint(
        pack_s=cached["pack_s"],
        compile_cold_s=cold["compile_s"],
        compile_cached_s=cached["compile_s"],
        plan_resident_bytes=int(cached["resident_bytes"]),
        graph_resident_bytes=resident,
    )


def _answer(order: dict[str, Any], environment: dict[str, str]) -> dict[str, float]:
    worker = subprocess.run(
        [sys.executable, "-m", "sparsefab.kernels_cpu.footprint_worker"],
        input=json.dumps(order) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
        env=os.environ | environment,
    )
    if worker.returncode:
        lines = worker.stderr.strip().splitlines() or [f"exit code {worker.returncode}"]
        raise SparseFabError(f"the process that measures memory failed: {lines[-1]}")
    answer: dict[str, float] = json.loads(worker.stdout)
    return answer
