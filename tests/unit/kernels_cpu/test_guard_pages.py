"""Random shapes and patterns with every buffer against a page that cannot be touched: a stray access ends the test."""

import ctypes
import mmap
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefab.formats import NM, Block, GroupRows, Lanes16, QuantTensor, VnniNM, get_format, pack
from sparsefab.formats.halves import pack_half
from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.kernels_cpu.features import Level, best_level, runs
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.half import HalfProduct, half_panels, native_halves
from sparsefab.kernels_cpu.panels import interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, MaskedWeights, Product, Reals, Sums
from sparsefab.kernels_cpu.threads import available_threads

PAGE = mmap.PAGESIZE
KEEP = []  # the mappings live as long as the process: pages are few
LIBC = ctypes.CDLL(None, use_errno=True)


def guarded(array, at_end, alignment=1):
    """Copy an array to pages of its own, ending (or starting) at a forbidden page."""
    size = max(1, -(-array.nbytes // PAGE)) * PAGE
    mapping = mmap.mmap(-1, size + 2 * PAGE)
    KEEP.append(mapping)
    buffer = np.frombuffer(mapping, np.uint8)
    for page in (0, PAGE + size):
        if LIBC.mprotect(ctypes.c_void_p(buffer.ctypes.data + page), ctypes.c_size_t(PAGE), 0) != 0:
            pytest.skip("this system does not protect pages")
    first = PAGE + (size - array.nbytes if at_end else 0) // alignment * alignment
    result = buffer[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def test_a_guard_page_stops_a_stray_access(tmp_path):
    """The net itself: reading one element past a guarded array ends a process."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np, test_guard_pages as t\n"
        "a = t.guarded(np.zeros(64, np.uint8), True); print(int(a[63]), flush=True)\n"
        "print(np.lib.stride_tricks.as_strided(a, (65,), (1,))[64])"
    )
    here = Path(__file__).resolve()
    environment = os.environ | {"PYTHONPATH": str(here.parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(here.parent)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "0\n"
    assert done.returncode < 0


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(level, marks=[pytest.mark.slow] if level in (Level.AVX512, Level.AVX2) else [])
        for level in Level
        if runs(level)
    ],
)
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_random_products_stay_inside_their_buffers(level, aligned, at_end):
    random = np.random.default_rng([list(Level).index(level), aligned, at_end])
    threaded = level is best_level() and available_threads() > 1
    for turn in range(12):
        rows, columns = int(random.integers(1, 30)), int(random.integers(1, 90))
        tokens, width = int(random.integers(1, 140)), int(random.choice([64, 16, 1] if aligned else [64, 32, 16, 1]))
        if turn % 2 and aligned:  # whole 4x4 blocks, some of them absent
            rows, columns = 4 * -(-rows // 4), 4 * -(-columns // 4)
        matrix = random.integers(-128, 128, (rows, columns)) * (random.random((rows, columns)) < random.random() ** 3)
        matrix = matrix.astype(np.int8)
        weights = BlockWeights.from_matrix(matrix) if aligned else BlockWeights.from_columns(matrix)
        weights = BlockWeights(
            rows=rows,
            columns=columns,
            aligned=aligned,
            **{name: guarded(getattr(weights, name), at_end) for name in ("ptr", "offsets", "values")},
        )
        codes = random.integers(0, 256, (tokens, columns)).astype(np.uint8)
        panels = panels_of(codes, width=width)
        panels = guarded(interleaved(panels) if aligned else panels, at_end, 64)
        zero_point = int(random.integers(-128, 256))
        bias = random.integers(-(1 << 20), 1 << 20, rows)
        acc = bias + (codes.astype(np.int64) - zero_point) @ matrix.T.astype(np.int64)
        requantizer = Requantizer.of(np.exp(random.normal(-8, 3, rows)), 100, 0, 255)
        scales = random.random(rows, np.float32)
        epilogue, expected = [
            (Sums(), acc),
            (Reals(row_scales=scales), acc.astype(np.float32) * scales),
            (Codes(requantizer=requantizer), requantize(acc, requantizer)),
            (Codes(requantizer=requantizer, interleaved=width in (64, 16)), requantize(acc, requantizer)),
        ][turn % 4]
        product = Product(weights, epilogue, bias=bias, zero_point=zero_point, level=level)
        shape = product.run(panels).shape
        out = guarded(np.zeros(shape, product.run(panels).dtype), at_end, 64)
        product.run(panels, out=out, threads=2 if threaded and turn % 4 == 0 else 1)
        if shape[2] == 4 * width:
            parts = out.reshape(len(out), -1, 4, width // 16, 4, 4)
            out = parts.transpose(0, 1, 5, 3, 2, 4).reshape(len(out), -1, width)
        np.testing.assert_array_equal(rows_of(out, tokens=tokens, outputs=rows), expected)


@pytest.mark.parametrize("level", [level for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE) if runs(level)])
@pytest.mark.parametrize("at_end", [False, True])
def test_random_masked_products_stay_inside_their_buffers(level, at_end):
    random = np.random.default_rng([list(Level).index(level), at_end, 3])
    for turn in range(12):
        m = int(random.choice([4, 8, 16]))
        rows, columns, n = int(random.integers(1, 30)), m * int(random.integers(1, 9)), int(random.integers(0, m + 1))
        tokens, width = int(random.integers(1, 140)), (64, 16, 1)[turn % 3]
        rank = random.random((rows, columns // m, m)).argsort(axis=2).argsort(axis=2)
        tensor = QuantTensor(
            codes=random.integers(-128, 128, (rows, columns)).astype(np.int16),
            format=get_format("int8"),
            row_scales=np.ones(rows, np.float32),
            group_size=columns,
            pattern=NM(n, m),
            mask=(rank < random.integers(0, n + 1, (rows, columns // m, 1))).reshape(rows, columns),
        )
        weights = MaskedWeights.from_packed(pack(tensor, VnniNM()))
        weights = replace(weights, values=guarded(weights.values, at_end), masks=guarded(weights.masks, at_end))
        codes = random.integers(0, 256, (tokens, columns)).astype(np.uint8)
        panels = guarded(interleaved(panels_of(codes, width=width)), at_end, 64)
        product = Product(weights, Sums(), zero_point=5, level=level)
        out = guarded(np.zeros((len(panels), product.padded_rows, width), np.int32), at_end, 64)
        product.run(panels, out=out)
        expected = (codes.astype(np.int64) - 5) @ tensor.integers().T
        np.testing.assert_array_equal(rows_of(out, tokens=tokens, outputs=rows), expected)


@pytest.mark.parametrize("native", [True, False] if native_halves() else [False])
@pytest.mark.parametrize("at_end", [False, True])
def test_random_binary16_products_stay_inside_their_buffers(native, at_end):
    random = np.random.default_rng([native, at_end, 16])
    for _ in range(6):
        rows, columns, tokens = (int(random.integers(1, most)) for most in (20, 150, 200))
        kept = np.repeat(random.random((-(-rows // 4), columns)) < random.random(), 4, axis=0)[:rows]
        packed = pack_half(random.normal(size=(rows, columns)).astype(np.float16), kept)
        weights = replace(
            packed, **{name: guarded(getattr(packed, name), at_end) for name in ("values", "offsets", "pointers")}
        )
        panels = half_panels(random.normal(size=(tokens, columns)).astype(np.float16))
        expected = HalfProduct(packed, native=native).run(panels)
        out = guarded(np.zeros(expected.shape, np.float32), at_end, 64)
        HalfProduct(weights, native=native).run(guarded(panels, at_end, 64), out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("level", [level for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE) if runs(level)])
@pytest.mark.parametrize("at_end", [False, True])
def test_random_group_quantized_products_stay_inside_their_buffers(level, at_end):
    random = np.random.default_rng([list(Level).index(level), at_end, 7])
    for turn in range(12):
        rows, columns, tokens = (int(random.integers(1, most)) for most in (50, 200, 7))
        bits = int(random.choice([2, 3, 4, 8]))
        top = (1 << bits) - 1
        group_size = int(random.choice([8, 32, 40, 64]))
        grid = (rows, -(-columns // group_size))
        tensor = QuantTensor(
            codes=random.integers(0, top + 1, (rows, columns)).astype(np.int16),
            format=get_format(f"uint{bits}"),
            row_scales=np.ones(rows, np.float32),
            group_size=min(group_size, columns),
            group_multipliers=random.integers(1, 256, grid).astype(np.uint16) if group_size < columns else None,
            zero_points=random.integers(0, top + 1, grid).astype(np.int16) if turn % 2 else None,
        )
        weights = LaneWeights.from_packed(pack(tensor, Lanes16.of(tensor.spec)))
        weights = replace(
            weights,
            values=guarded(weights.values, at_end, 64),
            multipliers=guarded(weights.multipliers, at_end),
            zeros=guarded(weights.zeros, at_end),
        )
        codes = random.integers(-127, 128, (tokens, columns)).astype(np.int8)
        integers, outliers = tensor.integers(), None
        if turn % 3 == 0:
            mask = random.random((rows, columns)) < 0.1
            extra = np.where(mask, random.integers(-999, 1000, mask.shape), 0)
            integers = integers + extra
            outliers = OutlierWeights(
                rows=rows,
                columns=columns,
                pointers=guarded(np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.uint32), at_end),
                inputs=guarded(np.nonzero(mask)[1].astype(np.uint16), at_end),
                values=guarded(extra[mask].astype(np.int16), at_end),
            )
        result = MatrixVector(weights, outliers=outliers, level=level).run(guarded(codes, at_end))
        np.testing.assert_array_equal(result, codes.astype(np.int64) @ integers.T)


@pytest.mark.parametrize("level", [level for level in (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE) if runs(level)])
@pytest.mark.parametrize("at_end", [False, True])
def test_random_group_sparse_products_stay_inside_their_buffers(level, at_end):
    random = np.random.default_rng([list(Level).index(level), at_end, 11])
    for turn in range(16):
        rows, groups, tokens = (int(random.integers(1, most)) for most in (40, 12, 20))
        width, bits = int((16, 16, 48, 32)[turn % 4]), 4 if turn % 8 < 6 else 8
        columns, shape = width * groups, (rows, groups)
        tensor = QuantTensor(
            codes=random.integers(0, 16, (rows, columns)).astype(np.int16),
            format=get_format(f"uint{bits}"),
            row_scales=np.ones(rows, np.float32),
            group_size=width,
            group_multipliers=random.integers(1, 256, shape).astype(np.uint16) if groups > 1 else None,
            zero_points=random.integers(0, 16, shape).astype(np.int16) if turn % 2 else None,
            pattern=Block(1, width),
            mask=np.repeat(random.random(shape) < random.random(), width, axis=1),
        )
        weights = GroupWeights.from_packed(pack(tensor, GroupRows(bits)))
        names = ("codes", "groups", "multipliers", "zeros", "pointers", "offsets")
        weights = replace(weights, **{name: guarded(getattr(weights, name), at_end) for name in names})
        codes = random.integers(-127, 128, (tokens, columns)).astype(np.int8)
        result = MatrixVector(weights, level=level).run(guarded(codes, at_end))
        np.testing.assert_array_equal(result, codes.astype(np.int64) @ tensor.integers().T)
