"""Blocks that share a scale: OCP MX and NVFP4, and what their scales mean in a sum.

    MX       real = 2^e * element            e: E8M0, a byte a block of 32; no scale above it
    NVFP4    real = s * m * element          m: E4M3, a byte a block of 16; s: float32, one a tensor or one a row

Inside a block the sum S of products is exact on the formats' fixed-point grids. A segment is what lies in one block (or
group) of the weights and in one of the activations. Across segments

    acc  = sum over segments of floor(m_w * m_x * S * 2^(F - d_w - d_x))
    real = acc * 2^(grid exponents - F) * row scale * token scale

    m    1 for MX. NVFP4: the E4M3 scale on its grid of 2^-9, an unsigned integer of 18 bits: just the group multiplier
         of the integer formats, so that nothing is lost across its blocks.
    d    0 but for MX: the largest exponent of the row (of the token) less that of the block; 2^largest is the row scale
         (the token scale). A block whose elements are all zero has no say in the largest, and its d is 0; where there
         is no other block, the largest is 0.
    F    fraction bits: of the weights' format where that is MX, else of the activations'. The shift is arithmetic, so
         the result does not depend on the order of segments, and |acc| <= segments * max|S| * 2^F. A shift to the right
         by 63 or more is one by 63.

F is 16 unless named (`mxfp4-f8`), less a bit for each that the elements' own grid has beyond 11 (mxfp8_e4m3: 8,
mxfp8_e5m2: 0): there the block sums carry such bits themselves.

The exponent of an MX block is floor(log2 max|x|) - emax as in the specification (microxcaling, Brevitas), by which the
largest elements may saturate, or with `-up` the least one by which none does (as NVIDIA CUDA can round it).
Sources: OCP Microscaling Formats v1.0, sections 5 and 6; NVIDIA, "Introducing NVFP4" (2025).
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError
from sparsefab.formats.decode import DecodeTable, FixedPoint
from sparsefab.formats.floats import FloatFormat, Specials
from sparsefab.formats.ints import IntFormat, Rounding

__all__ = ["E4M3_SCALE", "E8M0", "BlockFormat", "ScaleRounding", "block_format", "default_fraction_bits"]

ScaleRounding = Literal["floor", "up"]
E8M0 = FloatFormat(exponent_bits=8, mantissa_bits=0, specials="fn", signed=False, zero=False)
E4M3_SCALE = FloatFormat(exponent_bits=4, mantissa_bits=3, specials="fn")  # the sign is never set
MX_BLOCK, NVFP4_BLOCK = 32, 16
MOST_FRACTION_BITS = 32
_PLAIN_GRID_BITS, _PLAIN_FRACTION_BITS = 11, 16

_NAME = re.compile(r"(mxint(\d+)|mxfp4|mxfp(\d+)_e(\d+)m(\d+)|nvfp4)(-row)?(-up)?(?:-f(\d+))?(?:-b(\d+))?")
_MX_SPECIALS: dict[tuple[int, int], Specials] = {(4, 3): "fn", (5, 2): "ieee"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """Elements in blocks that share a scale.

    Parameters
    ----------
    element : IntFormat | FloatFormat   Signed. An integer of b bits stands for code * 2^(2 - b), as OCP's INT8.
    scale : FloatFormat                 E8M0 (powers of two: MX) or a float with a zero (NVFP4: E4M3).
    block_size : int                    Elements along the input axis; the last block of a row may be short.
    scale_rounding : 'floor' | 'up'     MX.
    fraction_bits : int                 F, 0 to 32; MX.
    row_scales : bool                   NVFP4: one float32 a row; else one a tensor.
    """

    element: IntFormat | FloatFormat
    scale: FloatFormat
    block_size: int
    scale_rounding: ScaleRounding = "floor"
    fraction_bits: int = 0
    row_scales: bool = False

    def __post_init__(self) -> None:
        if not self.element.signed or self.element.bits < 2 or self.element.decode_table().wide:
            raise FormatError(f"block elements are signed and fit 63 bits in fixed point, not {self.element.name}")
        if self.block_size < 1:
            raise FormatError(f"block_size must be positive, not {self.block_size}")
        if self.scale_rounding not in ("floor", "up"):
            raise FormatError(f"scale_rounding must be 'floor' or 'up', not {self.scale_rounding!r}")
        if not 0 <= self.fraction_bits <= MOST_FRACTION_BITS:
            raise FormatError(f"fraction_bits must be 0 to {MOST_FRACTION_BITS}, not {self.fraction_bits}")
        if self.is_mx and self.row_scales:
            raise FormatError("MX has no scale above the blocks' own, so row_scales must be False")
        if not self.is_mx and (self.scale_rounding != "floor" or self.fraction_bits):
            raise FormatError("scale_rounding and fraction_bits belong to power-of-two scales")

    @property
    def is_mx(self) -> bool:
        """Whether scales are powers of two."""
        return not self.scale.zero

    @property
    def name(self) -> str:
        """mxfp8_e4m3, mxint8, mxfp4, nvfp4, with -row, -up, -f<fraction bits>, -b<block size> where not the default."""
        element, bits = self.element, self.element.bits
        if isinstance(element, IntFormat):
            base = f"mxint{bits}"
        elif not self.is_mx:
            base = "nvfp4"
        else:
            base = "mxfp4" if bits == 4 else f"mxfp{bits}_e{element.exponent_bits}m{element.mantissa_bits}"
        up = "-up" if self.scale_rounding == "up" else ""
        default = default_fraction_bits(element) if self.is_mx else 0
        fraction = "" if self.fraction_bits == default else f"-f{self.fraction_bits}"
        block = "" if self.block_size == (MX_BLOCK if self.is_mx else NVFP4_BLOCK) else f"-b{self.block_size}"
        return f"{base}{'-row' if self.row_scales else ''}{up}{fraction}{block}"

    # what an element is: as any number format

    @property
    def bits(self) -> int:
        """Stored bits of an element's code."""
        return self.element.bits

    @property
    def signed(self) -> bool:
        """Elements are signed."""
        return True

    @property
    def element_exponent(self) -> int:
        """Power of two by which an element's value is that of its code: 2 - b for integers, else 0."""
        return 2 - self.element.bits if isinstance(self.element, IntFormat) else 0

    @property
    def max_value(self) -> float:
        """Largest element."""
        return float(np.ldexp(self.element.max_value, self.element_exponent))

    @property
    def emax(self) -> int:
        """Exponent of the largest element."""
        return int(np.frexp(self.max_value)[1]) - 1

    def encode(self, values: NDArray[np.float64], rounding: Rounding = "nearest-even",
               random_bits: NDArray[np.uint16] | None = None) -> NDArray[np.int32]:  # fmt: skip
        """Encode values that are already divided by their block's scale; out of range saturates."""
        scaled = np.ldexp(np.asarray(values, np.float64), -self.element_exponent)
        return self.element.encode(scaled, rounding, random_bits)

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return elements, without their block's scale."""
        decoded: NDArray[np.float64] = np.ldexp(self.element.decode(codes), self.element_exponent)
        return decoded

    def to_pattern(self, codes: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Return the bit patterns that are stored."""
        return self.element.to_pattern(codes)

    def from_pattern(self, patterns: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return codes from stored bit patterns."""
        return self.element.from_pattern(patterns)

    def decode_table(self) -> DecodeTable:
        """Element of every bit pattern."""
        table = self.element.decode_table()
        exponent = (table.exponent + self.element_exponent).astype(np.int32)
        return DecodeTable(significand=table.significand, exponent=exponent, finite=table.finite)

    def fixed_point(self) -> FixedPoint:
        """Element of every bit pattern on their common grid."""
        grid = self.element.fixed_point()
        return FixedPoint(values=grid.values, exponent=grid.exponent + self.element_exponent)

    # blocks

    def blocks(self, columns: int) -> int:
        """Blocks of a row."""
        return -(-columns // self.block_size)

    def outer_scales(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """NVFP4's float32[rows] above the blocks of [rows, columns]: the largest block scale takes the largest E4M3."""
        if self.is_mx:
            raise FormatError(f"{self.name} has no scale above the blocks' own")
        peak = np.abs(values).max(axis=1, initial=0).astype(np.float32)
        if not self.row_scales:
            peak = np.full_like(peak, peak.max(initial=0))
        scales = peak / np.float32(self.max_value * self.scale.max_value)
        return np.where(scales > 0, scales, np.float32(1)).astype(np.float32)

    def quantize(
        self,
        values: NDArray[np.floating],
        rounding: Rounding = "nearest-even",
        random_bits: NDArray[np.uint16] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Quantize finite values that are already divided by NVFP4's outer scale.

        Parameters
        ----------
        values : float[rows, columns]
        rounding, random_bits           Of the elements; random_bits uint16[rows, columns].

        Returns
        -------
        codes : int32[rows, columns]
        scales : uint8[rows, blocks]    Scale codes.
        """
        x = np.asarray(values, np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"{self.name}: a value is NaN or infinite")
        rows, columns = x.shape
        padded = np.pad(np.abs(x), ((0, 0), (0, self.blocks(columns) * self.block_size - columns)))
        scales = self._scale_codes(padded.reshape(rows, -1, self.block_size).max(axis=2, initial=0))
        steps = np.repeat(self.scale.decode(scales), self.block_size, axis=1)[:, :columns]
        quotients = np.divide(x, steps, out=np.zeros_like(x), where=steps > 0)
        return self.encode(quotients, rounding, random_bits), scales.astype(np.uint8)

    def _scale_codes(self, peaks: NDArray[np.float64]) -> NDArray[np.int32]:
        """Scale codes of blocks by their largest magnitude."""
        if not self.is_mx:
            return self.scale.encode(peaks / self.max_value)
        _, exponent = np.frexp(peaks)
        exponent = exponent - 1 - self.emax
        if self.scale_rounding == "up":
            exponent = exponent + (peaks > np.ldexp(self.max_value, exponent))
        powers = np.where(peaks > 0, np.ldexp(1.0, exponent), 0.0)
        return self.scale.encode(powers)

    def quantize_block_scalar(self, values: list[float]) -> tuple[list[int], int]:
        """Quantize one block in rational arithmetic, nearest-even; the specification of `quantize`."""
        peak = max(abs(Fraction(v)) for v in values)
        if self.is_mx:
            code = 0
            while code < self.scale.max_code and self._exceeds(peak / Fraction(self.scale.decode_scalar(code))):
                code += 1
        else:
            code = self.scale.encode_scalar(float(peak / Fraction(self.max_value)))
        step = Fraction(self.scale.decode_scalar(code)) * Fraction(2) ** self.element_exponent
        quotients = [Fraction(v) / step if step else Fraction(0) for v in values]
        return [self.element.encode_scalar(float(q)) for q in quotients], code

    def _exceeds(self, scaled_peak: Fraction) -> bool:
        """Whether a block with this largest magnitude wants a larger power of two."""
        if self.scale_rounding == "up":
            return scaled_peak > Fraction(self.max_value)
        return scaled_peak >= Fraction(2) ** (self.emax + 1)

    def silent(self, codes: NDArray[np.integer], mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """bool[rows, blocks]: blocks of codes [rows, columns] whose stored elements are all zero."""
        loud = self.fixed_point().values[self.to_pattern(codes)] != 0
        if mask is not None:
            loud &= mask
        starts = np.arange(0, codes.shape[1], self.block_size)
        result: NDArray[np.bool_] = ~np.logical_or.reduceat(loud, starts, axis=1)
        return result

    def split_scales(
        self, scales: NDArray[np.uint8], silent: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What scale codes mean in a sum.

        Parameters
        ----------
        scales : uint8[rows, blocks]
        silent : bool[rows, blocks]     Blocks whose elements are all zero.

        Returns
        -------
        multipliers : int64[rows, blocks]   m.
        shifts : int64[rows, blocks]        d.
        largest : int64[rows]               The exponent that shifts are counted from; 0 for NVFP4.
        """
        if not self.is_mx:
            grid = self.scale.fixed_point()
            return grid.values[scales], np.zeros(scales.shape, np.int64), np.zeros(len(scales), np.int64)
        exponents = scales.astype(np.int64) - self.scale.exponent_bias
        lowest = -self.scale.exponent_bias - 1
        largest = np.where(silent, lowest, exponents).max(axis=1, initial=lowest)
        largest = np.where(largest == lowest, 0, largest)
        return np.ones(scales.shape, np.int64), np.where(silent, 0, largest[:, None] - exponents), largest

    @property
    def scale_exponent(self) -> int:
        """Exponent of the grid of multipliers: -9 for NVFP4, 0 for MX."""
        return 0 if self.is_mx else self.scale.fixed_point().exponent


def default_fraction_bits(element: IntFormat | FloatFormat) -> int:
    """F where none is named: 16, less a bit for each that the element's grid has beyond 11."""
    bits = element.decode_table().largest.bit_length() + 1
    return min(max(_PLAIN_FRACTION_BITS + _PLAIN_GRID_BITS - bits, 0), _PLAIN_FRACTION_BITS)


def block_format(name: str) -> BlockFormat | None:
    """Read a block format's name, None if it is none.

    Raises
    ------
    FormatError                     If it names an impossible one.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    fraction, block = match[8], match[9]
    if match[1] == "nvfp4":
        if match[7] or fraction:
            raise FormatError("-up and -f belong to the power-of-two scales of MX")
        return BlockFormat(
            element=FloatFormat(exponent_bits=2, mantissa_bits=1),
            scale=E4M3_SCALE,
            block_size=NVFP4_BLOCK if block is None else int(block),
            row_scales=bool(match[6]),
        )
    element: IntFormat | FloatFormat
    if match[2]:
        element = IntFormat(bits=int(match[2]), symmetric=True)
    else:
        exponent, mantissa = (int(match[4]), int(match[5])) if match[3] else (2, 1)
        specials: Specials = _MX_SPECIALS.get((exponent, mantissa), "none")
        element = FloatFormat(exponent_bits=exponent, mantissa_bits=mantissa, specials=specials)
        if match[3] and element.bits != int(match[3]):
            raise FormatError(f"e{exponent}m{mantissa} has {element.bits} bits, not {match[3]}")
    return BlockFormat(
        element=element,
        scale=E8M0,
        block_size=MX_BLOCK if block is None else int(block),
        scale_rounding="up" if match[7] else "floor",
        fraction_bits=default_fraction_bits(element) if fraction is None else int(fraction),
        row_scales=bool(match[6]),
    )
