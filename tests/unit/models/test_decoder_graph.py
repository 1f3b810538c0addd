"""Decoders are found by what reads what, and what is none is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefab.errors import ModelError
from sparsefab.models.evaluate.decoder_graph import find_decoder
from sparsefab.models.graph import Graph
from sparsefab.models.source import resolve
from tests.unit.kernels_cpu.berts import random_bert
from tests.unit.kernels_cpu.llamas import CONTEXT, random_llama


def test_every_part_has_its_place():
    model = random_llama(layers=2)
    graph = find_decoder(model)
    for index, block in enumerate(graph.blocks):
        prefix = f"model.layers.{index}"
        names = (block.query, block.key, block.value, block.out, block.gate, block.up, block.down)
        parts = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
        assert names == tuple(f"{prefix}.{part}_proj" for part in parts)
        gain = model.initializers[f"{prefix}.post_attention_layernorm.weight"]
        np.testing.assert_array_equal(block.output_norm.gain, gain)
    assert (len(graph.blocks), graph.head, graph.heads, graph.kv_heads) == (2, "lm_head", 4, 2)
    assert (graph.head_width, graph.context) == (16, CONTEXT)


def test_the_embedded_decoder_is_one():
    assert len(find_decoder(resolve("char-llama", Path("unused")).load()).blocks) == 4


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("Attention", {"is_causal": 0}, "is not causal"),
        ("Attention", {"scale": 0.5}, "has a scale or a cap of its own"),
        ("Attention", {"softcap": 30.0}, "has a scale or a cap of its own"),
        ("RotaryEmbedding", {"interleaved": 1}, "rotates pairs"),
    ],
)
def test_another_arithmetic_is_refused(op, attributes, message):
    model = random_llama(layers=1)
    nodes = tuple(
        replace(node, attributes={**node.attributes, **attributes}) if node.op == op else node
        for node in model.graph.nodes
    )
    changed = replace(model, graph=Graph(nodes=nodes, inputs=model.graph.inputs, outputs=model.graph.outputs))
    with pytest.raises(ModelError, match=f"is no LLaMA-type decoder: .*{message}"):
        find_decoder(changed)


def test_an_encoder_is_refused():
    with pytest.raises(ModelError, match="its inputs are not input_ids alone"):
        find_decoder(random_bert(layers=1))
