"""The emitted testbench in Icarus, on its own: PASS on the behavioural emission, FAIL and an exit status on a fault."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparsefab.arch import LANE_OFFSET, AccumulatorArch, ArrayArch, ChainArch
from sparsefab.hw.blocks import BLOCKS
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import EmitManifest
from sparsefab.hw.minifloat.dot import DotArch
from sparsefab.hw.minifloat.mac import MacArch
from sparsefab.hw.pack4 import NibbleArch
from sparsefab.hw.requantize import RequantizeArch
from sparsefab.session import Session
from sparsefab.sim.blocks import VECTORS
from sparsefab.sim.streams import StreamVectors
from sparsefab.sim.testbench import write_testbench

pytestmark = [
    pytest.mark.cocotb,
    pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not on PATH"),
]

ARRAY = ArrayArch(
    chains=2,
    chain=ChainArch(dsps=8, accumulator_bits=36, matrix_vector=False),
    accumulators=AccumulatorArch(rows=16, multiplier_bits=8),
)
OFFSET = (f"48'h{LANE_OFFSET:012x}", "48'h000000000000")
# block -> parameters, and a fault: what of the Verilog becomes what
SMALL: dict[str, tuple[Any, tuple[str, str]]] = {
    "chain": (ChainArch(dsps=8), OFFSET),
    "pack4": (NibbleArch(dsps=3), (" - ", " + ")),
    "array": (ARRAY, OFFSET),
    "accumulate": (ARRAY, (".RSTC(s1_first)", ".RSTC(1'h0)")),
    "requantize": (RequantizeArch(lanes=1), ("x & ", "x | ")),
    "dequantize": (DequantizeArch(dsps=16, format="uint4", zero_unit=16, beat_bits=128), (" - ", " + ")),
    "mac": (MacArch(a="e2m1", b="e3m2", result="e4m3fn"), (" ^ ", " | ")),
    "mxdot": (DotArch(a="mxfp4", b="mxfp4"), (" ^ ", " | ")),
}


def _emit(block: str, folder: Path, **options: Any) -> EmitManifest:
    return Session(folder).emit(folder / "build", SMALL[block][0], "behavioural", block=block, **options)


def _simulate(folder: Path) -> subprocess.CompletedProcess[str]:
    """As the testbench's first lines say."""
    compiled = ["iverilog", "-s", "top_tb", "-o", "top_tb", "top_tb.v", "top.v"]
    subprocess.run(compiled, cwd=folder, check=True, capture_output=True)
    return subprocess.run(["vvp", "top_tb"], cwd=folder, check=False, capture_output=True, text=True)


def test_every_block_here_has_vectors() -> None:
    assert set(SMALL) == set(VECTORS) <= set(BLOCKS)


@pytest.mark.parametrize("block", SMALL)
def test_passes_as_emitted_and_fails_on_a_fault(block: str, tmp_path: Path) -> None:
    manifest = _emit(block, tmp_path)
    said = _simulate(manifest.path)
    assert (said.returncode, said.stdout.split(",")[0]) == (0, f"PASS: {block}"), said.stdout
    right, wrong = SMALL[block][1]
    text = manifest.verilog.read_text()
    assert right in text
    manifest.verilog.write_text(text.replace(right, wrong))
    said = _simulate(manifest.path)
    assert said.returncode != 0
    assert "FAIL: run plain" in said.stdout
    assert "PASS" not in said.stdout


def test_beats_that_are_missing_or_too_many(tmp_path: Path) -> None:
    manifest = _emit("mac", tmp_path)
    vectors, text = VECTORS["mac"](SMALL["mac"][0], 0), manifest.verilog.read_text()
    whole = vectors.outputs["o"]
    for words, complaint in (
        (whole[:-1], "o: a beat more than 59"),
        ([*whole, 0], "o: 60 of 61 beats came"),
        ([whole[0] ^ 1, *whole[1:]], f"o, beat 0 of 60: expected {whole[0] ^ 1:02x}, received {whole[0]:02x}"),
    ):
        wrong = StreamVectors.through(vectors.inputs["i"], words)
        for name, content in write_testbench(wrong, block="mac", verilog=text).items():
            (manifest.path / name).write_text(content)
        said = _simulate(manifest.path)
        assert said.returncode != 0
        assert complaint in said.stdout


def test_axi_stream_ports(tmp_path: Path) -> None:
    said = _simulate(_emit("chain", tmp_path, axis=True).path)
    assert (said.returncode, said.stdout.strip()) == (0, "PASS: chain, 4 runs of 96 beats")


def test_the_manifest_lists_the_files(tmp_path: Path) -> None:
    first, second = (_emit("requantize", tmp_path / name) for name in "ab")
    listed = json.loads((first.path / "manifest.json").read_text())["files"]
    assert listed == second.files
    assert list(listed) == ["top_tb.v", "top_tb_i.hex", "top_tb_o.hex"]
    assert {path.name for path in first.path.iterdir()} == {"top.v", "manifest.json", *listed}
    bare = _emit("requantize", tmp_path / "c", testbench=False)
    assert {path.name for path in bare.path.iterdir()} == {"top.v", "manifest.json"}


def test_names_a_port_that_is_missing() -> None:
    with pytest.raises(ValueError, match="the module has no port o__payload"):
        write_testbench(StreamVectors.through([1], [1]), block="x", verilog="  input [3:0] i__payload;\n")
