"""LLaMA and BERT checkpoints against plain formulas written out for one sequence, head by head."""

import json
from collections.abc import Callable
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sparsefab.errors import ModelError
from sparsefab.models.execute import execute
from sparsefab.models.load import load_model
from sparsefab.models.safetensors_import import SafetensorsFile, import_safetensors
from sparsefab.workload import Attention, Linear

Floats = NDArray[np.float64]
Tensors = dict[str, NDArray[np.float32]]


def _attend(q: Floats, k: Floats, v: Floats, allowed: NDArray[np.bool_]) -> Floats:
    scores = np.where(allowed, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True) @ v)


def _llama(tensors: Tensors, tokens: list[int]) -> Floats:
    """Logits [tokens, vocabulary] of the tiny LLaMA, in float64."""
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    length, head = len(tokens), 8

    def norm(x: Floats, gain: str) -> Floats:
        return np.asarray(x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5) * t[gain])

    def rotate(x: Floats) -> Floats:
        y = x.copy()
        for position in range(length):
            for pair in range(head // 2):
                angle = position * 10000.0 ** (-2 * pair / head)
                a, b = x[position, pair], x[position, pair + head // 2]
                y[position, pair] = a * np.cos(angle) - b * np.sin(angle)
                y[position, pair + head // 2] = b * np.cos(angle) + a * np.sin(angle)
        return y

    x = t["model.embed_tokens.weight"][tokens]
    for layer in range(2):
        p = f"model.layers.{layer}."
        h = norm(x, p + "input_layernorm.weight")
        q, k, v = (h @ t[f"{p}self_attn.{part}_proj.weight"].T for part in "qkv")
        heads = []
        for index in range(4):
            own, shared = slice(8 * index, 8 * index + 8), slice(8 * (index // 2), 8 * (index // 2) + 8)
            heads.append(_attend(rotate(q[:, own]), rotate(k[:, shared]), v[:, shared], np.tri(length, dtype=np.bool_)))
        x = x + np.hstack(heads) @ t[p + "self_attn.o_proj.weight"].T
        h = norm(x, p + "post_attention_layernorm.weight")
        gate = h @ t[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ t[p + "mlp.up_proj.weight"].T)) @ t[p + "mlp.down_proj.weight"].T
    return np.asarray(norm(x, "model.norm.weight") @ t.get("lm_head.weight", t["model.embed_tokens.weight"]).T)


def _bert(tensors: Tensors, tokens: list[int]) -> tuple[Floats, Floats]:
    """Hidden states [tokens, width] and masked-language-model logits of the tiny BERT, in float64."""
    t = {name.removeprefix("bert."): value.astype(np.float64) for name, value in tensors.items()}

    def norm(x: Floats, name: str) -> Floats:
        centred = x - x.mean(1, keepdims=True)
        return np.asarray(
            centred / np.sqrt(centred.var(1, keepdims=True) + 1e-12) * t[name + ".gamma"] + t[name + ".beta"]
        )

    def linear(x: Floats, name: str) -> Floats:
        return np.asarray(x @ t[name + ".weight"].T + t[name + ".bias"])

    def gelu(x: Floats) -> Floats:
        return np.asarray(0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2))))

    e = "embeddings."
    x = norm(
        t[e + "word_embeddings.weight"][tokens]
        + t[e + "position_embeddings.weight"][: len(tokens)]
        + t[e + "token_type_embeddings.weight"][0],
        e + "LayerNorm",
    )
    for layer in range(2):
        p = f"encoder.layer.{layer}."
        q, k, v = (linear(x, f"{p}attention.self.{part}") for part in ("query", "key", "value"))
        everywhere = np.ones((len(tokens), len(tokens)), np.bool_)
        mixed = np.hstack([_attend(q[:, h : h + 8], k[:, h : h + 8], v[:, h : h + 8], everywhere) for h in (0, 8, 16)])
        x = norm(linear(mixed, p + "attention.output.dense") + x, p + "attention.output.LayerNorm")
        x = norm(linear(gelu(linear(x, p + "intermediate.dense")), p + "output.dense") + x, p + "output.LayerNorm")
    head = norm(gelu(linear(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm")
    return x, np.asarray(head @ t[e + "word_embeddings.weight"].T + t["cls.predictions.bias"])


def test_llama(llama_folder: Path, llama_tensors: Tensors) -> None:
    model = load_model(llama_folder)
    tokens = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]]
    logits = execute(model, {"input_ids": np.array(tokens)})["logits"]
    for row, sequence in zip(logits, tokens, strict=True):
        np.testing.assert_allclose(row, _llama(llama_tensors, sequence), atol=2e-5)


def test_llama_workload(llama_folder: Path) -> None:
    workload = load_model(llama_folder).workload
    names = [layer.name for layer in workload.weight_layers()]
    assert workload.family == "decoder"
    assert names[:3] == [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    assert len(names) == 15
    head = next(layer for layer in workload.layers if layer.name == "lm_head")
    assert head == Linear(name="lm_head", out_features=29, in_features=32, head=True)
    assert next(workload.attentions()) == Attention(
        name="model.layers.0.self_attn", heads=4, kv_heads=2, head_dim=8, causal=True
    )


def test_what_stays_in_float_is_listed(llama_folder: Path) -> None:
    model = load_model(llama_folder)
    listed = dict(model.skipped)
    assert "lm_head" in listed["model.embed_tokens"]
    assert {name for name in listed if "norm" in name} == {
        layer.name for layer in model.workload.layers if "norm" in layer.name
    }


def test_untied_head_and_biases(
    llama_tensors: Tensors, checkpoint: Callable[[dict[str, Any], Tensors], Path], llama_folder: Path
) -> None:
    rng = np.random.default_rng(3)
    llama_tensors["lm_head.weight"] = rng.normal(size=(29, 32)).astype(np.float32)
    config = json.loads((llama_folder / "config.json").read_text())
    model = load_model(checkpoint(config, llama_tensors))
    logits = execute(model, {"input_ids": np.array([[7, 8, 9]])})["logits"]
    np.testing.assert_allclose(logits[0], _llama(llama_tensors, [7, 8, 9]), atol=2e-5)
    llama_tensors["model.layers.0.self_attn.q_proj.bias"] = rng.normal(size=32).astype(np.float32)
    model = load_model(checkpoint(config, llama_tensors))
    bias = model.bias("model.layers.0.self_attn.q_proj")
    assert bias is not None
    np.testing.assert_array_equal(bias, llama_tensors["model.layers.0.self_attn.q_proj.bias"])
    assert model.bias("model.layers.0.self_attn.k_proj") is None


def test_bert(bert_folder: Path, bert_tensors: Tensors) -> None:
    model = load_model(bert_folder)
    tokens = [3, 1, 4, 1, 5, 9]
    padded = np.array([[*tokens, 0, 0], [2, 7, 1, 8, 2, 8, 1, 8]])
    mask = np.array([[1] * 6 + [0] * 2, [1] * 8])
    outputs = execute(model, {"input_ids": padded, "attention_mask": mask})
    hidden, logits = _bert(bert_tensors, tokens)
    np.testing.assert_allclose(outputs["last_hidden_state"][0, :6], hidden, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"][0, :6], logits, atol=2e-5)
    np.testing.assert_allclose(outputs["embedding"][0], hidden.mean(0), atol=1e-5)
    assert model.workload.family == "encoder"
    assert not any(attention.causal for attention in model.workload.attentions())


def test_float16_bfloat16_and_shards(llama_tensors: Tensors, llama_folder: Path) -> None:
    names = sorted(llama_tensors)
    (llama_folder / "model.safetensors").unlink()
    parts = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, members in parts.items():
        save_file({name: llama_tensors[name].astype(np.float16) for name in members}, llama_folder / file)
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (llama_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = load_model(llama_folder)
    weight = model.weights["model.layers.1.mlp.up_proj"]
    np.testing.assert_array_equal(weight, llama_tensors["model.layers.1.mlp.up_proj.weight"].astype(np.float16))
    assert weight.dtype == np.float32


def test_bfloat16(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "x.safetensors").write_bytes(content)
    np.testing.assert_array_equal(SafetensorsFile(tmp_path / "x.safetensors")["x"], values.reshape(2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"hidden_size": 40, "head_dim": 8}, "the configuration says"),
        ({"num_hidden_layers": 3}, "'model.layers.2.input_layernorm.weight' is missing"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_attention_heads": 0}, "no positive number"),
        ({"num_key_value_heads": 3}, "4 heads of 8 channels on 3 key/value heads"),
        ({"hidden_size": "wide"}, "no positive number"),
    ],
)
def test_configurations_that_do_not_fit(llama_folder: Path, change: dict[str, Any], message: str) -> None:
    place = llama_folder / "config.json"
    config = {**json.loads(place.read_text()), **change}
    place.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(ModelError, match=message):
        load_model(llama_folder)


def test_nan_is_named(
    llama_tensors: Tensors, checkpoint: Callable[[dict[str, Any], Tensors], Path], llama_folder: Path
) -> None:
    config = json.loads((llama_folder / "config.json").read_text())
    llama_tensors["model.layers.1.mlp.down_proj.weight"][0, 3] = np.nan
    with pytest.raises(ModelError, match=r"'model\.layers\.1\.mlp\.down_proj\.weight' holds NaN"):
        load_model(checkpoint(config, llama_tensors))


def test_damaged_files(llama_folder: Path, tmp_path: Path) -> None:
    whole = (llama_folder / "model.safetensors").read_bytes()
    (llama_folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="truncated, 100 bytes are missing"):
        load_model(llama_folder)
    (llama_folder / "model.safetensors").write_bytes(whole[:50])
    with pytest.raises(ModelError, match="fetch it again"):
        import_safetensors(llama_folder / "model.safetensors")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(whole)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(alone)
