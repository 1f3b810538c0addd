"""Makes one runtime in a process of its own, runs a batch, and says by how much the process grew; a JSON line each way.

in   {"plan": "encoder.pickle", "shape": [batch, sequence], "vocabulary": n, "threads": 1}
out  {"resident_bytes": n, "pack_s": s, "compile_s": s}          compile_s: first calls of both widths of panels
in   {"graph": "encoder.onnx", ...}
out  {"resident_bytes": n}
"""

import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.kernels_cpu.resident import resident_bytes

__all__ = ["main"]


def main() -> None:
    """Answer one order."""
    order = json.loads(sys.stdin.readline())
    answer = _plan(order) if "plan" in order else _graph(order)
    sys.stdout.write(json.dumps(answer) + "\n")


def _plan(order: dict[str, Any]) -> dict[str, float]:
    source = pickle.loads(Path(order["plan"]).read_bytes())  # written by `footprint`
    before, begin = resident_bytes(), time.perf_counter()
    plan = EncoderPlan(source, threads=order["threads"])
    packed = time.perf_counter()
    for tokens in (16, 48):
        plan.embed(_feeds(1, tokens, order["vocabulary"]))
    compiled = time.perf_counter()
    batch, sequence = order["shape"]
    plan.embed(_feeds(batch, sequence, order["vocabulary"]))
    return {
        "resident_bytes": resident_bytes() - before,
        "pack_s": packed - begin,
        "compile_s": compiled - packed,
    }


def _graph(order: dict[str, Any]) -> dict[str, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = order["threads"], 1
    options.log_severity_level = 3
    before = resident_bytes()
    session = onnxruntime.InferenceSession(order["graph"], options, providers=["CPUExecutionProvider"])
    batch, sequence = order["shape"]
    session.run(["embedding"], _feeds(batch, sequence, order["vocabulary"]))
    return {"resident_bytes": resident_bytes() - before}


def _feeds(batch: int, sequence: int, vocabulary: int) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(0, vocabulary, (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


if __name__ == "__main__":
    main()
