"""A CUDA device through torch: what its kernels are, how long calls take, how many joules went by.

Calls are captured into a CUDA graph and timed between events, so that Python's own time is in no figure. Weights and
caches rotate through copies that together exceed twice the last cache, as the layers of a model do.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sparsefab.errors import TargetError

__all__ = ["AttentionStep", "Calls", "Cuda", "Product", "open_cuda"]

_CACHE_BYTES, _MOST_COPIES, _LEAST_CALLS = 256 << 20, 256, 4
_LONGEST_S = 0.2  # of one product, after which three turns are enough
_GROUP = 128  # weights that share a scale in torch's int4 kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product [m, k] x [k, n]."""

    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionStep:
    """One decode step of attention: a query a sequence over `context` cached tokens."""

    batch: int
    context: int
    heads: int
    kv_heads: int
    head_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """`run` starts the kernel once, on the next copy of its weights; `count` calls use every copy."""

    run: Callable[[], object]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cuda:
    """What the measuring needs of a device; `open_cuda` makes one of torch, a test of its own.

    kernels : mapping by kernel family      Each makes the calls of a product.
    attention : callable or None            Makes the calls of a decode step.
    timer : callable(calls, turns)          Seconds a call in each of up to `turns` turns, after one to warm up.
    load : callable(calls, seconds)         Run for so long: (seconds a call, watts); None without a power meter.
    """

    name: str
    versions: str
    kernels: dict[str, Callable[[Product], Calls]]
    timer: Callable[[Calls, int], list[float]]
    attention: Callable[[AttentionStep], Calls] | None = None
    load: Callable[[Calls | None, float], tuple[float, float]] | None = None
    missing: dict[str, str] = field(default_factory=dict)


def open_cuda() -> Cuda:
    """Return this machine's CUDA device.

    Raises
    ------
    TargetError             If torch is not installed or sees no CUDA device.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise TargetError(
            "bench gpu needs PyTorch, which is not installed: pip install torch, on a machine with a CUDA device"
        ) from error
    if not torch.cuda.is_available():
        raise TargetError(f"bench gpu needs a CUDA device; torch {torch.__version__} sees none")
    device = _Torch(torch)
    kernels: dict[str, Callable[[Product], Calls]] = {}
    missing: dict[str, str] = {}
    for name, make in _KERNELS.items():
        try:
            device.timer(make(torch, Product(m=32, n=256, k=256)), 1)
        except (RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
            missing[name] = str(error).partition("\n")[0]  # this device or this torch has no such kernel
            continue
        kernels[name] = lambda product, make=make: make(torch, product)  # type: ignore[misc]
    return Cuda(
        name=str(torch.cuda.get_device_name()),
        versions=f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        kernels=kernels,
        timer=device.timer,
        attention=lambda step: _attention(torch, step),
        load=device.load if device.meter() is not None else None,
        missing=missing,
    )


class _Torch:
    """Timing by graphs, and the board's energy counter through NVML."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._nvml: Any = None
        self._handle: Any = None
        try:
            nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            return
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
            nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self._nvml = nvml
        except nvml.NVMLError:  # no counter on this board
            return

    def meter(self) -> float | None:
        """Joules since the driver was loaded; None without a counter."""
        return None if self._nvml is None else self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) * 1e-3

    def _graph(self, calls: Calls) -> Any:
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # outside of the graph first: libraries allocate and choose on their first call
            calls.run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls.count):
                calls.run()
        return graph

    def timer(self, calls: Calls, turns: int) -> list[float]:
        """Seconds a call, turn by turn."""
        torch, graph, seconds = self._torch, self._graph(calls), []
        graph.replay()
        torch.cuda.synchronize()
        for _ in range(turns):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            seconds.append(float(begin.elapsed_time(end)) * 1e-3 / calls.count)
            if sum(seconds) * calls.count > _LONGEST_S and len(seconds) >= 3:
                break
        return seconds

    def load(self, calls: Calls | None, seconds: float) -> tuple[float, float]:
        """Run `calls` (None: idle) for `seconds` after a warm-up of a quarter; (seconds a call, mean watts)."""
        graph = None if calls is None else self._graph(calls)

        def busy(span: float) -> tuple[int, float]:
            begin, count = time.perf_counter(), 0
            while (spent := time.perf_counter() - begin) < span:
                if graph is None:
                    time.sleep(0.01)
                    continue
                each = max(1, round(0.02 / (spent / count))) if count else 1  # the queue holds some 20 ms
                for _ in range(min(each, 1000)):
                    graph.replay()
                self._torch.cuda.synchronize()
                count += min(each, 1000)
            return count, time.perf_counter() - begin

        busy(seconds / 4.0)
        before = self.meter() or 0.0
        count, spent = busy(seconds)
        watts = ((self.meter() or 0.0) - before) / spent
        return (0.0 if calls is None else spent / count / calls.count), watts


def _copies(nbytes: float) -> int:
    return int(min(max(1, -(-_CACHE_BYTES // max(int(nbytes), 1))), _MOST_COPIES))


def _rotating(copies: list[Any], run: Callable[[Any], object]) -> Calls:
    """Call `run` on the next copy each time."""
    place = 0

    def call() -> object:
        nonlocal place
        place = (place + 1) % len(copies)
        return run(copies[place])

    return Calls(run=call, count=max(len(copies), _LEAST_CALLS))


def _float_product(torch: Any, product: Product) -> Calls:
    x = torch.randn(product.m, product.k, device="cuda", dtype=torch.bfloat16)
    weights = [
        torch.randn(product.n, product.k, device="cuda", dtype=torch.bfloat16)
        for _ in range(_copies(2.0 * product.n * product.k))
    ]
    return _rotating(weights, lambda w: torch.matmul(x, w.t()))


def _int8(torch: Any, *shape: int) -> Any:
    return torch.randint(-127, 128, shape, device="cuda", dtype=torch.int8)


def _fp8(torch: Any, *shape: int) -> Any:
    return torch.randn(*shape, device="cuda").to(torch.float8_e4m3fn)


def _int8_product(torch: Any, product: Product) -> Calls:
    # the kernel takes no fewer than 17 rows; fewer are filled up, as a model would have to
    x = _int8(torch, max(product.m, 32), product.k)
    weights = [_int8(torch, product.n, product.k) for _ in range(_copies(product.n * product.k))]
    return _rotating(weights, lambda w: torch._int_mm(x, w.t()))


def _fp8_product(torch: Any, product: Product) -> Calls:
    one = torch.ones((), device="cuda")
    x = _fp8(torch, -(-product.m // 16) * 16, product.k)
    weights = [_fp8(torch, product.n, product.k) for _ in range(_copies(product.n * product.k))]
    return _rotating(weights, lambda w: torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16))


def _int4_product(torch: Any, product: Product) -> Calls:
    x = torch.randn(product.m, product.k, device="cuda", dtype=torch.bfloat16)
    scales = torch.randn(product.k // _GROUP, product.n, 2, device="cuda", dtype=torch.bfloat16)
    weights = []
    for _ in range(_copies(product.n * product.k / 2.0)):
        codes = torch.randint(0, 256, (product.n, product.k // 2), device="cuda", dtype=torch.uint8)
        weights.append(torch._convert_weight_to_int4pack(codes, 8))
    return _rotating(weights, lambda w: torch._weight_int4pack_mm(x, w, _GROUP, scales))


def _two_of_four(torch: Any, dense: Any) -> Any:
    """Zero the first two of each four inputs of a weight, and compress."""
    dense.view(dense.shape[0], -1, 4)[:, :, :2] = 0
    return torch._cslt_compress(dense)


def _sparse(torch: Any, product: Product, value_bytes: float, draw: Callable[..., Any], out: Any) -> Calls:
    """Weights on the left, as cuSPARSELt has its 2:4 operand; rows of activations filled up to 16."""
    x = draw(torch, -(-product.m // 16) * 16, product.k).t()
    count = _copies(value_bytes * product.n * product.k / 2.0)
    weights = [_two_of_four(torch, draw(torch, product.n, product.k)) for _ in range(count)]
    best = torch._cslt_sparse_mm_search(weights[0], x, out_dtype=out)
    return _rotating(weights, lambda w: torch._cslt_sparse_mm(w, x, out_dtype=out, alg_id=best))


def _sparse_float(torch: Any, product: Product) -> Calls:
    def draw(torch: Any, *shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    return _sparse(torch, product, 2.0, draw, None)


def _sparse_int8(torch: Any, product: Product) -> Calls:
    return _sparse(torch, product, 1.0, _int8, torch.bfloat16)


#: What torch has of the capability table's families, by name.
_KERNELS: dict[str, Callable[[Any, Product], Calls]] = {
    "fp16": _float_product,
    "sq": _int8_product,
    "fp8": _fp8_product,
    "int4_wo": _int4_product,
    "fp16_24": _sparse_float,
    "sq_24": _sparse_int8,
}


def _attention(torch: Any, step: AttentionStep) -> Calls:
    def draw(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    query = draw(step.batch, step.heads, 1, step.head_size)
    shape = (step.batch, step.kv_heads, step.context, step.head_size)
    nbytes = 4.0 * step.batch * step.kv_heads * step.context * step.head_size
    caches = [(draw(*shape), draw(*shape)) for _ in range(_copies(nbytes))]
    attend = torch.nn.functional.scaled_dot_product_attention
    grouped = step.heads != step.kv_heads
    return _rotating(caches, lambda kv: attend(query, *kv, enable_gqa=grouped))
