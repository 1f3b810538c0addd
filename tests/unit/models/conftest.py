"""Small random checkpoints, written as the real ones are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[np.float32]]

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 29,
    "max_position_embeddings": 24,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}
BERT = {
    "model_type": "bert",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "vocab_size": 31,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


@pytest.fixture
def llama_tensors() -> Tensors:
    """A LLaMA of two layers, 4 heads over 2 key/value heads."""
    rng = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (29, 32), "model.norm.weight": (32,)}
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (32,),
            prefix + "post_attention_layernorm.weight": (32,),
            prefix + "self_attn.q_proj.weight": (32, 32),
            prefix + "self_attn.k_proj.weight": (16, 32),
            prefix + "self_attn.v_proj.weight": (16, 32),
            prefix + "self_attn.o_proj.weight": (32, 32),
            prefix + "mlp.gate_proj.weight": (48, 32),
            prefix + "mlp.up_proj.weight": (48, 32),
            prefix + "mlp.down_proj.weight": (32, 48),
        }
    return {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def bert_tensors() -> Tensors:
    """A BERT of two layers with a masked-language-model head; the older names gamma and beta, the prefix bert."""
    rng = np.random.default_rng(2)
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (31, 24),
        "bert.embeddings.position_embeddings.weight": (16, 24),
        "bert.embeddings.token_type_embeddings.weight": (2, 24),
        "cls.predictions.bias": (31,),
        "cls.predictions.transform.dense.weight": (24, 24),
        "cls.predictions.transform.dense.bias": (24,),
    }
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for layer in range(2):
        prefix = f"bert.encoder.layer.{layer}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{prefix}{part}.weight": (24, 24), f"{prefix}{part}.bias": (24,)}
        shapes |= {
            f"{prefix}intermediate.dense.weight": (40, 24),
            f"{prefix}intermediate.dense.bias": (40,),
            f"{prefix}output.dense.weight": (24, 40),
            f"{prefix}output.dense.bias": (24,),
        }
        norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
    for norm in norms:
        shapes |= {f"{norm}.gamma": (24,), f"{norm}.beta": (24,)}
    return {
        name: rng.normal(1.0 if name.endswith("gamma") else 0.0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[dict[str, Any], Tensors], Path]:
    """Write a folder with config.json and model.safetensors; returns the folder."""

    def write(config: dict[str, Any], tensors: Tensors) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def llama_folder(checkpoint: Callable[[dict[str, Any], Tensors], Path], llama_tensors: Tensors) -> Path:
    """The tiny LLaMA as a folder."""
    return checkpoint(LLAMA, llama_tensors)


@pytest.fixture
def bert_folder(checkpoint: Callable[[dict[str, Any], Tensors], Path], bert_tensors: Tensors) -> Path:
    """The tiny BERT as a folder."""
    return checkpoint(BERT, bert_tensors)
