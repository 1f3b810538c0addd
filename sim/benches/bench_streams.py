"""Runs inside the simulator: a block with input streams and one output stream, with every pattern of stalls.

The plan (plusarg `bench`) holds the payloads of each input, `inputs`, and those expected at the output, `output`, as
hexadecimal strings, and the runs; the outcome goes into results.json beside it.
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
    inputs = {name: [int(word, 16) for word in words] for name, words in plan["inputs"].items()}
    output, words = plan["output"]
    expected = [int(word, 16) for word in words]
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
        sink = StreamSink(StreamPorts.amaranth(dut, output), stall=run["stall"], seed=f"{output} {run['seed']}")
        agents: tuple[StreamSource | StreamSink, ...] = (*sources.values(), sink)
        dut.rst.value = 1
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        cycle = quiet = finished = 0
        while quiet < _DRAIN_CYCLES:
            await FallingEdge(dut.clk)
            for agent in agents:
                agent.drive()
            await ReadOnly()
            before = sum(source.sent for source in sources.values()) + len(sink.received)
            for agent in agents:
                agent.sample(cycle)
            cycle += 1
            moved = sum(source.sent for source in sources.values()) + len(sink.received) > before
            quiet = 0 if moved else quiet + 1
            finished = cycle if moved else finished
        mismatches = compare(expected, sink.received)
        results.append(
            {
                "name": run["name"],
                "seed": run["seed"],
                "beats": len(expected),
                "cycles": finished,
                "utilisation": sources[plan["measured"]].utilisation,
                "mismatches": len(mismatches),
                "first": asdict(mismatches[0]) if mismatches else None,
            }
        )
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"
