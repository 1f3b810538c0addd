"""Runs inside the simulator: the sparse chain against sim.reference, plain, with idles, with back-pressure, with both.

The plan comes as a file, its path as the plusarg `bench`: stimuli and, for each run, probabilities and seed. The
outcome goes into a file beside it; `sparsefab.sim.run` reads it.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from sparsefab.arch import ChainArch
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.drivers import StreamPorts, StreamSource
from sparsefab.sim.monitors import StreamSink
from sparsefab.sim.scoreboard import compare
from sparsefab.sim.stimuli import ChainStimuli

_DRAIN_CYCLES = 2000


@cocotb.test()
async def check_chain(dut: Any) -> None:
    """Run every entry of the plan and fail when one beat differs."""
    plan_path = Path(str(cocotb.plusargs["bench"]))
    plan = json.loads(plan_path.read_text())
    arch = ChainArch(**plan["arch"])
    clock = dut.aclk if plan["axis"] else dut.clk
    Clock(clock, 2, unit="ns").start()
    results = []
    for run in plan["runs"]:
        stimuli = ChainStimuli.load(plan_path.parent / run["stimuli"])
        await FallingEdge(clock)
        reset = dut.aresetn if plan["axis"] else dut.rst
        reset.value = 0 if plan["axis"] else 1
        agents = _agents(dut, arch, stimuli, run, axis=plan["axis"])
        for _ in range(plan["reset_cycles"]):
            await FallingEdge(clock)
        reset.value = 1 if plan["axis"] else 0
        results.append(await _run(clock, arch, run, *agents, kinds=stimuli.kinds()))
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"


def _agents(
    dut: Any, arch: ChainArch, stimuli: ChainStimuli, run: dict[str, Any], *, axis: bool
) -> tuple[StreamSource, StreamSource, StreamSink, list[int]]:
    """Sources of activations and weights, the sink of the sums, and what it should receive."""
    bits = BeatFormat.axis(arch) if axis else BeatFormat.stream(arch)
    ports = {
        name: StreamPorts.axis(dut, f"{'m' if name == 'sums' else 's'}_axis_{name}")
        if axis
        else StreamPorts.amaranth(dut, name)
        for name in ("acts", "weights", "sums")
    }
    idle, stall, seed = run["idle"], run["stall"], run["seed"]
    return (
        StreamSource(ports["acts"], bits.acts(stimuli), idle=idle, seed=f"acts {seed}"),
        StreamSource(ports["weights"], bits.weights(stimuli), idle=idle, seed=f"weights {seed}"),
        StreamSink(ports["sums"], stall=stall, seed=f"sums {seed}"),
        bits.sums(stimuli),
    )


async def _run(
    clock: Any,
    arch: ChainArch,
    run: dict[str, Any],
    acts: StreamSource,
    weights: StreamSource,
    sums: StreamSink,
    expected: list[int],
    *,
    kinds: list[str],
) -> dict[str, Any]:
    agents = (acts, weights, sums)
    cycle = quiet = 0
    while len(sums.received) < len(expected) and quiet < _DRAIN_CYCLES:
        await FallingEdge(clock)
        for agent in agents:
            agent.drive()
        await ReadOnly()
        before = len(sums.received) + weights.sent + acts.sent
        for agent in agents:
            agent.sample(cycle)
        quiet = 0 if len(sums.received) + weights.sent + acts.sent > before else quiet + 1
        cycle += 1
    # a surplus beat would come out within the pipeline's length
    for _ in range(arch.latency_cycles + 8):
        await FallingEdge(clock)
        for agent in agents:
            agent.drive()
        await ReadOnly()
        for agent in agents:
            agent.sample(cycle)
    mismatches = compare(expected, sums.received)
    return {
        "name": run["name"],
        "seed": run["seed"],
        "beats": len(expected),
        "cycles": cycle,
        "utilisation": weights.utilisation,
        "mismatches": len(mismatches),
        "first": asdict(mismatches[0]) if mismatches else None,
        "coverage": dict(Counter(kinds[: len(sums.received)])),
    }
