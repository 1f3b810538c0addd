"""Weight layers: the products with a model's weights, by themselves or through a runner."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.graph import Node
from sparsefab.models.operators.attributes import integer
from sparsefab.models.operators.convolution import Geometry, columns, convolve

__all__ = ["Observer", "Runner", "run_layer"]

Floats = NDArray[np.float32]


class Runner(Protocol):
    """Computes the products of weight layers in the place of float32.

    A runner that adds the layer's bias itself has an attribute `adds_bias` that is true.
    """

    def __call__(self, layer: str, x: NDArray[np.float32], /) -> NDArray[np.float32] | None:
        """Multiply float32[tokens, in] by the layer's weights.

        A convolution's tokens are its output pixels, image by image; `in` runs over (channel, height, width) of the
        window. With groups, x is float32[tokens, groups, in], and output channel o reads group o // (out / groups).

        Returns
        -------
        float32[tokens, out], or None to have the float32 product computed.
        """


class Observer(Protocol):
    """Sees the activations that enter weight layers, in the shape that a runner gets; large inputs come in parts."""

    def __call__(self, layer: str, x: NDArray[np.float32], /) -> None: ...


def run_layer(
    node: Node, weights: Floats, x: Floats, bias: Floats | None, runner: Runner | None, observer: Observer | None
) -> Floats:
    """Compute the node of a weight layer, bias included.

    Parameters
    ----------
    weights : float32[out, in]
    x : float32[..., in] for a matrix product, float32[batch, channels, (height,) width] for a convolution.
    """
    if node.op == "Conv":
        return _convolution(node, weights, x, bias, runner, observer)
    tokens = np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])
    if tokens.shape[1] != weights.shape[1]:
        raise ValueError(f"layer {node.layer!r} takes {weights.shape[1]} inputs, not {tokens.shape[1]}")
    y, done = _product(node, weights, tokens, runner, observer)
    if y is None:
        y = tokens @ weights.T
    if bias is not None and not done:
        y += bias
    return y.reshape(*x.shape[:-1], -1)


def _convolution(
    node: Node, weights: Floats, x: Floats, bias: Floats | None, runner: Runner | None, observer: Observer | None
) -> Floats:
    image = x if x.ndim == 4 else x[:, :, None]
    geometry = Geometry.of(node.attributes, image.shape[2], image.shape[3])
    groups = integer(node.attributes, "group", 1)
    if runner is None and observer is None:
        y, done = convolve(image, weights, geometry, groups), False
    else:
        y, done = _unfolded(node, weights, image, geometry, groups, runner, observer)
    if bias is not None and not done:
        y += bias[:, None, None]
    return y if x.ndim == 4 else y[:, :, 0]


def _unfolded(
    node: Node,
    weights: Floats,
    image: Floats,
    geometry: Geometry,
    groups: int,
    runner: Runner | None,
    observer: Observer | None,
) -> tuple[Floats, bool]:
    height, width = geometry.size
    out, inner = weights.shape
    y = np.empty((len(image), height * width, out), np.float32)
    done = complete = True
    for part, unfolded in columns(image, geometry):
        tokens = len(unfolded) * height * width
        rows = unfolded.reshape((tokens, inner) if groups == 1 else (tokens, groups, inner))
        product, done = _product(node, weights, rows, runner, observer)
        if product is not None:
            y[part] = product.reshape(-1, height * width, out)
        complete = complete and product is not None
        if not complete and observer is None:
            break
    if not complete:
        return convolve(image, weights, geometry, groups), False
    return np.ascontiguousarray(y.transpose(0, 2, 1)).reshape(-1, out, height, width), done


def _product(
    node: Node, weights: Floats, rows: Floats, runner: Runner | None, observer: Observer | None
) -> tuple[Floats | None, bool]:
    """The runner's product, None if it leaves the layer to float32, and whether the bias is in it."""
    layer = str(node.layer)
    if observer is not None:
        observer(layer, rows)
    y = runner(layer, rows) if runner is not None else None
    if y is None:
        return None, False
    if y.shape != (len(rows), weights.shape[0]):
        raise ValueError(f"the runner must return {[len(rows), weights.shape[0]]} for {layer!r}, not {list(y.shape)}")
    return y, bool(getattr(runner, "adds_bias", False))
