"""Small BERT-type encoders with random weights, built in the test."""

import numpy as np

from sparsefab.models.compress import Recipe, Rule, compress
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.encoder import calibrate_encoder
from sparsefab.models.families.bert import BertConfig, build_bert

VOCABULARY, CONTEXT = 97, 160


def random_bert(width=32, inner=48, layers=2, heads=2, gelu="none", seed=0):
    random = np.random.default_rng(seed)
    config = BertConfig(
        hidden_size=width,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        vocabulary_size=VOCABULARY,
        context=CONTEXT,
        layer_norm_eps=1e-12,
        gelu=gelu,
    )
    tensors = {
        "embeddings.word_embeddings.weight": random.normal(size=(VOCABULARY, width)),
        "embeddings.token_type_embeddings.weight": random.normal(size=(2, width)),
        "embeddings.position_embeddings.weight": random.normal(size=(CONTEXT, width)) * 0.3,
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        for name, rows, columns in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            tensors[f"{prefix}.{name}.weight"] = random.normal(size=(rows, columns)) / np.sqrt(columns)
            tensors[f"{prefix}.{name}.bias"] = random.normal(size=rows) * 0.1
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        tensors[f"{name}.weight"] = 1 + 0.1 * random.normal(size=width)
        tensors[f"{name}.bias"] = 0.1 * random.normal(size=width)
    arrays = {name: np.asarray(array, np.float32) for name, array in tensors.items()}
    return build_bert("random-bert", config, arrays, {})


def feeds_of(lengths, sequence=None, seed=1):
    """Sequences of the given lengths, filled up at the end."""
    random = np.random.default_rng(seed)
    sequence = sequence or max(lengths)
    ids = random.integers(0, VOCABULARY, (len(lengths), sequence))
    mask = (np.arange(sequence) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask}


def quantized(model, pattern="4x1@0.5", weights="int8sym", rules=()):
    recipe = Recipe(name="test", rules=(Rule(weights=weights, pattern=pattern), *rules))
    feeds = [feeds_of([40, 40, 40])]
    return calibrate_encoder(calibrate(compress(model, recipe), feeds), feeds)
