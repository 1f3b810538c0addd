"""The catalogue's pins, and the embedded models against their provenance files."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from sparsefab.errors import ModelError
from sparsefab.models import zoo
from sparsefab.models.zoo.catalog import DATA

EMBEDDED = [entry for entry in zoo.entries() if entry.embedded]
DOWNLOADS = [entry for entry in zoo.entries() if not entry.embedded]
CACHE = Path("unused")


def provenance(name: str) -> dict[str, object]:
    return json.loads((zoo.get(name).embedded_folder / "provenance.json").read_text())  # type: ignore[no-any-return]


def test_the_catalogue_is_complete() -> None:
    names = [entry.name for entry in zoo.entries()]
    assert names == ["char-llama", "fashion-resnet8", "smollm2-135m", "minilm-l6", "efficientnet-lite0"]
    assert all(zoo.get(name).name == name for name in names)


@pytest.mark.parametrize(("wrong", "near"), [("char-lama", "char-llama"), ("minilm", "minilm-l6"), ("xyz", "known:")])
def test_an_unknown_name_gives_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"{wrong}.*{near}"):
        zoo.get(wrong)


@pytest.mark.parametrize("entry", DOWNLOADS, ids=lambda entry: entry.name)
def test_downloads_are_pinned(entry: zoo.ZooEntry) -> None:
    for package in entry.packages:
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
        assert package.file.startswith(f"{package.name}-{package.version}-")
        assert package.file.endswith(".whl")
        assert "-none-any" in package.file or (package.python and package.platform)
    assert entry.model_file in entry.packages[0].members.values()
    assert entry.sha256 == entry.packages[0].sha256
    assert entry.size_bytes == sum(package.size_bytes for package in entry.packages)


def test_the_embedded_models_stay_under_8_mb() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 8_000_000
    assert sum(entry.size_bytes for entry in EMBEDDED) < 8_000_000


@pytest.mark.parametrize("entry", EMBEDDED, ids=lambda entry: entry.name)
def test_embedded_files_are_the_recorded_ones(entry: zoo.ZooEntry) -> None:
    recorded = provenance(entry.name)["files_sha256"]
    assert isinstance(recorded, dict)
    assert entry.model_file in recorded
    for name, digest in recorded.items():
        assert hashlib.sha256((entry.embedded_folder / name).read_bytes()).hexdigest() == digest, name


def test_char_llama_texts_are_disjoint_and_in_its_vocabulary() -> None:
    config = json.loads((zoo.get("char-llama").embedded_folder / "config.json").read_text())
    held_out = zoo.evaluation_text("char-llama", CACHE).text
    calibration = zoo.calibration_text("char-llama", CACHE).text
    assert len(config["vocabulary"]) == config["vocab_size"]
    assert set(held_out) | set(calibration) <= set(config["vocabulary"])
    assert len(held_out) >= 64 * 1024
    assert len(calibration) >= 32 * 1024
    pieces = {calibration[start : start + 64] for start in range(len(calibration) - 63)}
    assert not any(held_out[start : start + 64] in pieces for start in range(len(held_out) - 63))
    assert "gutenberg" not in (held_out + calibration).lower()


def test_char_llama_reaches_its_mark_in_another_implementation() -> None:
    """NumPy, float32, written from the published equations: the first 16 windows of the held-out plays."""
    assert char_llama_nats(windows=16) < 1.60


@pytest.mark.slow
def test_char_llama_reaches_the_recorded_figure_on_the_whole_held_out_text() -> None:
    metric = provenance("char-llama")["metric"]
    assert isinstance(metric, dict)
    assert metric["value"] <= 1.60
    assert char_llama_nats(windows=None) == pytest.approx(metric["value"], abs=1e-3)


@pytest.mark.parametrize(
    ("key", "count"),
    [
        ("vendored_value", 1_000),
        pytest.param(
            "value", 10_000,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not zoo.FASHION_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed"),
            ],
        ),
    ],
)  # fmt: skip
def test_fashion_resnet8_reaches_the_recorded_figure(key: str, count: int) -> None:
    metric = provenance("fashion-resnet8")["metric"]
    assert isinstance(metric, dict)
    data = zoo.evaluation_images("fashion-resnet8", CACHE, full=count == 10_000)
    assert len(data.labels) == count
    model = zoo.get("fashion-resnet8").embedded_folder / "model.onnx"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": data.inputs()})[0]
    correct = np.count_nonzero(logits.argmax(1) == data.labels)
    assert abs(correct - round(count * metric[key])) <= 2


def test_the_licence_of_the_images_is_shipped() -> None:
    text = (zoo.get("fashion-resnet8").embedded_folder / "LICENSE.fashion-mnist").read_text()
    assert "MIT License" in text
    assert "Zalando" in text
    assert "public domain" in (zoo.get("char-llama").embedded_folder / "NOTICE.shakespeare").read_text()


def char_llama_nats(windows: int | None) -> float:
    """Mean negative log likelihood a character, windows without overlap, the first character not predicted."""
    folder = zoo.get("char-llama").embedded_folder
    config = json.loads((folder / "config.json").read_text())
    tensors = {name: value.astype(np.float32) for name, value in load_file(folder / "model.safetensors").items()}
    code_of = {character: code for code, character in enumerate(config["vocabulary"])}
    context, heads = config["max_position_embeddings"], config["num_attention_heads"]
    text = zoo.evaluation_text("char-llama", CACHE).text
    codes = np.array([code_of[character] for character in text])
    rows = codes[: len(codes) // context * context].reshape(-1, context)[:windows]
    width = config["hidden_size"] // heads
    angle = np.outer(np.arange(context), config["rope_theta"] ** (-np.arange(0, width, 2) / width))
    turn = np.exp(1j * angle).astype(np.complex64)[:, None]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + config["rms_norm_eps"]) * tensors[f"{name}.weight"]

    def rotate(x: np.ndarray) -> np.ndarray:
        turned = (x[..., : width // 2] + 1j * x[..., width // 2 :]) * turn
        return np.concatenate([turned.real, turned.imag], -1)

    def forward(row: np.ndarray) -> np.ndarray:
        x = tensors["model.embed_tokens.weight"][row]
        for index in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{index}"
            y = norm(x, f"{prefix}.input_layernorm")
            q, k, v = (
                (y @ tensors[f"{prefix}.self_attn.{part}_proj.weight"].T).reshape(context, heads, width)
                for part in "qkv"
            )
            scores = np.einsum("ihd,jhd->hij", rotate(q), rotate(k)) / np.sqrt(width)
            scores = np.where(np.tri(context, dtype=bool), scores, -np.inf)
            share = np.exp(scores - scores.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            mixed = np.einsum("hij,jhd->ihd", share, v).reshape(context, -1)
            x = x + mixed @ tensors[f"{prefix}.self_attn.o_proj.weight"].T
            y = norm(x, f"{prefix}.post_attention_layernorm")
            gate = y @ tensors[f"{prefix}.mlp.gate_proj.weight"].T
            hidden = gate / (1 + np.exp(-gate)) * (y @ tensors[f"{prefix}.mlp.up_proj.weight"].T)
            x = x + hidden @ tensors[f"{prefix}.mlp.down_proj.weight"].T
        return norm(x, "model.norm") @ tensors["model.embed_tokens.weight"].T

    total = 0.0
    for row in rows:
        logits = forward(row)[:-1]
        peak = logits.max(-1)
        log_sum = peak + np.log(np.exp(logits - peak[:, None]).sum(-1))
        total += float((log_sum - logits[np.arange(context - 1), row[1:]]).sum())
    return total / (len(rows) * (context - 1))
