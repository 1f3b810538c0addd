"""`sparsefab estimate --vivado-report`: beside the emitted block, beside a model's accelerator, and alone."""

import json
from pathlib import Path

import pytest

from sparsefab.cli.main import main
from tests.unit.cost_models import vivado_texts as texts


def test_beside_the_emitted_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyosys")
    assert main(["emit", "requantize", "-o", str(tmp_path), "--json", "--no-testbench"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["path"])
    paths = [str(texts.report(folder, "a.rpt", texts.FLAT)), str(texts.report(folder, "b.rpt", texts.TIMING))]
    assert main(["estimate", "--vivado-report", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"].startswith("requantize, ")
    lut, dsp = found["resources"]["lut"], found["resources"]["dsp"]
    assert (lut["vivado"], dsp["vivado"], dsp["estimate"], dsp["ratio"]) == (1500, 64, 2, 32)
    assert lut["ratio"] == pytest.approx(1500 / lut["estimate"])
    assert found["fmax_hz"]["vivado"] == pytest.approx(1e9 / 4.25)
    assert main(["estimate", "--vivado-report", *paths]) == 0
    out = capsys.readouterr().out
    assert "top on xcu280-fsvh2892-2L-e, routed, Vivado v.2023.1" in out
    assert "235.3" in out


def test_beside_an_accelerator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(texts.report(tmp_path, "a.rpt", texts.HIERARCHY))
    assert main(["estimate", "llama2-7b", "--target", "u280", "--recipe", "w8", "--vivado-report", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["estimate"] == "llama2-7b on u280"
    assert found["resources"]["dsp"]["estimate"] > 1000
    assert found["fmax_hz"]["estimate"] > 1e8


def test_alone_and_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = texts.report(tmp_path, "a.rpt", texts.FLAT)
    assert main(["estimate", "--vivado-report", str(path)]) == 0
    assert "no estimate: put the reports beside the manifest.json" in capsys.readouterr().out
    (tmp_path / "manifest.json").write_text('{"block": "toaster", "config": {}}')
    assert main(["estimate", "--vivado-report", str(path)]) == 2
    assert "manifest.json: is no manifest of `sparsefab emit`" in capsys.readouterr().err
    assert main(["estimate", "--vivado-report", str(path), "--target", "u280"]) == 2
    assert "takes MODEL and --target together" in capsys.readouterr().err
    assert main(["estimate"]) == 2
    assert "estimate takes MODEL and --target, or --vivado-report" in capsys.readouterr().err
    assert main(["estimate", "llama2-7b", "--target", "h100-sxm", "--vivado-report", str(path)]) == 2
