"""Find a BERT-type encoder in a graph: which layer, norm and table plays which part.

    words[ids] + places[0 : sequence] -> norm -> blocks -> last_hidden_state (-> mean over the kept tokens: embedding)
    block:  q, k, v = three layers of x;  x = norm(out(attention(q, k, v)) + x);  x = norm(down(gelu(up(x))) + x)

The parts are found by what reads what, not by name.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.evaluate.graph_walk import GraphWalk
from sparsefab.models.graph import Node
from sparsefab.models.model import Model
from sparsefab.models.operators.attributes import integer, number, text

__all__ = ["Block", "EncoderGraph", "Norm", "find_encoder"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Norm:
    """A layer normalization: gain and bias float32[width]."""

    gain: Floats
    bias: Floats
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """One layer of the encoder.

    query, key, value, out, up, down : names of weight layers.
    tanh : the GELU is the one with tanh.
    """

    query: str
    key: str
    value: str
    out: str
    up: str
    down: str
    attention_norm: Norm
    output_norm: Norm
    heads: int
    tanh: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """All weight layers."""
        return (self.query, self.key, self.value, self.out, self.up, self.down)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderGraph:
    """What `find_encoder` found.

    words : float32[vocabulary, width];  places : float32[context, width], token type added.
    pooled : whether the graph has the output `embedding`.
    """

    words: Floats
    places: Floats
    norm: Norm
    blocks: tuple[Block, ...]
    pooled: bool

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.words.shape[1])

    @property
    def context(self) -> int:
        """Tokens of a sequence at most."""
        return len(self.places)


def find_encoder(model: Model) -> EncoderGraph:
    """Find the encoder of a model.

    Raises
    ------
    ModelError                      If the graph is another one; the message says where it differs.
    """
    return _Finder(model).find()


class _Finder:
    """Walks from the inputs to the outputs."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.walk = GraphWalk(model, "BERT-type encoder")
        self.readers = self.walk.readers
        self.made = {name: node for node in model.graph.nodes for name in node.outputs}

    def find(self) -> EncoderGraph:
        inputs = {value.name for value in self.model.graph.inputs}
        if inputs != {"input_ids", "attention_mask"}:
            raise self.walk.other(f"its inputs are {', '.join(sorted(inputs))}, not input_ids and attention_mask")
        gather = self.walk.one("input_ids", "Gather")
        total = self.walk.one(gather.outputs[0], "Add")
        norm = self.walk.one(total.outputs[0], "LayerNormalization")
        other = next(name for name in total.inputs if name != gather.outputs[0])
        place = self.made.get(other)
        if place is None or place.op != "Slice":
            raise self.walk.other("position embeddings are no slice of a table")
        x, blocks = norm.outputs[0], []
        while any(node.layer is not None for node in self.readers.get(x, [])):
            block, x = self._block(x)
            blocks.append(block)
        if not blocks:
            raise self.walk.other("no attention follows the embeddings")
        hidden = "last_hidden_state"
        end = self.made.get(hidden)
        if end is None or (hidden != x and (end.op != "Identity" or end.inputs[0] != x)):
            raise self.walk.other("last_hidden_state is not what the last block makes")
        outputs = {value.name for value in self.model.graph.outputs}
        return EncoderGraph(
            words=self.walk.constant(gather.inputs[0]),
            places=self.walk.constant(place.inputs[0]),
            norm=self._norm(norm),
            blocks=tuple(blocks),
            pooled="embedding" in outputs,
        )

    def _block(self, x: str) -> tuple[Block, str]:
        projections = [node for node in self.readers[x] if node.layer is not None]
        attention = self.walk.one(projections[0].outputs[0], "Attention")
        parts = {node.outputs[0]: node for node in projections}
        if len(projections) != 3 or set(attention.inputs[:3]) != set(parts):
            raise self.walk.other(f"{attention.label} does not read three layers of one input")
        query, key, value = (parts[name] for name in attention.inputs[:3])
        heads = integer(attention.attributes, "q_num_heads", 0)
        if heads != integer(attention.attributes, "kv_num_heads", 0) or integer(attention.attributes, "is_causal", 0):
            raise self.walk.other(f"{attention.label} is causal or shares keys")
        width = len(self.model.weights[str(query.layer)])
        if not np.isclose(number(attention.attributes, "scale", (width / heads) ** -0.5), (width / heads) ** -0.5):
            raise self.walk.other(f"{attention.label} has a scale of its own")
        out = self.walk.one(attention.outputs[0], "MatMul")
        middle = self._residual(out, x)
        up = self.walk.one(middle.outputs[0], "MatMul")
        gelu = self.walk.one(up.outputs[0], "Gelu")
        down = self.walk.one(gelu.outputs[0], "MatMul")
        end = self._residual(down, middle.outputs[0])
        names = [str(node.layer) for node in (query, key, value, out, up, down)]
        return Block(
            query=names[0],
            key=names[1],
            value=names[2],
            out=names[3],
            up=names[4],
            down=names[5],
            attention_norm=self._norm(middle),
            output_norm=self._norm(end),
            heads=heads,
            tanh=text(gelu.attributes, "approximate", "none") == "tanh",
        ), end.outputs[0]

    def _residual(self, layer: Node, x: str) -> Node:
        """The norm of a layer's result added to its block's input."""
        total = self.walk.one(layer.outputs[0], "Add")
        if set(total.inputs) != {layer.outputs[0], x}:
            raise self.walk.other(f"{total.label} does not add the block's input")
        return self.walk.one(total.outputs[0], "LayerNormalization")

    def _norm(self, node: Node) -> Norm:
        return Norm(
            gain=self.walk.constant(node.inputs[1]),
            bias=self.walk.constant(node.inputs[2]),
            epsilon=number(node.attributes, "epsilon", 1e-5),
        )
