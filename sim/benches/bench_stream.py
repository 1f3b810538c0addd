"""Runs inside the simulator: a block with one stream `i` and one stream `o`, with every pattern of stalls.

The plan (plusarg `bench`) holds payloads in and out as hexadecimal strings, the constants, and the runs; the outcome
goes into results.json beside it.
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

_DRAIN_CYCLES = 200


@cocotb.test()
async def check_stream(dut: Any) -> None:
    """Run every entry of the plan and fail when one beat differs."""
    plan_path = Path(str(cocotb.plusargs["bench"]))
    plan = json.loads(plan_path.read_text())
    payloads, expected = ([int(word, 16) for word in plan[name]] for name in ("i", "o"))
    Clock(dut.clk, 2, unit="ns").start()
    results = []
    for run in plan["runs"]:
        await FallingEdge(dut.clk)
        source = StreamSource(StreamPorts.amaranth(dut, "i"), payloads, idle=run["idle"], seed=f"i {run['seed']}")
        sink = StreamSink(StreamPorts.amaranth(dut, "o"), stall=run["stall"], seed=f"o {run['seed']}")
        for name, value in plan["constants"].items():
            getattr(dut, name).value = value
        dut.rst.value = 1
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        cycle = quiet = 0
        while quiet < _DRAIN_CYCLES:  # runs on after the last beat, so a surplus one is seen
            await FallingEdge(dut.clk)
            source.drive()
            sink.drive()
            await ReadOnly()
            before = source.sent + len(sink.received)
            source.sample(cycle)
            sink.sample(cycle)
            quiet = 0 if source.sent + len(sink.received) > before else quiet + 1
            cycle += 1
        mismatches = compare(expected, sink.received)
        results.append(
            {
                "name": run["name"],
                "seed": run["seed"],
                "beats": len(expected),
                "cycles": cycle - quiet,
                "utilisation": max(source.utilisation, sink.utilisation),  # of the stream that has more beats
                "mismatches": len(mismatches),
                "first": asdict(mismatches[0]) if mismatches else None,
            }
        )
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"
