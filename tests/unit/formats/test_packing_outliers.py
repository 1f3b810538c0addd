"""Outliers beside a matrix of few bits: what they mean, where they are stored, and what must be refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.errors import FormatError, LayoutError
from sparsefab.formats import (
    NM,
    Block,
    BlockRows,
    Chain,
    GroupRows,
    Lanes16,
    Layout,
    QuantTensor,
    RowMajor,
    Sparse,
    SparseRows,
    TensorSpec,
    Unstructured,
    Vnni4x1,
    get_format,
    pack,
    storage_layout,
    unpack,
)
from tests.unit.formats.test_packing import random_tensor
from tests.unit.formats.test_packing_groups import changed


def with_outliers(tensor: QuantTensor, share: float = 0.05, seed: int = 3) -> QuantTensor:
    random = np.random.default_rng(seed)
    values = random.integers(-16384, 16384, tensor.shape)
    return replace(tensor, outliers=np.where(random.random(tensor.shape) < share, values, 0).astype(np.int16))


@given(
    case=st.sampled_from([
        ("uint3", None, [RowMajor(), Lanes16(3), Lanes16(4)]),
        ("int4", NM(2, 4), [Sparse("index"), Sparse("bitmap"), Lanes16()]),
        ("int4", Block(1, 16), [BlockRows(), GroupRows(4), GroupRows(8)]),
        ("int8", Unstructured(), [Sparse("bitmap"), Lanes16(8)]),
    ]),
    share=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    group_size=st.sampled_from([16, 48]),
    seed=st.integers(0, 1 << 32),
)  # fmt: skip
@settings(max_examples=60)
def test_round_trip(case: tuple, share: float, group_size: int, seed: int) -> None:
    name, pattern, layouts = case
    plain = random_tensor(name, pattern, group_size=group_size, seed=seed, asymmetric=name.startswith("u"))
    tensor = with_outliers(plain, share, seed)
    for layout in layouts:
        packed = pack(tensor, layout)
        back = unpack(packed)
        np.testing.assert_array_equal(back.integers(), tensor.integers())
        np.testing.assert_array_equal(back.dequantize(), tensor.dequantize())
        assert {part: section.nbytes for part, section in packed.sections.items()} == layout.section_bytes(tensor.spec)
        assert packed.nbytes - pack(plain, layout).nbytes == (
            4 * tensor.spec.outliers + 4 * 9 if tensor.spec.outliers else 0
        )


def test_they_are_added_in_units_of_the_row_scale() -> None:
    tensor = with_outliers(random_tensor("uint4", group_size=16, asymmetric=True))
    assert tensor.outliers is not None
    plain = replace(tensor, outliers=None)
    np.testing.assert_array_equal(tensor.integers(), plain.integers() + tensor.outliers)
    np.testing.assert_array_equal(tensor.significands()[0], tensor.integers())
    np.testing.assert_array_equal(tensor.centred(), plain.centred())
    real = plain.dequantize().astype(np.float64) + tensor.outliers * tensor.row_scales[:, None].astype(np.float64)
    np.testing.assert_allclose(tensor.dequantize(), real, rtol=1e-6, atol=1e-6)


def test_bytes_are_those_of_a_matrix_of_single_weights() -> None:
    """By hand: two outliers in row 0, none in row 1, one in row 2."""
    tensor = random_tensor("int3", rows=3, columns=9)
    outliers = np.zeros((3, 9), np.int16)
    outliers[0, [2, 7]], outliers[2, 0] = (500, -16384), 16383
    sections = pack(replace(tensor, outliers=outliers), Lanes16(3)).sections
    assert sections["outlier_codes"].view(np.int16).tolist() == [500, -16384, 16383]
    assert sections["outlier_inputs"].view(np.uint16).tolist() == [2, 7, 0]
    assert sections["outlier_pointers"].view(np.uint32).tolist() == [0, 2, 2, 3]


def test_headers_count_them() -> None:
    """SpQR at 1 %: 3 bits, a group's 8 + 3 bits of scale and zero point, and 32 bits an outlier."""
    spec = TensorSpec.of(4096, 4096, get_format("uint3"), None, 32, asymmetric=True, outliers=0.01)
    assert spec.name == "uint3 g32 +1%"
    assert TensorSpec.from_json(spec.to_json()) == spec
    old = {name: value for name, value in spec.to_json().items() if name != "outliers"}
    assert TensorSpec.from_json(old) == replace(spec, outliers=0)
    counted = 8 * sum(storage_layout(spec).section_bytes(spec).values()) / 4096**2
    assert counted == pytest.approx(3 + 11 / 32 + 0.32 + 64 / 4096, abs=1e-3)
    with pytest.raises(ValueError, match=r"outliers must lie in 0\.\.16777216"):
        replace(spec, outliers=1 << 25)


@pytest.mark.parametrize("layout", [Vnni4x1(), Chain(dsps=32), SparseRows()])
def test_layouts_whose_readers_add_nothing_refuse_them(layout: Layout) -> None:
    with pytest.raises(LayoutError, match=f"{layout.name} holds no outliers"):
        pack(with_outliers(random_tensor("int4", Unstructured())), layout)


def test_damaged_sections_are_named() -> None:
    packed = pack(with_outliers(random_tensor("int4")), RowMajor())
    for name in ("outlier_codes", "outlier_inputs", "outlier_pointers"):
        cut = packed.sections | {name: packed.sections[name][:-1]}
        with pytest.raises(LayoutError, match=name):
            unpack(replace(packed, sections=cut))
    with pytest.raises(LayoutError, match="'outlier_inputs' must be below 48, not 48"):
        unpack(changed(packed, "outlier_inputs", np.uint16, 0, 48))
    for place, value in ((0, 1), (3, 999), (8, 0)):
        with pytest.raises(LayoutError, match="'outlier_pointers' must rise from 0 to"):
            unpack(changed(packed, "outlier_pointers", np.uint32, place, value))


def test_what_does_not_fit_is_refused() -> None:
    tensor = random_tensor("int4")
    for values, message in (
        (np.full(tensor.shape, 16384, np.int16), "beyond -16384..16383"),
        (np.zeros((8, 47), np.int16), r"must be int16\[8, 48\]"),
        (np.zeros(tensor.shape, np.int32), "not int32"),
    ):
        with pytest.raises(LayoutError, match=message):
            replace(tensor, outliers=values)
    with pytest.raises(FormatError, match="outliers need an integer format, not e4m3"):
        replace(random_tensor("e4m3"), outliers=np.zeros((8, 48), np.int16))
    wide = replace(TensorSpec.of(1, 65_537, get_format("int4")), outliers=1)
    with pytest.raises(LayoutError, match="65537 inputs; at most 65,536"):
        RowMajor().section_bytes(wide)
