"""Round to nearest: scales from each group's range, codes to the nearest value; optionally the range is clipped.

Symmetric grids put the group's largest magnitude on the format's largest value; unsigned integers span [min, max],
widened to hold 0, with a zero point. Group scales become integer multipliers of a row scale before codes are rounded,
so that the codes are nearest on the grid in use. Clipping tries ranges shrunk by up to 37 % in
twelve steps and keeps, for each group, the one of least squared error. Block formats define their own scales.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import (
    BlockFormat,
    Dense,
    FloatFormat,
    Format,
    IntFormat,
    Pattern,
    QuantTensor,
    group_count,
    multiplier_loss,
    to_multipliers,
)

__all__ = ["METHODS", "round_to_nearest"]

CLIP_STEPS, CLIP_MOST = 12, 0.4
CLIP_ROWS = 64  # rows at a time, so that the trial grids stay in the cache

Floats = NDArray[np.float64]
Quantized = tuple[QuantTensor, float]


def round_to_nearest(
    weights: NDArray[np.float32],
    fmt: Format,
    group_size: int | None = None,
    pattern: Pattern | None = None,
    mask: NDArray[np.bool_] | None = None,
    clip: bool = False,
) -> QuantTensor:
    """Quantize float32[out, in]; weights outside the mask neither count nor are stored.

    Raises
    ------
    ValueError                      If a weight is NaN or infinite.
    """
    return _quantize(weights, fmt, group_size, pattern, mask, clip)[0]


def _quantize(
    weights: NDArray[np.float32],
    fmt: Format,
    group_size: int | None,
    pattern: Pattern | None,
    mask: NDArray[np.bool_] | None,
    clip: bool,
) -> Quantized:
    """The tensor, and the largest relative error that integer multipliers gave a group's scale."""
    if not np.isfinite(weights).all():
        raise ValueError("a weight is NaN or infinite")
    rows, columns = weights.shape
    if isinstance(fmt, BlockFormat):
        return _quantize_blocks(weights, fmt, group_size, pattern, mask, clip), 0.0
    size = columns if group_size is None else group_size
    groups = group_count(columns, size)
    padding = ((0, 0), (0, groups * size - columns))
    kept = weights if mask is None else np.where(mask, weights, 0)
    grouped = np.pad(kept.astype(np.float64), padding).reshape(rows, groups, size)
    low, high = grouped.min(axis=2), grouped.max(axis=2)  # zeros of the padding only widen a range to hold 0
    if clip:
        shrink = _best_shrink(grouped, low, high, fmt)
        low, high = low * shrink, high * shrink
    scales, zero_points = _grid(low, high, fmt)
    multipliers, scale_loss = None, 0.0
    if groups > 1:
        row_scales, multipliers = to_multipliers(scales)
        scale_loss = multiplier_loss(scales, row_scales, multipliers)
        scales = row_scales.astype(np.float64)[:, None] * multipliers
    else:
        row_scales = scales[:, 0].astype(np.float32)
        scales = row_scales.astype(np.float64)[:, None]
    codes = _encode(grouped, scales, zero_points, fmt).reshape(rows, -1)[:, :columns]
    tensor = QuantTensor(
        codes=codes.astype(np.int16),
        format=fmt,
        row_scales=row_scales,
        group_size=size,
        group_multipliers=multipliers,
        zero_points=None if zero_points is None else zero_points.astype(np.int16),
        pattern=Dense() if pattern is None else pattern,
        mask=mask,
    )
    return tensor, scale_loss


def _quantize_blocks(
    weights: NDArray[np.float32],
    fmt: BlockFormat,
    group_size: int | None,
    pattern: Pattern | None,
    mask: NDArray[np.bool_] | None,
    clip: bool,
) -> QuantTensor:
    """Blocks of OCP MX or NVFP4, whose scales the format itself defines."""
    if clip:
        raise ValueError(f"clipping does not apply to {fmt.name}: its scales follow from each block's largest weight")
    if group_size not in (None, fmt.block_size):
        raise ValueError(f"{fmt.name} brings blocks of {fmt.block_size}; leave group_size = {group_size} out")
    kept = weights if mask is None else np.where(mask, weights, np.float32(0))
    outer = None if fmt.is_mx else fmt.outer_scales(kept)
    codes, scales = fmt.quantize(kept if outer is None else kept / outer[:, None])
    return QuantTensor.of_blocks(codes.astype(np.int16), fmt, scales, outer, pattern, mask)


def _grid(low: Floats, high: Floats, fmt: IntFormat | FloatFormat) -> tuple[Floats, NDArray[np.int64] | None]:
    """Scale and zero point [out, groups] of ranges; a group of zeros takes its row's smallest scale, or 1."""
    if isinstance(fmt, IntFormat) and not fmt.signed:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scales = _without_zeros((high - low) / fmt.code_max)
        return scales, np.clip(np.rint(-low / scales), 0, fmt.code_max).astype(np.int64)
    return _without_zeros(np.maximum(-low, high) / fmt.scaled_max), None


def _without_zeros(scales: Floats) -> Floats:
    tiny = np.finfo(np.float32).tiny
    positive = np.where(scales > tiny, scales, np.inf)
    fallback = positive.min(axis=1, keepdims=True)
    return np.where(scales > tiny, scales, np.where(np.isfinite(fallback), fallback, 1.0))


def _encode(grouped: Floats, scales: Floats, zero_points: NDArray[np.int64] | None, fmt: Format) -> NDArray[np.int32]:
    """Codes [out, groups, size] nearest on a grid."""
    x = grouped / scales[:, :, None]
    if not isinstance(fmt, IntFormat):
        return fmt.encode(x)
    np.rint(x, out=x)
    if zero_points is not None:
        x += zero_points[:, :, None]
    # symmetric where signed, also if the format has one more negative code
    return np.clip(x, -fmt.code_max if fmt.signed else 0, fmt.code_max, out=x).astype(np.int32)


def _decode(codes: NDArray[np.int32], scales: Floats, zero_points: NDArray[np.int64] | None, fmt: Format) -> Floats:
    values = fmt.decode(codes)
    if zero_points is not None:
        values = values - zero_points[:, :, None]
    return values * scales[:, :, None]


def _best_shrink(grouped: Floats, low: Floats, high: Floats, fmt: IntFormat | FloatFormat) -> Floats:
    """Factor [out, groups] on each group's range that leaves the least squared error."""
    best = np.ones(low.shape)
    for start in range(0, len(grouped), CLIP_ROWS):
        part = slice(start, start + CLIP_ROWS)
        least = np.full(low[part].shape, np.inf)
        for step in range(CLIP_STEPS):
            shrink = 1 - CLIP_MOST * step / CLIP_STEPS
            scales, zero_points = _grid(low[part] * shrink, high[part] * shrink, fmt)
            codes = _encode(grouped[part], scales, zero_points, fmt)
            error = _decode(codes, scales, zero_points, fmt) - grouped[part]
            squares = np.einsum("rgi,rgi->rg", error, error)
            best[part] = np.where(squares < least, shrink, best[part])
            least = np.minimum(squares, least)
    return best


Method = Callable[[NDArray[np.float32], Format, int | None, Pattern, NDArray[np.bool_] | None], Quantized]


def _method(clip: bool) -> Method:
    def quantize(
        weights: NDArray[np.float32],
        fmt: Format,
        group_size: int | None,
        pattern: Pattern,
        mask: NDArray[np.bool_] | None,
    ) -> Quantized:
        return _quantize(weights, fmt, group_size, pattern, mask, clip)

    return quantize


METHODS: dict[str, Method] = {"rtn": _method(clip=False), "rtn-clip": _method(clip=True)}
