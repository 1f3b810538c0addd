"""What each ONNX operator computes, in NumPy: one small function an operator, in one table.

from sparsefab.models.operators import apply
(y,) = apply(Node(op="Relu", name="act", inputs=("x",), outputs=("y",)), [x])
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Node
from sparsefab.models.operators.attention import ATTENTION
from sparsefab.models.operators.attributes import Operator
from sparsefab.models.operators.convolution import CONVOLUTION
from sparsefab.models.operators.elementwise import ELEMENTWISE
from sparsefab.models.operators.movement import MOVEMENT
from sparsefab.models.operators.quantization import QUANTIZATION
from sparsefab.models.operators.reduction import REDUCTION
from sparsefab.models.operators.resampling import RESAMPLING

__all__ = ["OPERATORS", "apply"]

OPERATORS: dict[str, Operator] = {
    **ATTENTION,
    **CONVOLUTION,
    **ELEMENTWISE,
    **MOVEMENT,
    **QUANTIZATION,
    **REDUCTION,
    **RESAMPLING,
}


def apply(node: Node, inputs: Sequence[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
    """Compute one node.

    Parameters
    ----------
    inputs : arrays     One for each of the node's inputs, None where an optional input is left out.

    Returns
    -------
    arrays              The outputs that the operator makes, in order; those the node does not name included.

    Raises
    ------
    ModelError          If the operator is not in the table, or cannot take these inputs.
    """
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise ModelError(
            f"node {node.label}: operator {node.op} is not supported; "
            "replace it in the model or export the model without it"
        )
    try:
        result = operator(inputs, node.attributes)
    except (ValueError, IndexError, TypeError) as error:
        shapes = ", ".join("-" if value is None else f"{value.dtype}{list(value.shape)}" for value in inputs)
        raise ModelError(f"node {node.label} cannot be computed on ({shapes}): {error}") from error
    return result if isinstance(result, tuple) else (np.asarray(result),)
