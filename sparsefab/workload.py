"""Layers and shapes of a model, without weights: what a cost model and an explorer need to know.

A `Workload` is a flat, ordered tuple of layers. Every weight layer carries the name under which its float32 weights are
stored in the model, so that a recipe, a packed tensor and an estimate speak of the same thing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "DEFAULT_CONTEXT",
    "Activation",
    "Attention",
    "Convolution",
    "Embedding",
    "Layer",
    "Linear",
    "Norm",
    "Phase",
    "Workload",
]

DEFAULT_CONTEXT = 512  # tokens a sequence that an exploration prices
Family = Literal["decoder", "encoder", "cnn", "graph"]


def _positive(owner: str, **values: int) -> None:
    for key, value in values.items():
        if value < 1:
            raise ValueError(f"{owner}: {key} must be positive, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A matrix product with constant weights [out, in], applied to each token.

    `head` marks the output projection to the vocabulary, which recipes treat apart; `bias` a float bias [out].
    `active` is the share of tokens that reach the layer: 1, or k / experts for a routed expert.
    """

    name: str
    out_features: int
    in_features: int
    bias: bool = False
    head: bool = False
    active: float = 1.0

    def __post_init__(self) -> None:
        _positive(self.name, out_features=self.out_features, in_features=self.in_features)
        if not 0 < self.active <= 1:
            raise ValueError(f"{self.name}: active must lie in (0, 1], not {self.active}")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """(out, in): the matrix that is packed."""
        return self.out_features, self.in_features

    def macs(self, tokens: int) -> int:
        """Multiplications of one pass over `tokens` tokens, dense; a routed expert sees its share of them."""
        return round(self.out_features * self.in_features * tokens * self.active)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A 2-D convolution, seen as a matrix product [out_channels, in_channels/groups * kernel] over output pixels."""

    name: str
    out_channels: int
    in_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    groups: int = 1
    out_height: int = 1
    out_width: int = 1
    bias: bool = False

    def __post_init__(self) -> None:
        _positive(self.name, out_channels=self.out_channels, in_channels=self.in_channels, groups=self.groups)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{self.name}: groups must divide the channels, not {self.groups}")

    @property
    def weight_shape(self) -> tuple[int, int]:
        """(out_channels, in_channels / groups * kernel height * kernel width)."""
        return self.out_channels, self.in_channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """Whether it is a matrix product over channels: 1x1, without groups."""
        return self.kernel == (1, 1) and self.groups == 1

    def macs(self, tokens: int) -> int:
        """Multiplications for `tokens` images, dense."""
        rows, columns = self.weight_shape
        return rows * columns * self.out_height * self.out_width * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Scaled dot-product attention between tokens; no weights, a key/value cache in decoders."""

    name: str
    heads: int
    kv_heads: int
    head_dim: int
    causal: bool

    def __post_init__(self) -> None:
        _positive(self.name, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim)

    def macs(self, tokens: int, context: int) -> int:
        """QK and PV multiplications of `tokens` queries over `context` keys."""
        return 2 * tokens * context * self.heads * self.head_dim

    def kv_values(self, context: int) -> int:
        """Keys and values held for one sequence of `context` tokens."""
        return 2 * context * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A normalization over the hidden axis."""

    name: str
    width: int
    kind: Literal["layer", "rms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An element-wise function of `width` values a token (or an image)."""

    name: str
    width: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A table look-up; read one row a token, never multiplied."""

    name: str
    rows: int
    width: int


Layer = Linear | Convolution | Attention | Norm | Activation | Embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One way of running a model; the unit that estimates are compared in.

    kind : 'prefill' runs `context` tokens a sequence at once (an encoder pass, an image batch); 'decode' runs one token
    a sequence with `context` tokens already in the cache.
    """

    kind: Literal["prefill", "decode"]
    batch: int = 1
    context: int = 128

    def __post_init__(self) -> None:
        _positive("phase", batch=self.batch, context=self.context)

    @property
    def tokens(self) -> int:
        """Tokens that pass through each linear layer."""
        return self.batch * (self.context if self.kind == "prefill" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """An ordered list of layers with unique names."""

    name: str
    family: Family
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise ValueError(f"workload {self.name}: layer name {layer.name!r} appears twice")
            seen.add(layer.name)

    def weight_layers(self) -> Iterator[Linear | Convolution]:
        """Layers whose weights can be compressed, in order."""
        for layer in self.layers:
            if isinstance(layer, Linear | Convolution):
                yield layer

    def attentions(self) -> Iterator[Attention]:
        """Attention layers, in order."""
        for layer in self.layers:
            if isinstance(layer, Attention):
                yield layer

    @property
    def parameters(self) -> int:
        """Weights of the linear and convolution layers (embeddings and norms apart)."""
        return sum(layer.weight_shape[0] * layer.weight_shape[1] for layer in self.weight_layers())
