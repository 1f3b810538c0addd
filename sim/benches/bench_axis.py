"""Runs inside the simulator: a block behind AXI4-Stream ports, driven and watched by cocotbext-axi.

The plan (plusarg `bench`) holds the frames of each stream, `inputs` and `outputs`: lists of beats as hexadecimal tdata,
a frame ending where tlast is to be, or after each beat where the port has no tlast; `bytes` of each stream's tdata; the
ports that hold still, `constants`; and the runs. With idles, null beats come between frames: nothing of them is kept,
and neither they nor their tlast may leave a trace. The outcome goes into results.json beside the plan.
"""

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sparsefab.sim.scoreboard import compare

_DRAIN_CYCLES = 400  # longer than any block's latency: a surplus beat comes out within it


@cocotb.test()
async def check_axis(dut: Any) -> None:
    """Run every entry of the plan and fail when a beat, its tlast or its tkeep differs."""
    plan_path = Path(str(cocotb.plusargs["bench"]))
    plan = json.loads(plan_path.read_text())
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
    Clock(dut.aclk, 2, unit="ns").start()
    dut.aresetn.value = 0
    sources = {name: AxiStreamSource(*_port(dut, f"s_axis_{name}")) for name in plan["inputs"]}
    sinks = {name: AxiStreamSink(*_port(dut, f"m_axis_{name}")) for name in plan["outputs"]}
    for agent in (*sources.values(), *sinks.values()):
        agent.log.setLevel(logging.WARNING)
    for name, value in plan["constants"].items():
        getattr(dut, name).value = value
    results = []
    for run in plan["runs"]:
        dut.aresetn.value = 0
        await _cycles(dut, 4)
        dut.aresetn.value = 1
        for name, source in sources.items():
            seed = random.Random(f"{name} {run['seed']}")
            source.set_pause_generator(_pauses(random.Random(f"{name} {run['seed']} pauses"), run["idle"]))
            for frame in _frames(plan["inputs"][name], plan["bytes"][name], run["idle"], seed):
                source.send_nowait(frame)
        for name, sink in sinks.items():
            sink.set_pause_generator(_pauses(random.Random(f"{name} {run['seed']}"), run["stall"]))
        results.append(_judge(plan, run, *await _received(dut, sinks)))
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"


def _port(dut: Any, prefix: str) -> tuple[Any, ...]:
    return AxiStreamBus.from_prefix(dut, prefix), dut.aclk, dut.aresetn, False  # the reset is active when low


def _pauses(seed: random.Random, share: float) -> Iterator[bool]:
    while True:
        yield seed.random() < share


def _frames(frames: list[list[str]], size: int, nulls: float, seed: random.Random) -> Iterator[AxiStreamFrame]:
    """The frames, and null beats between them."""
    for frame in frames:
        while seed.random() < nulls:
            yield AxiStreamFrame(seed.randbytes(size), tkeep=[0] * size)
        yield AxiStreamFrame(b"".join(int(word, 16).to_bytes(size, "little") for word in frame))


async def _cycles(dut: Any, count: int) -> None:
    for _ in range(count):
        await RisingEdge(dut.aclk)


async def _received(dut: Any, sinks: dict[str, AxiStreamSink]) -> tuple[dict[str, list[AxiStreamFrame]], int]:
    """All frames that come until nothing has moved for a while, and the cycles up to the last one."""
    found: dict[str, list[AxiStreamFrame]] = {name: [] for name in sinks}
    cycle = quiet = 0
    while quiet < _DRAIN_CYCLES:
        await RisingEdge(dut.aclk)
        cycle += 1
        quiet = (
            0
            if any(int(sink.bus.tvalid.value) and int(sink.bus.tready.value) for sink in sinks.values())
            else quiet + 1
        )
    for name, sink in sinks.items():
        while not sink.empty():
            found[name].append(sink.recv_nowait(compact=False))
    return found, cycle - quiet


def _judge(
    plan: dict[str, Any], run: dict[str, Any], found: dict[str, list[AxiStreamFrame]], cycles: int
) -> dict[str, Any]:
    """Compare beats, a frame's last one marked above its data, a beat that is not whole above that."""
    beats, mismatches = 0, []
    for name, frames in plan["outputs"].items():
        size = plan["bytes"][name]
        mark, torn = 1 << 8 * size, 2 << 8 * size
        expected = [
            int(word, 16) | mark * (place == len(frame) - 1) for frame in frames for place, word in enumerate(frame)
        ]
        received = []
        for frame in found[name]:
            for at in range(0, len(frame.tdata), size):
                word = int.from_bytes(bytes(frame.tdata[at : at + size]), "little")
                whole = all(frame.tkeep[at : at + size])
                received.append(word | mark * (at + size >= len(frame.tdata)) | torn * (not whole))
        mismatches += compare(expected, received)
        beats += len(expected)
    return {
        "name": run["name"],
        "seed": run["seed"],
        "beats": beats,
        "cycles": cycles,
        "utilisation": beats / max(cycles, 1),
        "mismatches": len(mismatches),
        "first": asdict(mismatches[0]) if mismatches else None,
    }
