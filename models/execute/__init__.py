"""Run a model's graph in float32, with the products of its weight layers open to replacement and observation.

from sparsefab.models.execute import execute
logits = execute(model, {"input_ids": tokens})["logits"]
"""

from sparsefab.models.execute.executor import execute
from sparsefab.models.execute.layers import Observer, Runner

__all__ = ["Observer", "Runner", "execute"]
