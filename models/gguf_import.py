"""Import of GGUF files of the llama architecture, dequantized to float32 by the gguf package."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.families.llama import LlamaConfig, build_llama
from sparsefab.models.gguf_file import GgufFile
from sparsefab.models.model import Model

__all__ = ["import_gguf"]

_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class _LlamaTensors(Mapping[str, NDArray[np.generic]]):
    """The tensors under Hugging Face's names, dequantized when asked for, the rows of q and k in rotary halves."""

    def __init__(self, file: GgufFile, heads: int, kv_heads: int) -> None:
        self._file = file
        self._heads = {"attn_q": heads, "attn_k": kv_heads}
        self._places = {}
        for name in file.tensors:
            parts = name.split(".")
            if parts[0] == "blk" and parts[2] in _BLOCK:
                self._places[f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{parts[3]}"] = name
            elif parts[0] in _TOP:
                self._places[f"{_TOP[parts[0]]}.{parts[1]}"] = name

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        place = self._places[name]
        array = self._file.tensors[place].dequantize()
        heads = self._heads.get(place.split(".")[2] if place.startswith("blk.") else "")
        if heads is not None and len(array) % (2 * heads):
            raise ModelError(f"{self._file.path}: {heads} heads cannot share the {len(array)} rows of {place!r}")
        if heads is not None:  # GGUF interleaves the two halves that a rotation pairs, row by row
            array = array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def import_gguf(path: Path) -> Model:
    """Import a GGUF file.

    The metadata entry 'quantization' of the model says what the weights were before they became float32 ('Q4_1, ...'):
    a model that comes from 4-bit codes is no fp16 baseline.

    Raises
    ------
    ModelError     If the file is damaged, of another architecture, or lacks a key or tensor.
    """
    file = GgufFile(path)
    architecture = file.field("general.architecture")
    if architecture != "llama":
        raise ModelError(f"{path}: architecture {architecture!r} is not supported, only 'llama'")
    if file.field("llama.rope.scaling.type", "none") != "none":
        raise ModelError(f"{path}: rope scaling is not supported, only plain rotary positions")
    heads = max(1, int(file.field("llama.attention.head_count")))
    width = int(file.field("llama.embedding_length"))
    head_dim = int(file.field("llama.rope.dimension_count", width // heads))
    if head_dim != width // heads:
        raise ModelError(f"{path}: rotates {head_dim} of {width // heads} channels a head, which is not supported")
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=int(file.field("llama.feed_forward_length")),
        layers=int(file.field("llama.block_count")),
        heads=heads,
        kv_heads=int(file.field("llama.attention.head_count_kv", heads)),
        head_dim=head_dim,
        vocabulary_size=len(file.field("tokenizer.ggml.tokens")),
        context=int(file.field("llama.context_length")),
        rms_norm_eps=float(file.field("llama.attention.layer_norm_rms_epsilon")),
        rope_theta=float(file.field("llama.rope.freq_base", 1e4)),
    )
    metadata = {"format": "gguf", "source": path.name, "quantization": file.quantization()}
    return build_llama(path.stem, config, _LlamaTensors(file, heads, config.kv_heads), metadata)
