"""Time matrix products on a CUDA device through torch, for an anchor file of the user's own device.

Weights rotate through copies that together exceed twice the last cache, as the layers of a model do; a figure is the
median of several turns between CUDA events. Kernels: 'fp16' (bfloat16 matmul), 'sq' (int8) and 'fp8' where the device
has them; the rest of the capability table has no kernel in torch.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsefab.errors import TargetError
from sparsefab.targets import TARGETS, Device, load_device

__all__ = ["Cuda", "Product", "guess_device", "measure_products", "open_cuda", "plan_products"]

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SIDES = (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 8192, 11008, 14336, 16384)
_LARGEST_OPERATIONS = 2.0 * 4096 * 16384 * 8192
_TURNS, _CALLS, _CACHE_BYTES, _ROWS_A_SIDE = 7, 8, 256 << 20, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product [m, k] x [k, n]."""

    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cuda:
    """What the measuring needs of a device; `open_cuda` makes one of torch, a test of its own.

    kernels : mapping by kernel family      Each takes a product and returns a call that runs it once, asynchronously.
    timer : callable(call, count)           Seconds a call, over `count` calls in a row.
    """

    name: str
    versions: str
    kernels: dict[str, Callable[[Product], Callable[[], object]]]
    timer: Callable[[Callable[[], object], int], float]


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

    def timer(call: Callable[[], object], count: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3 / count

    kernels: dict[str, Callable[[Product], Callable[[], object]]] = {}
    for name, make in (("fp16", _float_product), ("sq", _int8_product), ("fp8", _fp8_product)):
        try:
            make(torch, Product(m=32, n=256, k=256))()
            torch.cuda.synchronize()
        except (RuntimeError, AttributeError, TypeError, ValueError):
            continue  # this device or this torch has no such kernel
        kernels[name] = lambda product, make=make: make(torch, product)  # type: ignore[misc]
    return Cuda(
        name=str(torch.cuda.get_device_name()),
        versions=f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        kernels=kernels,
        timer=timer,
    )


def _rotating(weights: Sequence[Any], run: Callable[[Any], object]) -> Callable[[], object]:
    """Call `run` on the next copy of the weights each time."""
    place = 0

    def call() -> object:
        nonlocal place
        place = (place + 1) % len(weights)
        return run(weights[place])

    return call


def _copies(nbytes: int) -> int:
    return int(min(max(1, -(-_CACHE_BYTES // nbytes)), 256))


def _float_product(torch: Any, product: Product) -> Callable[[], object]:
    x = torch.randn(product.m, product.k, device="cuda", dtype=torch.bfloat16)
    count = _copies(2 * product.n * product.k)
    weights = [torch.randn(product.n, product.k, device="cuda", dtype=torch.bfloat16) for _ in range(count)]
    return _rotating(weights, lambda w: torch.matmul(x, w.t()))


def _int8_product(torch: Any, product: Product) -> Callable[[], object]:
    def draw(*shape: int) -> Any:
        return torch.randint(-127, 128, shape, device="cuda", dtype=torch.int8)

    # the kernel takes no fewer than 17 rows; fewer are filled up, as a model would have to
    x = draw(max(product.m, 32), product.k)
    weights = [draw(product.n, product.k) for _ in range(_copies(product.n * product.k))]
    return _rotating(weights, lambda w: torch._int_mm(x, w.t()))


def _fp8_product(torch: Any, product: Product) -> Callable[[], object]:
    def draw(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda").to(torch.float8_e4m3fn)

    one = torch.ones((), device="cuda")
    x = draw(-(-product.m // 16) * 16, product.k)
    weights = [draw(product.n, product.k) for _ in range(_copies(product.n * product.k))]
    return _rotating(weights, lambda w: torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16))


def guess_device(name: str) -> Device:
    """Return the built-in GPU that a CUDA device's name speaks of ('NVIDIA H200' is h200).

    Raises
    ------
    TargetError             If none is; a device file of the user's own is needed then.
    """
    words = name.lower().replace("-", " ").split()
    joined = "".join(words)
    known = [key for key in TARGETS.names() if load_device(key).kind == "gpu"]
    found = [key for key in known if key in words or (len(key) > 4 and key in joined)]
    if not found:
        raise TargetError(f"no built-in device is {name!r}; give a device file of its data sheet: --target FILE.toml")
    return load_device(max(found, key=len))


def plan_products(sides: int, seed: int = 0) -> list[Product]:
    """Draw `sides` pairs (n, k), each with several row counts; the same for a seed."""
    random = np.random.default_rng(seed)
    pairs = [(n, k) for n in _SIDES for k in _SIDES]
    products = []
    for index in random.permutation(len(pairs))[:sides].tolist():
        n, k = pairs[index]
        for m in sorted(random.choice(_ROWS, _ROWS_A_SIDE, replace=False).tolist()):
            if 2.0 * m * n * k <= _LARGEST_OPERATIONS:
                products.append(Product(m=m, n=n, k=k))
    return products


def measure_products(
    cuda: Cuda,
    device: Device,
    products: Sequence[Product],
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, object]]:
    """Time every product on every kernel that both the machine and the device's file have.

    Returns
    -------
    list of rows                gpu, dtype, m, n, k, latency_ms, source: the columns that `calibrate` fits.

    Raises
    ------
    TargetError                 If the device's file names none of the kernels that torch has here.
    """
    kernels = [name for name in cuda.kernels if device.gpu is not None and name in device.gpu.kernels]
    if not kernels:
        raise TargetError(
            f"{device.name}: its file names none of the kernels that can be timed here: {', '.join(cuda.kernels)}"
        )
    rows: list[dict[str, object]] = []
    source, total = f"{cuda.name}, {cuda.versions}", len(products) * len(kernels)
    for kernel in kernels:
        for product in products:
            call = cuda.kernels[kernel](product)
            cuda.timer(call, _CALLS)  # warms up
            seconds = float(np.median([cuda.timer(call, _CALLS) for _ in range(_TURNS)]))
            rows.append({"gpu": device.name, "dtype": kernel, "m": product.m, "n": product.n, "k": product.k,
                         "latency_ms": seconds * 1e3, "source": source})  # fmt: skip
            if progress is not None:
                progress(len(rows), total)
    return rows
