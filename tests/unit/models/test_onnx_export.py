"""Exported files in ONNX Runtime, and read back."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from sparsefab.errors import ModelError, StorageError
from sparsefab.formats import NM, Block, IntFormat, QuantTensor, StaticScale, get_format, quantize_static
from sparsefab.models.compress import magnitude_mask, round_to_nearest
from sparsefab.models.execute import execute
from sparsefab.models.load import load_model
from sparsefab.models.model import Model
from sparsefab.models.onnx_export import export_onnx
from sparsefab.models.safetensors_export import export_safetensors, read_tensors

CNN = Path(__file__).parents[3] / "models" / "zoo" / "data" / "fashion_resnet8" / "model.onnx"
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
MASK = np.array([[1] * 8, [1] * 5 + [0] * 3])


def run(path: Path, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
    """All outputs by ONNX Runtime, after ONNX's own check of the file.

    Left alone, ONNX Runtime replaces a dequantization and a product by kernels that round more than the graph says;
    this setting has it compute the graph as it stands.
    """
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return list(onnxruntime.InferenceSession(str(path), options).run(None, feeds))


def compare(model: Model, path: Path, feeds: dict[str, NDArray[np.generic]]) -> None:
    """ONNX Runtime and the executor agree on every output."""
    for theirs, ours in zip(run(path, feeds), execute(model, feeds).values(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=5e-5)


def test_llama_runs_in_onnx_runtime(llama_folder: Path, tmp_path: Path) -> None:
    model, path = load_model(llama_folder), tmp_path / "llama.onnx"
    assert export_onnx(model, path) == ()
    compare(model, path, {"input_ids": IDS})
    assert load_model(path).workload.layers == model.workload.layers
    names = [tensor.name for tensor in onnx.load(path).graph.initializer]
    assert "model.embed_tokens.weight" in names
    assert not any("lm_head" in name for name in names)  # tied: stored once


def test_bert_runs_in_onnx_runtime(bert_folder: Path, tmp_path: Path) -> None:
    model, path = load_model(bert_folder), tmp_path / "bert.onnx"
    export_onnx(model, path)
    compare(model, path, {"input_ids": IDS, "attention_mask": MASK})
    assert load_model(path).workload.layers == model.workload.layers


def test_cnn_runs_in_onnx_runtime(tmp_path: Path) -> None:
    model, path = load_model(CNN), tmp_path / "cnn.onnx"
    export_onnx(model, path)
    compare(model, path, {"image": np.random.default_rng(0).random((3, 1, 28, 28), np.float32)})
    assert load_model(path).workload.layers == model.workload.layers


RECIPES = [
    ("int8", None, None),
    ("int4sym", 8, None),
    ("uint4", 8, None),
    ("uint4", None, None),
    ("int3", 12, None),
    ("uint8", 16, None),
    ("int8", None, NM(2, 4)),
    ("uint4", 8, NM(2, 4)),
    ("int6", None, Block(4, 1, 0.5)),
    ("int10", None, None),
]


def compressed(model: Model, fmt: str, group_size: int | None, pattern: NM | Block | None) -> dict[str, QuantTensor]:
    """Every layer whose shape the pattern fits, rounded to nearest."""
    tensors = {}
    for name, weight in model.weights.items():
        if pattern is not None and (weight.shape[1] % 4 or weight.shape[0] % 4):
            continue
        mask = None if pattern is None else magnitude_mask(weight, pattern)
        tensors[name] = round_to_nearest(weight, get_format(fmt), group_size, pattern, mask)
    return tensors


@pytest.mark.parametrize(("fmt", "group_size", "pattern"), RECIPES)
def test_quantized_weights_run_in_onnx_runtime_and_come_back(
    fmt: str, group_size: int | None, pattern: NM | Block | None, llama_folder: Path, tmp_path: Path
) -> None:
    model, path = load_model(llama_folder), tmp_path / "q.onnx"
    tensors = compressed(model, fmt, group_size, pattern)
    assert export_onnx(model, path, tensors) == ()
    rounded = model.with_weights({name: tensor.dequantize() for name, tensor in tensors.items()})
    again = load_model(path)
    for name, weight in rounded.weights.items():
        np.testing.assert_allclose(again.weights[name], weight, rtol=2e-7, atol=1e-30)
    compare(rounded, path, {"input_ids": IDS})


@pytest.mark.parametrize("group_size", [None, 9])
def test_quantized_convolutions(group_size: int | None, tmp_path: Path) -> None:
    model, path = load_model(CNN), tmp_path / "q.onnx"
    tensors = compressed(model, "int8", group_size, None)
    assert export_onnx(model, path, tensors) == ()
    rounded = model.with_weights({name: tensor.dequantize() for name, tensor in tensors.items()})
    compare(rounded, path, {"image": np.random.default_rng(0).random((3, 1, 28, 28), np.float32)})
    if group_size is None:
        assert path.stat().st_size < 0.4 * CNN.stat().st_size


def test_calibrated_activations_pass_through_codes(tmp_path: Path) -> None:
    model, path = load_model(CNN), tmp_path / "q.onnx"
    feeds = {"image": np.random.default_rng(0).random((40, 1, 28, 28), np.float32)}
    ranges: dict[str, tuple[float, float]] = {}
    execute(model, feeds, observer=lambda layer, x: ranges.update({layer: (float(x.min()), float(x.max()))}))
    uint8 = IntFormat(bits=8, signed=False)
    scales = {layer: StaticScale.of_range(*bounds, uint8) for layer, bounds in ranges.items()}

    def run_quantized(layer: str, x: NDArray[np.float32], /) -> NDArray[np.float32]:
        codes = quantize_static(x, uint8, scales[layer]).integers.astype(np.float32) * np.float32(scales[layer].scale)
        return np.asarray(codes @ model.weights[layer].T)

    assert export_onnx(model, path, activations={layer: (uint8, scale) for layer, scale in scales.items()}) == ()
    (theirs,), ours = run(path, feeds), execute(model, feeds, run_quantized)["logits"]
    assert np.abs(theirs - execute(model, feeds)["logits"]).max() > 0.02  # the rounding is there
    assert np.median(np.abs(theirs - ours)) < 1e-5
    assert np.abs(theirs - ours).max() < 0.05  # a value at a tie may round the other way
    first = next(iter(scales))
    notes = export_onnx(model, path, activations={first: (IntFormat(bits=6, signed=False), scales[first])})
    assert notes == ((first, "activations uint6: only int8 and uint8 are written; left in float32"),)


def test_four_bits_take_half_a_byte(llama_folder: Path, tmp_path: Path) -> None:
    model, path = load_model(llama_folder), tmp_path / "q.onnx"
    export_onnx(model, path, compressed(model, "int4sym", None, None))
    codes = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer if tensor.name.endswith(".codes")}
    assert len(codes) == len(model.weights)
    up = codes["model.layers.0.mlp.up_proj.codes"]
    assert up.data_type == onnx.TensorProto.INT4
    assert len(up.raw_data) == 48 * 32 // 2


def test_what_onnx_cannot_hold_is_noted(llama_folder: Path, tmp_path: Path) -> None:
    model, path = load_model(llama_folder), tmp_path / "q.onnx"
    tensor = round_to_nearest(model.weights["lm_head"], get_format("e2m1"), 8)
    assert export_onnx(model, path, {"lm_head": tensor}) == (
        ("lm_head", "e2m1: ONNX has no such weights; stored as float32"),
    )
    compare(model.with_weights({"lm_head": tensor.dequantize()}), path, {"input_ids": IDS})


@pytest.mark.parametrize(("fmt", "group_size", "pattern"), [*RECIPES, ("e2m1", 8, None), ("e4m3fn", None, NM(2, 4))])
def test_safetensors_come_back(
    fmt: str, group_size: int | None, pattern: NM | Block | None, llama_folder: Path, tmp_path: Path
) -> None:
    model, path = load_model(llama_folder), tmp_path / "q.safetensors"
    tensors = compressed(model, fmt, group_size, pattern)
    export_safetensors(model, path, tensors)
    again = read_tensors(path)
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].spec == tensor.spec
        np.testing.assert_array_equal(again[name].integers(), tensor.integers())
        np.testing.assert_array_equal(again[name].row_scales, tensor.row_scales)


def test_a_layer_that_is_not_there(llama_folder: Path, tmp_path: Path) -> None:
    model = load_model(llama_folder)
    tensor = round_to_nearest(model.weights["lm_head"], get_format("int8"))
    for export in (export_onnx, export_safetensors):
        with pytest.raises(ModelError, match="no weight layer 'head'"):
            export(model, tmp_path / "q", {"head": tensor})


def test_nothing_is_left_behind_where_nothing_can_be_written(llama_folder: Path, tmp_path: Path) -> None:
    model = load_model(llama_folder)
    with pytest.raises(StorageError, match="cannot write"):
        export_onnx(model, tmp_path / "missing" / "q.onnx")
    place = tmp_path / "q.onnx"
    place.mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*q\.onnx"):
        export_onnx(model, place)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "q.onnx"}


def test_foreign_safetensors_hold_no_compressed_layers(llama_folder: Path) -> None:
    with pytest.raises(ModelError, match="no compressed layers"):
        read_tensors(llama_folder / "model.safetensors")
