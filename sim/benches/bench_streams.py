"""Runs inside the simulator: a block with input and output streams, with every pattern of stalls.

The plan (plusarg `bench`) holds the payloads of each stream, `inputs` and `outputs`, as hexadecimal strings, the ports
that hold still, `constants`, and the runs; the outcome goes into results.json beside it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

from sparsefab.sim.drivers import StreamPorts, StreamSource
from sparsefab.sim.monitors import StreamSink
from sparsefab.sim.scoreboard import compare

_DRAIN_CYCLES = 400  # longer than any block's latency: a surplus beat comes out within it


@cocotb.test()
async def check_streams(dut: Any) -> None:
    """Run every entry of the plan and fail when one beat differs."""
    plan_path = Path(str(cocotb.plusargs["bench"]))
    plan = json.loads(plan_path.read_text())
    inputs, outputs = (
        {name: [int(word, 16) for word in words] for name, words in plan[kind].items()}
        for kind in ("inputs", "outputs")
    )
    Clock(dut.clk, 2, unit="ns").start()
    results = []
    for run in plan["runs"]:
        await FallingEdge(dut.clk)
        sources = {
            name: StreamSource(
                StreamPorts.amaranth(dut, name), payloads, idle=run["idle"], seed=f"{name} {run['seed']}"
            )
            for name, payloads in inputs.items()
        }
        sinks = {
            name: StreamSink(StreamPorts.amaranth(dut, name), stall=run["stall"], seed=f"{name} {run['seed']}")
            for name in outputs
        }
        for name, value in plan["constants"].items():
            getattr(dut, name).value = value
        dut.rst.value = 1
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        cycles = await _run(dut.clk, sources, sinks)
        found = [mismatch for name, sink in sinks.items() for mismatch in compare(outputs[name], sink.received)]
        results.append(
            {
                "name": run["name"],
                "seed": run["seed"],
                "beats": sum(map(len, outputs.values())),
                "cycles": cycles,
                "utilisation": max((sources | sinks)[name].utilisation for name in plan["measured"]),
                "mismatches": len(found),
                "first": asdict(found[0]) if found else None,
            }
        )
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"


async def _run(clock: Any, sources: dict[str, StreamSource], sinks: dict[str, StreamSink]) -> int:
    """Let beats pass until nothing has moved for a while; return the cycles up to the last beat."""
    agents: tuple[StreamSource | StreamSink, ...] = (*sources.values(), *sinks.values())
    cycle = quiet = finished = moved = 0
    while quiet < _DRAIN_CYCLES:
        await FallingEdge(clock)
        for agent in agents:
            agent.drive()
        await ReadOnly()
        for agent in agents:
            agent.sample(cycle)
        cycle += 1
        before, moved = moved, sum(s.sent for s in sources.values()) + sum(len(s.received) for s in sinks.values())
        quiet = 0 if moved > before else quiet + 1
        finished = cycle if moved > before else finished
    return finished
