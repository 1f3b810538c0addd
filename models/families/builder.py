"""Collects the nodes, constants and layers of a graph while an architecture is written down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Attribute, Graph, Node, Value
from sparsefab.models.model import Model, Skipped
from sparsefab.workload import Activation, Embedding, Family, Layer, Linear, Norm, Workload

__all__ = ["Builder", "Tensors", "float_tensor"]

Tensors = Mapping[str, NDArray[np.generic]]
"""Named arrays of a checkpoint; looked up one at a time, so a mapping may read them when asked."""


def float_tensor(tensors: Tensors, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Take a tensor as float32 and check that it is there, of the right shape and free of NaN and infinity.

    Raises
    ------
    ModelError     Names the tensor and what is wrong with it.
    """
    if name not in tensors:
        raise ModelError(f"tensor {name!r} is missing; is the configuration the one of these weights?")
    array = np.require(tensors[name], np.float32, ["C_CONTIGUOUS", "ALIGNED"])
    if shape is not None and array.shape != shape:
        raise ModelError(f"tensor {name!r} is {list(array.shape)}, but the configuration says {list(shape)}")
    if not np.isfinite(array).all():
        raise ModelError(f"tensor {name!r} holds NaN or infinity; export the model again from sound weights")
    return array


@dataclass(slots=True)
class Builder:
    """A graph under construction; each method adds one operator and returns the name of its result."""

    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        """Keep a constant, once for each name."""
        self.initializers.setdefault(name, array)
        return name

    def numbers(self, *values: int) -> str:
        """Keep a list of integers: axes, shapes, bounds."""
        return self.constant("ints." + ".".join(map(str, values)), np.asarray(values, np.int64))

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        attributes: Mapping[str, Attribute] | None = None,
        layer: str | None = None,
    ) -> str:
        """Add a node with one output; the node bears the output's name, without '.output' at its end."""
        self.nodes.append(
            Node(
                op=op,
                name=name.removesuffix(".output"),
                inputs=tuple(inputs),
                outputs=(name,),
                attributes=attributes or {},
                layer=layer,
            )
        )
        return name

    def linear(
        self,
        name: str,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        head: bool = False,
        output: str | None = None,
    ) -> str:
        """Add a weight layer y = x @ weight.T + bias."""
        self.weights[name] = weight
        self.layers.append(
            Linear(
                name=name, out_features=weight.shape[0], in_features=weight.shape[1], bias=bias is not None, head=head
            )
        )
        inputs = [x] if bias is None else [x, self.constant(f"{name}.bias", bias)]
        return self.add("MatMul", inputs, output or f"{name}.output", layer=name)

    def embedding(self, name: str, table: NDArray[np.float32], indices: str, reason: str) -> str:
        """Add a table look-up."""
        self.layers.append(Embedding(name=name, rows=table.shape[0], width=table.shape[1]))
        self.skipped.append((name, reason))
        return self.add("Gather", [self.constant(f"{name}.weight", table), indices], f"{name}.output", {"axis": 0})

    def rms_norm(self, name: str, x: str, gain: NDArray[np.float32], epsilon: float) -> str:
        """Add a normalization by the root mean square."""
        self._norm(name, gain.shape[0], rms=True)
        return self.add(
            "RMSNormalization",
            [x, self.constant(f"{name}.weight", gain)],
            f"{name}.output",
            {"axis": -1, "epsilon": epsilon},
        )

    def layer_norm(
        self, name: str, x: str, gain: NDArray[np.float32], bias: NDArray[np.float32], epsilon: float
    ) -> str:
        """Add a normalization by mean and variance."""
        self._norm(name, gain.shape[0], rms=False)
        inputs = [x, self.constant(f"{name}.weight", gain), self.constant(f"{name}.bias", bias)]
        return self.add("LayerNormalization", inputs, f"{name}.output", {"axis": -1, "epsilon": epsilon})

    def activation(self, name: str, kind: str, width: int) -> None:
        """List an activation function of the workload."""
        self.layers.append(Activation(name=name, width=width, kind=kind))

    def model(
        self, name: str, family: Family, inputs: Sequence[Value], outputs: Sequence[Value], metadata: Mapping[str, str]
    ) -> Model:
        """Finish."""
        return Model(
            name=name,
            workload=Workload(name=name, family=family, layers=tuple(self.layers)),
            graph=Graph(nodes=tuple(self.nodes), inputs=tuple(inputs), outputs=tuple(outputs)),
            weights=self.weights,
            initializers=self.initializers,
            skipped=tuple(self.skipped),
            metadata=dict(metadata),
        )

    def _norm(self, name: str, width: int, rms: bool) -> None:
        self.layers.append(Norm(name=name, width=width, kind="rms" if rms else "layer"))
        self.skipped.append((name, "normalization: stays in float32"))
