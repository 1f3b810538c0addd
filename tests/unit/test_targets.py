"""Device files: every built-in loads, every number has a source and a unit, and a wrong file says what is wrong."""

import re
from pathlib import Path

import pytest

from sparsefab import config
from sparsefab.errors import ConfigError, TargetError
from sparsefab.targets import (
    TARGETS,
    CpuPeaks,
    Device,
    MeasuredCpu,
    load_cpu_measurements,
    load_device,
    load_kernels,
    measured_device,
)

GOOD = """
name = "mine"
title = "My GPU"
kind = "gpu"
[sources]
sheet = "data sheet"
[memory]
capacity_bytes = { value = 8e9, source = "sheet" }
bandwidth_bytes_per_s = { value = 100e9, source = "sheet" }
[power]
limit_w = { value = 100, source = "sheet" }
[gpu]
architecture = "ampere"
kernels = ["fp16"]
[gpu.peak_op_per_s]
fp16 = { value = 10e12, source = "sheet" }
"""


@pytest.mark.parametrize("name", TARGETS.names())
def test_every_builtin_loads_and_round_trips(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert config.loads(config.dumps(device), Device) == device
    text = TARGETS.get(name).read_text()
    for key in device.sources:  # no stale sources
        assert len(re.findall(rf'source = "{key}"', text)) >= 1, key


def test_the_kinds_of_the_issue_are_there() -> None:
    kinds = {name: load_device(name).kind for name in TARGETS}
    assert {name for name, kind in kinds.items() if kind == "fpga"} == {
        "u50", "u55c", "u200", "u250", "u280", "v80", "vhk158"}  # fmt: skip
    gpus = {"a10", "a100", "rtx3090", "a6000", "v100s", "l4", "l40s", "h100", "h200", "b200"}
    assert gpus <= {name for name, kind in kinds.items() if kind == "gpu"}


def test_known_numbers() -> None:
    # Xilinx/finn platforms.py: SLRs of the U280; 32 pseudo-channels of 14.375 GB/s
    u280 = load_device("U280")
    assert u280.fpga is not None
    assert sum(region.dsp for region in u280.fpga.regions) == 8496
    assert u280.memory.bandwidth_bytes_per_s.value / u280.memory.channels == pytest.approx(14.375e9)
    # DS923: DSP48E2 at speed grade -2, and a clock that does not promise it
    assert u280.fpga.dsp_ceiling_hz.value == 775e6
    assert u280.fpga.clock_hz.bounds == (200e6, 300e6)
    # aiconfigurator systems/h200_sxm.yaml
    h200 = load_device("h200")
    assert h200.gpu is not None
    assert h200.memory.bandwidth_bytes_per_s.value == 4.8e12
    assert h200.gpu.peak_op_per_s["fp8"].value == 1.978e15


def test_gpu_files_name_known_kernels_with_a_peak() -> None:
    kernels = {kernel.name: kernel for kernel in load_kernels()}
    for name in TARGETS:
        gpu = load_device(name).gpu
        if gpu is not None:
            assert all(kernels[kernel].math in gpu.peak_op_per_s for kernel in gpu.kernels), name


def test_a_users_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_device(path).memory.bandwidth_bytes_per_s.value == 100e9
    path.write_text(GOOD.replace("100e9", "200e9") + "\n")
    assert load_device(path).memory.bandwidth_bytes_per_s.value == 200e9


@pytest.mark.parametrize(("old", "new", "words"), [
    ("bandwidth_bytes_per_s =", "bandwidth =", ["memory.bandwidth", "unknown key"]),
    ("value = 100, source = \"sheet\"", "value = 100", ["power.limit_w.source", "missing"]),
    ("limit_w = { value = 100, source = \"sheet\" }", "limit_w = 100", ["power.limit_w", "a table"]),
    ("value = 8e9, source = \"sheet\"", "value = 8e9, source = \"brochure\"", ["brochure", "[sources]"]),
    ("value = 8e9", "value = -8e9", ["memory.capacity_bytes", "positive"]),
    ("value = 8e9,", "value = 8e9, low = 9e9,", ["memory.capacity_bytes", "between low"]),
    ("kind = \"gpu\"", "kind = \"fpga\"", ["[fpga]"]),
    ("fp16 = {", "fp32 = {", ["fp16"]),
])  # fmt: skip
def test_a_wrong_file_names_the_key(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    path = tmp_path / "wrong.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_device(path)
    for word in ["wrong.toml", *words]:
        assert word in str(caught.value)


def test_unknown_devices_and_kernels(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="unknown target 'u28'; did you mean u280"):
        load_device("u28")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_device(tmp_path / "none.toml")
    path = tmp_path / "odd.toml"
    path.write_text(GOOD.replace('["fp16"]', '["fp17"]'))
    with pytest.raises(TargetError, match="unknown kernel family 'fp17'"):
        load_device(path)


def test_a_price_is_rent_or_purchase(tmp_path: Path) -> None:
    path = tmp_path / "priced.toml"
    path.write_text(GOOD + '\n[[price]]\ndate = "2026-01"\nsource = "sheet"\n')
    with pytest.raises(ConfigError, match=r"price\[0\].*exactly one of usd_per_hour and usd"):
        load_device(path)


def test_measured_cpu_round_trip(tmp_path: Path) -> None:
    peaks = CpuPeaks(threads=2, int8_op_per_s=1.4e12, fp32_op_per_s=1.8e11, memory_bytes_per_s=31e9)
    measured = MeasuredCpu(
        name="box", date="2026-11-22", isa="avx512_vnni", cores=2, memory_bytes=2**34, peaks=(peaks,)
    )
    path = tmp_path / "cpu.toml"
    path.write_text(config.dumps(measured))
    assert load_cpu_measurements(path) == measured
    device = measured_device(measured)
    assert device.memory.bandwidth_bytes_per_s.value == 31e9
    path.write_text(config.dumps(measured).replace("threads = 2", "threads = 0"))
    with pytest.raises(ConfigError, match=r"peaks\[0\].*threads must be positive"):
        load_cpu_measurements(path)
