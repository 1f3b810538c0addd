"""Block formats against the OCP text and NVIDIA's recipe, written here anew in rational arithmetic."""

from fractions import Fraction
from math import floor, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.errors import FormatError
from sparsefab.formats import BlockFormat, IntFormat, get_format

MX = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8"]
BLOCKS = {name: fmt for name in [*MX, "nvfp4"] if isinstance(fmt := get_format(name), BlockFormat)}
# OCP Microscaling Formats v1.0, table 1 and section 5.3: largest exponent and largest value of each element
EMAX = {"mxfp8_e4m3": 8, "mxfp8_e5m2": 15, "mxfp6_e3m2": 4, "mxfp6_e2m3": 2, "mxfp4": 2, "mxint8": 0}
LARGEST = {"mxfp8_e4m3": 448, "mxfp8_e5m2": 57344, "mxfp6_e3m2": 28, "mxfp6_e2m3": 7.5, "mxfp4": 6,
           "mxint8": Fraction(127, 64)}  # fmt: skip
MANTISSA = {"mxfp8_e4m3": 3, "mxfp8_e5m2": 2, "mxfp6_e3m2": 2, "mxfp6_e2m3": 3, "mxfp4": 1}
LEAST_NORMAL = {"mxfp8_e4m3": -6, "mxfp8_e5m2": -14, "mxfp6_e3m2": -2, "mxfp6_e2m3": 0, "mxfp4": 0}


def floor_log2(value: Fraction) -> int:
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if value >= Fraction(2) ** exponent else exponent - 1


def round_element(value: Fraction, name: str) -> Fraction:
    """Round to the element's precision, ties to even, then clamp: rational arithmetic and no codes at all."""
    base = name.partition("-")[0]
    if base == "mxint8":
        step = Fraction(1, 64)
    elif value == 0:
        return value
    else:
        step = Fraction(2) ** (max(floor_log2(abs(value)), LEAST_NORMAL[base]) - MANTISSA[base])
    rounded = round(value / step) * step  # round() of a Fraction takes ties to even
    return min(max(rounded, -Fraction(LARGEST[base])), Fraction(LARGEST[base]))


def ocp_block(values: list[float], name: str) -> list[Fraction]:
    """One MX block as OCP section 6.3 converts it: shared exponent floor(log2 max) - emax, elements rounded."""
    base = name.partition("-")[0]
    exact = [Fraction(v) for v in values]
    peak = max(abs(v) for v in exact)
    if peak == 0:
        return [Fraction(0)] * len(values)
    exponent = floor_log2(peak) - EMAX[base]
    if "-up" in name and peak > LARGEST[base] * Fraction(2) ** exponent:
        exponent += 1
    scale = Fraction(2) ** min(max(exponent, -127), 127)
    return [round_element(v / scale, name) * scale for v in exact]


def decoded(fmt: BlockFormat, codes: np.ndarray, scales: np.ndarray) -> list[list[Fraction]]:
    """Element times scale, exactly."""
    return [
        [
            Fraction(float(v)) * Fraction(float(fmt.scale.decode(scales[r])[i // fmt.block_size]))
            for i, v in enumerate(fmt.decode(codes[r]))
        ]
        for r in range(len(codes))
    ]


def samples(seed: int, columns: int) -> np.ndarray:
    """Rows of several magnitudes, with outliers, zeros, ties, powers of two and saturating block maxima."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (12, columns)) * np.exp2(rng.integers(-20, 20, (12, 1)))
    x[1] = rng.integers(-64, 65, columns) / 16
    x[2] = np.exp2(rng.integers(-10, 10, columns)) * rng.choice([-1, 1], columns)
    x[3] = 0
    x[4, :32] = 0
    x[5] = rng.choice([1.75, 1.9375, 1.96875, 1.98, 1.9999, -1.9999, 0.01], columns)
    x[6] = rng.normal(0, 1, columns) * np.exp2(-140.0)
    x[7] = rng.normal(0, 1, columns) * np.exp2(126.0)
    return x.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", [*MX, *(f"{name}-up" for name in MX)])
@pytest.mark.parametrize("columns", [64, 45])
def test_mx_is_the_specification(name: str, columns: int) -> None:
    fmt = get_format(name)
    assert isinstance(fmt, BlockFormat)
    assert fmt.max_value == LARGEST[name.partition("-")[0]]
    assert fmt.emax == EMAX[name.partition("-")[0]]
    for seed in range(3):
        x = samples(seed, columns)
        codes, scales = fmt.quantize(x)
        assert scales.shape == (12, -(-columns // 32))
        for row, got in zip(x, decoded(fmt, codes, scales), strict=True):
            wanted = [v for start in range(0, columns, 32) for v in ocp_block(row[start : start + 32].tolist(), name)]
            assert got == wanted


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp4", "mxint8"])
def test_rounding_up_saturates_nothing_and_costs_at_most_a_bit(name: str) -> None:
    x = samples(9, 256)[[0, 1, 5]]
    low, high = get_format(name), get_format(f"{name}-up")
    assert isinstance(low, BlockFormat)
    assert isinstance(high, BlockFormat)
    _, floors = low.quantize(x)
    _, ups = high.quantize(x)
    assert set((ups.astype(int) - floors).ravel().tolist()) == {0, 1}
    saturated = np.repeat(ups > floors, 32, axis=1)
    peaks = np.abs(x).reshape(3, -1, 32).max(axis=2) / high.scale.decode(ups)
    assert peaks.max() <= high.max_value
    assert (np.abs(x).reshape(3, -1, 32).max(axis=2) / low.scale.decode(floors) > low.max_value).sum() > 0
    assert saturated.any()


@pytest.mark.parametrize("name", MX)
def test_rounding_up_keeps_a_scale_that_just_holds_the_largest(name: str) -> None:
    """The largest element times a power of two is held as it is; the next float32 above wants the next power."""
    fmt = get_format(f"{name}-up")
    assert isinstance(fmt, BlockFormat)
    for exponent in (-20, 0, 7):
        peak = np.float32(float(LARGEST[name]) * 2.0**exponent)
        above = np.nextafter(peak, np.float32(np.inf))
        assert fmt.quantize(np.array([[peak]]))[1].tolist() == [[127 + exponent]]
        assert fmt.quantize(np.array([[above]]))[1].tolist() == [[128 + exponent]]


@pytest.mark.parametrize("name", [*sorted(BLOCKS), "mxfp4-up", "mxint4", "nvfp4-row", "mxfp8_e4m3-up-b16"])
def test_array_twin_equals_scalar_specification(name: str) -> None:
    fmt = get_format(name)
    assert isinstance(fmt, BlockFormat)
    x = samples(4, 40)[:, :40]
    if not fmt.is_mx:
        x = x / np.where(np.abs(x).max(axis=1, keepdims=True) > 0, np.abs(x).max(axis=1, keepdims=True), 1) * 2000
    codes, scales = fmt.quantize(x)
    for row in range(len(x)):
        for block in range(fmt.blocks(40)):
            part = slice(block * fmt.block_size, min((block + 1) * fmt.block_size, 40))
            spec_codes, spec_scale = fmt.quantize_block_scalar(x[row, part].tolist())
            assert codes[row, part].tolist() == spec_codes
            assert scales[row, block] == spec_scale


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_float32_block(values: list[float]) -> None:
    for name in MX:
        fmt = get_format(name)
        assert isinstance(fmt, BlockFormat)
        codes, scales = fmt.quantize(np.array([values]))
        assert decoded(fmt, codes, scales)[0] == ocp_block(values, name)


def test_nvfp4_is_the_recipe() -> None:
    """s = max / (6 * 448); block scale = E4M3(max / 6 / s); element = E2M1(x / s / block scale)."""
    x = samples(5, 64)[[0, 1, 2, 5]].astype(np.float32)
    levels = [Fraction(v) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]
    for name in ("nvfp4", "nvfp4-row"):
        fmt = get_format(name)
        assert isinstance(fmt, BlockFormat)
        outer = fmt.outer_scales(x)
        peak = np.abs(x).max(axis=1) if fmt.row_scales else np.full(4, np.abs(x).max())
        np.testing.assert_array_equal(outer, (peak / np.float32(2688)).astype(np.float32))
        scaled = x / outer[:, None]
        codes, scales = fmt.quantize(scaled)
        assert scales.max() <= 0x7E
        assert fmt.scale.decode(scales).max() == 448
        for r in range(4):
            for b in range(4):
                block = [Fraction(float(v)) for v in scaled[r, 16 * b : 16 * b + 16]]
                scale = Fraction(float(fmt.scale.decode(scales[r, b])))
                wanted = max(abs(v) for v in block) / 6
                near = min(abs(wanted - Fraction(float(v))) for v in fmt.scale.decode(np.arange(0x7F)))
                assert abs(wanted - scale) == near
                got = [Fraction(float(v)) for v in fmt.decode(codes[r, 16 * b : 16 * b + 16])]
                for value, element in zip(block, got, strict=True):
                    quotient = abs(value) / scale if scale else Fraction(0)
                    assert abs(min(quotient, Fraction(6)) - abs(element)) == min(
                        abs(min(quotient, Fraction(6)) - level) for level in levels
                    )
        _, shifts, largest = fmt.split_scales(scales, np.zeros(scales.shape, bool))
        assert not shifts.any()
        assert not largest.any()
        multipliers, _, _ = fmt.split_scales(scales, np.zeros(scales.shape, bool))
        assert int(multipliers.max()).bit_length() == 18  # 448 on the grid of 2^-9
        np.testing.assert_array_equal(multipliers * 2.0**fmt.scale_exponent, fmt.scale.decode(scales))


def test_silent_blocks_have_no_say() -> None:
    fmt = get_format("mxfp4")
    assert isinstance(fmt, BlockFormat)
    scales = np.array([[130, 127, 120], [200, 127, 120], [9, 8, 7]], np.uint8)
    silent = np.array([[False, False, False], [True, False, False], [True, True, True]])
    multipliers, shifts, largest = fmt.split_scales(scales, silent)
    assert shifts.tolist() == [[0, 3, 10], [0, 0, 7], [0, 0, 0]]
    assert largest.tolist() == [3, 0, 0]
    assert (multipliers == 1).all()


@pytest.mark.parametrize("rounding", ["toward-zero", "stochastic"])
def test_elements_take_every_rounding(rounding: str) -> None:
    fmt = get_format("mxfp6_e2m3")
    assert isinstance(fmt, BlockFormat)
    x = samples(6, 64)[:6]
    bits = np.random.default_rng(0).integers(0, 1 << 16, x.shape, dtype=np.uint16)
    codes, scales = fmt.quantize(x, rounding, bits)
    steps = np.repeat(fmt.scale.decode(scales), 32, axis=1)
    np.testing.assert_array_equal(codes, fmt.element.encode(x / steps, rounding, bits))
    if rounding == "toward-zero":
        assert (np.abs(fmt.decode(codes) * steps) <= np.abs(x)).all()


@pytest.mark.parametrize(
    "name",
    [
        *sorted(BLOCKS),
        "mxfp8_e4m3-up",
        "mxfp4-f8",
        "mxint4",
        "mxint8-up-f3-b64",
        "mxfp6_e1m4",
        "nvfp4-row",
        "nvfp4-b32",
    ],
)
def test_names_are_read_back(name: str) -> None:
    fmt = get_format(name)
    assert fmt.name == name
    assert get_format(fmt.name) == fmt


def test_default_fraction_bits_follow_the_grid() -> None:
    found = {name: fmt.fraction_bits for name, fmt in BLOCKS.items()}
    assert found == {"mxfp8_e4m3": 8, "mxfp8_e5m2": 0, "mxfp6_e3m2": 16, "mxfp6_e2m3": 16, "mxfp4": 16, "mxint8": 16,
                     "nvfp4": 0}  # fmt: skip


def test_integer_elements_have_ocp_s_scale() -> None:
    """INT8: an implied scale of 2^-6, so that 64 is 1.0; -128 is left unused, as the specification allows."""
    fmt = get_format("mxint8")
    assert isinstance(fmt, BlockFormat)
    assert isinstance(fmt.element, IntFormat)
    assert fmt.decode(np.array([64, -127])).tolist() == [1.0, -127 / 64]
    codes, scales = fmt.quantize(np.array([[-1.999, 1.0]]))
    assert codes.tolist() == [[-127, 64]]
    assert scales.tolist() == [[127]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mxfp8_e3m2", "6 bits, not 8"),
        ("mxfp4-f40", "fraction_bits must be 0 to 32, not 40"),
        ("mxfp4-b0", "block_size must be positive"),
        ("mxint1", "signed"),
        ("mxfp12_e8m3", "63 bits"),
        ("nvfp4-up", "power-of-two"),
        ("mxfp4-row", "row_scales must be False"),
        ("mxfp5", "unknown number format"),
    ],
)
def test_impossible_block_formats_are_refused(name: str, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        get_format(name)


def test_nan_is_refused() -> None:
    fmt = get_format("mxfp4")
    assert isinstance(fmt, BlockFormat)
    with pytest.raises(ValueError, match="NaN or infinite"):
        fmt.quantize(np.array([[1.0, np.nan]]))


def test_the_oracle_s_logarithm() -> None:
    for value in (Fraction(1, 3), Fraction(1), Fraction(7, 4), Fraction(2) ** -130, Fraction(3) * 2**90):
        assert floor_log2(value) == floor(log2(value))
