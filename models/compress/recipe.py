"""A recipe: rules that say how each layer is compressed, as a TOML file.

name = "w4g32-2:4"
[[rules]]
layers = ["*"]              # glob patterns over layer names; the last rule that matches a layer decides
weights = "int4"            # a number format, or "float" to leave the layer alone; uint<b> has zero points
group_size = 32             # weights that share a scale; absent: one scale a row, or a block format's own blocks
pattern = "2:4"             # dense, N:M, N:M pairs, N:16@density, RxC@density, unstructured@density
method = "rtn"              # rtn, rtn-clip
outliers = 0.01             # share of the weights, the greatest, that are 15-bit integers beside the rest; absent: none
activations = "auto"        # a format; auto: int8 a token for decoders, uint8 a tensor for encoders and CNNs
"""

from dataclasses import dataclass
from pathlib import Path

from sparsefab import config
from sparsefab.errors import ConfigError, FormatError
from sparsefab.formats import BlockFormat, FloatFormat, Format, IntFormat, get_format, parse_pattern
from sparsefab.models.compress.rtn import METHODS

MOST_UNIT_EXPONENT = 100  # leaves float32 scales 26 binades for the weights themselves

__all__ = ["Recipe", "Rule", "load_recipe", "recipe_from_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the layers that match are compressed; see the module for the fields."""

    layers: tuple[str, ...] = ("*",)
    weights: str = "int8"
    group_size: int | None = None
    pattern: str = "dense"
    method: str = "rtn"
    outliers: float = 0.0
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
            if isinstance(fmt, BlockFormat) and self.group_size not in (None, fmt.block_size):
                raise ValueError(f"{self.weights!r} brings blocks of {fmt.block_size}; leave group_size out")
            if isinstance(fmt, BlockFormat) and self.method == "rtn-clip":
                raise ValueError(
                    f"method 'rtn-clip' does not apply to {self.weights!r}; its blocks define their scales"
                )
            if fmt.bits < 2 or (isinstance(fmt, FloatFormat) and not fmt.signed):
                raise ValueError(
                    f"weights = {self.weights!r} cannot hold both signs; take a signed format of 2 bits or more"
                )
        if self.activations != "auto":
            _usable(self.activations)
        if not 0 <= self.outliers < 1:
            raise ValueError(f"outliers must be a share of the weights, 0 to below 1, not {self.outliers:g}")
        for name in (self.weights, self.activations) if self.outliers else ():
            if name not in ("auto", "float") and not isinstance(get_format(name), IntFormat):
                raise ValueError(f"outliers need weights and activations that are integers, not {name!r}")


def _usable(name: str) -> Format:
    """A format that holds zero, in a unit that a float32 scale holds."""
    try:
        fmt = get_format(name)
    except FormatError as error:
        raise ValueError(str(error)) from error
    if isinstance(fmt, FloatFormat) and not fmt.zero:
        raise ValueError(f"number format {name!r} holds no zero; it is one for scales")
    unit = fmt.decode_table().unit_exponent
    if abs(unit) > MOST_UNIT_EXPONENT:
        raise ValueError(f"number format {name!r} counts in 2^{unit}; float32 scales reach 2^+-{MOST_UNIT_EXPONENT}")
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
