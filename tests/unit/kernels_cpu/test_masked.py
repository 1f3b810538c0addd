"""N:M products, at every level that runs here, against NumPy's int64."""

from dataclasses import replace

import numpy as np
import pytest

from sparsefab.errors import LayoutError
from sparsefab.formats import NM, QuantTensor, Vnni4x4, VnniNM, get_format, pack, parse_pattern
from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.kernels_cpu.expand import native_expansion
from sparsefab.kernels_cpu.features import Level, best_level, runs
from sparsefab.kernels_cpu.panels import aligned_empty, interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import Codes, MaskedWeights, Product, Reals, Sums
from sparsefab.kernels_cpu.threads import available_threads

# What the level's own aligned kernel does with every output is the business of other tests; here it is expanded for.
LEVELS = [
    pytest.param(level, marks=[] if level in (best_level(), Level.PORTABLE, Level.AVX2) and runs(level) else [
        pytest.mark.slow
    ])
    for level in Level
]  # fmt: skip
TOKENS = 70


def tensor_of(pattern, rows, columns, seed=0, full=True):
    """Random codes; not `full` leaves blocks with fewer than N stored weights."""
    random = np.random.default_rng(seed)
    shared = rows // pattern.rows
    rank = random.random((shared, columns // pattern.m, pattern.m)).argsort(axis=2).argsort(axis=2)
    most = pattern.n if full else random.integers(0, pattern.n + 1, (shared, columns // pattern.m, 1))
    return QuantTensor(
        codes=random.integers(-128, 128, (rows, columns)).astype(np.int16),
        format=get_format("int8"),
        row_scales=np.ones(rows, np.float32),
        group_size=columns,
        pattern=pattern,
        mask=np.repeat((rank < most).reshape(shared, columns), pattern.rows, axis=0),
    )


def weights_of(tensor):
    return MaskedWeights.from_packed(pack(tensor, VnniNM()))


def codes_of(columns, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (TOKENS, columns)).astype(np.uint8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("2:4", 20, 52), ("4:8", 33, 72), ("8:16", 7, 48), ("1:4", 8, 20), ("0:4", 4, 8), ("8:16 pairs", 6, 1040)],
)
def test_sums_equal_numpy(level, name, rows, columns):
    codes = codes_of(columns)
    for full in (True, False):
        tensor = tensor_of(parse_pattern(name), rows, columns, full=full)
        product = Product(weights_of(tensor), Sums(), zero_point=9, level=level, emulate=True)
        expected = (codes.astype(np.int64) - 9) @ tensor.integers().T
        for width in (64, 16, 1):
            result = product.run(interleaved(panels_of(codes, width=width)))
            np.testing.assert_array_equal(rows_of(result, tokens=TOKENS, outputs=rows), expected)


@pytest.mark.parametrize("width", [64, 16, 1])
@pytest.mark.parametrize("kind", ["u8", "table", "f32"])
def test_every_epilogue_follows(kind, width):
    tensor, codes, random = tensor_of(NM(2, 4), 24, 52), codes_of(52), np.random.default_rng(3)
    sums = (codes.astype(np.int64) - 9) @ tensor.integers().T
    panels = interleaved(panels_of(codes, width=width))
    if kind == "f32":
        scales, skip = random.random(24, np.float32), aligned_empty((len(panels), 24, width), np.float32)
        skip.fill(0.5)
        product = Product(weights_of(tensor), Reals(row_scales=scales, residual=True, statistics=True), zero_point=9)
        statistics = aligned_empty((3, len(panels) * width), np.float32)
        result = product.run(panels, residual=skip, statistics=statistics)
        expected = sums.astype(np.float32) * scales + np.float32(0.5)
        np.testing.assert_array_equal(statistics[0, :TOKENS], expected[:, 0])
    else:
        requantizer = Requantizer.of(np.exp(random.normal(-8, 2, 24)), 100, 0, 255)
        table = random.permutation(256).astype(np.uint8) if kind == "table" else None
        result = Product(weights_of(tensor), Codes(requantizer=requantizer, table=table), zero_point=9).run(panels)
        expected = requantize(sums, requantizer) if table is None else table[requantize(sums, requantizer)]
    np.testing.assert_array_equal(rows_of(result, tokens=TOKENS, outputs=24), expected)


@pytest.mark.parametrize("width", [64, 1])
def test_threads_expand_in_rooms_of_their_own(width):
    tensor = tensor_of(NM(2, 4), 400, 64)
    codes = codes_of(64)
    product = Product(weights_of(tensor), Sums())
    result = product.run(interleaved(panels_of(codes, width=width)), threads=min(2, available_threads()))
    expected = codes.astype(np.int64) @ tensor.integers().T
    np.testing.assert_array_equal(rows_of(result, tokens=TOKENS, outputs=400), expected)


@pytest.mark.skipif(not native_expansion(best_level()), reason="needs AVX512-VNNI and VBMI2")
def test_few_tokens_take_narrow_panels():
    product = Product(weights_of(tensor_of(NM(2, 4), 8, 16)), Sums())
    assert [product.width(tokens) for tokens in (1, 5, 6, 32, 33, 200)] == [1, 1, 16, 16, 64, 64]
    assert Product(product.weights, Sums(), level=Level.PORTABLE).width(1) == 64


def test_half_of_the_weights_take_five_eighths_of_the_bytes():
    tensor = tensor_of(NM(2, 4), 64, 1024)
    assert weights_of(tensor).nbytes == 64 * 1024 * 5 / 8 + 8


def test_what_does_not_fit_is_refused():
    tensor = tensor_of(NM(2, 4), 8, 32)
    with pytest.raises(LayoutError, match="reads the layout vnni-nm, not vnni-4x4"):
        MaskedWeights.from_packed(pack(tensor, Vnni4x4()))
    weights = weights_of(tensor)
    with pytest.raises(LayoutError, match="32 bits a tile"):
        replace(weights, masks=weights.masks << np.uint64(1))
    for name in ("values", "masks"):
        with pytest.raises(LayoutError, match=f"section {name} must be C-contiguous"):
            replace(weights, **{name: getattr(weights, name)[:-1]})
    wide = tensor_of(NM(2, 4), 8, 32)
    packed = pack(wide, VnniNM())
    with pytest.raises(LayoutError, match="masks"):
        MaskedWeights.from_packed(replace(packed, sections={"values": packed.sections["values"]}))
