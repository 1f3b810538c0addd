"""Encoders of any size with random weights: good for times and for tests of arithmetic, not for results."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.families.bert import BertConfig, build_bert
from sparsefab.models.model import Model

__all__ = ["random_bert"]


def random_bert(name: str, config: BertConfig, *, seed: int = 0) -> Model:
    """Build an encoder whose values keep their spread from layer to layer.

    Parameters
    ----------
    name : str
    config : BertConfig
    seed : int                   Equal seeds give equal weights.
    """
    random = np.random.default_rng(seed)

    def drawn(*sizes: int, spread: float = 1.0, around: float = 0.0) -> NDArray[np.float32]:
        return random.standard_normal(sizes, np.float32) * np.float32(spread) + np.float32(around)

    width, inner = config.hidden_size, config.intermediate_size
    tensors = {
        "embeddings.word_embeddings.weight": drawn(config.vocabulary_size, width),
        "embeddings.token_type_embeddings.weight": drawn(2, width),
        "embeddings.position_embeddings.weight": drawn(config.context, width, spread=0.3),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(config.layers):
        prefix = f"encoder.layer.{layer}"
        for part, rows, columns in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            tensors[f"{prefix}.{part}.weight"] = drawn(rows, columns, spread=columns**-0.5)
            tensors[f"{prefix}.{part}.bias"] = drawn(rows, spread=0.1)
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for norm in norms:
        tensors[f"{norm}.weight"] = drawn(width, spread=0.1, around=1)
        tensors[f"{norm}.bias"] = drawn(width, spread=0.1)
    return build_bert(name, config, tensors, {})
