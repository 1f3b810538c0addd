"""Other libraries' products of one layer, made ready to be timed in this process beside ours.

    onnxruntime   MatMulInteger and QLinearMatMul, weights constant, inputs and outputs bound beforehand     int8, dense
    torch         oneDNN's quantized linear                                                                 int8, dense
    scipy         CSR times a dense matrix                                                                  f32, a floor

Every engine has its own layout of activations, made beforehand; one that is not installed is reported as absent.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEERS", "Peer", "Problem", "peers_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """One layer: weights int8[rows, columns] with zeros where nothing is stored, codes uint8[tokens, columns]."""

    weights: NDArray[np.int8]
    codes: NDArray[np.uint8]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A way to compute the product; `call` does so once, `result` gives what the last call computed."""

    name: str
    precision: str
    call: Callable[[], Any]
    result: Callable[[], NDArray[Any]]


def peers_of(name: str, problem: Problem) -> list[Peer]:
    """Return the peers that library `name` offers for a problem.

    Raises
    ------
    ValueError                   If no peer has that name.
    ImportError                  If the library is not installed.
    """
    if name not in PEERS:
        raise ValueError(f"peer must be one of {', '.join(PEERS)}, not {name!r}")
    return PEERS[name](problem)


def _onnxruntime(problem: Problem) -> list[Peer]:
    runtime, onnx = importlib.import_module("onnxruntime"), importlib.import_module("onnx")
    rows, columns = problem.weights.shape
    tokens = len(problem.codes)
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.ascontiguousarray(problem.weights.T), "w")

    def constant(name: str, value: NDArray[Any]) -> Any:
        return onnx.numpy_helper.from_array(value, name)

    integer = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    linear = helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    one, scale = np.float32(1), np.float32(_output_scale(problem))
    constants = [
        constant("xs", np.array(one)),
        constant("xz", np.array(0, np.uint8)),
        constant("ws", np.array(one)),
        constant("wz", np.array(0, np.int8)),
        constant("ys", np.array(scale)),
        constant("yz", np.array(128, np.uint8)),
    ]
    result = []
    for node, kind, dtype, inputs in (
        (integer, kinds.INT32, np.int32, [weights]),
        (linear, kinds.UINT8, np.uint8, [weights, *constants]),
    ):
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", kinds.UINT8, [tokens, columns])],
            [helper.make_tensor_value_info("y", kind, [tokens, rows])],
            inputs,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = problem.threads, 1
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        result.append(
            _bound(session, problem, np.empty((tokens, rows), dtype), f"{runtime.__version__} {node.op_type}")
        )
    return result


def _bound(session: Any, problem: Problem, out: NDArray[Any], name: str) -> Peer:
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.uint8, problem.codes.shape, problem.codes.ctypes.data)
    binding.bind_output("y", "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
    return Peer(
        name=f"onnxruntime {name}",
        precision="int8",
        call=lambda: session.run_with_iobinding(binding),
        result=lambda: out,
    )


def _torch(problem: Problem) -> list[Peer]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(problem.threads)
    rows = len(problem.weights)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(problem.weights.copy()), None)
    codes, ones, zeros = torch.from_numpy(problem.codes), torch.ones(rows), torch.zeros(rows, dtype=torch.int32)
    scale, kept = _output_scale(problem), {}

    def call() -> None:
        with torch.no_grad():
            kept["y"] = torch.ops.onednn.qlinear_pointwise(
                codes, 1.0, 0, packed, ones, zeros, None, scale, 128, torch.uint8, "none", [], ""
            )

    return [
        Peer(
            name=f"torch {torch.__version__} oneDNN qlinear",
            precision="int8",
            call=call,
            result=lambda: np.asarray(kept["y"].numpy()),
        )
    ]


def _scipy(problem: Problem) -> list[Peer]:
    scipy = importlib.import_module("scipy")
    sparse = importlib.import_module("scipy.sparse")
    matrix = sparse.csr_matrix(problem.weights.astype(np.float32))
    codes, kept = np.ascontiguousarray(problem.codes.T.astype(np.float32)), {}

    def call() -> None:
        kept["y"] = matrix @ codes

    if problem.threads > 1:
        return []  # it has one thread
    return [Peer(name=f"scipy {scipy.__version__} CSR", precision="f32", call=call, result=lambda: kept["y"].T)]


def _output_scale(problem: Problem) -> float:
    """A scale that spreads the results over the codes; their values do not matter to the time."""
    return float(np.abs(problem.weights.astype(np.int64)).sum(axis=1).max()) or 1.0


PEERS: dict[str, Callable[[Problem], list[Peer]]] = {"onnxruntime": _onnxruntime, "torch": _torch, "scipy": _scipy}
