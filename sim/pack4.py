"""Hold the Verilog of four int4 products a DSP to integer sums."""

from pathlib import Path

import numpy as np

from sparsefab.hw.pack4 import OPERAND_BITS, NibbleArch, nibble_verilog
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["nibble_stimuli", "verify_pack4"]


def nibble_stimuli(arch: NibbleArch, *, beats: int, seed: int) -> tuple[list[int], list[int]]:
    """Payloads in and sums out, one operand in four extreme; the first two beats fill every lane from both ends."""
    random = np.random.default_rng(seed)
    operands = random.integers(-8, 8, (2, beats, arch.dsps, 2))  # weights, activations
    operands = np.where(random.random(operands.shape) < 0.25, random.choice([-8, 7], operands.shape), operands)
    operands[:, 0] = -8
    operands[0, 1:2], operands[1, 1:2] = -8, 7
    weights, activations = operands
    sums = np.einsum("bdi,bdj->bij", weights, activations).reshape(beats, -1)
    fields = operands.transpose(1, 0, 2, 3).reshape(beats, -1)
    return (
        [_word(row, OPERAND_BITS) for row in fields.tolist()],
        [_word(row, arch.sum_bits) for row in sums.tolist()],
    )


def _word(values: list[int], bits: int) -> int:
    return sum((value & (1 << bits) - 1) << bits * place for place, value in enumerate(values))


def verify_pack4(
    arch: NibbleArch,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    beats: int = 500,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Run random outer products: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : NibbleArch
    build_dir, simulator, modules    As for `verify_chain`; 4 MAC a DSP and cycle times the plain run's utilisation.
    """
    texts = modules if modules is not None else nibble_verilog(arch, primitives="behavioural")
    vectors = StreamVectors.through(*nibble_stimuli(arch, beats=beats, seed=seed))
    return verify_streams("pack4", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)
