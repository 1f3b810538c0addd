"""Group-sparse products against NumPy's int64: widths, zero points, empty and full rows, extremes, ranges."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numba import njit

from sparsefab.errors import LayoutError
from sparsefab.formats import (
    Block,
    GroupRows,
    Lanes16,
    QuantTensor,
    RowMajor,
    SparseRows,
    Unstructured,
    get_format,
    pack,
)
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.gemv_groups import spread_tables
from sparsefab.kernels_cpu.ports import group_loops
from sparsefab.kernels_cpu.threads import available_threads
from tests.unit.kernels_cpu.test_assembly import innermost_loops, ports_of
from tests.unit.kernels_cpu.test_gemv import codes_of, tensor_of, widest_tensor

LEVELS = [
    pytest.param(level, marks=[] if runs(level) else [pytest.mark.slow])
    for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE)
]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def sparse_tensor(name, rows, groups, *, width=16, density=0.5, seed=0):
    """Random weights, of which row 0 keeps no group, row 1 one, row 2 all."""
    random = np.random.default_rng(seed)
    kept = random.random((rows, groups)) < density
    kept[:3] = np.array([[False] * groups, [i == groups - 1 for i in range(groups)], [True] * groups])[:rows]
    tensor = tensor_of(name, rows, width * groups, width, seed)
    if not tensor.format.signed and tensor.format.bits == 8:  # codes less zero points fit s8
        zero_points = np.full(tensor.zero_points.shape, 128, np.int16)
        tensor = replace(tensor, zero_points=zero_points)
    return replace(tensor, pattern=Block(1, width), mask=np.repeat(kept, width, axis=1))


def weights_of(tensor):
    return GroupWeights.from_packed(pack(tensor, GroupRows.of(tensor.spec)))


def expected(tensor, codes):
    return codes.astype(np.int64) @ tensor.integers().T


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "width"),
    # each stored width and kind of zero point, and each way to fill a register; the rest are their mixtures
    [
        ("int4", 16),
        ("uint4", 32),
        ("int8", 48),
        ("int3", 64),
        *(slow(name, width) for name in ("uint3", "uint4", "uint8", "int8") for width in (16, 80, 128)),
    ],
)
def test_sums_and_reals_equal_numpy(level, name, width):
    for rows, groups, seed in ((37, 11, 0), (1, 3, 1), (16, 4, 2)):
        tensor = sparse_tensor(name, rows, groups, width=width, seed=seed)
        product = MatrixVector(weights_of(tensor), level=level, emulate=True)
        for tokens in (1, 2, 6, 19):  # alone, a part of four, four and more, sixteen and more
            codes = codes_of(tokens, width * groups)
            np.testing.assert_array_equal(product.run(codes), expected(tensor, codes))
    if name != "int4":
        return  # how results are stored does not depend on the weights
    scales = np.concatenate([[0.25, 1.7, 3e-5, 1, 7e9, 0.1], np.arange(1, 14)]).astype(np.float32)
    reals = MatrixVector(weights_of(tensor), row_scales=tensor.row_scales, level=level, emulate=True)
    for tokens in (1, 6, 19):
        wanted = expected(tensor, codes[:tokens]).astype(np.float32) * tensor.row_scales * scales[:tokens, None]
        np.testing.assert_array_equal(reals.run(codes[:tokens], scales[:tokens]), wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_dense_groups_equal_the_kernel_of_lanes(level):
    """With every group kept it is plain int4 g16: the sums of the other layout's kernel."""
    tensor, codes = tensor_of("int4", 20, 96, 16), codes_of(3, 96)
    plain = MatrixVector(LaneWeights.from_packed(pack(tensor, Lanes16())), level=level, emulate=True)
    kept = replace(tensor, pattern=Block(1, 16), mask=np.ones(tensor.shape, np.bool_))
    sparse = MatrixVector(weights_of(kept), level=level, emulate=True)
    np.testing.assert_array_equal(sparse.run(codes), plain.run(codes))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["int4", "uint4", "int8"])
def test_extremes_saturate_nothing(level, name):
    fmt, columns = get_format(name), 128
    codes = np.where(np.arange(20)[:, None] % 2, fmt.code_min, fmt.code_max).repeat(columns, axis=1).astype(np.int16)
    zeros = None if fmt.signed else np.where(np.arange(20)[:, None] % 3, 0, fmt.code_max).repeat(8, axis=1)
    tensor = QuantTensor(
        codes=codes,
        format=fmt,
        row_scales=np.ones(20, np.float32),
        group_size=16,
        group_multipliers=np.full((20, 8), 255, np.uint16),
        zero_points=None if zeros is None else zeros.astype(np.int16),
        pattern=Block(1, 16),
        mask=np.ones(codes.shape, np.bool_),
    )
    inputs = np.stack([np.full(columns, -127), np.full(columns, 127), np.tile([127, -127], 64)]).astype(np.int8)
    product = MatrixVector(weights_of(tensor), level=level, emulate=True)
    for part in (inputs, inputs[:1], inputs[1:2]):
        np.testing.assert_array_equal(product.run(part), expected(tensor, part))


@pytest.mark.parametrize("level", LEVELS)
def test_outliers_are_added(level):
    tensor, random = sparse_tensor("int4", 40, 6), np.random.default_rng(2)
    mask = random.random(tensor.shape) < 0.03
    mask[1] = True
    extra = QuantTensor(
        codes=random.integers(-16383, 16384, mask.shape).astype(np.int16),
        format=get_format("int15"),
        row_scales=tensor.row_scales,
        group_size=mask.shape[1],
        pattern=Unstructured(),
        mask=mask,
    )
    outliers = OutlierWeights.from_packed(pack(extra, SparseRows()))
    product = MatrixVector(weights_of(tensor), outliers=outliers, level=level, emulate=True)
    for tokens, threads in ((1, 1), (5, min(2, available_threads()))):
        codes = codes_of(tokens, mask.shape[1])
        wanted = codes.astype(np.int64) @ (tensor.integers() + extra.integers()).T
        np.testing.assert_array_equal(product.run(codes, threads=threads), wanted)


def test_threads_share_the_blocks_and_buffers_are_read_anew():
    tensor = sparse_tensor("int4", 100, 5)
    product = MatrixVector(weights_of(tensor))
    for tokens in (1, 3):
        codes = codes_of(tokens, 80)
        call = product.bind(codes, threads=min(2, available_threads()))
        for _ in range(2):
            call()
            np.testing.assert_array_equal(call.out, expected(tensor, codes))
            codes[:] = codes[:, ::-1].copy()
        codes[0, 0] = -128
        with pytest.raises(ValueError, match="-127 to 127"):
            call()


def test_sums_beyond_32_bits_take_the_wide_path():
    columns = 1 << 14
    tensor = replace(widest_tensor(columns), pattern=Block(1, 32), mask=np.ones((1, columns), np.bool_))
    codes = np.full((1, columns), -127, np.int8)
    product = MatrixVector(weights_of(tensor), row_scales=tensor.row_scales)
    assert product.level is Level.PORTABLE
    assert product.run(codes)[0, 0] == np.float32(columns * 8 * 255 * 127)
    with pytest.raises(LayoutError, match="beyond 32 bits"):
        MatrixVector(weights_of(tensor))


def test_weights_that_do_not_fit_are_refused():
    tensor = sparse_tensor("int4", 4, 4)
    with pytest.raises(LayoutError, match="reads the layout group-rows, not row-major"):
        GroupWeights.from_packed(pack(tensor, RowMajor()))
    weights = weights_of(tensor)
    kept = len(weights.multipliers) - 3
    for change, message in (
        ({"columns": 65}, "4 x 65 weights are not made of groups of 16"),
        ({"bits": 3}, "bits must be 4 or 8, not 3"),
        ({"codes": weights.codes[:-1]}, "section codes must be"),
        ({"groups": weights.groups.astype(np.int64)}, "section groups must be C-contiguous uint16"),
        ({"zeros": weights.zeros.repeat(2)}, "section zeros must be"),
        ({"pointers": weights.pointers[::-1].copy()}, f"pointers must rise from 0 to {kept} groups"),
        ({"groups": weights.groups + np.uint16(4)}, "groups must be below 4, not 7"),
    ):
        with pytest.raises(LayoutError, match=message):
            replace(weights, **change)
    raw = np.zeros(weights.groups.nbytes + 1, np.uint8)
    with pytest.raises(LayoutError, match="groups is not aligned to its 2-byte elements"):
        replace(weights, groups=raw[1:].view(np.uint16) if raw.ctypes.data % 2 == 0 else raw[:-1].view(np.uint16))
    wide = replace(sparse_tensor("uint8", 4, 4), zero_points=np.zeros((4, 4), np.int16))
    with pytest.raises(LayoutError, match=r"span 0\.\.255, not s8"):
        weights_of(wide)


@pytest.mark.parametrize(
    ("units", "registers"),
    [(1, [[0, 1, 2, 3]]), (2, [[0, 0, 1, 1]]), (3, [[0, 0, 0, None]]), (5, [[0, 0, 0, 0], [0, None, None, None]])],
)
def test_tables_leave_lanes_beyond_a_group_out(units, registers):
    """Three units fill three of four lanes; five take two registers, one lane of the second."""
    tables = spread_tables(units, wide=True).reshape(-1, 4, 16)
    for table, lanes in zip(tables[1:], registers, strict=True):
        for lane, group in zip(table, lanes, strict=True):
            assert lane[::4].tolist() == [0x80 if group is None else group] * 4
            assert (lane.reshape(4, 4)[:, 1:] == 0x80).all()
    assert spread_tables(1, wide=False)[1].reshape(4, 16)[:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI")
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_the_loops_are_one_dot_product_a_register_and_token(name):
    tensor = sparse_tensor(name, 16, 16)
    product = MatrixVector(weights_of(tensor))
    options = {key: value for key, value in product._kernel.targetoptions.items() if key != "nopython"}
    product._kernel = njit(**options)(product._kernel.py_func)
    product.run(codes_of(5, 256))
    text = max(product._kernel.inspect_asm().values(), key=len)
    loops = sorted(innermost_loops(text, "vpdpbusd"), key=lambda loop: sum("vpdpbusd" in line for line in loop))
    assert len(loops) == 3  # one token, two registers a round; 4 and 16
    for loop, tokens in zip(loops, (1, 4, 16), strict=True):  # the bounds that the bench states
        ((bound, rounds),) = group_loops(product.weights, tokens=tokens)
        declared = (bound.instructions, bound.loads, bound.wide_loads, bound.vectors, bound.shuffles)
        assert ports_of(loop) == declared
        assert rounds == sum(-(-int(kept.sum()) // 16 // 4) for kept in tensor.stored_mask)
    for loop, dots in zip(loops, (2, 4, 16), strict=True):
        assert len([line for line in loop if re.match(r"vpdpbusd\s.*zmm", line)]) == dots
        # Multipliers, added in one operation, or in two where LLVM finds the sums' latency in the way.
        assert len([line for line in loop if re.match(r"vp(dpwssd|maddwd)\s.*zmm", line)]) == dots
        assert len([line for line in loop if re.match(r"vpmovzxbw\s.*\(.*zmm", line)]) == (2 if dots == 2 else 1)
        assert not [line for line in loop if "rsp" in line and "zmm" in line]
        assert [line for line in loop if line.startswith("prefetcht0")]
    assert len([line for line in loops[0] if line.startswith("vinsert")]) == 6  # four units joined, twice
    for loop in loops[1:]:  # codes and multipliers of each of four units, shared by the tokens
        assert len([line for line in loop if re.match(r"vshuf[if]\d+x\d\s", line)]) == 8
