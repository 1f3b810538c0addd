"""Apply a recipe to a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import Format, QuantTensor, StaticScale
from sparsefab.models.compress.assign import LayerRecipe, Note, assign
from sparsefab.models.compress.outliers import outlier_mask, with_outliers
from sparsefab.models.compress.prune import magnitude_mask
from sparsefab.models.compress.recipe import Recipe
from sparsefab.models.compress.rtn import METHODS
from sparsefab.models.model import Model
from sparsefab.workload import Convolution

__all__ = ["CompressedLayer", "CompressedModel", "compress"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompressedLayer:
    """A compressed weight matrix with the format of the activations that meet it.

    activations : Format            Of the input.
    dynamic : bool                  One activation scale a token.
    static : StaticScale | None     The calibrated scale when not dynamic; None until calibrated.
    tokens_per_scale : int          Tokens that share a dynamic scale: the output pixels of an image, else 1.
    relative_error : float          ||W - W'|| / ||W||, Frobenius.
    scale_loss : float              Largest relative error that integer multipliers gave a group's scale.
    """

    tensor: QuantTensor
    activations: Format
    dynamic: bool
    static: StaticScale | None
    relative_error: float
    tokens_per_scale: int = 1
    scale_loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompressedModel:
    """A model with the compressed form of some layers.

    notes : (layer, text)           What stays in float or is treated otherwise than the recipe asks, and why.
    """

    model: Model
    recipe: Recipe
    layers: Mapping[str, CompressedLayer]
    notes: tuple[Note, ...]

    def with_static(self, scales: Mapping[str, StaticScale]) -> "CompressedModel":
        """The same model with calibrated activation scales, by layer name."""
        layers = {
            name: replace(layer, static=scales[name]) if name in scales else layer
            for name, layer in self.layers.items()
        }
        return replace(self, layers=layers)

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Layers that still need a static activation scale."""
        return tuple(name for name, layer in self.layers.items() if not layer.dynamic and layer.static is None)


def compress(model: Model, recipe: Recipe, progress: Callable[[str], None] | None = None) -> CompressedModel:
    """Prune and quantize every layer that the recipe names.

    progress : called with each layer's name before it is compressed.

    Raises
    ------
    ConfigError                     If the recipe does not fit the model.
    ModelError                      If a weight is NaN or infinite.
    """
    assignment = assign(model.workload, recipe)
    pixels = {
        layer.name: layer.out_height * layer.out_width
        for layer in model.workload.weight_layers()
        if isinstance(layer, Convolution)
    }
    layers = {}
    for name, chosen in assignment.layers.items():
        if progress is not None:
            progress(name)
        layers[name] = _compress_layer(name, model.weights[name], chosen, pixels.get(name, 1))
    return CompressedModel(model=model, recipe=recipe, layers=layers, notes=(*model.skipped, *assignment.notes))


def _compress_layer(
    name: str, weights: NDArray[np.float32], chosen: LayerRecipe, tokens_per_scale: int
) -> CompressedLayer:
    if not np.isfinite(weights).all():
        raise ModelError(f"layer {name} holds a weight that is NaN or infinite; repair the model file")
    apart = outlier_mask(weights, chosen.outliers) if chosen.outliers else None
    rest = weights if apart is None else np.where(apart, np.float32(0), weights)
    mask = magnitude_mask(rest, chosen.pattern)
    tensor, scale_loss = METHODS[chosen.method](rest, chosen.weights, chosen.group_size, chosen.pattern, mask)
    if apart is not None:
        tensor = with_outliers(tensor, weights, apart)
    norm = float(np.linalg.norm(weights))
    error = float(np.linalg.norm(weights - tensor.dequantize())) / norm if norm > 0 else 0.0
    return CompressedLayer(
        tensor=tensor,
        activations=chosen.activations,
        dynamic=chosen.dynamic,
        static=None,
        relative_error=error,
        tokens_per_scale=tokens_per_scale,
        scale_loss=scale_loss,
    )
