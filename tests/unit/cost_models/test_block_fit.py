"""Blocks of the FPGA table: fitted to some synthesized designs, held to others."""

import pytest

from sparsefab import config
from sparsefab.cost_models import resources
from sparsefab.cost_models.block_fit import Design, composition_errors, designs, fit_blocks
from sparsefab.cost_models.resources import PARTS, array_resources

TESTED = composition_errors("test")


@pytest.mark.parametrize(("design", "errors"), TESTED, ids=[design.name for design, _ in TESTED])
def test_designs_that_were_left_out(design: Design, errors: dict[str, float]) -> None:
    assert errors["lut"] <= 0.10
    assert errors["ff"] <= 0.10
    assert errors["dsp"] == errors["bram36"] == 0.0


def test_bounds_hold_every_synthesized_count() -> None:
    for design in designs():
        found = array_resources(design.array, design.part)
        for kind in ("lut", "ff"):
            assert found[kind].low <= design.counts[kind] <= found[kind].high, (design.name, kind)


def test_the_table_is_the_fit() -> None:
    shipped: dict[tuple[str, str], tuple[float, float]] = {
        (block.part, block.per): (block.lut.value, block.ff.value)
        for block in config.load(resources._BLOCKS, resources._BlockFile).block
        if block.part != "rest" and block.group_scales is not False and block.lut is not None and block.ff is not None
    }
    fitted = fit_blocks()
    assert shipped.keys() == fitted.keys()
    for key, values in fitted.items():
        assert shipped[key] == pytest.approx(values, abs=0.006), key


def test_nothing_is_tested_that_was_fitted() -> None:
    kept = [(design.part, design.array) for design in designs()]
    assert len(set(kept)) == len(kept)
    assert {design.part for design in designs()} == set(PARTS)


def test_unknown_part() -> None:
    with pytest.raises(ValueError, match="part must be one of chain, accumulators, requantizer,"):
        array_resources(designs()[0].array, "decoder")


@pytest.mark.slow
def test_a_design_synthesized_again() -> None:
    """The smallest designs, from the Verilog of today."""
    pytest.importorskip("pyosys")
    from sparsefab.hw.design_table import DESIGNS, synthesize_design

    for design, known in zip(DESIGNS, designs(), strict=True):
        if known.array.chains * known.array.chain.dsps <= 32:
            found = synthesize_design(design)
            assert {kind: getattr(found, kind) for kind in known.counts} == known.counts
