"""Small LLaMA-type decoders with random weights, built in the test."""

import numpy as np

from sparsefab.models.compress import Recipe, Rule, compress
from sparsefab.models.families.llama import LlamaConfig, build_llama

VOCABULARY, CONTEXT = 61, 90


def random_llama(width=64, inner=96, layers=2, heads=4, kv_heads=2, head_dim=16, bias=False, seed=0):
    random = np.random.default_rng(seed)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary_size=VOCABULARY,
        context=CONTEXT,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
    )
    tensors = {"model.embed_tokens.weight": random.normal(size=(VOCABULARY, width))}
    norms = ["model.norm"]
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, rows, columns in (
            ("self_attn.q_proj", heads * head_dim, width),
            ("self_attn.k_proj", kv_heads * head_dim, width),
            ("self_attn.v_proj", kv_heads * head_dim, width),
            ("self_attn.o_proj", width, heads * head_dim),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            tensors[f"{prefix}.{name}.weight"] = random.normal(size=(rows, columns)) / np.sqrt(columns)
            if bias:
                tensors[f"{prefix}.{name}.bias"] = random.normal(size=rows) * 0.2
        norms += [f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"]
    for name in norms:
        tensors[f"{name}.weight"] = 1 + 0.2 * random.normal(size=width)
    return build_llama("random-llama", config, {name: np.float32(array) for name, array in tensors.items()}, {})


def compressed(model, **rule):
    return compress(model, Recipe(name="test", rules=(Rule(**{"weights": "int8sym", **rule}),)))
