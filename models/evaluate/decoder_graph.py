"""Find a LLaMA-type decoder in a graph: which layer, gain and table plays which part.

    words[ids] -> blocks -> norm -> head: logits
    block:  q, k, v = three layers of norm(x);  x = x + out(attention(rotated q, rotated k, v))
            x = x + down(silu(gate(norm(x))) * up(norm(x)))

The parts are found by what reads what, not by name.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.evaluate.graph_walk import GraphWalk
from sparsefab.models.graph import Node
from sparsefab.models.model import Model
from sparsefab.models.operators.attributes import integer, number

__all__ = ["DecoderBlock", "DecoderGraph", "RmsNorm", "find_decoder"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RmsNorm:
    """A normalization by the root mean square: gain float32[width]."""

    gain: Floats
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderBlock:
    """One layer of the decoder; query, key, value, out, gate, up, down : names of weight layers."""

    query: str
    key: str
    value: str
    out: str
    gate: str
    up: str
    down: str
    attention_norm: RmsNorm
    output_norm: RmsNorm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecoderGraph:
    """What `find_decoder` found.

    words : float32[vocabulary, width];  cos, sin : float32[context, head width / 2].
    head : name of the layer that makes the logits.
    """

    words: Floats
    cos: Floats
    sin: Floats
    blocks: tuple[DecoderBlock, ...]
    norm: RmsNorm
    head: str
    heads: int
    kv_heads: int

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return 2 * int(self.cos.shape[1])

    @property
    def context(self) -> int:
        """Tokens of a sequence at most."""
        return len(self.cos)


def find_decoder(model: Model) -> DecoderGraph:
    """Find the decoder of a model.

    Raises
    ------
    ModelError                      If the graph is another one; the message says where it differs.
    """
    return _Finder(model).find()


class _Finder:
    """Walks from the token ids to the logits."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.walk = GraphWalk(model, "LLaMA-type decoder")
        self.readers = self.walk.readers
        self.shapes: set[tuple[int, int]] = set()
        self.tables: set[tuple[str, str]] = set()

    def find(self) -> DecoderGraph:
        if [value.name for value in self.model.graph.inputs] != ["input_ids"]:
            raise self.walk.other("its inputs are not input_ids alone")
        gather = self.walk.one("input_ids", "Gather")
        x, blocks = gather.outputs[0], []
        while any(node.op == "Add" for node in self.readers.get(x, [])):
            block, x = self._block(x)
            blocks.append(block)
        if not blocks:
            raise self.walk.other("no attention follows the embeddings")
        if len(self.shapes) != 1 or len(self.tables) != 1:
            raise self.walk.other("its blocks have different heads or positions")
        norm = self.walk.one(x, "RMSNormalization")
        head = self.walk.layers(norm.outputs[0], 1)[0]
        if head.outputs[0] != "logits":
            raise self.walk.other("logits is not what the last layer makes")
        (heads, kv_heads), (cos, sin) = self.shapes.pop(), self.tables.pop()
        return DecoderGraph(
            words=self.walk.constant(gather.inputs[0]),
            cos=self.walk.constant(cos),
            sin=self.walk.constant(sin),
            blocks=tuple(blocks),
            norm=self._norm(norm),
            head=str(head.layer),
            heads=heads,
            kv_heads=kv_heads,
        )

    def _block(self, x: str) -> tuple[DecoderBlock, str]:
        first = self.walk.one(x, "RMSNormalization")
        projections = {node.outputs[0]: node for node in self.walk.layers(first.outputs[0], 3)}
        rotated = {}
        for name in projections:
            for node in self.readers.get(name, []):
                if node.op == "RotaryEmbedding":
                    rotated[node.outputs[0]] = node
        if len(rotated) != 2:
            raise self.walk.other(f"{len(rotated)} of a block's layers are rotated, not two")
        attention = self.walk.one(next(iter(rotated)), "Attention")
        if not set(attention.inputs[:2]) == set(rotated) or attention.inputs[2] not in projections:
            raise self.walk.other(f"{attention.label} does not read two rotated layers and a plain one")
        query, key = (self._rotation(rotated[name]) for name in attention.inputs[:2])
        heads, kv_heads = (integer(attention.attributes, name, 0) for name in ("q_num_heads", "kv_num_heads"))
        if not integer(attention.attributes, "is_causal", 0) or len(attention.inputs) != 3:
            raise self.walk.other(f"{attention.label} is not causal, or has a mask")
        width = 2 * self.walk.constant(next(iter(self.tables))[0]).shape[1]
        if set(attention.attributes) - {"q_num_heads", "kv_num_heads", "is_causal", "scale"} or not np.isclose(
            number(attention.attributes, "scale", width**-0.5), width**-0.5
        ):
            raise self.walk.other(f"{attention.label} has a scale or a cap of its own")
        self.shapes.add((heads, kv_heads))
        (out,) = self.walk.layers(attention.outputs[0], 1)
        middle = self.walk.one(out.outputs[0], "Add")
        second = self.walk.one(middle.outputs[0], "RMSNormalization")
        gate, up, product = self._gated(second.outputs[0])
        (down,) = self.walk.layers(product, 1)
        end = self.walk.one(down.outputs[0], "Add")
        if {*middle.inputs} != {x, out.outputs[0]} or {*end.inputs} != {middle.outputs[0], down.outputs[0]}:
            raise self.walk.other(f"{middle.label} or {end.label} does not add what the block reads")
        value = projections[attention.inputs[2]]
        names = [str(node.layer) for node in (projections[query], projections[key], value, out, gate, up, down)]
        return DecoderBlock(
            query=names[0], key=names[1], value=names[2], out=names[3], gate=names[4], up=names[5], down=names[6],
            attention_norm=self._norm(first), output_norm=self._norm(second),
        ), end.outputs[0]  # fmt: skip

    def _rotation(self, node: Node) -> str:
        """What a rotation reads; halves, by tables that all share."""
        if integer(node.attributes, "interleaved", 0) or integer(node.attributes, "rotary_embedding_dim", 0):
            raise self.walk.other(f"{node.label} rotates pairs, or a part of a head")
        self.tables.add((node.inputs[1], node.inputs[2]))
        return node.inputs[0]

    def _gated(self, x: str) -> tuple[Node, Node, str]:
        """Gate and up layers of a block, and the product silu(gate) * up."""
        for gate, up in (self.walk.layers(x, 2), self.walk.layers(x, 2)[::-1]):
            opened = [node for node in self.readers.get(gate.outputs[0], []) if node.op == "Sigmoid"]
            if not opened:
                continue
            silu = self.walk.one(opened[0].outputs[0], "Mul")
            product = self.walk.one(silu.outputs[0], "Mul")
            if {*silu.inputs} == {gate.outputs[0], opened[0].outputs[0]} and up.outputs[0] in product.inputs:
                return gate, up, product.outputs[0]
        raise self.walk.other("no gate by SiLU follows a block's second norm")

    def _norm(self, node: Node) -> RmsNorm:
        return RmsNorm(gain=self.walk.constant(node.inputs[1]), epsilon=number(node.attributes, "epsilon", 1e-5))
