"""GGUF files: the same LLaMA through GGUF and through safetensors, and the tokenizer in the metadata."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.execute import execute
from sparsefab.models.load import load_model
from sparsefab.models.tokenize import load_tokenizer

Tensors = dict[str, NDArray[np.float32]]
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Order the rows as llama.cpp's converter does: row i of the first half, row i of the second half, ..."""
    rows = np.arange(len(weight)).reshape(heads, 2, -1)
    order = [int(rows[head, half, index]) for head in range(heads) for index in range(rows.shape[2]) for half in (0, 1)]
    return weight[order]


def write_gguf(
    path: Path, tensors: Tensors, architecture: str = "llama", leave_out: str = "", q8: bool = False
) -> None:
    """Write the tiny LLaMA as GGUF; with q8 the down projections are Q8_0."""
    writer = GGUFWriter(path, architecture)
    for name, value in {
        "block_count": 2,
        "context_length": 24,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 8,
    }.items():
        if name != leave_out:
            writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    letters = [chr(ord("a") + index) for index in range(24)]
    tokens = ["<|end|>", *letters, "ab", "abc", "\u0120", "1"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["a b", "ab c"])
    for name, tensor in tensors.items():
        part = name.removesuffix(".weight")
        if part.startswith("model.layers."):
            _, _, index, rest = part.split(".", 3)
            target = f"blk.{index}.{PARTS[rest]}.weight"
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = interleave(tensor, 4 if rest == "self_attn.q_proj" else 2)
        else:
            target = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[part] + ".weight"
        if q8 and "gate_proj" in name:
            writer.add_tensor(target, quantize(tensor, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(target, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_and_safetensors_give_the_same_model(llama_tensors: Tensors, llama_folder: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama_tensors)
    ours, theirs = load_model(tmp_path / "tiny.gguf"), load_model(llama_folder)
    assert ours.workload.layers == theirs.workload.layers
    for name, weight in theirs.weights.items():
        np.testing.assert_array_equal(ours.weights[name], weight)
    np.testing.assert_allclose(
        execute(ours, {"input_ids": IDS})["logits"], execute(theirs, {"input_ids": IDS})["logits"], atol=1e-5
    )
    assert ours.metadata["quantization"] == "F32"


def test_quantized_tensors_are_dequantized(llama_tensors: Tensors, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama_tensors, q8=True)
    model = load_model(tmp_path / "tiny.gguf")
    name = "model.layers.1.mlp.gate_proj"
    codes = quantize(llama_tensors[f"{name}.weight"], GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(model.weights[name], dequantize(codes, GGMLQuantizationType.Q8_0))
    assert model.metadata["quantization"] == "F32, Q8_0"


def test_tokenizer(llama_tensors: Tensors, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama_tensors)
    tokenizer = load_tokenizer(tmp_path / "tiny.gguf")
    assert tokenizer.encode("abca 11<|end|>").tolist() == [26, 1, 27, 28, 28, 0]
    assert tokenizer.decode([26, 1, 27, 28]) == "abca 1"
    assert load_tokenizer(tmp_path / "tiny.gguf", context=2).encode("abca 1").tolist() == [26, 1]


@pytest.mark.parametrize("length", [3, 20, 500, -1000])
def test_damaged_files(llama_tensors: Tensors, tmp_path: Path, length: int) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama_tensors)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"tiny\.gguf: not a"):
        load_model(path)


def test_other_architectures_and_missing_keys(llama_tensors: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, llama_tensors, architecture="qwen2")
    with pytest.raises(ModelError, match=r"architecture 'qwen2' is not supported, only 'llama'"):
        load_model(path)
    write_gguf(path, llama_tensors, leave_out="feed_forward_length")
    with pytest.raises(ModelError, match=r"the metadata lacks llama\.feed_forward_length"):
        load_model(path)
    del llama_tensors["model.layers.1.mlp.up_proj.weight"]
    write_gguf(path, llama_tensors)
    with pytest.raises(ModelError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        load_model(path)
