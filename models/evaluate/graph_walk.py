"""Follow a graph by what reads what: how an architecture is recognized, and refused with the place where it differs."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Node
from sparsefab.models.model import Model

__all__ = ["GraphWalk"]


class GraphWalk:
    """Readers and constants of a model that should be of some kind.

    Parameters
    ----------
    model : Model
    kind : str                      For messages: 'BERT-type encoder'.
    """

    def __init__(self, model: Model, kind: str) -> None:
        self.model = model
        self.kind = kind
        self.readers = model.graph.consumers()

    def one(self, tensor: str, op: str) -> Node:
        """The one reader of a tensor that is such an operator; there may be others.

        Raises
        ------
        ModelError                  If there is none, or there are several.
        """
        found = [node for node in self.readers.get(tensor, []) if node.op == op]
        if len(found) != 1:
            raise self.other(f"{len(found)} nodes of type {op} read {tensor!r}, not one")
        return found[0]

    def layers(self, tensor: str, count: int) -> list[Node]:
        """The weight layers that read a tensor, `count` of them.

        Raises
        ------
        ModelError                  If there are more or fewer.
        """
        found = [node for node in self.readers.get(tensor, []) if node.layer is not None]
        if len(found) != count:
            raise self.other(f"{len(found)} layers read {tensor!r}, not {count}")
        return found

    def constant(self, name: str) -> NDArray[np.float32]:
        """An initializer, as float32.

        Raises
        ------
        ModelError                  If it is none.
        """
        if name not in self.model.initializers:
            raise self.other(f"{name!r} is no constant")
        return np.ascontiguousarray(self.model.initializers[name], np.float32)

    def other(self, reason: str) -> ModelError:
        """What to raise where the model is of another kind."""
        return ModelError(f"model {self.model.name!r} is no {self.kind}: {reason}")
