"""What `bench gpu` times on a CUDA device: products, decode attention, power under load; rows that `calibrate` fits.

Kernels are those of torch that the device's file names; decode attention is torch's own choice with a bfloat16 cache.
A figure is the median of several turns.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from sparsefab.cost_models.cuda import AttentionStep, Calls, Cuda, Product
from sparsefab.errors import TargetError
from sparsefab.targets import TARGETS, Device, load_device

__all__ = [
    "guess_device",
    "kernels_of",
    "measure_attention",
    "measure_power",
    "measure_products",
    "plan_attention",
    "plan_products",
]

log = logging.getLogger(__name__)

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_SIDES = (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 6144, 8192, 11008, 14336, 16384)
_LARGEST_OPERATIONS = 2.0 * 4096 * 16384 * 8192
_TURNS, _ROWS_A_SIDE = 7, 6

#: (query heads, key/value heads, head size) of decoders, and what lies between them.
_LAYOUTS = (
    (32, 32, 128), (32, 8, 128), (64, 8, 128), (40, 40, 128), (40, 8, 128), (16, 16, 64), (12, 12, 64), (9, 3, 64),
    (32, 4, 128), (28, 4, 128), (16, 2, 128), (8, 1, 128), (24, 8, 128), (48, 8, 128), (71, 1, 64), (32, 32, 64),
    (14, 2, 64), (64, 4, 128), (96, 8, 128), (20, 20, 128), (8, 8, 128), (8, 1, 256), (16, 16, 256), (8, 4, 256),
    (15, 5, 64), (64, 64, 128), (16, 8, 128), (32, 2, 128),
)  # fmt: skip
_BATCHES, _CONTEXTS, _LARGEST_CACHE_BYTES = 9, (6.0, 16.0), 4e9

_POWER_SECONDS, _POWER_SIDE = 2.0, 8192
#: Loads of the power meter by kernel: rows of products whose sides are `_POWER_SIDE`, from decode to the board's limit.
_POWER_ROWS = {"fp16": (1, 16, 64, 128, 256, 512, 8192), "fp8": (16, 128, 512, 8192), "sq": (16, 512, 8192)}

T = TypeVar("T")


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


def kernels_of(cuda: Cuda, device: Device) -> list[str]:
    """Return the kernel families that both the machine and the device's file have.

    Raises
    ------
    TargetError                 If there are none.
    """
    kernels = [name for name in cuda.kernels if device.gpu is not None and name in device.gpu.kernels]
    if not kernels:
        raise TargetError(
            f"{device.name}: its file names none of the kernels that can be timed here: {', '.join(cuda.kernels)}"
        )
    return kernels


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


def plan_attention(count: int, seed: int = 0) -> list[AttentionStep]:
    """Draw decode steps evenly over head layouts, log-evenly over batches and contexts; the same for a seed."""
    random = np.random.default_rng(seed)
    steps: list[AttentionStep] = []
    while len(steps) < count:
        heads, kv_heads, head_size = _LAYOUTS[len(steps) % len(_LAYOUTS)]
        batch = 2 ** int(random.integers(_BATCHES))
        context = round(2.0 ** random.uniform(*_CONTEXTS))
        if 4.0 * batch * context * kv_heads * head_size <= _LARGEST_CACHE_BYTES:
            steps.append(
                AttentionStep(batch=batch, context=context, heads=heads, kv_heads=kv_heads, head_size=head_size)
            )
    return steps


def measure_products(
    cuda: Cuda,
    device: Device,
    products: Sequence[Product],
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, object]]:
    """Time every product on every kernel of `kernels_of`.

    Returns
    -------
    list of rows                gpu, dtype, m, n, k, latency_ms, source: the columns that `calibrate` fits.

    Raises
    ------
    TargetError                 If no kernel can be timed, or more than half of the products fail.
    """
    rows: list[dict[str, object]] = []
    kernels = kernels_of(cuda, device)
    for place, kernel in enumerate(kernels):
        timed = _timed(cuda, cuda.kernels[kernel], products, kernel, (place, len(kernels), progress))
        rows += [
            {"gpu": device.name, "dtype": kernel, "m": product.m, "n": product.n, "k": product.k,
             "latency_ms": seconds * 1e3, "source": _source(cuda)}
            for product, seconds in timed
        ]  # fmt: skip
    return rows


def measure_attention(
    cuda: Cuda,
    device: Device,
    steps: Sequence[AttentionStep],
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, object]]:
    """Time decode attention; rows in the columns of a decode-attention table, none if the machine has no such kernel.

    Raises
    ------
    TargetError                 If more than half of the steps fail.
    """
    if cuda.attention is None:
        return []
    return [
        {"gpu": device.name, "batch_size": step.batch, "isl": 1, "step": step.context - 1, "num_heads": step.heads,
         "num_key_value_heads": step.kv_heads, "head_dim": step.head_size, "window_size": 0,
         "kv_cache_dtype": "bfloat16", "latency": seconds * 1e3, "source": _source(cuda)}
        for step, seconds in _timed(cuda, cuda.attention, steps, "attention", (0, 1, progress))
    ]  # fmt: skip


def measure_power(
    cuda: Cuda, device: Device, progress: Callable[[int, int], None] | None = None
) -> list[dict[str, object]]:
    """Read the board's power, idle and under products from decode to compute-bound; none without a meter.

    Returns
    -------
    list of rows                gpu, dtype ('' idle), m, n, k, latency_ms, watts.
    """
    if cuda.load is None:
        return []
    side = _POWER_SIDE
    loads: list[tuple[str, Product | None]] = [("", None)]
    for kernel in kernels_of(cuda, device):
        loads += [(kernel, Product(m=m, n=side, k=side)) for m in _POWER_ROWS.get(kernel, ())]
    rows: list[dict[str, object]] = []
    for kernel, product in loads:
        seconds, watts = cuda.load(None if product is None else cuda.kernels[kernel](product), _POWER_SECONDS)
        m, n, k = (0, 0, 0) if product is None else (product.m, product.n, product.k)
        rows.append({"gpu": device.name, "dtype": kernel, "m": m, "n": n, "k": k, "latency_ms": seconds * 1e3,
                     "watts": watts})  # fmt: skip
        if progress is not None:
            progress(len(rows), len(loads))
    return rows


def _source(cuda: Cuda) -> str:
    return f"{cuda.name}, {cuda.versions}"


def _timed(
    cuda: Cuda,
    make: Callable[[T], Calls],
    items: Sequence[T],
    name: str,
    part: tuple[int, int, Callable[[int, int], None] | None],
) -> list[tuple[T, float]]:
    """Median seconds of each item; one that fails (memory, a kernel's limits) is left out and logged."""
    place, parts, progress = part
    timed, reason = [], ""
    for done, item in enumerate(items, start=1):
        try:
            timed.append((item, float(np.median(cuda.timer(make(item), _TURNS)))))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("%s: %s: %s", name, item, reason)
        if progress is not None:
            progress(place * len(items) + done, parts * len(items))
    if 2 * len(timed) < len(items):
        raise TargetError(f"{name}: {len(items) - len(timed)} of {len(items)} could not be timed, the last: {reason}")
    return timed
