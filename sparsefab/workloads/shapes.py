"""From a model's dimensions to its layers.

Layer names of transformers follow the usual checkpoint names (layers.0.self_attn.q_proj), so that recipe patterns
written for an imported model fit the shape-only one.
"""

from dataclasses import dataclass, replace
from typing import Literal

from sparsefab.workload import Activation, Attention, Convolution, Embedding, Layer, Linear, Norm, Workload

__all__ = ["CnnShape", "ConvolutionShape", "Experts", "ModelShape", "TransformerShape", "expand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of `count` feed-forward experts of which `active` run for a token."""

    count: int
    active: int

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.count:
            raise ValueError(f"active must be 1 to count = {self.count}, not {self.active}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerShape:
    """Dimensions of a transformer.

    Parameters
    ----------
    mlp : 'gated' | 'plain'         gate, up, down or two matrices.
    tied : bool                     The output projection shares the embedding table.
    classes : int                   Outputs of an encoder's classifier; 0: none.
    patch : int                     Side of an image patch of three channels; 0: text.
    """

    family: Literal["decoder", "encoder"]
    blocks: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int = 0
    positions: int = 0
    mlp: Literal["gated", "plain"] = "gated"
    norm: Literal["layer", "rms"] = "rms"
    activation: str = "silu"
    bias: bool = False
    tied: bool = False
    classes: int = 0
    patch: int = 0
    experts: Experts | None = None

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.kv_heads:
            raise ValueError(f"heads must divide hidden and be a multiple of kv_heads, not {self.heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionShape:
    """One convolution of a CNN with its square output; `repeat` makes equal ones, named name.0, name.1, ..."""

    name: str
    out: int
    into: int
    kernel: int
    stride: int = 1
    groups: int = 1
    side: int
    repeat: int = 1
    activation: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnShape:
    """A CNN as a list of convolutions and a classifier."""

    convolutions: tuple[ConvolutionShape, ...]
    features: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A workload file: a name, where the dimensions come from, and one section."""

    name: str
    source: str
    transformer: TransformerShape | None = None
    cnn: CnnShape | None = None

    def __post_init__(self) -> None:
        if (self.transformer is None) == (self.cnn is None):
            raise ValueError("give exactly one of the sections [transformer] and [cnn]")


def expand(shape: ModelShape) -> Workload:
    """Spell out the layers of a model."""
    if shape.cnn is not None:
        return Workload(name=shape.name, family="cnn", layers=tuple(_cnn(shape.cnn)))
    if shape.transformer is None:
        raise ValueError("shape must hold a transformer or a cnn")
    return Workload(name=shape.name, family=shape.transformer.family, layers=tuple(_transformer(shape.transformer)))


def _cnn(cnn: CnnShape) -> list[Layer]:
    layers: list[Layer] = []
    for shape in cnn.convolutions:
        for index in range(shape.repeat):
            name = shape.name if shape.repeat == 1 else f"{shape.name}.{index}"
            border = (shape.kernel - 1) // 2
            layers.append(
                Convolution(
                    name=name,
                    out_channels=shape.out,
                    in_channels=shape.into,
                    kernel=(shape.kernel, shape.kernel),
                    stride=(shape.stride, shape.stride),
                    padding=(border,) * 4,
                    groups=shape.groups,
                    out_height=shape.side,
                    out_width=shape.side,
                    bias=True,
                )
            )
            if shape.activation:
                layers.append(Activation(name=f"{name}.relu", width=shape.out * shape.side**2, kind="relu"))
    layers.append(Linear(name="classifier", out_features=cnn.classes, in_features=cnn.features, bias=True, head=True))
    return layers


def _transformer(model: TransformerShape) -> list[Layer]:
    layers: list[Layer] = []
    if model.vocabulary:
        layers.append(Embedding(name="embed_tokens", rows=model.vocabulary, width=model.hidden))
    if model.positions:
        layers.append(Embedding(name="embed_positions", rows=model.positions, width=model.hidden))
    if model.patch:
        layers.append(Linear(name="patch_embed", out_features=model.hidden, in_features=3 * model.patch**2, bias=True))
    for block in range(model.blocks):
        layers += _block(model, f"layers.{block}")
    layers.append(Norm(name="norm", width=model.hidden, kind=model.norm))
    if model.family == "decoder":
        layers.append(Linear(name="lm_head", out_features=model.vocabulary, in_features=model.hidden, head=True))
    elif model.classes:
        layers.append(
            Linear(name="classifier", out_features=model.classes, in_features=model.hidden, bias=True, head=True)
        )
    return layers


def _block(model: TransformerShape, name: str) -> list[Layer]:
    hidden, head_dim = model.hidden, model.hidden // model.heads
    narrow, attention = model.kv_heads * head_dim, f"{name}.self_attn"

    def linear(label: str, out: int, into: int) -> Linear:
        return Linear(name=label, out_features=out, in_features=into, bias=model.bias)

    layers: list[Layer] = [
        Norm(name=f"{name}.input_norm", width=hidden, kind=model.norm),
        linear(f"{attention}.q_proj", hidden, hidden),
        linear(f"{attention}.k_proj", narrow, hidden),
        linear(f"{attention}.v_proj", narrow, hidden),
        Attention(
            name=f"{attention}.attention",
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_dim=head_dim,
            causal=model.family == "decoder",
        ),
        linear(f"{attention}.o_proj", hidden, hidden),
        Norm(name=f"{name}.post_norm", width=hidden, kind=model.norm),
    ]
    if model.experts is None:
        return layers + _feed_forward(model, f"{name}.mlp")
    layers.append(linear(f"{name}.router", model.experts.count, hidden))
    for expert in range(model.experts.count):
        share = model.experts.active / model.experts.count
        layers += [
            replace(layer, active=share)
            for layer in _feed_forward(model, f"{name}.experts.{expert}")
            if isinstance(layer, Linear)
        ]
    wide = model.intermediate * model.experts.active  # each token passes so many experts, whichever
    layers.append(Activation(name=f"{name}.experts.act", width=wide, kind=model.activation))
    return layers


def _feed_forward(model: TransformerShape, name: str) -> list[Layer]:
    hidden, wide = model.hidden, model.intermediate
    matrices = (
        [("gate_proj", wide, hidden), ("up_proj", wide, hidden)]
        if model.mlp == "gated"
        else [("up_proj", wide, hidden)]
    )
    layers: list[Layer] = [
        Linear(name=f"{name}.{label}", out_features=out, in_features=into, bias=model.bias)
        for label, out, into in matrices
    ]
    layers.append(Activation(name=f"{name}.act", width=wide, kind=model.activation))
    layers.append(Linear(name=f"{name}.down_proj", out_features=hidden, in_features=wide, bias=model.bias))
    return layers
