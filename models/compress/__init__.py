"""Compress a model by a recipe: which layers get which format, pattern, scales and method, and the result.

from sparsefab.models.compress import compress, load_recipe
compressed = compress(model, load_recipe("w4g32.toml"))
"""

from sparsefab.models.compress.apply import CompressedLayer, CompressedModel, compress
from sparsefab.models.compress.assign import Assignment, LayerRecipe, assign
from sparsefab.models.compress.builtin import BUILTIN, PUBLISHED, builtin_recipes, find_recipe
from sparsefab.models.compress.prune import magnitude_mask
from sparsefab.models.compress.recipe import Recipe, Rule, load_recipe
from sparsefab.models.compress.rtn import METHODS, round_to_nearest

__all__ = [
    "BUILTIN",
    "METHODS",
    "PUBLISHED",
    "Assignment",
    "CompressedLayer",
    "CompressedModel",
    "LayerRecipe",
    "Recipe",
    "Rule",
    "assign",
    "builtin_recipes",
    "compress",
    "find_recipe",
    "load_recipe",
    "magnitude_mask",
    "round_to_nearest",
]
