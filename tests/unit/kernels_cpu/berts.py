"""Small BERT-type encoders with random weights, built in the test."""

import numpy as np

from sparsefab.models.compress import Recipe, Rule, compress
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.encoder import calibrate_encoder
from sparsefab.models.families import random_bert as made
from sparsefab.models.families.bert import BertConfig

VOCABULARY, CONTEXT = 97, 160


def random_bert(width=32, inner=48, layers=2, heads=2, gelu="none", seed=0):
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
    return made.random_bert("random-bert", config, seed=seed)


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
