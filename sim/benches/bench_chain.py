"""Runs inside the simulator: the sparse chain against sim.reference, plain, with idles, with back-pressure, with both.

The plan comes as a file, its path as the plusarg `bench`: stimuli and, for each run, probabilities and seed. The
outcome goes into a file beside it; `sparsefab.sim.run` reads it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from numpy.typing import NDArray

from sparsefab.arch import ChainArch
from sparsefab.sim.drivers import StreamSource
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
    Clock(dut.clk, 2, unit="ns").start()
    results = []
    for run in plan["runs"]:
        stimuli = ChainStimuli.load(plan_path.parent / run["stimuli"])
        results.append(await _run(dut, arch, stimuli, run, plan["reset_cycles"]))
    (plan_path.parent / "results.json").write_text(json.dumps(results))
    failed = [result for result in results if result["mismatches"]]
    assert not failed, f"{len(failed)} of {len(results)} runs differ: {failed[0]}"


async def _run(
    dut: Any, arch: ChainArch, stimuli: ChainStimuli, run: dict[str, Any], reset_cycles: int
) -> dict[str, Any]:
    await FallingEdge(dut.clk)
    acts = StreamSource(dut, "acts", act_payloads(arch, stimuli), idle=run["idle"], seed=run["seed"])
    weights = StreamSource(dut, "weights", weight_payloads(arch, stimuli), idle=run["idle"], seed=run["seed"])
    sums = StreamSink(dut, "sums", stall=run["stall"], seed=run["seed"])
    agents = (acts, weights, sums)
    dut.rst.value = 1
    for _ in range(reset_cycles):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    expected = sum_payloads(arch, stimuli)
    cycle = quiet = 0
    while len(sums.received) < len(expected) and quiet < _DRAIN_CYCLES:
        await FallingEdge(dut.clk)
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
        await FallingEdge(dut.clk)
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
    }


def weight_payloads(arch: ChainArch, stimuli: ChainStimuli) -> list[int]:
    """Pack weight beats: weights, indices, last, from the lowest bit."""
    fields = [_pack(stimuli.weights, arch.weight_bits), _pack(stimuli.indices, arch.index_bits)]
    shift, top = arch.dsps * arch.weight_bits, arch.dsps * (arch.weight_bits + arch.index_bits)
    return [
        weight | index << shift | int(last) << top for weight, index, last in zip(*fields, stimuli.last, strict=True)
    ]


def act_payloads(arch: ChainArch, stimuli: ChainStimuli) -> list[int]:
    """Pack activation beats: a segment's pairs for one index, index, segment mask, last; index by index."""
    tiles = stimuli.banks.shape[0]
    # [tiles, segments, segment, block, lanes] -> one row of pairs for each (tile, index, segment)
    banks = stimuli.banks.reshape(tiles, arch.segments, arch.segment, arch.block, arch.lanes).transpose(0, 3, 1, 2, 4)
    pairs = _pack(banks.reshape(-1, arch.segment * arch.lanes), arch.activation_bits)
    low = arch.segment * arch.lanes * arch.activation_bits
    payloads = []
    for number, data in enumerate(pairs):
        index, segment = number // arch.segments % arch.block, number % arch.segments
        last = index == arch.block - 1 and segment == arch.segments - 1
        payloads.append(
            data
            | index << low
            | 1 << (low + arch.index_bits + segment)
            | int(last) << (low + arch.index_bits + arch.segments)
        )
    return payloads


def sum_payloads(arch: ChainArch, stimuli: ChainStimuli) -> list[int]:
    """Pack the expected sums: lanes, last."""
    top = arch.lanes * arch.sum_bits
    return [
        lanes | int(last) << top
        for lanes, last in zip(_pack(stimuli.expected(), arch.sum_bits), stimuli.last, strict=True)
    ]


def _pack(values: NDArray[np.int64], bits: int) -> list[int]:
    """Join the columns of int64[rows, columns] into one integer a row, the first column lowest."""
    mask = (1 << bits) - 1
    positions = np.arange(bits)
    planes = ((values & mask)[:, :, None] >> positions) & 1
    packed = np.packbits(planes.reshape(values.shape[0], -1).astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]
