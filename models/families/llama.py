"""The LLaMA architecture: RMS norms, rotary positions, grouped-query attention, SwiGLU.

embedding -> layers -> norm -> head
layer: x + o(attention(rotate(q(norm x)), rotate(k(norm x)), v(norm x))), then
       x + down(silu(gate(norm x)) * up(norm x))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsefab.errors import ModelError
from sparsefab.models.families.builder import Builder, Tensors, float_tensor
from sparsefab.models.graph import Value
from sparsefab.models.model import Model
from sparsefab.workload import Attention

__all__ = ["LlamaConfig", "build_llama"]

EMBEDDING_REASON = "embedding: a table look-up, stays in float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Sizes of a LLaMA model; names as in Hugging Face's config.json."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    context: int
    rms_norm_eps: float
    rope_theta: float

    def __post_init__(self) -> None:
        if min(self.heads, self.kv_heads, self.head_dim) < 1 or self.heads % self.kv_heads or self.head_dim % 2:
            raise ModelError(
                f"there cannot be {self.heads} heads of {self.head_dim} channels on {self.kv_heads} "
                "key/value heads; the model's description is damaged"
            )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "LlamaConfig":
        """Read config.json; a setting that this architecture does not have is an error."""
        if config.get("rope_scaling"):
            raise ModelError("config.json: rope_scaling is not supported, only plain rotary positions")
        if config.get("hidden_act", "silu") not in ("silu", "swish"):
            raise ModelError(f"config.json: hidden_act {config['hidden_act']!r} is not supported, only 'silu'")
        try:
            heads = int(config["num_attention_heads"])
            return cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
                vocabulary_size=int(config["vocab_size"]),
                context=int(config["max_position_embeddings"]),
                rms_norm_eps=float(config["rms_norm_eps"]),
                rope_theta=float(config.get("rope_theta") or 1e4),
            )
        except KeyError as error:
            raise ModelError(f"config.json: {error.args[0]} is missing") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"config.json: a size is no positive number ({error})") from None


def build_llama(name: str, config: LlamaConfig, tensors: Tensors, metadata: Mapping[str, str]) -> Model:
    """Build the model from tensors with Hugging Face's names; rotary halves, not interleaved pairs.

    Without a tensor lm_head.weight the head is the embedding table (tied); the layer is called lm_head all the same.

    Returns
    -------
    Model     Input input_ids int64[batch, sequence]; output logits float32[batch, sequence, vocabulary].
    """
    b = Builder()
    width = config.hidden_size
    table = float_tensor(tensors, "model.embed_tokens.weight", (config.vocabulary_size, width))
    tied = "lm_head.weight" not in tensors
    reason = EMBEDDING_REASON + (" (lm_head, tied to it, is a layer of its own)" if tied else "")
    x = b.embedding("model.embed_tokens", table, "input_ids", reason)
    positions = _positions(b)
    rotation = (*_rotary_tables(b, config), positions)
    for index in range(config.layers):
        x = _block(b, config, tensors, f"model.layers.{index}", x, rotation)
    gain = float_tensor(tensors, "model.norm.weight", (width,))
    x = b.rms_norm("model.norm", x, gain, config.rms_norm_eps)
    head = table if tied else float_tensor(tensors, "lm_head.weight", (config.vocabulary_size, width))
    b.linear("lm_head", x, head, head=True, output="logits")
    ids = Value(name="input_ids", dtype="int64", shape=("batch", "sequence"))
    logits = Value(name="logits", dtype="float32", shape=("batch", "sequence", config.vocabulary_size))
    details = {"architecture": "llama", "task": "causal-lm", "context": str(config.context)}
    return b.model(name, "decoder", [ids], [logits], {**details, **metadata})


def _positions(b: Builder) -> str:
    """Number the tokens of each sequence from 0: int64[batch, sequence]."""
    shape = b.add("Shape", ["input_ids"], "positions.shape")
    zero, one = b.constant("zero", np.asarray(0, np.int64)), b.constant("one", np.asarray(1, np.int64))
    length = b.add("Gather", [shape, one], "positions.length", {"axis": 0})
    steps = b.add("Range", [zero, length, one], "positions.range")
    return b.add("Expand", [steps, shape], "positions")


def _rotary_tables(b: Builder, config: LlamaConfig) -> tuple[str, str]:
    """Cosine and sine of every position and frequency: float32[context, head_dim / 2]."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = np.outer(np.arange(config.context), frequencies)
    return (
        b.constant("rope.cos", np.cos(angles).astype(np.float32)),
        b.constant("rope.sin", np.sin(angles).astype(np.float32)),
    )


def _block(
    b: Builder, config: LlamaConfig, tensors: Tensors, prefix: str, x: str, rotation: tuple[str, str, str]
) -> str:
    """One transformer layer with its two residual additions."""

    def norm(part: str, source: str) -> str:
        gain = float_tensor(tensors, f"{prefix}.{part}.weight", (config.hidden_size,))
        return b.rms_norm(f"{prefix}.{part}", source, gain, config.rms_norm_eps)

    def linear(part: str, source: str, out: int, inner: int) -> str:
        layer = f"{prefix}.{part}"
        bias = float_tensor(tensors, f"{layer}.bias", (out,)) if f"{layer}.bias" in tensors else None
        return b.linear(layer, source, float_tensor(tensors, f"{layer}.weight", (out, inner)), bias)

    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden = norm("input_layernorm", x)
    q = linear("self_attn.q_proj", hidden, queries, width)
    k = linear("self_attn.k_proj", hidden, keys, width)
    v = linear("self_attn.v_proj", hidden, keys, width)
    q = b.add("RotaryEmbedding", [q, *rotation], f"{prefix}.self_attn.q_rotated", {"num_heads": config.heads})
    k = b.add("RotaryEmbedding", [k, *rotation], f"{prefix}.self_attn.k_rotated", {"num_heads": config.kv_heads})
    b.layers.append(
        Attention(
            name=f"{prefix}.self_attn",
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            causal=True,
        )
    )
    mixed = b.add(
        "Attention",
        [q, k, v],
        f"{prefix}.self_attn.output",
        {"q_num_heads": config.heads, "kv_num_heads": config.kv_heads, "is_causal": 1},
    )
    x = b.add("Add", [x, linear("self_attn.o_proj", mixed, width, queries)], f"{prefix}.self_attn.residual")
    hidden = norm("post_attention_layernorm", x)
    gate = linear("mlp.gate_proj", hidden, inner, width)
    up = linear("mlp.up_proj", hidden, inner, width)
    b.activation(f"{prefix}.mlp.act", "silu", inner)
    opened = b.add("Sigmoid", [gate], f"{prefix}.mlp.act.output")
    silu = b.add("Mul", [gate, opened], f"{prefix}.mlp.silu")
    product = b.add("Mul", [silu, up], f"{prefix}.mlp.product")
    return b.add("Add", [x, linear("mlp.down_proj", product, width, inner)], f"{prefix}.mlp.residual")
