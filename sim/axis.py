"""Hold a block behind its AXI4-Stream ports to its vectors, with cocotbext-axi on the other side of them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparsefab.errors import MissingToolError
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.blocks import BLOCKS
from sparsefab.sim.blocks import block_vectors
from sparsefab.sim.ports import has_port, port_bits
from sparsefab.sim.report import MODES, RunReport, VerifyReport
from sparsefab.sim.simulator import SimulatorName, build, run_bench

__all__ = ["verify_axis"]


def verify_axis(
    block: str,
    parameters: Any = None,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Run a block's vectors through its AXI4-Stream ports: plain, with idles, with back-pressure, with both.

    With idles come null beats. tdata, tlast and tkeep of every beat out are compared.

    Parameters
    ----------
    block : str                      A name of `hw.blocks` that has vectors.
    parameters : dataclass           Of its kind; None takes its defaults.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    found = BLOCKS.get(block)
    arch = found.default if parameters is None else parameters
    if find_spec("cocotbext") is None or find_spec("cocotbext.axi") is None:
        raise MissingToolError("cocotbext-axi drives the AXI4-Stream ports: pip install cocotbext-axi==0.1.28")
    texts = modules if modules is not None else found.modules(arch, primitives="behavioural", axis=True)
    vectors = block_vectors(block, arch, axis=texts, seed=seed)
    if vectors is None:
        raise ValueError(f"block {block!r} has no vectors")
    top = texts[AXIS_TOP]
    size: dict[str, int] = {}
    plan: dict[str, Any] = {"inputs": {}, "outputs": {}}
    for kind, prefix, side in (("inputs", "s_axis", vectors.inputs), ("outputs", "m_axis", vectors.outputs)):
        for name, words in side.items():
            size[name] = port_bits(top, f"{prefix}_{name}_tdata") // 8
            plan[kind][name] = _frames(words, size[name], has_port(top, f"{prefix}_{name}_tlast"))
    plan |= {
        "bytes": size,
        "constants": vectors.constants,
        "runs": [{"name": mode, "seed": seed, "idle": idle, "stall": stall} for mode, (idle, stall) in MODES.items()],
    }
    built = build(texts, build_dir, simulator, top=AXIS_TOP)
    runs = tuple(RunReport(**run) for run in run_bench(built, "bench_axis", plan))
    return VerifyReport(block=block, simulator=simulator, runs=runs)


def _frames(words: list[int], size: int, last: bool) -> list[list[str]]:
    """Beats by frame, tdata only; without tlast each beat is one."""
    frames: list[list[str]] = [[]]
    for word in words:
        frames[-1].append(f"{word & ((1 << 8 * size) - 1):x}")
        if word >> 8 * size or not last:
            frames.append([])
    return [frame for frame in frames if frame]
