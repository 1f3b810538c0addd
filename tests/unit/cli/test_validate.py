"""`sparsefab validate --json` prints every figure that the cost models and the engine are held to, with its goal."""

import json
import re
from typing import Any

import pytest

from sparsefab.cli.main import main
from sparsefab.cost_models.anchors import load_gemm
from sparsefab.reports import speed

# part, name (a pattern), metric, goal, ceiling; None: shown, not judged
FIGURES: list[tuple[str, str, str, float | None, float | None]] = [
    ("marlin", "a10 ideal, boost clock", "largest error", 0.005, None),
    ("marlin", "a10 ideal, base clock", "largest error", 0.005, None),
    ("marlin", "a10 layer table, one model left out", "mean error", 0.05, None),
    ("marlin", "rtx3090 layer table, one model left out", "mean error", 0.06, None),
    ("marlin", "a100 layer table, one model left out", "mean error", 0.05, None),
    *(("products", f"{device} {kernel}", metric, goal, None)
      for device, kernel in load_gemm().gemm for metric, goal in (("mean error", 0.10), ("coverage", 0.80))),
    ("products", "all", "mean error", 0.065, None),
    ("products", "all", "coverage", 0.87, 0.93),
    ("products", "all", "median high/low", 1.5, None),
    ("products", "all, decode regime", "mean error", None, None),
    ("products", "each device left out", "mean error", 0.25, None),
    ("products", "each device left out", "coverage", 0.80, None),
    ("products", "each device left out", "median high/low", 3.0, None),
    ("attention", "h200", "mean error", 0.12, None),
    ("fpga", "cycles of a chain, RTL", "largest error", 0.02, None),
    ("fpga", "lut of a chain, synthesis", "largest error", 0.10, None),
    ("fpga", "ff of a chain, synthesis", "largest error", 0.10, None),
    ("fpga", "array cycles, RTL, both modes", "largest error", 0.02, None),
    ("fpga", "lut of composed designs, synthesis", "largest error", 0.10, None),
    ("fpga", "ff of composed designs, synthesis", "largest error", 0.10, None),
    ("fpga", "dsp of composed designs, synthesis", "largest error", 0.0, None),
    ("fpga", "bram36 of composed designs, synthesis", "largest error", 0.0, None),
    ("fpga", r"flightllm on u280, context 128 \(fitted\)", "error", 0.01, None),
    ("fpga", r"flightllm on u280, context 1024 \(predicted\)", "seconds", None, None),
    ("cpu", "xeon_vnni, dense_int8, 1 thread", "mean error", 0.10, None),
    ("cpu", "xeon_vnni, block_4x1, 1 thread", "mean error", 0.10, None),
    ("cpu", "xeon_vnni, dequantize_int8, 1 thread", "mean error", 0.10, None),
    ("cpu", "xeon_vnni, all kernels", "coverage", 0.80, None),
    ("cpu", "xeon_vnni, from its peaks alone", "coverage", 0.80, None),
    ("speed", "estimates on one core.*", "a second", 50_000, None),
    ("speed", "sweep of llama2-7b.*", "seconds", 30.0, None),
    ("speed", "opening its report in a browser", "seconds", 2.0, None),
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "_FORMATS", ("int4",))  # an eighth of the sweep: its time is judged in tests/benchmarks
        patch.setattr(speed, "find_chromium", lambda: None)
        out = tmp_path_factory.mktemp("out") / "rows.json"
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        main(["validate", "--json", "--cache-dir", str(out.parent)])
    found: list[dict[str, Any]] = json.loads("\n".join(printed))["rows"]
    return found


@pytest.mark.parametrize(("part", "name", "metric", "goal", "ceiling"), FIGURES)
def test_the_figure_is_there(
    rows: list[dict[str, Any]], part: str, name: str, metric: str, goal: float | None, ceiling: float | None
) -> None:
    (row,) = [row for row in rows if (row["part"], row["metric"]) == (part, metric) and re.fullmatch(name, row["name"])]
    assert (row["goal"], row["ceiling"]) == (goal, ceiling)
    if part != "speed":
        assert row["value"] is not None
        assert row["passed"]
    elif "browser" not in name:
        assert row["value"] > 0
