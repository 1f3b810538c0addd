"""Weight-only products against NumPy's int64: group sizes, zero points, ragged ends, ranges."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numba import njit

from sparsefab.errors import LayoutError
from sparsefab.formats import Dense, Lanes16, QuantTensor, RowMajor, SparseRows, Unstructured, get_format, pack
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.gemv import LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.ports import lane_loops
from sparsefab.kernels_cpu.threads import available_threads
from tests.unit.kernels_cpu.test_assembly import innermost_loops, ports_of

LEVELS = [
    pytest.param(level, marks=[] if runs(level) else [pytest.mark.slow])
    for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE)
]


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


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


def lanes(tensor):
    return LaneWeights.from_packed(pack(tensor, Lanes16.of(tensor.spec)))


def codes_of(tokens, columns):
    return np.random.default_rng(9).integers(-127, 128, (tokens, columns)).astype(np.int8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("rows", "columns", "group_size"), [(33, 100, 32), (50, 129, 16), (7, 30, 30), (17, 600, 300)])
@pytest.mark.parametrize(
    "name",
    # one of each stored width and kind of zero point; the others are other numbers in the same kernels
    [
        "int4",
        "uint3",
        "int8",
        *map(slow, ("int2", "int3", "uint4", "uint8")),
    ],
)
def test_sums_and_reals_equal_numpy(level, name, rows, columns, group_size):
    tensor = tensor_of(name, rows, columns, group_size)
    codes = codes_of(31, columns)  # 16 at once, 8, 4, 2 and 1
    weights = lanes(tensor)
    sums = codes.astype(np.int64) @ tensor.integers().T
    np.testing.assert_array_equal(MatrixVector(weights, level=level, emulate=True).run(codes), sums)
    if name != "int4" or group_size != 32:
        return  # how results are stored does not depend on the weights
    scales = np.resize(np.array([0.25, 1.7, 3e-5, 1, 7e9, 0.1], np.float32), len(codes))
    reals = MatrixVector(weights, row_scales=tensor.row_scales, level=level, emulate=True).run(codes, scales)
    np.testing.assert_array_equal(reals, sums.astype(np.float32) * tensor.row_scales * scales[:, None])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "uint3"])
def test_absent_weights_contribute_nothing(level, name):
    tensor = tensor_of(name, 20, 70, 32, density=0.4)
    codes = codes_of(2, 70)
    result = MatrixVector(lanes(tensor), level=level, emulate=True).run(codes)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "int8", *map(slow, ("int3", "uint4", "uint8"))])
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
        else np.where(np.arange(20)[:, None] % 3, 0, fmt.code_max).repeat(2, axis=1).astype(np.int16),
    )
    codes = np.stack([np.full(64, -127), np.full(64, 127), np.tile([127, -127], 32)]).astype(np.int8)
    result = MatrixVector(lanes(tensor), level=level, emulate=True).run(codes)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


@pytest.mark.parametrize("level", LEVELS)
def test_outliers_are_added(level):
    """3-bit groups and a few weights of 15 bits a row, none in some rows: as one matrix."""
    tensor, random = tensor_of("uint3", 40, 100, 32), np.random.default_rng(2)
    mask = random.random((40, 100)) < 0.03
    mask[::7] = False
    mask[1] = True
    extra = QuantTensor(
        codes=random.integers(-16383, 16384, (40, 100)).astype(np.int16),
        format=get_format("int15"),
        row_scales=tensor.row_scales,
        group_size=100,
        pattern=Unstructured(),
        mask=mask,
    )
    outliers = OutlierWeights.from_packed(pack(extra, SparseRows()))
    codes = codes_of(5, 100)
    sums = codes.astype(np.int64) @ (tensor.integers() + extra.integers()).T
    product = MatrixVector(lanes(tensor), outliers=outliers, level=level, emulate=True)
    for threads in (1, min(2, available_threads())):
        np.testing.assert_array_equal(product.run(codes, threads=threads), sums)
    product = MatrixVector(lanes(tensor), outliers=outliers, row_scales=tensor.row_scales, level=level, emulate=True)
    np.testing.assert_array_equal(product.run(codes), sums.astype(np.float32) * tensor.row_scales)


def test_outliers_that_do_not_fit_are_refused():
    tensor = tensor_of("int3", 4, 32, 16)
    pointers, inputs, values = np.array([0, 1, 1, 1, 2], np.uint32), np.array([3, 31], np.uint16), np.ones(2, np.int16)
    outliers = OutlierWeights(rows=4, columns=32, pointers=pointers, inputs=inputs, values=values)
    with pytest.raises(LayoutError, match="must be below 32, not 40"):
        replace(outliers, inputs=np.array([3, 40], np.uint16))
    with pytest.raises(LayoutError, match="must rise from 0 to 2"):
        replace(outliers, pointers=pointers[::-1].copy())
    with pytest.raises(LayoutError, match="do not fit 5 pointers"):
        replace(outliers, rows=5)
    with pytest.raises(LayoutError, match="outliers of 4 x 33 do not fit 4 x 32"):
        MatrixVector(lanes(tensor), outliers=replace(outliers, columns=33))
    with pytest.raises(LayoutError, match="in the layout lanes-16x3 without outliers"):
        OutlierWeights.from_packed(pack(tensor, Lanes16.of(tensor.spec)))


@pytest.mark.parametrize("level", LEVELS)
def test_threads_share_the_blocks(level):
    tensor = tensor_of("int4", 100, 64, 32)
    codes = codes_of(2, 64)
    result = MatrixVector(lanes(tensor), level=level, emulate=True).run(codes, threads=min(2, available_threads()))
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)


def test_a_bound_call_reads_its_buffers_anew():
    tensor, codes = tensor_of("int4", 20, 64, 32), codes_of(2, 64)
    call = MatrixVector(lanes(tensor)).bind(codes)
    for _ in range(2):
        call()
        np.testing.assert_array_equal(call.out, codes.astype(np.int64) @ tensor.integers().T)
        codes[:] = codes[:, ::-1].copy()
    codes[0, 0] = -128
    with pytest.raises(ValueError, match="-127 to 127"):
        call()


def widest_tensor(columns):
    """One row whose sum takes the most bits."""
    return QuantTensor(
        codes=np.full((1, columns), -8, np.int16),
        format=get_format("int4"),
        row_scales=np.ones(1, np.float32),
        group_size=32,
        group_multipliers=np.full((1, columns // 32), 255, np.uint16),
    )


def test_sums_beyond_32_bits_take_the_wide_path():
    columns = 1 << 14
    tensor = widest_tensor(columns)
    weights = lanes(tensor)
    codes = np.full((1, columns), -127, np.int8)
    product = MatrixVector(weights, row_scales=tensor.row_scales)
    assert product.level is Level.PORTABLE
    assert product.run(codes)[0, 0] == np.float32(columns * 8 * 255 * 127)
    with pytest.raises(LayoutError, match="beyond 32 bits"):
        MatrixVector(weights)


def test_packed_bytes_that_do_not_fit_are_refused():
    tensor = tensor_of("int4", 4, 64, 32)
    with pytest.raises(LayoutError, match="reads the layout lanes-16, not row-major"):
        LaneWeights.from_packed(pack(tensor, RowMajor()))
    packed = pack(tensor, Lanes16())
    for name in ("values", "multipliers"):
        cut = dict(packed.sections) | {name: packed.sections[name][:-1]}
        with pytest.raises(LayoutError, match=name):
            LaneWeights.from_packed(replace(packed, sections=cut))


def test_values_are_brought_to_a_line_where_they_are_not():
    tensor = tensor_of("uint4", 20, 70, 32)
    packed = pack(tensor, Lanes16())
    raw = np.empty(packed.sections["values"].size + 65, np.uint8)
    moved = raw[-raw.ctypes.data % 64 + 1 :][: packed.sections["values"].size]
    moved[:] = packed.sections["values"]
    weights = LaneWeights.from_packed(replace(packed, sections=packed.sections | {"values": moved}))
    assert weights.values.ctypes.data % 64 == 0
    codes = codes_of(2, 70)
    np.testing.assert_array_equal(MatrixVector(weights).run(codes), codes.astype(np.int64) @ tensor.integers().T)


def test_wrong_arguments_are_named():
    product = MatrixVector(lanes(tensor_of("int4", 4, 32, 16)))
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
@pytest.mark.parametrize(("name", "ands"), [("int8", 0), ("int4", 8), ("int3", 16)])
def test_the_loops_are_eight_dot_products_a_token(name, ands):
    product = MatrixVector(lanes(tensor_of(name, 16, 64, 32)))
    options = {key: value for key, value in product._kernel.targetoptions.items() if key != "nopython"}
    product._kernel = njit(**options)(product._kernel.py_func)
    product.run(codes_of(31, 64))
    text = max(product._kernel.inspect_asm().values(), key=len)
    loops = innermost_loops(text, "vpdpbusd")
    for loop, tokens in zip(sorted(loops, key=len), (1, 2, 4, 8, 16), strict=True):
        dots = [line for line in loop if re.match(r"vpdpbusd\s.*zmm", line)]
        (bound, _), *_ = lane_loops(product.weights, tokens=tokens)
        _, loads, wide, vectors, shuffles = ports_of(loop)
        assert vectors == bound.vectors - 2 * tokens  # a group's sums are taken up outside
        assert bound.wide_loads <= wide <= bound.wide_loads + 2  # masks that no register is left for
        assert loads - wide >= bound.loads - bound.wide_loads  # likewise an address
        assert shuffles == 0
        assert len(dots) == 8 * tokens
        assert all("{1to16}" in line for line in dots)  # the broadcast rides on the dot product
        assert not [line for line in loop if "rsp" in line and "zmm" in line]
        for where in ("prefetcht0", "prefetcht1"):  # both for each line
            assert sum(line.startswith(where) for line in loop) == product.weights.bits
        masks = [line for line in loop if re.match(r"vp(and|ternlog)[dq]?\s.*zmm", line)]
        assert len(masks) <= ands + 8
    if name != "int8":
        assert re.search(r"vpdpwssd\s.*zmm", text)  # a group's multiplier, in one operation
