"""Beats that go into a block and those that must come out, and the bench that holds any block's Verilog to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparsefab.hw.emit import TOP
from sparsefab.sim.report import MODES, RunReport, VerifyReport
from sparsefab.sim.simulator import SimulatorName, build, run_bench

__all__ = ["StreamVectors", "verify_streams"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamVectors:
    """One pass through a block of streams.

    inputs, outputs : {stream: payloads}  In order; each stream has its own pace.
    constants : {port: pattern}           Ports that hold still.
    measured : streams                    The fullest of them gives the reported utilisation.
    """

    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    constants: dict[str, int] = field(default_factory=dict)
    measured: tuple[str, ...]

    @staticmethod
    def through(i: list[int], o: list[int], constants: dict[str, int] | None = None) -> "StreamVectors":
        """The vectors of a block with one stream `i` and one stream `o`."""
        return StreamVectors(inputs={"i": i}, outputs={"o": o}, constants=constants or {}, measured=("i", "o"))


def verify_streams(
    block: str,
    texts: Mapping[str, str],
    vectors: StreamVectors,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modes: Sequence[str] = tuple(MODES),
) -> VerifyReport:
    """Hold a block's Verilog to its vectors, in some or all of MODES.

    Parameters
    ----------
    block : str                      Named in the report.
    texts : {module: text}           Verilog under test; the block is `top`.
    build_dir, simulator             As for `verify_chain`.
    seed : int                       Of the stalls.
    modes : names of MODES           A run each.
    """
    plan = {
        "inputs": {name: _words(payloads) for name, payloads in vectors.inputs.items()},
        "outputs": {name: _words(payloads) for name, payloads in vectors.outputs.items()},
        "constants": vectors.constants,
        "measured": vectors.measured,
        "runs": [{"name": mode, "seed": seed, "idle": MODES[mode][0], "stall": MODES[mode][1]} for mode in modes],
    }
    built = build(texts, build_dir, simulator, top=TOP)
    runs = tuple(RunReport(**run) for run in run_bench(built, "bench_streams", plan))
    return VerifyReport(block=block, simulator=simulator, runs=runs)


def _words(payloads: list[int]) -> list[str]:
    """JSON has no integers of any width."""
    return [f"{payload:x}" for payload in payloads]
