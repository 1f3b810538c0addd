"""Peers that need a Python and packages of their own: an environment made on demand, a worker that times on command.

    deepsparse   DeepSparse 1.8.0, Python 3.11, the last version that installs; where there is no VNNI, in its fast
                 emulation, which gives up accuracy
    intel        the JIT of intel-extension-for-transformers 1.4.2, by a driver compiled on demand: see `intel_jit`

Neither is needed, or made in CI. A peer that cannot be had raises ImportError with the reason, as a missing library.
"""

import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.features import Level, effective_features

__all__ = ["PROCESS_PEERS", "DeepSparse", "DeepSparsePair", "environment_of", "made_by"]

PROCESS_PEERS = ("deepsparse", "intel")
_ENVIRONMENTS = {
    "deepsparse": ("deepsparse-1.8.0", ("deepsparse==1.8.0", "numpy==1.26.4", "onnx==1.14.1")),
    "intel": ("intel-1.4.2", ("--no-deps", "intel-extension-for-transformers==1.4.2")),
}
_LAYERS = (10, 2)  # the difference, four pairs, is free of what quantizes input and output
_TIMEOUT_S = 900


def environment_of(name: str, cache: Path) -> Path:
    """Return the Python of a peer's environment under `cache`, made at the first call.

    Raises
    ------
    ImportError                  If the peer cannot run here, or its environment cannot be made.
    """
    if name == "intel" and (missing := sorted(Level.AVX512_VNNI.needs - effective_features())):
        raise ImportError(f"it needs {', '.join(missing)}")
    python = shutil.which("python3.11")
    if python is None:
        raise ImportError("it needs python3.11, which is not installed")
    folder, packages = _ENVIRONMENTS[name]
    place = cache / "peers" / folder
    done, inside = place / "installed", place / "bin" / "python"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        made_by([python, "-m", "venv", str(place)])
        made_by([str(inside), "-m", "pip", "install", "-q", *packages])
        done.touch()
    return inside


def made_by(command: list[str]) -> None:
    """Run a command that makes part of an environment; an ImportError gives its last line if it fails."""
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if made.returncode:
        lines = (made.stderr or made.stdout).strip().splitlines() or ["no reason given"]
        raise ImportError(f"its environment could not be made: {lines[-1]}")


class DeepSparse:
    """ONNX graphs in DeepSparse: a worker process that times them on command.

    Parameters
    ----------
    graphs : list of Path                     Removed once they are loaded.
    inputs : list                             Of every graph, as `deepsparse_worker` describes them.
    threads : int
    cache : Path                              Where its environment is.

    Raises
    ------
    ImportError                               If it cannot be had, or refuses a graph.
    """

    def __init__(self, graphs: Sequence[Path], inputs: Sequence[Any], threads: int, cache: Path) -> None:
        self._process = None
        try:
            self._process = subprocess.Popen(
                [str(environment_of("deepsparse", cache)), str(Path(__file__).with_name("deepsparse_worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"NM_DISABLE_ANALYTICS": "1", "NM_FAST_VNNI_EMULATION": "1", "PYTHONPATH": ""},
            )
            ready = self._ask({"load": [str(path) for path in graphs], "inputs": list(inputs), "threads": threads})
        except ImportError:
            self.close()
            raise
        finally:
            for path in graphs:
                path.unlink(missing_ok=True)
        self.name = f"deepsparse {ready['version']}"

    def seconds(self, graph: int, *, calls: int = 1, cpu: bool = False) -> float:
        """Run a graph `calls` times after one for its caches; seconds a call, of wall or of the process's CPU time."""
        return float(self._ask({"run": graph, "calls": calls})["cpu_seconds" if cpu else "seconds"])

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ImportError("its worker has no pipes")
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ImportError(f"its worker ended with exit code {process.wait(timeout=60)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class DeepSparsePair:
    """A pair of layers, A [m, k] and B [k, m], in DeepSparse: graphs A, B, A, B...

    Parameters
    ----------
    pair : int8[m, k], int8[k, m]             Zeros where nothing is stored.
    tokens, threads : int
    cache : Path                              Where its environment and graphs are.

    Raises
    ------
    ImportError                               If it, or onnx to write its graphs, cannot be had.
    """

    def __init__(self, pair: tuple[NDArray[np.int8], NDArray[np.int8]], tokens: int, threads: int, cache: Path) -> None:
        graphs = [cache / "peers" / f"{os.getpid()}-{layers}.onnx" for layers in _LAYERS]
        for path, layers in zip(graphs, _LAYERS, strict=True):
            _write_graph(path, pair, tokens, layers)
        self._engine = DeepSparse(graphs, [[1, tokens, pair[0].shape[1]]], threads, cache)
        self.name = self._engine.name

    def pair_seconds(self, calls: int) -> float:
        """Run both graphs `calls` times; the wall time of one pair of layers."""
        long, short = (self._engine.seconds(index, calls=calls) for index in (0, 1))
        return 2 * (long - short) / (_LAYERS[0] - _LAYERS[1])

    def close(self) -> None:
        """End the worker."""
        self._engine.close()


def _write_graph(path: Path, pair: Sequence[NDArray[np.int8]], tokens: int, layers: int) -> None:
    """Write x f32 [1, tokens, k] -> u8 -> QLinearMatMul A, B, A... -> f32; an even number of layers."""
    onnx = importlib.import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {
        "x_scale": np.array(1 / 255, np.float32), "u_zero": np.array(128, np.uint8),
        "w_zero": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [helper.make_node("QuantizeLinear", ["x", "x_scale", "u_zero"], ["q0"])]
    for i in range(layers):
        weights, spread = pair[i % 2], float(np.sqrt((pair[i % 2].astype(np.float64) ** 2).sum(axis=1).mean())) or 1.0
        constants[f"w{i}"] = np.ascontiguousarray(weights.T)
        constants[f"s{i}"] = np.array(1 / spread, np.float32)  # codes stay spread over their range, at one scale
        named = [f"q{i}", "x_scale", "u_zero", f"w{i}", f"s{i}", "w_zero", "x_scale", "u_zero"]
        nodes.append(helper.make_node("QLinearMatMul", named, [f"q{i + 1}"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"q{layers}", "x_scale", "u_zero"], ["y"]))
    columns = pair[0].shape[1]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", kinds.FLOAT, [1, tokens, columns])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [1, tokens, columns])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
