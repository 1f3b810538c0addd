"""The BERT architecture: post-norm encoder with learned positions, GELU, and a mean-pooled sentence embedding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.families.builder import Builder, Tensors, float_tensor
from sparsefab.models.graph import Value
from sparsefab.models.model import Model
from sparsefab.workload import Attention

__all__ = ["BertConfig", "build_bert"]

_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """Sizes of a BERT model; names as in Hugging Face's config.json."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    vocabulary_size: int
    context: int
    layer_norm_eps: float
    gelu: str

    def __post_init__(self) -> None:
        if self.heads < 1 or self.hidden_size % self.heads:
            raise ModelError(f"config.json: {self.heads} heads cannot share {self.hidden_size} channels")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "BertConfig":
        """Read config.json; a setting that this architecture does not have is an error."""
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise ModelError(f"config.json: hidden_act {activation!r} is not supported, only {', '.join(_ACTIVATIONS)}")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ModelError("config.json: position_embedding_type must be 'absolute'")
        try:
            return cls(
                hidden_size=int(config["hidden_size"]),
                intermediate_size=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                vocabulary_size=int(config["vocab_size"]),
                context=int(config["max_position_embeddings"]),
                layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
                gelu=_ACTIVATIONS[activation],
            )
        except KeyError as error:
            raise ModelError(f"config.json: {error.args[0]} is missing") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"config.json: a size is no positive number ({error})") from None


def build_bert(name: str, config: BertConfig, tensors: Tensors, metadata: Mapping[str, str]) -> Model:
    """Build the encoder from tensors with Hugging Face's names, with or without the prefix `bert.`.

    Sentences are one segment (token type 0). A masked-language-model head or a classifier among the tensors is built
    too; a pooler that only a classifier would read is listed as skipped.

    Returns
    -------
    Model     Inputs input_ids, attention_mask int64[batch, sequence]; outputs last_hidden_state [batch, sequence,
              hidden], embedding [batch, hidden] (the mean over unmasked tokens) and, with a head, logits.
    """
    b, names = Builder(), {_canonical(key): key for key in tensors}

    def take(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return float_tensor(tensors, names.get(key, key), shape)

    layers = _Layers(b, take, config)
    width = config.hidden_size
    table = take("embeddings.word_embeddings.weight", (config.vocabulary_size, width))
    x = layers.embed(table, take("embeddings.token_type_embeddings.weight", (_types(tensors, names), width))[0])
    _attention_mask(b)
    for index in range(config.layers):
        x = layers.block(f"encoder.layer.{index}", x)
    hidden = b.add("Identity", [x], "last_hidden_state")
    _mean_pool(b, hidden)
    outputs = [
        Value(name="last_hidden_state", dtype="float32", shape=("batch", "sequence", width)),
        Value(name="embedding", dtype="float32", shape=("batch", width)),
    ]
    if "cls.predictions.transform.dense.weight" in names:
        layers.masked_lm(hidden, table, names)
        outputs.append(Value(name="logits", dtype="float32", shape=("batch", "sequence", config.vocabulary_size)))
    elif "classifier.weight" in names:
        labels = tensors[names["classifier.weight"]].shape[0]
        layers.classifier(hidden, labels)
        outputs.append(Value(name="logits", dtype="float32", shape=("batch", labels)))
    elif "pooler.dense.weight" in names:
        b.skipped.append(("pooler.dense", "not used: the sentence embedding is the mean over tokens"))
    inputs = [Value(name=key, dtype="int64", shape=("batch", "sequence")) for key in ("input_ids", "attention_mask")]
    details = {"architecture": "bert", "task": "sentence-embedding", "context": str(config.context)}
    return b.model(name, "encoder", inputs, outputs, {**details, **metadata})


@dataclass(frozen=True, slots=True)
class _Layers:
    """The parts of the encoder, written into a builder."""

    b: Builder
    take: Any
    config: BertConfig

    def norm(self, name: str, x: str) -> str:
        shape = (self.config.hidden_size,)
        gain, bias = self.take(f"{name}.weight", shape), self.take(f"{name}.bias", shape)
        return self.b.layer_norm(name, x, gain, bias, self.config.layer_norm_eps)

    def linear(self, name: str, x: str, out: int, inner: int, output: str | None = None) -> str:
        weight, bias = self.take(f"{name}.weight", (out, inner)), self.take(f"{name}.bias", (out,))
        return self.b.linear(name, x, weight, bias, output=output)

    def gelu(self, name: str, x: str, width: int) -> str:
        self.b.activation(name, "gelu", width)
        return self.b.add("Gelu", [x], f"{name}.output", {"approximate": self.config.gelu})

    def embed(self, table: NDArray[np.float32], segment: NDArray[np.float32]) -> str:
        b, reason = self.b, "embedding: a table look-up, stays in float32"
        words = b.embedding("embeddings.word_embeddings", table, "input_ids", reason)
        places = self.take("embeddings.position_embeddings.weight", (self.config.context, self.config.hidden_size))
        length = b.add("Shape", ["input_ids"], "positions.length", {"start": 1, "end": 2})
        rows = b.constant("embeddings.position_embeddings.weight", places + segment)
        positions = b.add("Slice", [rows, b.numbers(0), length, b.numbers(0)], "positions")
        b.skipped.append(("embeddings.position_embeddings", reason + ", with the token type added"))
        return self.norm("embeddings.LayerNorm", b.add("Add", [words, positions], "embeddings.sum"))

    def block(self, prefix: str, x: str) -> str:
        b, config, width = self.b, self.config, self.config.hidden_size
        q, k, v = (
            self.linear(f"{prefix}.attention.self.{part}", x, width, width) for part in ("query", "key", "value")
        )
        b.layers.append(
            Attention(
                name=f"{prefix}.attention",
                heads=config.heads,
                kv_heads=config.heads,
                head_dim=width // config.heads,
                causal=False,
            )
        )
        mixed = b.add(
            "Attention",
            [q, k, v, "mask"],
            f"{prefix}.attention.output",
            {"q_num_heads": config.heads, "kv_num_heads": config.heads},
        )
        mixed = self.linear(f"{prefix}.attention.output.dense", mixed, width, width)
        x = self.norm(f"{prefix}.attention.output.LayerNorm", b.add("Add", [mixed, x], f"{prefix}.attention.sum"))
        inner = self.linear(f"{prefix}.intermediate.dense", x, config.intermediate_size, width)
        inner = self.gelu(f"{prefix}.intermediate.act", inner, config.intermediate_size)
        inner = self.linear(f"{prefix}.output.dense", inner, width, config.intermediate_size)
        return self.norm(f"{prefix}.output.LayerNorm", b.add("Add", [inner, x], f"{prefix}.sum"))

    def masked_lm(self, hidden: str, table: NDArray[np.float32], names: Mapping[str, str]) -> None:
        width, vocabulary = self.config.hidden_size, self.config.vocabulary_size
        x = self.linear("cls.predictions.transform.dense", hidden, width, width)
        x = self.norm("cls.predictions.transform.LayerNorm", self.gelu("cls.predictions.transform.act", x, width))
        own = "cls.predictions.decoder.weight"
        weight = self.take(own, (vocabulary, width)) if own in names else table
        bias = self.take("cls.predictions.bias", (vocabulary,))
        self.b.linear("cls.predictions.decoder", x, weight, bias, head=True, output="logits")

    def classifier(self, hidden: str, labels: int) -> None:
        width = self.config.hidden_size
        zero = self.b.constant("zero", np.asarray(0, np.int64))
        first = self.b.add("Gather", [hidden, zero], "pooler.token", {"axis": 1})
        pooled = self.linear("pooler.dense", first, width, width)
        self.b.activation("pooler.act", "tanh", width)
        self.linear("classifier", self.b.add("Tanh", [pooled], "pooler.act.output"), labels, width, output="logits")


def _canonical(name: str) -> str:
    """Older checkpoints call a norm's parameters gamma and beta, and some carry the prefix of the whole model."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


def _types(tensors: Tensors, names: Mapping[str, str]) -> int:
    key = names.get("embeddings.token_type_embeddings.weight")
    return int(tensors[key].shape[0]) if key is not None else 1


def _attention_mask(b: Builder) -> None:
    """Let every token attend to the unmasked ones: bool[batch, 1, sequence, sequence]."""
    kept = b.add("Cast", ["attention_mask"], "mask.kept", {"to": 9})
    row = b.add("Unsqueeze", [kept, b.numbers(1, 2)], "mask.row")
    length = b.add("Shape", ["input_ids"], "mask.length", {"start": 1, "end": 2})
    shape = b.add("Concat", [b.numbers(1, 1), length, b.numbers(1)], "mask.shape", {"axis": 0})
    b.add("Expand", [row, shape], "mask")


def _mean_pool(b: Builder, hidden: str) -> None:
    """Average the hidden states over the tokens that the mask keeps."""
    mask = b.add("Cast", ["attention_mask"], "pool.mask", {"to": 1})
    mask = b.add("Unsqueeze", [mask, b.numbers(2)], "pool.column")
    total = b.add("ReduceSum", [b.add("Mul", [hidden, mask], "pool.kept"), b.numbers(1)], "pool.sum", {"keepdims": 0})
    count = b.add("ReduceSum", [mask, b.numbers(1)], "pool.tokens", {"keepdims": 0})
    least = b.constant("pool.least", np.asarray(1e-9, np.float32))
    b.add("Div", [total, b.add("Max", [count, least], "pool.count")], "embedding")
