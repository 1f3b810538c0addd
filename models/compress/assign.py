"""Rules to layers: which recipe each weight layer gets, and what is left alone and why."""

import difflib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from sparsefab.errors import ConfigError, LayoutError
from sparsefab.formats import BlockFormat, Dense, Format, IntFormat, Pattern, get_format, parse_pattern
from sparsefab.models.compress.recipe import Recipe, Rule
from sparsefab.workload import Convolution, Linear, Workload

__all__ = ["Assignment", "LayerRecipe", "Note", "assign"]

Note = tuple[str, str]  # layer, what a reader of the report should know about it


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecipe:
    """How one layer is compressed, in the terms of formats.

    activations : Format        Of the layer's input.
    dynamic : bool              One activation scale a token, found at run time; else one a tensor, calibrated.
    outliers : float            Share of the weights that are kept beside the quantized rest.
    """

    weights: Format
    pattern: Pattern
    group_size: int | None
    method: str
    outliers: float
    activations: Format
    dynamic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Recipes by layer name, and notes on every layer that is treated otherwise than its rule asks."""

    layers: dict[str, LayerRecipe]
    notes: tuple[Note, ...]


def assign(workload: Workload, recipe: Recipe) -> Assignment:
    """Give each weight layer the last rule that matches it.

    Under a wildcard, an output head stays at int8 a row, and a layer that the pattern or the groups do not divide stays
    dense or takes one scale a row; both are noted. A rule that names the layer is obeyed or refused.

    Raises
    ------
    ConfigError                     If a rule's pattern matches no layer, or a named layer does not fit its rule.
    """
    weight_layers = list(workload.weight_layers())
    _check_patterns(recipe, [layer.name for layer in weight_layers])
    layers: dict[str, LayerRecipe] = {}
    notes: list[Note] = []
    for layer in weight_layers:
        rule, named = _rule_for(layer.name, recipe)
        if rule is None or rule.weights == "float":
            notes.append((layer.name, "stays in float: " + ("no rule matches it" if rule is None else "by its rule")))
            continue
        chosen, why = _layer_recipe(layer, rule, named, workload.family)
        layers[layer.name] = chosen
        notes += [(layer.name, reason) for reason in why]
    if not layers and any(rule.weights != "float" for rule in recipe.rules):
        raise ConfigError(f"recipe {recipe.name!r} compresses no layer of {workload.name}")
    return Assignment(layers=layers, notes=tuple(notes))


def _check_patterns(recipe: Recipe, names: list[str]) -> None:
    for number, rule in enumerate(recipe.rules, 1):
        for pattern in rule.layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
                raise ConfigError(
                    f"recipe {recipe.name!r}, rule {number}: {pattern!r} matches no layer; there are {', '.join(near)}"
                )


def _rule_for(name: str, recipe: Recipe) -> tuple[Rule | None, bool]:
    """The last rule that matches, and whether it gives the layer's whole name."""
    for rule in reversed(recipe.rules):
        for pattern in rule.layers:
            if fnmatchcase(name, pattern):
                return rule, pattern == name
    return None, False


def _layer_recipe(layer: Linear | Convolution, rule: Rule, named: bool, family: str) -> tuple[LayerRecipe, list[str]]:
    notes: list[str] = []
    weights, pattern, group_size, method, outliers = (
        get_format(rule.weights),
        parse_pattern(rule.pattern),
        rule.group_size,
        rule.method,
        rule.outliers,
    )
    rows, columns = layer.weight_shape
    if isinstance(layer, Linear) and layer.head and not named:
        weights, pattern, group_size, method, outliers = get_format("int8sym"), Dense(), None, "rtn", 0.0
        notes.append("output head: int8, one scale a row")
    try:
        pattern.check_shape(rows, columns)
    except LayoutError as error:
        if named:
            raise ConfigError(f"layer {layer.name}: {error}") from error
        notes.append(f"stays dense: {error}")
        pattern = Dense()
    if isinstance(weights, BlockFormat):
        group_size = None
    elif group_size is not None and group_size >= columns:
        notes.append(f"one scale a row: a group of {group_size} covers all {columns} inputs")
        group_size = None
    elif group_size is not None and columns % group_size:
        notes.append(f"the last group is short: {columns % group_size} of {group_size} inputs")
    activations, dynamic = _activations(rule, family)
    if isinstance(activations, BlockFormat) and isinstance(layer, Convolution) and not layer.pointwise:
        # a block would hold a window of inputs, and a pixel would have another code in every window
        if named:
            raise ConfigError(
                f"layer {layer.name}: {activations.name} activations need a 1x1 convolution without groups"
            )
        notes.append(f"activations stay 8-bit integers: {activations.name} needs a 1x1 convolution without groups")
        activations, dynamic = _activations(replace(rule, activations="auto"), family)
    return (
        LayerRecipe(
            weights=weights,
            pattern=pattern,
            group_size=group_size,
            method=method,
            outliers=outliers,
            activations=activations,
            dynamic=dynamic,
        ),
        notes,
    )


def _activations(rule: Rule, family: str) -> tuple[Format, bool]:
    """Format of the input and whether its scale is dynamic: unsigned integers are static, all else is dynamic."""
    name = rule.activations
    if name == "auto":
        name = "int8" if family == "decoder" else "uint8"
    fmt = get_format(name)
    return fmt, not (isinstance(fmt, IntFormat) and not fmt.signed)
