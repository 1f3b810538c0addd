"""Binary16 products of 4x1 blocks, as fractions of what fused steps alone reach in the same run.

table = bench_halves(shapes=[(768, 768)], densities=[0.2], tokens=[128])
table[0].fraction_of_peak, table[0].steps
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparsefab.formats.halves import pack_half
from sparsefab.kernels_cpu.drawn import drawn_mask
from sparsefab.kernels_cpu.half import HalfProduct, half_panels
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.probe import fused_chain
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["HALF_PATTERN", "HalfRow", "bench_halves"]

HALF_PATTERN = "4x1-fp16"


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfRow:
    """One product, binary16 in, binary32 out.

    Attributes
    ----------
    native : bool                By AVX512-FP16; else every rounding is written out in plain loops.
    macs_per_s : float           Products with stored weights.
    steps : str                  Of which the peak is: 'binary16', or 'binary32' where there are no such instructions.
    fraction_of_peak : float | None           Of the fused steps that as many threads make from registers.
    """

    rows: int
    columns: int
    tokens: int
    density: float
    threads: int
    native: bool
    median_s: float
    macs_per_s: float
    steps: str
    fraction_of_peak: float | None


def bench_halves(
    *,
    shapes: Sequence[tuple[int, int]],
    densities: Sequence[float],
    tokens: Sequence[int],
    threads: int = 1,
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[HalfRow, ...]:
    """Time the products of all combinations, a chain of fused steps in turn with each; arguments as in `bench.bench`.

    Raises
    ------
    ValueError                   If an argument is out of range.
    """
    check_threads(threads)
    if rounds < 1 or any(count < 1 for count in tokens) or any(not 0 < density <= 1 for density in densities):
        raise ValueError("rounds and tokens must be at least 1, densities above 0 and at most 1")
    plan = [(shape, count, density) for shape in shapes for count in tokens for density in densities]
    result = []
    for (rows, columns), count, density in plan:
        random = np.random.default_rng([seed, rows, columns, round(1000 * density)])
        result.append(_time(rows, columns, count, density, threads, rounds, random))
        if progress is not None:
            progress(len(result), len(plan))
    return tuple(result)


def _time(
    rows: int, columns: int, tokens: int, density: float, threads: int, rounds: int, random: np.random.Generator
) -> HalfRow:
    mask = drawn_mask("4x1", rows, columns, density, random)
    product = HalfProduct(pack_half(random.normal(size=mask.shape).astype(np.float16), mask))
    panels = half_panels(random.normal(size=(tokens, columns)).astype(np.float16))
    out = aligned_empty((len(panels), -(-rows // 4) * 4, panels.shape[2]), np.float32)
    chain = fused_chain()
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    product.run(panels, out=out, threads=threads)
    if chain is not None:
        chain.call()  # compiles it
    ours, steps = [], []
    for _ in range(rounds):
        begin = clock()
        product.run(panels, out=out, threads=threads)
        ours.append(max(clock() - begin, 1) * 1e-9)
        if chain is not None:
            begin = clock()
            chain.call()
            steps.append((clock() - begin) * 1e-9 / chain.macs)
    macs, times = int(mask.sum()) * tokens, np.array(ours)
    return HalfRow(
        rows=rows,
        columns=columns,
        tokens=tokens,
        density=float(mask.mean()),
        threads=threads,
        native=product.native,
        median_s=float(np.median(times)),
        macs_per_s=macs / float(np.median(times)),
        steps="none" if chain is None else chain.steps,
        fraction_of_peak=float(np.median(macs * np.array(steps) / times)) / threads if steps else None,
    )
