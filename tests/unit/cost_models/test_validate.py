"""The models' errors on what they were not fitted to, held to their goals and to what they have reached."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparsefab.cost_models.anchors import GEMM_FILE, load_attention, load_gemm
from sparsefab.cost_models.published import published
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.cost_models.validate import PARTS, fit_marlin_launch, validate
from sparsefab.errors import ConfigError
from sparsefab.targets import load_device

# every error and width that needs no measurement of one's own, as reached; a change may make none worse by over 5 %
REACHED: dict[str, float] = json.loads((Path(__file__).parent / "reached.json").read_text())


@pytest.mark.parametrize("part", PARTS)
def test_every_goal_is_met(part: str) -> None:
    rows = validate(part)
    assert rows
    for row in rows:
        assert row.passed, row
        json.dumps(row.to_json(), allow_nan=False)


def test_errors_do_not_grow() -> None:
    rows = {(row.part, row.name, row.metric): row.value for row in validate()}
    no_error = ("coverage", "seconds")
    judged = {
        " | ".join(key): value for key, value in rows.items() if key[1] != "this machine" and key[2] not in no_error
    }
    assert set(judged) == set(REACHED), "a new figure goes into reached.json, with the value that it reached"
    for name, reached in REACHED.items():
        value = judged[name]
        assert value is not None
        assert value <= 1.05 * reached + 1e-6, name


def test_held_out_shapes_took_no_part_in_the_fit() -> None:
    for key, fit in load_gemm().gemm.items():
        sides = {tuple(row) for row in np.round(2.0 ** fit.residual.anchors[:, 1:3]).astype(int).tolist()}
        held = {tuple(row) for row in load_gemm().held_out[key][:, 1:3].astype(int).tolist()}
        assert held
        assert not sides & held
    attention = load_attention()
    table = json.loads((GEMM_FILE.parent / "gpu_attention.json").read_text())
    for pair in table["pairs"]:
        used = {tuple(row[3:6]) for row in pair["anchors"]}
        kept = {tuple(row) for row in attention.held_out[pair["device"], "attention"][:, 3:6].astype(int).tolist()}
        assert not used & kept


def test_marlin_ideal_curve_by_hand() -> None:
    # 600 GB/s, 125 TFLOP/s, 4.125 bits a weight, fp16 activations and results: arithmetic from the figure's caption
    marlin = published().marlin
    for batch, ideal in zip(marlin.batch, marlin.ideal_boost, strict=True):
        weights, moved = 73728 * 18432, 2.0 * batch * (73728 + 18432)
        times = [max((weights * bits / 8 + moved) / 600e9, 2 * batch * weights / 125e12) for bits in (16, 4.125)]
        assert times[0] / times[1] == pytest.approx(ideal, rel=0.005)
        m, n, k = np.array([float(batch)]), np.array([18432.0]), np.array([73728.0])
        memory_s, compute_s = data_sheet_times(load_device("a10"), "int4_wo", m, n, k)
        assert max(memory_s[0], compute_s[0]) == pytest.approx(times[1], rel=1e-9)


def test_sparse_marlin_ideal() -> None:
    # 3.0625 bits a weight and the ideal of 5.22 at small batch (IST-DASLab/Sparse-Marlin)
    sparse = published().sparse_marlin
    m, n, k = np.array([1.0]), np.array([18432.0]), np.array([73728.0])
    times = [max(data_sheet_times(load_device("a10"), kernel, m, n, k))[0] for kernel in ("fp16", "int4_24")]
    assert times[0] / times[1] == pytest.approx(sparse.ideal_small_batch, rel=0.005)


@pytest.mark.parametrize("device", ["a10", "rtx3090", "a100"])
def test_launch_constants_in_the_device_files_are_the_fitted_ones(device: str) -> None:
    gpu = load_device(device).gpu
    assert gpu is not None
    assert gpu.launch_s["int4_wo"].value == pytest.approx(fit_marlin_launch(device), abs=1e-9)


def write(path: Path, **columns: list[object]) -> Path:
    table = {"gpu": ["h200"], "dtype": ["fp16"], "m": [16], "n": [4096], "k": [4096], "latency_ms": [0.02]}
    pd.DataFrame({**table, **columns}).to_parquet(path)
    return path


def test_a_users_measurements(tmp_path: Path) -> None:
    held = load_gemm().held_out["h200", "fp8"]
    table = pd.DataFrame({"gpu": "h200_sxm", "dtype": "fp8", "m": held[:, 0], "n": held[:, 1], "k": held[:, 2],
                          "latency_ms": held[:, 3] * 1e3})  # fmt: skip
    table.to_csv(tmp_path / "mine.csv", index=False)
    rows = {(row.name, row.metric): row for row in validate(measured=tmp_path / "mine.csv")}
    assert rows["h200 fp8", "mean error"].value == pytest.approx(0.027, abs=0.003)
    assert rows["all", "mean error"].samples == len(held)
    # a device without a calibration is judged as such
    row = validate(measured=write(tmp_path / "b200.parquet", gpu=["b200_sxm"]))[0]
    assert (row.part, row.name, row.goal) == ("other device", "b200 fp16", 0.25)


@pytest.mark.parametrize(("columns", "words"), [
    ({"gpu": ["h2000"]}, "did you mean h200"),
    ({"dtype": ["fp5"]}, "fp5"),
    ({"m": [-1]}, "column 'm'"),
    ({"latency_ms": [float("nan")]}, "column 'latency_ms'"),
    ({"k": ["many"]}, "not a number"),
])  # fmt: skip
def test_bad_measurements(tmp_path: Path, columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(measured=write(tmp_path / "bad.parquet", **columns))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        validate(measured=tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ConfigError, match=r"text\.parquet"):
        validate(measured=tmp_path / "text.parquet")
    (tmp_path / "short.csv").write_text("gpu,m\nh200,1\n")
    with pytest.raises(ConfigError, match="missing column 'dtype'"):
        validate(measured=tmp_path / "short.csv")
    with pytest.raises(ValueError, match="part must be one of"):
        validate("tpu")


def test_a_damaged_calibration_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(GEMM_FILE.read_text()[:5000])
    with pytest.raises(ConfigError, match=r"gpu\.json: not a calibration file"):
        load_gemm(path)


def test_flightllm_s_simulation_by_hand() -> None:
    # the matrix-vector unit does 1,024 products a cycle at 225 MHz, all times over 3.2, and is busy 95 % of 9.28 ms
    run = published().flightllm_simulator
    kept = sum(
        rows * columns * (11 / 16 if name in ("q_proj", "k_proj") else 1.0)
        for name, rows, columns in [(side, 4096, 4096) for side in ("q_proj", "k_proj", "v_proj", "o_proj")] * 32
        + [("mlp", 11008, 4096)] * 96
        + [("lm_head", 32000, 4096)]
    )
    cached = 2 * 32 * 4096 * 144
    busy = (kept + cached) / (run.decode_macs_per_cycle * run.clock_hz * run.correction_factor)
    context, seconds = run.decode_s[0]
    assert context == 144
    assert busy == pytest.approx(0.95 * seconds, rel=0.05)
