"""Pack and unpack over the catalogue, patterns and layouts: the integers survive, the bytes are as declared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab import formats
from sparsefab.errors import FormatError, LayoutError
from sparsefab.formats import (
    CATALOG,
    NM,
    Block,
    BlockFormat,
    BlockN,
    BlockRows,
    Chain,
    ChainMemory,
    ChainRows,
    Dense,
    GroupRows,
    IntFormat,
    Lanes16,
    Pattern,
    QuantTensor,
    RowMajor,
    Sparse,
    SparseRows,
    TensorSpec,
    Unstructured,
    Vnni4x1,
    Vnni4x4,
    VnniNM,
    get_format,
    pack,
    parse_pattern,
    storage_layout,
    unpack,
)
from sparsefab.formats.bits import pack_bits, unpack_bits

PATTERNS: list[Pattern] = [
    Dense(),
    NM(2, 4),
    NM(0, 4),
    NM(4, 8),
    NM(3, 16),
    NM(16, 16),
    NM(8, 16, 2),
    NM(2, 4, 2),
    NM(0, 8, 2),
    BlockN(),
    Block(4, 1),
    Block(4, 4),
    Block(8, 4),
    Block(1, 16),
    Unstructured(),
]


def random_mask(rng: np.random.Generator, pattern: Pattern, rows: int, columns: int) -> np.ndarray | None:
    if isinstance(pattern, Dense):
        return None
    if isinstance(pattern, NM):
        own = rows // pattern.rows
        order = rng.random((own, columns // pattern.m, pattern.m)).argsort(axis=2).argsort(axis=2)
        limit = rng.integers(0, pattern.n + 1, (own, columns // pattern.m, 1))  # fewer than n happens
        return np.repeat((order < limit).reshape(own, columns), pattern.rows, axis=0)
    if isinstance(pattern, BlockN):
        keep = rng.choice([0.0, 0.1, 0.3, 0.6, 1.0], (rows // 16, columns // 16))
        return rng.random((rows, columns)) < np.kron(keep, np.ones((16, 16)))
    if isinstance(pattern, Block):
        kept = rng.random((rows // pattern.rows, columns // pattern.columns)) < 0.4
        return np.kron(kept, np.ones((pattern.rows, pattern.columns), bool))
    return rng.random((rows, columns)) < 0.3


def random_tensor(
    name: str,
    pattern: Pattern | None = None,
    rows: int = 8,
    columns: int = 48,
    group_size: int | None = None,
    seed: int = 0,
    asymmetric: bool = False,
) -> QuantTensor:
    pattern = pattern or Dense()
    rng = np.random.default_rng(seed)
    fmt = get_format(name)
    if isinstance(fmt, IntFormat):
        codes = rng.integers(fmt.code_min, fmt.code_max + 1, (rows, columns))
    else:
        finite = np.flatnonzero(fmt.decode_table().finite)
        codes = fmt.from_pattern(rng.choice(finite, (rows, columns)).astype(np.uint16))
    if isinstance(fmt, BlockFormat):
        return random_block_tensor(rng, fmt, codes.astype(np.int16), pattern)
    size = columns if group_size is None else group_size
    groups = -(-columns // size)
    zero_points = None
    if asymmetric and isinstance(fmt, IntFormat):
        zero_points = rng.integers(fmt.code_min, fmt.code_max + 1, (rows, groups)).astype(np.int16)
    return QuantTensor(
        codes=codes.astype(np.int16),
        format=fmt,
        group_size=size,
        pattern=pattern,
        zero_points=zero_points,
        row_scales=rng.uniform(0.01, 1, rows).astype(np.float32),
        group_multipliers=None if size == columns else rng.integers(1, 256, (rows, groups)).astype(np.uint16),
        mask=random_mask(rng, pattern, rows, columns),
    )


def random_block_tensor(rng: np.random.Generator, fmt: BlockFormat, codes: np.ndarray, pattern: Pattern) -> QuantTensor:
    """Any scale codes, one silent block, and outer scales where the format has them."""
    rows, columns = codes.shape
    codes[0, : fmt.block_size] = 0
    scales = rng.integers(0, fmt.scale.max_code + 1, (rows, fmt.blocks(columns))).astype(np.uint8)
    if fmt.is_mx:  # keep the weights inside float32
        scales = (scales // 4 + 96).astype(np.uint8)
    outer = None
    if not fmt.is_mx:
        outer = np.full(rows, 0.37, np.float32)
        if fmt.row_scales:
            outer = rng.uniform(0.01, 1, rows).astype(np.float32)
    return QuantTensor.of_blocks(codes, fmt, scales, outer, pattern, random_mask(rng, pattern, rows, columns))


def layouts_of(tensor: QuantTensor) -> list:
    layouts: list = [RowMajor()]
    if isinstance(tensor.pattern, NM | BlockN):
        layouts += [Sparse("index"), Sparse("bitmap")]
    if isinstance(tensor.pattern, Unstructured):
        layouts.append(Sparse("bitmap"))
    if isinstance(tensor.pattern, Block):
        layouts.append(BlockRows())
    centred = tensor.centred()
    if centred.min() >= -128 and centred.max() <= 127:
        layouts += [ChainRows(dsps=16), ChainRows(dsps=32, blocks=2)]
        layouts += [Chain(dsps=32), Chain(dsps=40), Chain(dsps=40, pairs=True)]
        if isinstance(tensor.pattern, NM) and tensor.pattern.m == 16 and tensor.pattern.rows == 2:
            layouts.append(Chain(dsps=40, slots=tensor.pattern.n, pairs=True))
        if tensor.zero_points is None or tensor.group_size in (16, tensor.shape[1]):
            layouts += chain_memories(tensor)
        if tensor.group_size == tensor.shape[1] and tensor.block_scales is None:
            layouts += [Vnni4x1(), Vnni4x4()]
            if isinstance(tensor.pattern, NM):
                layouts.append(VnniNM())
    if isinstance(tensor.format, IntFormat) and tensor.format.bits <= 8:
        layouts += [Lanes16(bits) for bits in (3, 4, 8) if bits >= tensor.format.bits]
        if isinstance(tensor.pattern, Unstructured):
            layouts.append(SparseRows())
        if tensor.pattern == Block(1, 16):
            layouts += [GroupRows(bits) for bits in (4, 8) if bits >= tensor.format.bits]
    return layouts


def chain_memories(tensor: QuantTensor) -> list[ChainMemory]:
    """Every way to store a tensor for a chain of 40 DSPs."""
    dense = Chain(dsps=40)
    layouts = [ChainMemory(chain=dense), ChainMemory(chain=Chain(dsps=40, pairs=True))]
    layouts += [ChainMemory(chain=dense, positions="bitmap"), ChainMemory(chain=dense, positions="index", m=8)]
    pattern = tensor.pattern
    if isinstance(pattern, NM) and pattern.n:
        chain = Chain(dsps=40, slots=pattern.n * 16 // pattern.m, pairs=pattern.rows == 2)
        layouts += [
            ChainMemory(chain=chain, positions="bitmap"),
            ChainMemory(chain=chain, positions="index", m=pattern.m),
        ]
    return layouts


def check_round_trip(tensor: QuantTensor) -> None:
    for layout in layouts_of(tensor):
        packed = pack(tensor, layout)
        back = unpack(packed)
        np.testing.assert_array_equal(back.integers(), tensor.integers(), err_msg=layout.name)
        np.testing.assert_array_equal(back.dequantize(), tensor.dequantize())
        np.testing.assert_array_equal(back.shifts, tensor.shifts)
        if not isinstance(layout, Vnni4x1 | ChainRows):
            sizes = {name: part.nbytes for name, part in packed.sections.items()}
            assert sizes == layout.section_bytes(tensor.spec), layout.name
        assert packed.nbytes == sum(part.nbytes for part in packed.sections.values())


@pytest.mark.parametrize("name", sorted(CATALOG))
@pytest.mark.parametrize("group_size", [None, 16, 20])
def test_round_trip_of_every_format(name: str, group_size: int | None) -> None:
    for pattern in (Dense(), NM(2, 4), Unstructured()):
        check_round_trip(random_tensor(name, pattern, group_size=group_size))


@pytest.mark.parametrize("name", ["nvfp4-row", "nvfp4-b32", "mxfp4-up-b16", "mxint4", "mxfp6_e3m2-f3"])
def test_round_trip_of_block_formats(name: str) -> None:
    for columns in (48, 16, 70):
        for pattern in (Dense(), Unstructured()):
            check_round_trip(random_tensor(name, pattern, columns=columns))


@pytest.mark.parametrize("name", ["e8m3", "e7m2", "e8m6", "e6m8", "ue8m0"])
def test_round_trip_of_wide_formats(name: str) -> None:
    """Values that no int64 grid holds."""
    for group_size in (None, 16):
        tensor = random_tensor(name, NM(2, 4), group_size=group_size)
        for layout in (RowMajor(), Sparse("index"), Sparse("bitmap")):
            back = unpack(pack(tensor, layout))
            np.testing.assert_array_equal(back.significands(), tensor.significands())
        with pytest.raises(OverflowError):
            tensor.integers()
        with pytest.raises(LayoutError, match="need more than 8 bits"):
            pack(tensor, Chain(dsps=32))


def test_block_scales_are_in_the_bytes() -> None:
    """Elements row by row, a byte a block, a byte a row for MX, four bytes a tensor or a row for NVFP4."""
    for name, outer in (
        ("mxfp4", {"row_exponents": 8}),
        ("nvfp4", {"tensor_scale": 4}),
        ("nvfp4-row", {"row_scales": 32}),
    ):
        fmt = get_format(name)
        assert isinstance(fmt, BlockFormat)
        blocks = 96 // fmt.block_size
        packed = pack(random_tensor(name, columns=96), RowMajor())
        assert {part: section.nbytes for part, section in packed.sections.items()} == {
            "codes": 8 * 48, "block_scales": 8 * blocks, **outer,
        }  # fmt: skip
    tensor = random_tensor("mxfp4", columns=96)
    packed = pack(tensor, RowMajor())
    assert tensor.block_scales is not None
    np.testing.assert_array_equal(packed.sections["block_scales"].reshape(8, 3), tensor.block_scales)
    largest = [max(s for b, s in enumerate(row) if (r, b) != (0, 0)) for r, row in enumerate(tensor.block_scales)]
    assert packed.sections["row_exponents"].tolist() == largest
    np.testing.assert_array_equal(
        packed.sections["row_exponents"][1:, None] - tensor.block_scales[1:], tensor.shifts[1:]
    )


def test_block_tensors_that_contradict_themselves_are_refused() -> None:
    tensor = random_tensor("mxfp4", columns=64)
    with pytest.raises(LayoutError, match="powers of two"):
        replace(tensor, row_scales=tensor.row_scales * np.float32(2))
    with pytest.raises(LayoutError, match="is NaN"):
        replace(tensor, block_scales=np.full((8, 2), 255, np.uint8))
    with pytest.raises(LayoutError, match="must be uint8"):
        replace(tensor, block_scales=None)
    with pytest.raises(LayoutError, match="block's 32, not 64"):
        replace(tensor, group_size=64)
    with pytest.raises(LayoutError, match="need a block format"):
        replace(random_tensor("int4"), block_scales=np.zeros((8, 1), np.uint8))
    nv = random_tensor("nvfp4", columns=64)
    with pytest.raises(LayoutError, match="one value for all rows"):
        replace(nv, row_scales=np.arange(1, 9, dtype=np.float32))
    with pytest.raises(LayoutError, match="not the blocks of mxfp4"):
        pack(random_tensor("mxfp4", columns=32), Vnni4x4())


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_round_trip_of_every_pattern(pattern: Pattern, asymmetric: bool) -> None:
    for seed in range(3):
        check_round_trip(random_tensor("int4", pattern, 16, seed=seed, asymmetric=asymmetric))
        check_round_trip(random_tensor("uint4", pattern, 16, seed=seed, asymmetric=asymmetric, group_size=16))


@given(st.integers(1, 16), st.integers(0, 200), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_bits_survive(bits: int, count: int, random) -> None:
    values = np.array([random.randrange(1 << bits) for _ in range(count)], np.uint16)
    packed = pack_bits(values, bits)
    whole = sum(int(v) << (i * bits) for i, v in enumerate(values))  # code 0 in the lowest bits
    assert packed.tobytes() == whole.to_bytes(-(-count * bits // 8), "little")
    np.testing.assert_array_equal(unpack_bits(packed, bits, count), values)


def test_chain_beats_are_as_documented() -> None:
    """DSP d serves block d // slots; weights first, then 4-bit indices, low nibble first."""
    mask = np.zeros((1, 32), bool)
    mask[0, [3, 9, 16, 31]] = True
    codes = np.arange(32, dtype=np.int16)[None]
    tensor = QuantTensor(
        codes=codes,
        format=get_format("int8"),
        row_scales=np.ones(1, np.float32),
        group_size=32,
        pattern=NM(2, 16),
        mask=mask,
    )
    packed = pack(tensor, Chain(dsps=5, slots=2))
    assert packed.sections["beats"].tolist() == [3, 9, 16, 31, 0, 0x93, 0xF0, 0x00]


def test_chain_beats_of_row_pairs_are_as_documented() -> None:
    """Two weights a DSP, even row first, then one index for both."""
    mask = np.zeros((2, 32), bool)
    mask[:, [3, 9, 16, 31]] = True
    tensor = QuantTensor(
        codes=np.stack([np.arange(32), -np.arange(32)]).astype(np.int16),
        format=get_format("int8"),
        row_scales=np.ones(2, np.float32),
        group_size=32,
        pattern=NM(2, 16, 2),
        mask=mask,
    )
    layout = Chain(dsps=5, slots=2, pairs=True)
    assert layout.name == "chain-5x2-pairs"
    weights = [3, -3, 9, -9, 16, -16, 31, -31, 0, 0]
    expected = [w & 0xFF for w in weights] + [0x93, 0xF0, 0x00]
    assert pack(tensor, layout).sections["beats"].tolist() == expected
    # half the beats of the layout in which a beat serves one row, and 25/30 of its bytes
    assert layout.section_bytes(tensor.spec)["beats"] == 13
    assert Chain(dsps=5, slots=2).section_bytes(tensor.spec)["beats"] == 16


def test_pairs_hold_rows_whose_positions_differ_where_the_union_fits() -> None:
    own = random_tensor("int8", NM(4, 16), rows=7)
    layout = Chain(dsps=24, slots=8, pairs=True)
    np.testing.assert_array_equal(unpack(pack(own, layout)).integers(), own.integers())
    with pytest.raises(LayoutError, match="at most 4 fit"):
        pack(own, Chain(dsps=24, slots=4, pairs=True))


def test_block_n_is_the_least_that_holds_a_block() -> None:
    mask = np.zeros((16, 32), bool)
    mask[3, :3] = True
    mask[5, 16:25] = True
    np.testing.assert_array_equal(BlockN.block_n(mask), [[4, 16]])
    tensor = random_tensor("int4", BlockN(), 16, 32)
    spec = QuantTensor(codes=tensor.codes, format=tensor.format, row_scales=tensor.row_scales, group_size=32,
                       pattern=BlockN(), mask=mask).spec  # fmt: skip
    assert spec.stored == 16 * (4 + 16)
    assert Sparse("index").section_bytes(spec)["block_n"] == 2


@pytest.mark.parametrize("text", ["8:16 pairs", "N:16@0.5", "2:4", "4x1@0.25"])
def test_pattern_names_are_read_back(text: str) -> None:
    assert parse_pattern(text).name == text


@pytest.mark.parametrize(("rows", "columns", "group_size"), [(1, 1, None), (5, 47, None), (33, 70, 32), (17, 33, 16)])
@pytest.mark.parametrize("name", ["int4", "int3", "uint4", "uint2"])
def test_round_trip_of_ragged_shapes(name: str, rows: int, columns: int, group_size: int | None) -> None:
    """Rows that fill no block, inputs that fill no line, groups that fill no part."""
    for pattern in (Dense(), Unstructured()):
        tensor = random_tensor(name, pattern, rows, columns, group_size, asymmetric=name.startswith("uint"))
        check_round_trip(tensor)


def test_aligned_blocks_are_as_documented() -> None:
    """Row by row inside a block; the block column as bytes into a panel; row groups by pointers."""
    codes = np.arange(64, dtype=np.int16).reshape(8, 8)
    mask = np.kron(np.array([[False, True], [False, False]]), np.ones((4, 4), bool))
    tensor = QuantTensor(
        codes=codes,
        format=get_format("int8"),
        row_scales=np.ones(8, np.float32),
        group_size=8,
        pattern=Block(4, 4),
        mask=mask,
    )
    sections = pack(tensor, Vnni4x4()).sections
    assert sections["values"].tolist() == codes[:4, 4:].ravel().tolist()
    assert sections["offsets"].view(np.int32).tolist() == [256]
    assert sections["pointers"].view(np.int64).tolist() == [0, 1, 1]


def test_masked_tiles_are_as_documented() -> None:
    """2:4 by hand: bit 16 b + 4 r + k of the mask, the stored bytes in that order, absent ones filled with zeros."""
    codes = np.zeros((5, 20), np.int16)
    mask = np.zeros(codes.shape, bool)
    for row, column, value in ((0, 1, 11), (0, 3, 12), (1, 6, 13), (4, 16, 14), (4, 17, 15)):
        codes[row, column], mask[row, column] = value, True
    tensor = QuantTensor(
        codes=codes,
        format=get_format("int8"),
        row_scales=np.ones(5, np.float32),
        group_size=20,
        pattern=NM(2, 4),
        mask=mask,
    )
    sections = pack(tensor, VnniNM()).sections
    values = sections["values"][:-8].reshape(4, 32)  # two groups of rows, two tiles each
    masks = [int(word) for word in sections["masks"].view(np.uint64)]
    assert values[0, :2].tolist() == [11, 12]
    assert masks[0] & 0xF == 0b1010
    assert masks[0] >> 20 & 0xF == 0b0101  # row 1 keeps input 6 of the second block; the first of the rest fills up
    assert values[0, 8:12].tolist() == [0, 0, 0, 13]
    assert values[3, :2].tolist() == [14, 15]
    assert not values[1].any()
    assert not values[2].any()
    with pytest.raises(LayoutError, match="holds N:M, not pattern dense"):
        pack(random_tensor("int8"), VnniNM())


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_lanes_are_as_documented(bits: int) -> None:
    """Every code, multiplier and zero point by its own address, in plain loops."""
    tensor = random_tensor("int3", rows=18, columns=70, group_size=34, asymmetric=True)
    sections = pack(tensor, Lanes16(bits)).sections
    assert list(sections) == ["values", "multipliers", "zero_points", "row_scales"]
    values = sections["values"].reshape(2, 3, 2, bits, 16, 4)  # block, group, part, line, row, byte
    for row in range(18):
        for column in range(70):
            group, i = divmod(column, 34)
            four, k = i % 32 // 4, i % 4
            lines = [int(byte) for byte in values[row // 16, group, i // 32, :, row % 16, k]]
            if bits == 8:
                code = lines[four]
            elif bits == 4:
                code = lines[four // 2] >> 4 * (four % 2) & 15
            else:
                code = lines[four // 4] >> 2 * (four % 4) & 3 | (lines[2] >> four & 1) << 2
            assert code == tensor.codes[row, column] + 4
    assert tensor.group_multipliers is not None
    assert tensor.zero_points is not None
    for name, groups in (("multipliers", tensor.group_multipliers), ("zero_points", tensor.zero_points + 4)):
        lanes = sections[name].reshape(2, 3, 16)
        np.testing.assert_array_equal(np.concatenate([lanes[0].T, lanes[1].T[:2]]), groups)
        assert not lanes[1, :, 2:].any()


def test_sparse_rows_are_as_documented() -> None:
    tensor = random_tensor("int15", Unstructured(), rows=3, columns=9)
    sections = pack(tensor, SparseRows()).sections
    mask = tensor.stored_mask
    assert sections["pointers"].view(np.uint32).tolist() == [0, *(int(mask[: r + 1].sum()) for r in range(3))]
    assert sections["inputs"].view(np.uint16).tolist() == [c for r in range(3) for c in range(9) if mask[r, c]]
    assert sections["codes"].view(np.int16).tolist() == tensor.codes[mask].tolist()


def test_index_form_costs_what_the_catalogue_says() -> None:
    """At 50 % density an index saves 25 % for int8, nothing for int4, and costs 17 % more for int3."""
    change = {}
    for name in ("int8", "int4", "int3"):
        spec = TensorSpec.of(64, 1024, get_format(name), NM(8, 16))
        sparse, dense = Sparse("index").section_bytes(spec), RowMajor().section_bytes(spec)
        values = sparse["codes"] + sparse["indices"]
        change[name] = values / dense["codes"] - 1
    assert change == pytest.approx({"int8": -0.25, "int4": 0.0, "int3": 1 / 6})


def test_the_readme_s_bits_per_weight_are_those_of_the_bytes() -> None:
    text = (Path(formats.__file__).parent / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if len(row) == 7 and row[0] != "format"]
    assert len(rows) == 10
    for name, _, *printed in rows:
        fmt = get_format(name)
        found = []
        for pattern, layout in (
            (Dense(), RowMajor()), (NM(8, 16), Sparse("index")), (NM(8, 16), Sparse("bitmap")),
            (NM(8, 16, 2), Sparse("index")), (NM(8, 16, 2), Sparse("bitmap")),
        ):  # fmt: skip
            sections = layout.section_bytes(TensorSpec.of(4096, 1024, fmt, pattern))
            counted = sum(size for part, size in sections.items() if part != "row_scales")
            found.append(counted * 8 / (4096 * 1024))
        for cell, bits in zip(printed, found, strict=True):
            value, _, change = cell.partition(" (")
            assert float(value) == pytest.approx(bits, abs=0.006)
            if change:
                assert int(change.removesuffix(" %)")) == round(100 * (bits / found[0] - 1))


def test_storage_layout_is_the_smallest() -> None:
    assert isinstance(storage_layout(TensorSpec.of(64, 1024, get_format("int3"), NM(8, 16))), Sparse)
    assert storage_layout(TensorSpec.of(64, 1024, get_format("int2"), NM(15, 16))) == RowMajor()


def test_damaged_bytes_are_named() -> None:
    packed = pack(random_tensor("int4"), RowMajor())
    packed.sections["codes"] = packed.sections["codes"][:-1]
    with pytest.raises(LayoutError, match="codes"):
        unpack(packed)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(LayoutError, match="s8"):
        pack(random_tensor("e4m3"), Chain(dsps=32))
    with pytest.raises(LayoutError, match="one scale a row"):
        pack(random_tensor("int4", group_size=16), Vnni4x1())
    with pytest.raises(LayoutError, match="one scale a row"):
        pack(random_tensor("int4", group_size=16), Vnni4x4())
    with pytest.raises(LayoutError, match="up to 4 bits"):
        pack(random_tensor("int5", group_size=16), Lanes16())
    wide = random_tensor("int4", group_size=16)
    assert wide.group_multipliers is not None
    wide.group_multipliers[0, 0] = 256
    with pytest.raises(LayoutError, match="must fit 8 bits, not reach 256"):
        pack(wide, Lanes16())
    with pytest.raises(LayoutError, match="do not make pairs"):
        TensorSpec.of(7, 48, get_format("int4"), NM(2, 16, 2))
    with pytest.raises(LayoutError, match="do not tile"):
        TensorSpec.of(24, 48, get_format("int4"), BlockN())
    with pytest.raises(LayoutError, match="does not divide"):
        TensorSpec.of(8, 40, get_format("int4"), NM(2, 16))
    with pytest.raises(LayoutError, match="at most 8 fit"):
        pack(random_tensor("int4"), Chain(dsps=32, slots=8))
    with pytest.raises(FormatError, match="at most 15 bits"):
        random_tensor("e5m10i")
    tensor = random_tensor("int4")
    with pytest.raises(LayoutError, match="positive and finite"):
        QuantTensor(codes=tensor.codes, format=tensor.format, group_size=48, row_scales=np.full(8, np.nan, np.float32))


@pytest.mark.parametrize(
    ("pattern", "positions", "m"), [(Dense(), "all", 16), (NM(4, 16), "index", 16), (NM(8, 16), "bitmap", 16)]
)
def test_chain_memory_costs_what_storage_costs(pattern: Pattern, positions: str, m: int) -> None:
    """Where tiles fill the input axis, the order of the chain costs not a byte."""
    tensor = random_tensor("int4", pattern, columns=160)
    slots = pattern.n if isinstance(pattern, NM) else 16
    memory = ChainMemory(chain=Chain(dsps=5 * slots, slots=slots), positions=positions, m=m)
    storage = RowMajor() if positions == "all" else Sparse(positions)
    assert sum(memory.section_bytes(tensor.spec).values()) == sum(storage.section_bytes(tensor.spec).values())


def test_a_piece_by_hand() -> None:
    """2:16, one block: codes -1 and 3 at inputs 5 and 9, then the indices."""
    mask = np.zeros((1, 16), np.bool_)
    mask[0, [5, 9]] = True
    codes = np.zeros((1, 16), np.int16)
    codes[0, [5, 9]] = -1, 3
    tensor = QuantTensor(
        codes=codes,
        format=get_format("int4"),
        group_size=16,
        pattern=NM(2, 16),
        mask=mask,
        row_scales=np.ones(1, np.float32),
    )
    chain = Chain(dsps=2, slots=2)
    assert pack(tensor, ChainMemory(chain=chain, positions="index")).sections["pieces"].tolist() == [0x3F, 0x95]
    assert pack(tensor, ChainMemory(chain=chain, positions="bitmap")).sections["pieces"].tolist() == [0x3F, 0x20, 0x02]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chain": Chain(dsps=8, slots=4)}, "4 slots of 16 inputs need positions"),
        ({"chain": Chain(dsps=16), "m": 8}, "m must be 4, 8 or 16, and 16 without indices, not 8"),
        ({"chain": Chain(dsps=8, slots=2), "positions": "index", "m": 4}, "2 slots of 16 inputs are no whole number"),
    ],
)
def test_chain_memory_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        ChainMemory(**arguments)


def test_chain_memory_refuses_groups_across_blocks() -> None:
    tensor = random_tensor("uint4", group_size=24, asymmetric=True)
    with pytest.raises(LayoutError, match="group_size must be a multiple of 16, not 24"):
        pack(tensor, ChainMemory(chain=Chain(dsps=16)))
