"""An engine's Verilog against the reference: compressed weights and activation codes in, requantized codes out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import Dense, QuantTensor, pack, unpack
from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import engine_verilog
from sparsefab.hw.engine import EngineArch
from sparsefab.hw.requantize import CODE_BITS
from sparsefab.sim.array_streams import ArrayJob, array_streams
from sparsefab.sim.dequantize import memory_beats
from sparsefab.sim.products import Product
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["engine_streams", "verify_engine"]

Integers = NDArray[np.int64]


def verify_engine(
    arch: EngineArch,
    product: Product,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold an engine's Verilog to `sim.reference.accumulate` and `formats.requantize`.

    Parameters
    ----------
    product : Product                With dequantizers its rows must fit the accumulators.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    texts = modules if modules is not None else engine_verilog(arch, primitives="behavioural")
    vectors = engine_streams(arch, product)
    return verify_streams("engine", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)


def engine_streams(arch: EngineArch, product: Product) -> StreamVectors:
    """Payloads of every input stream of `hw.engine.ArrayEngine`, its constants, and its results.

    Raises
    ------
    ValueError                       If dequantizers would have to read rows again, block by block.
    """
    whole, job = array_streams(arch.array, product), ArrayJob.of(arch.array, product)
    inputs, outputs, constants = dict(whole.inputs), whole.outputs, dict[str, int]()
    passes = list(job.passes())
    if arch.dequantize is not None:
        units, capacity = job.raw.shape[1], arch.array.accumulators.rows * arch.array.chains
        if units > capacity:
            raise ValueError(f"product must have at most {capacity} rows or pairs of rows, not {units}")
        inputs["weights"] = _memory(arch.dequantize, job, _stored(product)) * len(passes)
        constants |= {"tile_rows": units // arch.array.chains, "tile_count": job.raw.shape[0]}
    if arch.requantize:
        codes = [_codes(job, lanes, product.requantizer) for lanes, _ in passes]
        outputs = {
            "results": [
                beat
                for code in codes
                for part in job.row_blocks()
                for beat in job.beats([(CODE_BITS, lane) for lane in code], part)
            ]
        }
        own = product.requantizer
        mask = (1 << CODE_BITS) - 1
        constants |= {name: getattr(own, name) & mask for name in ("zero_point", "code_min", "code_max")}
    return StreamVectors(inputs=inputs, outputs=outputs, constants=constants, measured=("acts", "results"))


def _memory(arch: DequantizeArch, job: ArrayJob, tensor: QuantTensor) -> list[int]:
    """Memory beats of all chains side by side, one pass over the weights."""
    chains, together = job.arch.chains, job.layout.beat_rows
    rows = job.raw.shape[1] * together
    beats: list[int] = []
    for c in range(chains):
        own = np.arange(rows).reshape(-1, together)[c::chains].reshape(-1)
        words = memory_beats(pack(_rows(tensor, own), arch.layout), arch.beat_bits)
        beats = [a | b << arch.beat_bits * c for a, b in zip(beats or [0] * len(words), words, strict=True)]
    return beats


def _stored(product: Product) -> QuantTensor:
    """The weights with their pattern, which beats do not tell."""
    tensor, pattern = unpack(product.packed), product.packed.spec.pattern
    return tensor if isinstance(pattern, Dense) else replace(tensor, pattern=pattern, mask=tensor.codes != 0)


def _rows(tensor: QuantTensor, rows: NDArray[np.intp]) -> QuantTensor:
    """Some rows of a tensor; beyond its last one zeros."""
    there = rows < tensor.shape[0]

    def pick(values: NDArray[Any], otherwise: int) -> NDArray[Any]:
        found = np.full((len(rows), *values.shape[1:]), otherwise, values.dtype)
        found[there] = values[rows[there]]
        return found

    mask = tensor.mask
    return replace(
        tensor,
        codes=pick(tensor.codes, 0),
        row_scales=pick(tensor.row_scales, 1),
        mask=None if mask is None else pick(mask, 0),
        group_multipliers=None if tensor.group_multipliers is None else pick(tensor.group_multipliers, 1),
    )


def _codes(job: ArrayJob, lanes: Integers, constants: Requantizer) -> Integers:
    """Requantize what comes out of one pass, int64[lanes, units]."""
    _, shifts, multipliers = job.constants
    own = replace(
        constants,
        shifts=shifts.astype(np.int32),
        multipliers=np.where(multipliers, multipliers, 1 << 14).astype(np.int32),  # of rows that only fill up
    )
    if job.layout.pairs:
        return requantize(np.ascontiguousarray(lanes.T.reshape(1, -1)), own).reshape(-1, 2).T.astype(np.int64)
    return requantize(np.ascontiguousarray(lanes), own).astype(np.int64)
