"""The verbs' results as a script reads them: JSON of the stated form, and the figures behind it."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from sparsefab.cli.main import main
from sparsefab.formats import CATALOG, BlockFormat, IntFormat
from sparsefab.models.evaluate import BitTrueRunner, Slice
from sparsefab.models.execute import execute
from sparsefab.models.zoo import evaluation_images
from sparsefab.session import Session


def result(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    assert main(list(arguments)) == code
    return json.loads(capsys.readouterr().out)


def is_figure(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"value", "low", "high"} and value["low"] <= value["high"]


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_evaluate_agrees_with_the_reference_for_every_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights in every format of the catalogue, activations in it too where it is not an integer."""
    fmt = CATALOG[name]
    activations = "auto" if isinstance(fmt, IntFormat) else name
    grouped = "" if isinstance(fmt, BlockFormat) else "group_size = 32\n"
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "{name}"\n[[rules]]\nweights = "{name}"\nactivations = "{activations}"\n'
        f'[[rules]]\nlayers = ["*down_proj"]\nweights = "{name}"\n{grouped}pattern = "2:4"\n'
    )
    found = result(capsys, "evaluate", "char-llama", "--recipe", str(recipe), "--windows", "8", "--context", "24",
                   "--json", "--check", "1")  # fmt: skip
    assert found["agrees"] is True
    assert len(found["agreement"]) == 29
    assert all(layer["outputs"] > 0 and layer["mismatches"] == 0 for layer in found["agreement"])
    assert all(is_figure(found[part]) for part in ("compressed", "baseline", "delta", "loss"))
    assert found["protocol"]["context"] == 24
    assert len(found["protocol"]["data_sha256"]) == 64
    assert any(layer == "lm_head" for layer, _ in found["notes"])


def test_finer_formats_lose_less(capsys: pytest.CaptureFixture[str]) -> None:
    losses = {}
    for recipe in ("w8", "w6", "w4", "w8-2of4"):
        found = result(capsys, "evaluate", "char-llama", "--recipe", recipe, "--windows", "8", "--json", "--check", "0")
        losses[recipe] = found["loss"]["value"]
    assert losses["w8"] < losses["w6"] < losses["w4"] < losses["w8-2of4"]
    assert abs(losses["w8"]) < 0.01


def test_estimate_json_has_decode_on_top_and_prefill_beside(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "estimate", "llama2-7b", "--target", "u280", "--recipe", "flightllm", "--json")
    for name in ("latency_s", "throughput_tokens_per_s", "energy_per_token_j"):
        assert is_figure(found[name])
        assert is_figure(found["prefill"][name])
    assert found["latency_s"]["value"] == pytest.approx(17.5e-3, rel=0.02)  # FlightLLM's board, KV length 128
    assert found["prefill"]["latency_s"]["value"] > found["latency_s"]["value"]


def test_compress_writes_what_other_tools_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "compress", "fashion-resnet8", "--recipe", "w8", "-o", str(tmp_path / "out"), "--json")
    assert set(found["files"]) == {"weights.safetensors", "model.onnx", "recipe.toml", "manifest.json"}
    assert found["nbytes"] == sum(layer["nbytes"] for layer in found["layers"])
    assert all(layer["nbytes"] == sum(layer["sections"].values()) for layer in found["layers"])
    manifest = json.loads(Path(found["files"]["manifest.json"]).read_text())
    assert manifest["onnx_notes"] == []
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # compute what the graph says
    network = onnxruntime.InferenceSession(found["files"]["model.onnx"], options)
    # the exported graph is the evaluated point: activations quantized, only the sums are in float
    session = Session()
    source = session.source("fashion-resnet8")
    model = source.load()
    compressed = session.calibrate(session.compress(model, "w8"), source)
    images = evaluation_images("fashion-resnet8", session.cache_dir, full=False).inputs()[:200]
    theirs = network.run(None, {"image": images})[0]
    ours = execute(model, {"image": images}, runner=BitTrueRunner(compressed))["logits"]
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean() >= 0.995
    assert np.abs(theirs - ours).max() < 0.02 * np.abs(ours).max()


def test_decoder_export_says_what_stays_float(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "compress", "char-llama", "--recipe", "w4g32", "-o", str(tmp_path / "out"), "--json")
    notes = json.loads(Path(found["files"]["manifest.json"]).read_text())["onnx_notes"]
    assert any("activations stay float32" in note for _, note in notes)
    assert all(0 < layer["scale_loss"] < 0.5 for layer in found["layers"] if "g32" in layer["format"])


def test_emit_is_deterministic_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = result(capsys, "emit", "--dsps", "64", "-o", str(tmp_path / "a"), "--json", "--resources")
    second = result(capsys, "emit", "--dsps", "64", "-o", str(tmp_path / "b"), "--json")
    assert first["sha256"] == second["sha256"]
    assert Path(first["verilog"]).read_text() == Path(second["verilog"]).read_text()
    assert first["resources"]["dsp"] == 64
    assert first["resources"]["lut_per_dsp"] <= 30  # both modes; the goal is for a chain of this length


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert names == {"char-llama", "fashion-resnet8", "smollm2-135m", "minilm-l6", "efficientnet-lite0"}
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(check["found"] or (check["disables"] and check["remedy"]) for check in checks)


def test_fetch_prints_a_hash_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of a fetched model, a line a file, as sha256sum writes it."""
    digest = "ab" * 32
    manifest = {"files": {"model.gguf": {"sha256": digest, "size_bytes": 3}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr("sparsefab.models.zoo.fetch.fetch", lambda *_, **__: tmp_path)
    assert main(["fetch", "smollm2-135m"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path), f"  {digest}  model.gguf"]


def test_explore_in_python_gives_a_frame_and_a_report(tmp_path: Path) -> None:
    session = Session(tmp_path / "cache")
    part = Slice(samples=100)
    explored = session.explore("fashion-resnet8", out=tmp_path / "run", recipes=["float", "w8", "w4"],
                               targets=["u280", "h200"], screen=part, full=part)  # fmt: skip
    frame = explored.frame
    assert isinstance(frame, pd.DataFrame)
    assert set(zip(frame.recipe, frame.target, strict=True)) == {
        (recipe, target) for recipe in ("float", "w8", "w4") for target in ("u280", "h200")
    }
    assert set(frame[frame.recipe == "float"].status) == {"absent", "ok"}  # the chain takes no float weights
    for name in ("report.html", "points.csv", "points.parquet", "pareto.svg", "pareto.png", "run.toml"):
        assert explored.files[name].stat().st_size > 0
    best = explored.best_on("fpga")
    assert best is not None
    assert best.recipe == "w8"
