"""Times DeepSparse graphs on command, one JSON line each way: run in an environment of its own, never imported here.

in   {"load": ["ten.onnx", "two.onnx"], "inputs": [[1, tokens, inputs]], "threads": 1}     out {"version": "1.8.0"}
     an input is random float32 of a shape, whose first number is the batch; {"shape": [...], "integers": [low, high]}
     is int64 from low to high, high excluded
in   {"run": 0, "calls": 5}     out {"seconds": per call, wall time, "cpu_seconds": of the process}
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
            random = numpy.random.default_rng(0)
            inputs = [_drawn(numpy, random, wanted) for wanted in order["inputs"]]
            engines = [
                deepsparse.Engine(path, batch_size=len(inputs[0]), num_cores=order["threads"]) for path in order["load"]
            ]
            answer: dict[str, Any] = {"version": deepsparse.__version__}
        else:
            engine = engines[order["run"]]
            engine.run(inputs, val_inp=False)
            begin, cpu_begin = time.perf_counter(), time.process_time()
            for _ in range(order["calls"]):
                engine.run(inputs, val_inp=False)
            cpu, wall = time.process_time() - cpu_begin, time.perf_counter() - begin
            answer = {"seconds": wall / order["calls"], "cpu_seconds": cpu / order["calls"]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _drawn(numpy: Any, random: Any, wanted: Any) -> Any:
    if isinstance(wanted, dict):
        return random.integers(*wanted["integers"], wanted["shape"])
    return random.random(wanted, numpy.float32)


if __name__ == "__main__":
    main()
