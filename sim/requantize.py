"""Hold the requantizer's Verilog to `formats.requantize`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.hw.emit import requantize_verilog
from sparsefab.hw.requantize import CODE_BITS, RequantizeArch
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["RequantizeStimuli", "requantize_stimuli", "requantize_vectors", "verify_requantize"]


def verify_requantize(
    arch: RequantizeArch | None = None,
    *,
    build_dir: Path,
    zero_point: int = 0,
    code_min: int = -128,
    code_max: int = 127,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    beats: int = 1000,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold the requantizer's Verilog to `formats.requantize`: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : RequantizeArch | None
    zero_point, code_min, code_max : int
                                     Of the output codes, -256 to 255.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    arch = RequantizeArch() if arch is None else arch
    texts = modules
    if texts is None:
        texts = requantize_verilog(accumulator_bits=arch.accumulator_bits, lanes=arch.lanes, primitives="behavioural")
    vectors = requantize_vectors(
        arch, beats=beats, seed=seed, zero_point=zero_point, code_min=code_min, code_max=code_max
    )
    return verify_streams("requantize", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)


def requantize_vectors(
    arch: RequantizeArch,
    *,
    beats: int,
    seed: int,
    zero_point: int = 0,
    code_min: int = -128,
    code_max: int = 127,
) -> StreamVectors:
    """Random accumulators and constants in, the codes of `formats.requantize` out."""
    stimuli = requantize_stimuli(accumulator_bits=arch.accumulator_bits, lanes=arch.lanes, beats=beats, seed=seed)
    constants = Requantizer(
        multipliers=stimuli.multipliers.astype(np.int32),
        shifts=stimuli.shifts.astype(np.int32),
        zero_point=zero_point,
        code_min=code_min,
        code_max=code_max,
    )
    mask = (1 << CODE_BITS) - 1
    codes = requantize(np.ascontiguousarray(stimuli.accumulators.T), constants).T.astype(np.int64) & mask
    return StreamVectors.through(
        stimuli.payloads(arch.accumulator_bits),
        [sum(int(code) << CODE_BITS * lane for lane, code in enumerate(row)) for row in codes],
        {"zero_point": zero_point & mask, "code_min": code_min & mask, "code_max": code_max & mask},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequantizeStimuli:
    """accumulators int64[beats, lanes], multipliers int64[beats], shifts int64[beats]."""

    accumulators: NDArray[np.int64]
    multipliers: NDArray[np.int64]
    shifts: NDArray[np.int64]

    def payloads(self, accumulator_bits: int) -> list[int]:
        """Beats of `hw.requantize.requantize_layout`."""
        mask = (1 << accumulator_bits) - 1
        top = accumulator_bits * self.accumulators.shape[1]
        return [
            sum((value & mask) << accumulator_bits * lane for lane, value in enumerate(row))
            | (shift & 0x7F) << top
            | multiplier << (top + 7)
            for row, shift, multiplier in zip(
                self.accumulators.tolist(), self.shifts.tolist(), self.multipliers.tolist(), strict=True
            )
        ]


def requantize_stimuli(*, accumulator_bits: int, lanes: int, beats: int, seed: int) -> RequantizeStimuli:
    """Accumulators of every magnitude with shifts around theirs, one in eight at a rounding or saturation edge."""
    random = np.random.default_rng(seed)
    magnitude = random.integers(0, accumulator_bits, (beats, lanes))
    accumulators = random.integers(-(1 << accumulator_bits - 1), 1 << accumulator_bits - 1, (beats, lanes)) >> magnitude
    shifts = np.clip(accumulator_bits - 16 - magnitude[:, 0] + random.integers(-3, 8, beats), -47, 62)
    wild = random.random(beats) < 0.15
    shifts = np.where(wild, random.integers(-47, 63, beats), shifts)
    # half a unit of the first rounding, give or take one; and the first code beyond 16 bits
    edge = random.random((beats, lanes)) < 0.125
    places = np.clip(shifts, 1, accumulator_bits - 2)[:, None]
    half = random.choice([1, -1, 1 << 16, -(1 << 16)], (beats, lanes)) * (1 << places - 1)
    limit = (1 << accumulator_bits - 1) - 1
    accumulators = np.where(
        edge, np.clip(half + random.integers(-1, 2, (beats, lanes)), -limit - 1, limit), accumulators
    )
    return RequantizeStimuli(
        accumulators=accumulators, multipliers=random.integers(1 << 14, 1 << 15, beats), shifts=shifts
    )
