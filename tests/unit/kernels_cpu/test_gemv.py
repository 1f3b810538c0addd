"""Weight-only products against NumPy's int64: group sizes, zero points, ragged ends, ranges."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numba import njit

from sparsefab.errors import LayoutError
from sparsefab.formats import Dense, Nibbles16, QuantTensor, RowMajor, Unstructured, get_format, pack
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.gemv import MatrixVector, NibbleWeights
from sparsefab.kernels_cpu.threads import available_threads

LEVELS = [
    pytest.param(level, marks=[] if runs(level) else [pytest.mark.slow])
    for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE)
]


def tensor_of(name, rows, columns, group_size, seed=0, density=1.0):
    random = np.random.default_rng(seed)
    fmt = get_format(name)
    grid = (rows, -(-columns // group_size))
    mask = None if density == 1 else random.random((rows, columns)) < density
    return QuantTensor(
        codes=random.integers(fmt.code_min, fmt.code_max + 1, (rows, columns)).astype(np.int16),
        format=fmt,
        row_scales=random.random(rows, np.float32) + np.float32(0.5),
        group_size=group_size,
        group_multipliers=random.integers(1, 256, grid).astype(np.uint16) if group_size < columns else None,
        zero_points=None if fmt.signed else random.integers(0, fmt.code_max + 1, grid).astype(np.int16),
        pattern=Dense() if density == 1 else Unstructured(),
        mask=mask,
    )


def nibbles(tensor):
    return NibbleWeights.from_packed(pack(tensor, Nibbles16()))


def codes_of(tokens, columns):
    return np.random.default_rng(9).integers(-127, 128, (tokens, columns)).astype(np.int8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "int3", "int2", "uint4", "uint3"])
@pytest.mark.parametrize(
    ("rows", "columns", "group_size"), [(33, 100, 32), (16, 64, 64), (50, 129, 16), (7, 30, 30), (5, 100, 12)]
)
def test_sums_and_reals_equal_numpy(level, name, rows, columns, group_size):
    tensor = tensor_of(name, rows, columns, group_size)
    codes = codes_of(3, columns)
    weights = nibbles(tensor)
    sums = codes.astype(np.int64) @ tensor.integers().T
    np.testing.assert_array_equal(MatrixVector(weights, level=level, emulate=True).run(codes), sums)
    scales = np.array([0.25, 1.7, 3e-5], np.float32)
    reals = MatrixVector(weights, row_scales=tensor.row_scales, level=level, emulate=True).run(codes, scales)
    np.testing.assert_array_equal(reals, sums.astype(np.float32) * tensor.row_scales * scales[:, None])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_absent_weights_contribute_nothing(level, name):
    tensor = tensor_of(name, 20, 70, 32, density=0.4)
    codes = codes_of(2, 70)
    result = MatrixVector(nibbles(tensor), level=level, emulate=True).run(codes)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_extremes_saturate_nothing(level, name):
    fmt = get_format(name)
    tensor = QuantTensor(
        codes=np.where(np.arange(20)[:, None] % 2, fmt.code_min, fmt.code_max).repeat(64, axis=1).astype(np.int16),
        format=fmt,
        row_scales=np.ones(20, np.float32),
        group_size=32,
        group_multipliers=np.full((20, 2), 255, np.uint16),
        zero_points=None
        if fmt.signed
        else np.where(np.arange(20)[:, None] % 3, 0, 15).repeat(2, axis=1).astype(np.int16),
    )
    codes = np.stack([np.full(64, -127), np.full(64, 127), np.tile([127, -127], 32)]).astype(np.int8)
    result = MatrixVector(nibbles(tensor), level=level, emulate=True).run(codes)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


@pytest.mark.parametrize("level", LEVELS)
def test_threads_share_the_blocks(level):
    tensor = tensor_of("int4", 100, 64, 32)
    codes = codes_of(2, 64)
    result = MatrixVector(nibbles(tensor), level=level, emulate=True).run(codes, threads=min(2, available_threads()))
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


def test_sums_beyond_32_bits_take_the_wide_path():
    columns = 1 << 14
    tensor = QuantTensor(
        codes=np.full((1, columns), -8, np.int16),
        format=get_format("int4"),
        row_scales=np.ones(1, np.float32),
        group_size=32,
        group_multipliers=np.full((1, columns // 32), 255, np.uint16),
    )
    weights = nibbles(tensor)
    codes = np.full((1, columns), -127, np.int8)
    product = MatrixVector(weights, row_scales=tensor.row_scales)
    assert product.level is Level.PORTABLE
    assert product.run(codes)[0, 0] == np.float32(columns * 8 * 255 * 127)
    with pytest.raises(LayoutError, match="beyond 32 bits"):
        MatrixVector(weights)


def test_packed_bytes_that_do_not_fit_are_refused():
    tensor = tensor_of("int4", 4, 64, 32)
    with pytest.raises(LayoutError, match="reads the layout nibbles-16, not row-major"):
        NibbleWeights.from_packed(pack(tensor, RowMajor()))
    packed = pack(tensor, Nibbles16())
    for name in ("values", "multipliers"):
        cut = dict(packed.sections) | {name: packed.sections[name][:-1]}
        with pytest.raises(LayoutError, match=name):
            NibbleWeights.from_packed(replace(packed, sections=cut))


def test_values_are_brought_to_a_line_where_they_are_not():
    tensor = tensor_of("uint4", 20, 70, 32)
    packed = pack(tensor, Nibbles16())
    raw = np.empty(packed.sections["values"].size + 65, np.uint8)
    moved = raw[-raw.ctypes.data % 64 + 1 :][: packed.sections["values"].size]
    moved[:] = packed.sections["values"]
    weights = NibbleWeights.from_packed(replace(packed, sections=packed.sections | {"values": moved}))
    assert weights.values.ctypes.data % 64 == 0
    codes = codes_of(2, 70)
    np.testing.assert_array_equal(MatrixVector(weights).run(codes), codes.astype(np.int64) @ tensor.integers().T)


def test_wrong_arguments_are_named():
    product = MatrixVector(nibbles(tensor_of("int4", 4, 32, 16)))
    with pytest.raises(ValueError, match="codes must be int8"):
        product.run(np.zeros((1, 32), np.uint8))
    with pytest.raises(ValueError, match="codes must be int8"):
        product.run(np.zeros((1, 31), np.int8))
    with pytest.raises(ValueError, match="-127 to 127"):
        product.run(np.full((1, 32), -128, np.int8))
    with pytest.raises(ValueError, match="token_scales"):
        product.run(np.zeros((1, 32), np.int8), np.array([np.nan], np.float32))
    with pytest.raises(ValueError, match="threads"):
        product.run(np.zeros((1, 32), np.int8), threads=0)


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
def test_the_loop_is_two_dot_products_a_line():
    product = MatrixVector(nibbles(tensor_of("int4", 16, 64, 32)))
    options = {name: value for name, value in product._kernel.targetoptions.items() if name != "nopython"}
    product._kernel = njit(**options)(product._kernel.py_func)
    product.run(codes_of(1, 64))
    text = max(product._kernel.inspect_asm().values(), key=len)
    assert len(re.findall(r"vpdpbusd\s.*\(.*\){1to16}.*zmm", text)) == 8  # the broadcast rides on the dot product
    assert len(re.findall(r"vpand[dq]?\s.*zmm", text)) == 8
    assert re.search(r"vpmulld\s.*zmm", text)
    assert re.search(r"prefetcht0", text)
