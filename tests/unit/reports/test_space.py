"""Spaces: what a file gives, and the errors of a wrong one."""

from pathlib import Path

import pytest

from sparsefab.errors import ConfigError
from sparsefab.models.compress import find_recipe
from sparsefab.reports import space as space_module
from sparsefab.reports.objectives import OBJECTIVES, Limits, objectives_of
from sparsefab.reports.points import Point
from sparsefab.reports.space import Space, accelerator, load_space
from sparsefab.targets import load_device
from tests.unit.reports.test_points import made_points

TEXT = """
recipes = ["w8", "mine.toml"]
targets = ["u280"]
objectives = ["loss", "energy_per_token_j"]
[[families]]
name = "int"
[[families.rules]]
weights = ["int3", "int4"]
group_size = [32, "row"]
[[families.rules]]
layers = ["*head*"]
weights = "int8"
[arch]
dsps = [32, 64]
chains_per_core = [4]
[limits]
at_most = { latency_s = 5e-3 }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "space.toml"
    path.write_text(text)
    return path


def test_a_space_gives_its_recipes_accelerators_and_limits(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n[[rules]]\nweights = "int5"\n')
    space = load_space(written(tmp_path, TEXT))
    assert [recipe.name for recipe in space.fixed(tmp_path)] == [find_recipe("w8").name, "mine"]
    (family,) = space.families
    recipes = list(family.recipes())
    assert [recipe.name for recipe in recipes] == ["int-int3-g32", "int-int3-row", "int-int4-g32", "int-int4-row"]
    assert [(r.rules[0].weights, r.rules[0].group_size, r.rules[1].layers) for r in recipes[:2]] == [
        ("int3", 32, ("*head*",)),
        ("int3", None, ("*head*",)),
    ]
    assert list(space.arch.texts()) == ["chains_per_core = 4\ndsps = 32\n", "chains_per_core = 4\ndsps = 64\n"]
    assert space.limits == Limits(at_most={"latency_s": 5e-3})


def test_the_example_in_the_module_is_a_space(tmp_path: Path) -> None:
    text = str(space_module.__doc__).split("\n\n", 1)[1].replace(', "mine.toml"', "")
    space = load_space(written(tmp_path, text))
    assert space.search.method == "nsga2"
    assert space.limits.fits
    assert space.allocation is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("targets = ", "target = "), "target: unknown key; did you mean 'targets'"),
        (('"energy_per_token_j"', '"energy"'), "unknown objective 'energy'; did you mean 'energy_per_token_j'"),
        (('"loss", "energy_per_token_j"', '"loss"'), "two or more"),
        (("latency_s = 5e-3", "latency = 5e-3"), r"limits: unknown figure 'latency'; did you mean 'latency_s'"),
        (('"int3"', '"int33"'), r"families\[0\]\.rules\[0\]"),
        (('"mine.toml"', '"yours.toml"'), "yours.toml"),
        (('name = "int"', 'name = "allocation"'), "families must have different names"),
        (("recipes = ", 'kv = ["gaer"]\nrecipes = '), "kv: .*or a scheme: gear, cskv, kvmerger, ems"),
        (("recipes = ", 'kv = ["gear,rank=2"]\nrecipes = '), "rank must lie in"),
        (("dsps = [32, 64]", 'dsps = ["many"]'), r"arch\.dsps\[0\]: must be an integer"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n[[rules]]\nweights = "int5"\n')
    with pytest.raises(ConfigError, match=message):
        load_space(written(tmp_path, TEXT.replace(*change)))


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ValueError, match="recipes, families or an allocation"):
        Space()


def test_an_accelerator_is_the_largest_with_what_was_chosen() -> None:
    device = load_device("u280")
    chosen = accelerator(device, "chains_per_core = 4\nclock_hz = 200000000.0\ndsps = 96\nsegment = 4\n")
    assert (chosen.chains_per_core, chosen.clock_hz, chosen.chain.dsps, chosen.chain.segment) == (4, 2e8, 96, 4)
    assert chosen.cores == accelerator(device, "").cores
    with pytest.raises(ValueError, match="chains_per_core must be at most"):
        accelerator(device, "chains_per_core = 9999\n")
    with pytest.raises(ConfigError, match="lines like"):
        accelerator(device, "many DSPs")


def a_point() -> Point:
    return next(point for point in made_points() if point.status == "ok" and point.device == "fpga")


def test_objectives_are_figures_of_points() -> None:
    point = a_point()
    assert point.loss is not None
    assert point.baseline is not None
    fraction = OBJECTIVES["loss_fraction"].of(point)
    assert fraction is not None
    assert fraction.value == pytest.approx(point.loss.value / point.baseline)
    rate = OBJECTIVES["throughput_tokens_per_s"]
    assert rate.of(point) == point.throughput_tokens_per_s
    assert rate.cost_of(point) == -point.throughput_tokens_per_s  # type: ignore[operator]
    bits = OBJECTIVES["bits_per_weight"].of(point)
    assert bits is not None
    assert bits.value == bits.low == point.bits_per_weight
    for name, objective in OBJECTIVES.items():
        if name != "price_per_million_tokens_usd":  # the toy has no price
            assert objective.of(point) is not None, name
    with pytest.raises(ConfigError, match="different names"):
        objectives_of(["loss", "loss"])


def test_limits_say_how_far_a_point_is_outside() -> None:
    point = a_point()
    assert point.latency_s is not None
    assert point.throughput_tokens_per_s is not None
    seconds, rate = point.latency_s.value, point.throughput_tokens_per_s.value
    limits = Limits(at_most={"latency_s": seconds / 2}, at_least={"throughput_tokens_per_s": 4 * rate})
    assert limits.broken(point) == ("latency_s", "throughput_tokens_per_s")
    assert limits.excess(point) == pytest.approx(1.0 + 0.75)
    assert Limits(at_most={"latency_s": seconds}).excess(point) == 0.0
    assert not Limits()
