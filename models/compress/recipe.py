"""A recipe: rules that say how each layer is compressed, as a TOML file.

name = "w4g32-2:4"
[[rules]]
layers = ["*"]              # glob patterns over layer names; the last rule that matches a layer decides
weights = "int4"            # a number format, or "float" to leave the layer alone; uint<b> has zero points
group_size = 32             # weights that share a scale; absent: one scale a row
pattern = "2:4"             # dense, N:M, N:M pairs, N:16@density, RxC@density, unstructured@density
method = "rtn"              # rtn, rtn-clip
activations = "auto"        # a format; auto: int8 a token for decoders, uint8 a tensor for encoders and CNNs
"""

from dataclasses import dataclass
from pathlib import Path

from sparsefab import config
from sparsefab.errors import ConfigError, FormatError
from sparsefab.formats import FloatFormat, Format, get_format, parse_pattern
from sparsefab.models.compress.rtn import METHODS

__all__ = ["Recipe", "Rule", "load_recipe", "recipe_from_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the layers that match are compressed; see the module for the fields."""

    layers: tuple[str, ...] = ("*",)
    weights: str = "int8"
    group_size: int | None = None
    pattern: str = "dense"
    method: str = "rtn"
    activations: str = "auto"

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must name at least one pattern")
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; known: {', '.join(METHODS)}")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be positive, not {self.group_size}")
        if parse_pattern(self.pattern).density is None:
            raise ValueError(f"pattern {self.pattern!r} needs a density: {self.pattern}@0.5")
        if self.weights != "float":
            fmt = _usable(self.weights)
            if fmt.bits < 2 or (isinstance(fmt, FloatFormat) and not fmt.signed):
                raise ValueError(
                    f"weights = {self.weights!r} cannot hold both signs; take a signed format of 2 bits or more"
                )
        if self.activations != "auto":
            _usable(self.activations)


def _usable(name: str) -> Format:
    """A format whose values fit the fixed-point grid that exact sums are made on."""
    try:
        fmt = get_format(name)
        fmt.fixed_point()
    except FormatError as error:
        raise ValueError(str(error)) from error
    except OverflowError as error:
        raise ValueError(f"number format {name!r} has too wide an exponent range for exact sums: {error}") from error
    return fmt


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named list of rules; a layer that no rule matches stays in float."""

    name: str
    rules: tuple[Rule, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("a recipe needs at least one rule")

    @property
    def text(self) -> str:
        """The recipe as TOML, which `load_recipe` reads back."""
        return config.dumps(self)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file.

    Raises
    ------
    ConfigError                     If the file does not exist or a key, format, pattern or method is wrong.
    """
    if not Path(path).is_file():
        raise ConfigError(f"recipe {path} does not exist; write one, or name a built-in one")
    return config.load(path, Recipe)


def recipe_from_text(text: str) -> Recipe:
    """Undo `Recipe.text`."""
    return config.loads(text, Recipe, source="recipe")
