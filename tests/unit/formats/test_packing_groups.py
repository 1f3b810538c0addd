"""Group-sparse rows: bytes by plain loops, their count by the published formula, and what must be refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.errors import LayoutError
from sparsefab.formats import (
    Block,
    BlockRows,
    GroupRows,
    IntFormat,
    PackedTensor,
    QuantTensor,
    RowMajor,
    TensorSpec,
    get_format,
    pack,
    storage_layout,
    unpack,
)


def group_tensor(
    name: str,
    rows: int,
    groups: int,
    *,
    width: int = 16,
    group_size: int | None = None,
    density: float = 0.5,
    asymmetric: bool = False,
    seed: int = 0,
) -> QuantTensor:
    """Random codes in kept groups; `group_size` None is the pattern's width."""
    random, fmt = np.random.default_rng(seed), get_format(name)
    assert isinstance(fmt, IntFormat)
    columns, size = width * groups, group_size or width
    grid = (rows, -(-columns // size))
    return QuantTensor(
        codes=random.integers(fmt.code_min, fmt.code_max + 1, (rows, columns)).astype(np.int16),
        format=fmt,
        row_scales=random.uniform(0.01, 1, rows).astype(np.float32),
        group_size=size,
        group_multipliers=random.integers(1, 256, grid).astype(np.uint16) if size < columns else None,
        zero_points=random.integers(fmt.code_min, fmt.code_max + 1, grid).astype(np.int16) if asymmetric else None,
        pattern=Block(1, width),
        mask=np.repeat(random.random((rows, groups)) < density, width, axis=1),
    )


def changed(packed: PackedTensor, name: str, dtype: Any, place: int, value: int) -> PackedTensor:
    section = packed.sections[name].copy()
    section.view(dtype)[place] = value
    return replace(packed, sections=packed.sections | {name: section})


@given(
    name=st.sampled_from(["int2", "int3", "int4", "int4sym", "uint4", "int5", "int8", "uint8"]),
    rows=st.integers(1, 20),
    groups=st.integers(1, 9),
    width=st.sampled_from([16, 32, 48, 64]),
    coarser=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    asymmetric=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=80)
def test_round_trip(
    name: str, rows: int, groups: int, width: int, coarser: int, density: float, asymmetric: bool, seed: int
) -> None:
    """The bits survive, and the bytes are as many as declared."""
    tensor = group_tensor(
        name, rows, groups, width=width, group_size=width * coarser, density=density, asymmetric=asymmetric, seed=seed
    )
    smallest = GroupRows.of(tensor.spec)
    assert smallest.bits == (4 if tensor.format.bits <= 4 else 8)
    for layout in {smallest, GroupRows(8)}:
        packed = pack(tensor, layout)
        back = unpack(packed)
        np.testing.assert_array_equal(back.integers(), tensor.integers())
        np.testing.assert_array_equal(back.dequantize(), tensor.dequantize())
        np.testing.assert_array_equal(back.stored_mask, tensor.stored_mask)
        np.testing.assert_array_equal(back.codes[back.stored_mask], tensor.codes[tensor.stored_mask])
        assert back.spec == replace(tensor.spec, multiplier_bits=back.spec.multiplier_bits)
        assert {part: section.nbytes for part, section in packed.sections.items()} == layout.section_bytes(tensor.spec)


@pytest.mark.parametrize("bits", [4, 8])
def test_bytes_are_as_documented(bits: int) -> None:
    """Every code, index, multiplier and zero point by its own address, in plain loops."""
    tensor = group_tensor("int3", 7, 5, width=32, group_size=64, asymmetric=True)
    sections = pack(tensor, GroupRows(bits)).sections
    assert list(sections) == ["codes", "groups", "multipliers", "zero_points", "pointers", "row_scales"]
    assert tensor.group_multipliers is not None
    assert tensor.zero_points is not None
    codes, pointers = sections["codes"], sections["pointers"].view(np.uint32)
    at = 0
    for row in range(7):
        assert pointers[row] == at
        for group in range(5):
            if not tensor.stored_mask[row, 32 * group]:
                continue
            assert sections["groups"].view(np.uint16)[at] == group
            assert sections["multipliers"][at] == tensor.group_multipliers[row, group // 2]
            assert sections["zero_points"][at] == tensor.zero_points[row, group // 2] + 4
            for k in range(32):
                place = 32 * at + k
                stored = codes[place] if bits == 8 else codes[place // 2] >> 4 * (place % 2) & 15
                assert stored == tensor.codes[row, 32 * group + k] + 4
            at += 1
    assert pointers[7] == at
    for name, step in (("codes", 32 * bits // 8), ("groups", 2), ("multipliers", 1), ("zero_points", 1)):
        assert not sections[name][at * step :].any()
        assert len(sections[name]) == at * step + 3 * (16 * bits // 8 if name == "codes" else step)


@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_all_groups_kept_are_plain_grouped_integers(name: str) -> None:
    """Density 1 is int4 g16: the codes' bytes are those of the row-major layout, the values the same."""
    tensor = group_tensor(name, 12, 6, density=1, asymmetric=name == "uint4")
    plain = replace(tensor, pattern=Block(1, 16), mask=np.ones(tensor.shape, np.bool_))
    packed, flat = pack(tensor, GroupRows()), pack(plain, RowMajor())
    np.testing.assert_array_equal(unpack(packed).integers(), unpack(flat).integers())
    codes = packed.sections["codes"][: flat.sections["codes"].size]
    np.testing.assert_array_equal(codes ^ (0x88 if name == "int4" else 0), flat.sections["codes"])  # +8: bit 3 turned
    np.testing.assert_array_equal(packed.sections["multipliers"][:72], flat.sections["multipliers"])


@pytest.mark.parametrize(("width", "density"), [(16, 0.5), (16, 0.25), (64, 0.5)])
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_bits_a_weight_are_those_of_the_formula(name: str, width: int, density: float) -> None:
    """density x (4 + (16 of index + 8 of multiplier, + 8 of zero point) / G), apart from what a row has."""
    fmt = get_format(name)
    spec = TensorSpec.of(4096, 4096, fmt, Block(1, width, density), width, asymmetric=name == "uint4")
    sections = GroupRows().section_bytes(spec)
    counted = sum(size for part, size in sections.items() if part not in ("pointers", "row_scales"))
    bits = density * (4 + (24 + 8 * (name == "uint4")) / width)
    assert 8 * counted / 4096**2 == pytest.approx(bits, abs=1e-4)


def test_storage_takes_it_where_it_is_smaller() -> None:
    """Numbers of dropped groups cost nothing here, and a row a byte more or less there."""
    int4 = get_format("int4")
    assert storage_layout(TensorSpec.of(64, 1024, int4, Block(1, 16, 0.5), 16)) == GroupRows()
    assert storage_layout(TensorSpec.of(64, 1024, int4, Block(1, 8, 0.2), 8)) == BlockRows()
    wide = replace(TensorSpec.of(64, 1024, int4, Block(1, 16, 0.5), 16), multiplier_bits=9)
    assert storage_layout(wide) == BlockRows()


def test_damaged_sections_are_named() -> None:
    tensor = group_tensor("int4", 4, 8)
    packed = pack(tensor, GroupRows())
    kept = tensor.spec.stored // 16
    assert kept > 4
    for name in packed.sections:
        cut = replace(packed, sections=packed.sections | {name: packed.sections[name][:-1]})
        with pytest.raises(LayoutError, match=name):
            unpack(cut)
        with pytest.raises(LayoutError, match=f"{name}.*absent"):
            unpack(replace(packed, sections={k: v for k, v in packed.sections.items() if k != name}))
    for place, value in ((0, 1), (1, kept + 1), (2, 0), (4, kept + 1)):
        with pytest.raises(LayoutError, match=f"'pointers' must rise from 0 to {kept} groups"):
            unpack(changed(packed, "pointers", np.uint32, place, value))
    with pytest.raises(LayoutError, match="'groups' must be below 8, not 8"):
        unpack(changed(packed, "groups", np.uint16, kept - 1, 8))
    index = packed.sections["groups"].view(np.uint16)
    with pytest.raises(LayoutError, match="'groups' must ascend in each row"):
        unpack(changed(packed, "groups", np.uint16, 1, int(index[0])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": Block(1, 8)}, "G a multiple of 16, not pattern 1x8"),
        ({"pattern": Block(2, 16)}, "not pattern 2x16"),
        ({"format": get_format("int5")}, "integers of up to 4 bits, not int5"),
        ({"format": get_format("e2m1")}, "not e2m1"),
        ({"pattern": Block(1, 32)}, "a multiple of the pattern's 32 inputs, not 16"),
        ({"columns": 16 * 65_537, "stored": 0}, "65537 groups a row; at most 65,536"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    spec = replace(TensorSpec.of(8, 64, get_format("int4"), Block(1, 16, 0.5), 16), **change)
    with pytest.raises(LayoutError, match=message):
        GroupRows().section_bytes(spec)


def test_numbers_beyond_their_bytes_are_refused() -> None:
    with pytest.raises(LayoutError, match="bits must be 4 or 8, not 3"):
        GroupRows(3)
    with pytest.raises(LayoutError, match="up to 8 bits, not int9"):
        GroupRows.of(TensorSpec.of(8, 64, get_format("int9"), Block(1, 16, 0.5), 16))
    tensor = group_tensor("int4", 4, 8)
    assert tensor.group_multipliers is not None
    tensor.group_multipliers[0, 0] = 256
    with pytest.raises(LayoutError, match="must fit 8 bits, not reach 256"):
        pack(tensor, GroupRows())
