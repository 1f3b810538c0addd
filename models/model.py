"""A model as the rest of the project sees it: shapes, a graph, float32 weights by layer name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Graph
from sparsefab.workload import Workload

__all__ = ["Model", "Skipped"]

Skipped = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What an importer returns.

    workload : layers and shapes; its weight layers are exactly the keys of `weights`.
    graph : the operators, executed by `sparsefab.models.execute`.
    weights : float32[out, in] by layer name; a convolution's row is (in_channels / groups, height, width) flattened.
    initializers : every other constant of the graph by tensor name: biases, norms, embeddings, tables, axes.
    skipped : (name, reason) of what holds weights and stays in float.
    metadata : where the model comes from and what its inputs mean, as text.
    """

    name: str
    workload: Workload
    graph: Graph
    weights: Mapping[str, NDArray[np.float32]]
    initializers: Mapping[str, NDArray[np.generic]]
    skipped: tuple[Skipped, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {layer.name: layer.weight_shape for layer in self.workload.weight_layers()}
        nodes = self.graph.layer_nodes()
        if set(shapes) != set(self.weights) or set(shapes) != set(nodes):
            odd = (set(shapes) ^ set(self.weights)) | (set(shapes) ^ set(nodes))
            raise ValueError(f"model {self.name!r}: workload, graph and weights disagree on {', '.join(sorted(odd))}")
        for name, weight in self.weights.items():
            if weight.shape != shapes[name] or weight.dtype != np.float32:
                raise ValueError(
                    f"layer {name!r} must be float32{list(shapes[name])}, not {weight.dtype}{list(weight.shape)}"
                )

    def bias(self, layer: str) -> NDArray[np.float32] | None:
        """The bias [out] of a weight layer, None if it has none."""
        node = self.graph.layer_nodes().get(layer)
        if node is None:
            raise ModelError(f"model {self.name!r} has no weight layer {layer!r}")
        if len(node.inputs) < 2 or not node.inputs[1]:
            return None
        return np.asarray(self.initializers[node.inputs[1]], np.float32)

    def with_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> "Model":
        """The same model with some layers' weights replaced, by layer name."""
        unknown = sorted(set(weights) - set(self.weights))
        if unknown:
            raise ModelError(f"model {self.name!r} has no weight layer {unknown[0]!r}")
        return replace(self, weights={**self.weights, **weights})
