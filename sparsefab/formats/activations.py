"""Activations as codes: dynamic with one scale a token, or static with one scale and zero point a tensor."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.catalog import Format
from sparsefab.formats.ints import IntFormat

__all__ = ["ActivationCodes", "StaticScale", "quantize_dynamic", "quantize_static"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationCodes:
    """Quantized activations: real = token_scale * integers.

    codes : int32[tokens, in]               Integers, or bit patterns of a minifloat.
    integers : int32 or int64[tokens, in]   Fixed-point value of the code, less the zero point.
    token_scales : float32[tokens]          The power of two of the format's grid included.
    """

    format: Format
    codes: NDArray[np.int32]
    integers: NDArray[np.int32] | NDArray[np.int64]
    token_scales: NDArray[np.float32]
    zero_point: int

    @property
    def patterns(self) -> NDArray[np.uint16]:
        """uint16[tokens, in]: what a decode table is indexed with."""
        return self.format.to_pattern(self.codes)

    def rows(self, chosen: NDArray[np.intp]) -> "ActivationCodes":
        """Some of the tokens."""
        return replace(
            self, codes=self.codes[chosen], integers=self.integers[chosen], token_scales=self.token_scales[chosen]
        )

    def columns(self, part: slice) -> "ActivationCodes":
        """Some of the inputs."""
        return replace(self, codes=self.codes[:, part], integers=self.integers[:, part])


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
    where all is zero the scale is 1.

    tokens_per_scale : int          Consecutive tokens that share a scale; a convolution's pixels of one image do.

    Raises
    ------
    ValueError                      If an activation is NaN or infinite, or the tokens do not divide.
    """
    if len(x) % tokens_per_scale:
        raise ValueError(f"{len(x)} tokens do not divide into {tokens_per_scale} a scale")
    peak = np.abs(x).max(axis=1, initial=0.0).astype(np.float32)
    if not np.isfinite(peak).all():
        raise ValueError("an activation is NaN or infinite")
    if tokens_per_scale > 1:
        peak = np.repeat(peak.reshape(-1, tokens_per_scale).max(axis=1), tokens_per_scale)
    scales = peak / np.float32(fmt.max_value)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    quotients = x.astype(np.float32, copy=False) / scales[:, None]
    if isinstance(fmt, IntFormat) and fmt.signed:
        # the symmetric range, which keeps DSP chains of 8 exact; rounding a float32 is exact in float32
        np.rint(quotients, out=quotients)
        np.clip(quotients, -fmt.code_max, fmt.code_max, out=quotients)
        codes = quotients.astype(np.int32)
        return ActivationCodes(format=fmt, codes=codes, integers=codes, token_scales=scales, zero_point=0)
    codes = fmt.encode(quotients.astype(np.float64))
    grid = fmt.fixed_point()
    return ActivationCodes(
        format=fmt,
        codes=codes,
        integers=grid.values[fmt.to_pattern(codes)],
        token_scales=np.ldexp(scales, grid.exponent).astype(np.float32),
        zero_point=0,
    )


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
    return ActivationCodes(
        format=fmt,
        codes=codes,
        integers=codes - np.int32(static.zero_point),
        token_scales=np.full(x.shape[0], static.scale, np.float32),
        zero_point=static.zero_point,
    )
