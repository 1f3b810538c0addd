"""Activations as codes: dynamic with one scale a token, or static with one scale and zero point a tensor."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.catalog import Format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.mx import BlockFormat

__all__ = ["ActivationCodes", "StaticScale", "quantize_dynamic", "quantize_static"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationCodes:
    """Quantized activations: real = token_scale * m * 2^-d * integers, m and d 1 and 0 but for block formats.

    codes : int32[tokens, in]               Integers, or bit patterns of a minifloat.
    token_scales : float32[tokens]          The power of two of the format's grid included.
    multipliers, shifts : int64[tokens, blocks]   m and d: see `formats.mx`.
    block_size : int                        Inputs of a block; all of them where there are no blocks.
    """

    format: Format
    codes: NDArray[np.int32]
    token_scales: NDArray[np.float32]
    zero_point: int
    multipliers: NDArray[np.int64]
    shifts: NDArray[np.int64]
    block_size: int

    @property
    def patterns(self) -> NDArray[np.uint16]:
        """uint16[tokens, in]: what a decode table is indexed with."""
        return self.format.to_pattern(self.codes)

    @property
    def integers(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """int32 or int64[tokens, in]: fixed-point value of the code, less the zero point.

        Raises
        ------
        OverflowError                       If the format's grid is wider than an int64; `significands` serves all.
        """
        if isinstance(self.format, IntFormat):
            return self.codes - np.int32(self.zero_point)
        return self.format.fixed_point().values[self.patterns]

    def significands(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return int64[tokens, in] twice: m * (value(code) - zero_point) = significand * 2^shift on the grid."""
        table, patterns = self.format.decode_table(), self.patterns
        values = table.significand[patterns] - self.zero_point
        return values * self.per_input(self.multipliers), table.shifts[patterns]

    def per_input(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Spread a value a block over the inputs: [tokens, blocks] -> int64[tokens, in]."""
        return np.repeat(blocks, self.block_size, axis=1)[:, : self.codes.shape[1]]

    def rows(self, chosen: NDArray[np.intp]) -> "ActivationCodes":
        """Some of the tokens."""
        return replace(
            self,
            codes=self.codes[chosen],
            token_scales=self.token_scales[chosen],
            multipliers=self.multipliers[chosen],
            shifts=self.shifts[chosen],
        )

    def columns(self, part: slice) -> "ActivationCodes":
        """Some of the inputs, of a format without blocks."""
        assert not isinstance(self.format, BlockFormat)
        return replace(self, codes=self.codes[:, part])


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticScale:
    """Calibrated scale and zero point of one tensor: real = scale * (code - zero_point)."""

    scale: float
    zero_point: int

    @staticmethod
    def of_range(low: float, high: float, fmt: IntFormat) -> "StaticScale":
        """Fit an unsigned format to a range that is widened to hold 0, which gets a code of its own."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / (fmt.code_max - fmt.code_min))) or 1.0
        zero_point = int(np.clip(np.rint(fmt.code_min - low / scale), fmt.code_min, fmt.code_max))
        return StaticScale(scale=scale, zero_point=zero_point)


def quantize_dynamic(x: NDArray[np.float32], fmt: Format, tokens_per_scale: int = 1) -> ActivationCodes:
    """Quantize float32[tokens, in] with scales found at run time: max|x| takes the format's largest value.

    The scale is float32(max|x|) / float32(max value), and a code is the nearest to float32(x / scale), ties to even;
    where all is zero the scale is 1. Block formats have scales of their own, see `formats.mx`; a wide format's unit
    takes the place of its largest value.

    tokens_per_scale : int          Consecutive tokens that share a scale; a convolution's pixels of one image do.

    Raises
    ------
    ValueError                      If an activation is NaN or infinite, or the tokens do not divide.
    """
    if len(x) % tokens_per_scale:
        raise ValueError(f"{len(x)} tokens do not divide into {tokens_per_scale} a scale")
    if not np.isfinite(x).all():
        raise ValueError("an activation is NaN or infinite")
    if isinstance(fmt, BlockFormat):
        return _quantize_blocks(x, fmt, tokens_per_scale)
    scales = _token_scales(x, fmt.scaled_max, tokens_per_scale)
    quotients = x.astype(np.float32, copy=False) / scales[:, None]
    if isinstance(fmt, IntFormat) and fmt.signed:
        # the symmetric range, which keeps DSP chains of 8 exact; rounding a float32 is exact in float32
        np.rint(quotients, out=quotients)
        np.clip(quotients, -fmt.code_max, fmt.code_max, out=quotients)
        return _plain(fmt, quotients.astype(np.int32), scales)
    codes = fmt.encode(quotients.astype(np.float64))
    return _plain(fmt, codes, np.ldexp(scales, fmt.decode_table().unit_exponent).astype(np.float32))


def quantize_static(x: NDArray[np.float32], fmt: Format, static: StaticScale) -> ActivationCodes:
    """Quantize float32[tokens, in] with a calibrated scale; out of range saturates.

    Raises
    ------
    ValueError                      If an activation is NaN, or the format is no integer format.
    """
    if not isinstance(fmt, IntFormat):
        raise ValueError(f"static activation scales need an integer format, not {fmt.name}")
    scaled = np.rint(x.astype(np.float32, copy=False) / np.float32(static.scale)) + np.float32(static.zero_point)
    if np.isnan(scaled).any():
        raise ValueError("an activation is NaN")
    codes = np.clip(scaled, fmt.code_min, fmt.code_max).astype(np.int32)
    return _plain(fmt, codes, np.full(x.shape[0], static.scale, np.float32), static.zero_point)


def _token_scales(x: NDArray[np.float32], largest: float, tokens_per_scale: int) -> NDArray[np.float32]:
    """float32[tokens]: max|x| of tokens that share a scale takes `largest`; 1 where all is zero."""
    peak = np.abs(x).max(axis=1, initial=0.0).astype(np.float32)
    if tokens_per_scale > 1:
        peak = np.repeat(peak.reshape(-1, tokens_per_scale).max(axis=1), tokens_per_scale)
    scales = peak / np.float32(largest)
    return np.where(scales > 0, scales, np.float32(1)).astype(np.float32)


def _plain(
    fmt: Format, codes: NDArray[np.int32], token_scales: NDArray[np.float32], zero_point: int = 0
) -> ActivationCodes:
    """Codes without blocks."""
    tokens, columns = codes.shape
    return ActivationCodes(
        format=fmt,
        codes=codes,
        token_scales=token_scales,
        zero_point=zero_point,
        multipliers=np.ones((tokens, 1), np.int64),
        shifts=np.zeros((tokens, 1), np.int64),
        block_size=max(columns, 1),
    )


def _quantize_blocks(x: NDArray[np.float32], fmt: BlockFormat, tokens_per_scale: int) -> ActivationCodes:
    """MX: exponents a block alone. NVFP4: float32(max|x|) / float32(6 * 448) above them, a token."""
    outer = np.ones(len(x), np.float32)
    if not fmt.is_mx:
        outer = _token_scales(x, fmt.max_value * fmt.scale.max_value, tokens_per_scale)
    codes, scales = fmt.quantize(x.astype(np.float32, copy=False) / outer[:, None])
    multipliers, shifts, largest = fmt.split_scales(scales, fmt.silent(codes))
    exponents = largest + fmt.fixed_point().exponent + fmt.scale_exponent
    return ActivationCodes(
        format=fmt,
        codes=codes,
        token_scales=np.ldexp(outer, exponents).astype(np.float32),
        zero_point=0,
        multipliers=multipliers,
        shifts=shifts,
        block_size=fmt.block_size,
    )
