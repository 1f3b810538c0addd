"""Times DeepSparse graphs on command, one JSON line each way: run in an environment of its own, never imported here.

in   {"load": ["ten.onnx", "two.onnx"], "shape": [1, tokens, inputs], "threads": 1}        out {"version": "1.8.0"}
in   {"run": 0, "calls": 5}                      out {"seconds": per call}, wall time
"""

import importlib
import json
import sys
import time
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Serve until the input ends."""
    deepsparse, numpy = importlib.import_module("deepsparse"), importlib.import_module("numpy")
    answers = sys.stdout
    sys.stdout = sys.stderr  # the engine prints
    engines: list[Any] = []
    inputs: list[Any] = []
    for line in sys.stdin:
        order = json.loads(line)
        if "load" in order:
            threads = order["threads"]
            engines = [deepsparse.Engine(path, batch_size=1, num_cores=threads) for path in order["load"]]
            inputs = [numpy.random.default_rng(0).random(order["shape"], numpy.float32)]
            answer: dict[str, Any] = {"version": deepsparse.__version__}
        else:
            engine = engines[order["run"]]
            engine.run(inputs, val_inp=False)
            begin = time.perf_counter()
            for _ in range(order["calls"]):
                engine.run(inputs, val_inp=False)
            answer = {"seconds": (time.perf_counter() - begin) / order["calls"]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
