"""The recipes that come with SparseFab, in the order in which an exploration tries them."""

import difflib
from pathlib import Path

from sparsefab.errors import ConfigError
from sparsefab.models.compress.recipe import Recipe, load_recipe

__all__ = ["BUILTIN", "PUBLISHED", "builtin_recipes", "find_recipe"]

FOLDER = Path(__file__).resolve().parent / "recipes"
BUILTIN = (
    "float",
    "w8",
    "w4g32",
    "w6",
    "fp8",
    "w8-12of16",
    "e2m1g32",
    "w8-8of16",
    "w4",
    "w4g32-12of16",
    "w8-4x1-70",
    "w5",
    "w3g32",
    "e2m3",
    "e4m3",
    "w8-2of4",
    "w8-4x1-50",
    "w4g64z",
    "w4g16-1x16-50",
    "w3g32z-o1",
)
PUBLISHED = ("flightllm",)  # configurations of papers, for estimates; not part of a default exploration


def builtin_recipes(count: int | None = None) -> list[Recipe]:
    """Return the first `count` recipes, or all."""
    return [load_recipe(FOLDER / f"{name}.toml") for name in BUILTIN[:count]]


def find_recipe(name: str) -> Recipe:
    """Return a built-in recipe by name, or read a file.

    Raises
    ------
    ConfigError                     If it is neither; the message offers near names.
    """
    if name in BUILTIN + PUBLISHED:
        return load_recipe(FOLDER / f"{name}.toml")
    if Path(name).suffix == ".toml" or Path(name).exists():
        return load_recipe(name)
    near = difflib.get_close_matches(name, BUILTIN, n=3) or BUILTIN[:4]
    raise ConfigError(f"unknown recipe {name!r}; a file ends with .toml, built-in ones are {', '.join(near)}, ...")
