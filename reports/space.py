"""What to explore, as a TOML file: recipes, accelerators, targets, uses, caches, objectives, limits, search.

targets = ["u280", "h200"]
batch = [1, 8]
context = [512]
kv = ["int8", "gear"]                      # key/value caches, as --kv of `estimate`; if absent: the device's own format
objectives = ["loss", "latency_s"]         # the first two are the axes of the chart; names as in points.csv
recipes = ["w8", "mine.toml"]              # built-in names, or files beside this one

[[families]]                               # every combination of the choices is a recipe
name = "int"
[[families.rules]]
layers = ["*"]
weights = ["int3", "int4"]
group_size = [32, "row"]
pattern = ["dense", "2:4"]

[allocation]                               # a format a layer, by layer error and bytes, at each number of bits
bits_per_weight = [3.0, 4.0]
[[allocation.rules]]
weights = "int2"
group_size = 32
[[allocation.rules]]
weights = "int8"

[arch]                                     # of FPGA targets; what is not given is the largest that fits
dsps = [64, 96]
chains_per_core = [8, 16]

[limits]
at_most = { latency_s = 5e-3, loss_fraction = 0.01 }
fits = true                                # the device's memory

[search]
method = "nsga2"                           # grid (default), nsga2, tpe
trials = 200
population = 20
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from sparsefab import config
from sparsefab.arch import AcceleratorArch
from sparsefab.cost_models.kv import KvCache
from sparsefab.cost_models.resources import largest_arch
from sparsefab.errors import ConfigError, TargetError
from sparsefab.models.compress import Recipe, Rule, find_recipe
from sparsefab.reports.objectives import Limits, objectives_of
from sparsefab.targets import Device

__all__ = ["Allocation", "ArchChoices", "Family", "RuleChoices", "Search", "Space", "accelerator", "load_space"]

Values = dict[str, int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChoices:
    """A rule of a recipe with a list of choices a field; "row" as a group size is one scale a row."""

    layers: tuple[str, ...] = ("*",)
    weights: str | tuple[str, ...] = "int8"
    group_size: int | Literal["row"] | tuple[int | Literal["row"], ...] = "row"
    pattern: str | tuple[str, ...] = "dense"
    method: str | tuple[str, ...] = "rtn"
    activations: str | tuple[str, ...] = "auto"

    def __post_init__(self) -> None:
        for name, choices in self.choices.items():
            if not choices:
                raise ValueError(f"{name} must have at least one choice")
            for choice in choices:  # each on its own must make a rule
                self.rule({other: one[0] for other, one in self.choices.items()} | {name: choice})

    @property
    def choices(self) -> dict[str, tuple[int | str, ...]]:
        """Choices by field."""
        names = [one.name for one in fields(self) if one.name != "layers"]
        return {name: value if isinstance(value := getattr(self, name), tuple) else (value,) for name in names}

    def rule(self, chosen: Mapping[str, int | str]) -> Rule:
        """One choice a field as a rule."""
        values = dict(chosen) | {"group_size": None if chosen["group_size"] == "row" else chosen["group_size"]}
        return Rule(layers=self.layers, **values)  # type: ignore[arg-type]  # fields of the types declared above


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Recipes of one form: the product of all choices of all rules."""

    name: str
    rules: tuple[RuleChoices, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError(f"family {self.name!r} needs at least one rule")

    @property
    def parameters(self) -> dict[str, tuple[int | str, ...]]:
        """What there is to choose, by the name of the parameter: the rule's number and the field."""
        return {f"{number}.{field}": choices for number, rule in enumerate(self.rules)
                for field, choices in rule.choices.items()}  # fmt: skip

    def recipe(self, chosen: Mapping[str, int | str]) -> Recipe:
        """The recipe of one choice a parameter; its name tells the choices that there were."""
        rules = tuple(
            rule.rule({field: chosen[f"{number}.{field}"] for field in rule.choices})
            for number, rule in enumerate(self.rules)
        )
        varied = [_word(name, chosen[name]) for name, choices in self.parameters.items() if len(choices) > 1]
        return Recipe(name="-".join([self.name, *varied]), rules=rules)

    def recipes(self) -> Iterator[Recipe]:
        """All of them, the last choice changing fastest."""
        names = list(self.parameters)
        for values in itertools.product(*self.parameters.values()):
            yield self.recipe(dict(zip(names, values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Rules to choose from for each layer, and the sizes to meet, in stored bits per weight."""

    rules: tuple[Rule, ...]
    bits_per_weight: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rules) < 2 or not self.bits_per_weight:
            raise ValueError("an allocation needs two rules or more, and bits_per_weight to meet")
        if any(rule.layers != ("*",) for rule in self.rules):
            raise ValueError("rules of an allocation name no layers: each may serve every layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchChoices:
    """Choices for fields of AcceleratorArch, and of its ChainArch; an empty list leaves the cost model's own."""

    cores: tuple[int, ...] = ()
    chains_per_core: tuple[int, ...] = ()
    clock_hz: tuple[float, ...] = ()
    hbm_channels: tuple[int, ...] = ()
    dsps: tuple[int, ...] = ()
    segment: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in self.choices.items():
            if not all(math.isfinite(choice) and choice > 0 for choice in choices):
                raise ValueError(f"{name} must list positive numbers, not {', '.join(map(str, choices))}")

    @property
    def choices(self) -> dict[str, tuple[int | float, ...]]:
        """Choices by field, those that are given."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name)}

    def texts(self) -> Iterator[str]:
        """Every combination as the text that `accelerator` reads."""
        for values in itertools.product(*self.choices.values()):
            yield arch_text(dict(zip(self.choices, values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How to go through the space; `trials` designs over all targets, `population` at a time and target."""

    method: Literal["grid", "nsga2", "tpe"] = "grid"
    trials: int = 100
    population: int = 20

    def __post_init__(self) -> None:
        if self.trials < 1 or self.population < 2:
            raise ValueError(f"trials must be positive and population at least 2, not {self.trials}, {self.population}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A space; see the module for the file."""

    recipes: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()
    allocation: Allocation | None = None
    arch: ArchChoices = ArchChoices()
    targets: tuple[str, ...] = ()
    batch: tuple[int, ...] = (1,)
    context: tuple[int, ...] = (512,)
    kv: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    search: Search = Search()

    def __post_init__(self) -> None:
        if not (self.recipes or self.families or self.allocation):
            raise ValueError("a space needs recipes, families or an allocation")
        names = [family.name for family in self.families]
        if len({*names, "allocation"}) <= len(names):
            raise ValueError("families must have different names, and not the name 'allocation'")
        for name in ("batch", "context"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must list positive numbers")
        for text in self.kv:
            try:
                KvCache.from_text(text)
            except TargetError as error:
                raise ValueError(f"kv: {str(error).removeprefix('kv: ')}") from error
        if self.objectives:
            objectives_of(self.objectives)

    def fixed(self, folder: Path = Path()) -> list[Recipe]:
        """The named recipes; files are looked for in `folder` first."""
        return [find_recipe(str(folder / name) if (folder / name).is_file() else name) for name in self.recipes]


def load_space(path: Path) -> Space:
    """Read a space.

    Raises
    ------
    ConfigError                  If the file, a name in it or a value is wrong.
    """
    space = config.load(path, Space)
    space.fixed(path.parent)
    return space


def arch_text(chosen: Mapping[str, int | float]) -> str:
    """Choices of an accelerator's fields as TOML lines."""
    return "".join(f"{name} = {value!r}\n" for name, value in chosen.items())


def accelerator(device: Device, text: str) -> AcceleratorArch:
    """The accelerator that a text's choices give on a board; the rest is the largest that fits.

    Raises
    ------
    ConfigError                  If the text is none of ours.
    ValueError, TargetError      If no such accelerator can be.
    """
    chosen = {
        name: values[0] for name, values in config.loads(_listed(text), ArchChoices, source="arch").choices.items()
    }
    chain = {name: chosen.pop(name) for name in ("segment",) if name in chosen}
    base = largest_arch(device, int(chosen.pop("dsps", 64)))
    return replace(base, chain=replace(base.chain, **chain), **chosen)  # type: ignore[arg-type]  # numbers, as declared


def _listed(text: str) -> str:
    """Single values as lists of one, which is how `ArchChoices` reads them."""
    pairs = [line.partition(" = ") for line in text.splitlines() if line]
    if any(not equals for _, equals, _ in pairs):
        raise ConfigError(f"an accelerator's text must have lines like 'dsps = 64', not {text!r}")
    return "".join(f"{name} = [{value}]\n" for name, _, value in pairs)


def _word(name: str, value: int | str) -> str:
    return f"g{value}" if name.endswith("group_size") and value != "row" else str(value)
