"""What becomes of a product's sums: the three kinds of results, and what each puts into the layer's record."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros

__all__ = ["Codes", "Prepared", "Reals", "Sums", "aligned_dwords", "mean_squares", "moments", "prepared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Results are the exact sums, s32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reals:
    """Results are float32(sum) * row_scale, then * token_scale: two binary32 products.

    Attributes
    ----------
    row_scales : float32[rows]   Finite.
    residual : bool              Add an array given to `run`, a third rounding: the skip connection of a block.
    statistics : bool            Fill an array given to `run` with three sums a token, which `moments` turns into mean
                                 and variance: what LayerNorm needs. Rows must be a multiple of 4.
    squares : bool               Fill it with one sum a token instead, of squares, which `mean_squares` divides: what
                                 RMSNorm needs. Rows likewise.
    """

    row_scales: NDArray[np.float32]
    residual: bool = False
    statistics: bool = False
    squares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codes:
    """Results are 8-bit codes by the house's requantization.

    Attributes
    ----------
    requantizer : Requantizer    Constants of each row, zero point and clamp; see sparsefab.formats.requantize.
    signed : bool                s8 instead of u8.
    interleaved : bool           Store u8 as aligned weights read them: four rows become four consecutive inputs.
    table : uint8[256] | None    What becomes of each code after requantization, by its byte (of s8, code & 255): GELU,
                                 SiLU or any other function of 8 bits, with the scales of both sides in it.
    """

    requantizer: Requantizer
    signed: bool = False
    interleaved: bool = False
    table: NDArray[np.uint8] | None = None


def moments(statistics: NDArray[np.float32], rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance (of the population) a token, float64[tokens] each, from what `run` left behind."""
    first, total, squares = statistics.astype(np.float64)
    return first + total / rows, squares / rows - (total / rows) ** 2


def mean_squares(statistics: NDArray[np.float32], rows: int) -> NDArray[np.float64]:
    """Return the mean of squares a token, float64[tokens], from what `run` left behind for `Reals(squares=True)`."""
    return statistics[0].astype(np.float64) / rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An epilogue as kernels need it.

    Attributes
    ----------
    dtype : type                 Of the results.
    output : Output              What a kernel is compiled for.
    arrays : dict[str, array]    Fields of the layer's record that are addresses, rows filled up to whole groups.
    constants : dict[str, int]   Fields that are numbers.
    """

    dtype: Any
    output: Output
    arrays: dict[str, NDArray[Any]]
    constants: dict[str, int]


def prepared(epilogue: Sums | Reals | Codes, rows: int) -> Prepared:
    """Check an epilogue against the rows of a matrix and bring it into the form that kernels read.

    Raises
    ------
    ValueError, TypeError        If the epilogue is none, or one of its parts has the wrong shape, type or range.
    """
    if isinstance(epilogue, Sums):
        return Prepared(dtype=np.int32, output=Output(kind="s32"), arrays={}, constants={})
    if isinstance(epilogue, Reals):
        scales = _per_row("row_scales", epilogue.row_scales, np.float32, rows)
        if not np.isfinite(scales).all():
            raise ValueError("row_scales must be finite")
        if epilogue.statistics and epilogue.squares:
            raise ValueError("an epilogue leaves statistics or squares behind, not both")
        if (epilogue.statistics or epilogue.squares) and rows % 4:
            raise ValueError(f"statistics need a multiple of 4 rows, not {rows}")
        kind = "squares" if epilogue.squares else "moments" if epilogue.statistics else ""
        output = Output(kind="f32", residual=epilogue.residual, statistics=kind)
        return Prepared(dtype=np.float32, output=output, arrays={"row_scales": scales}, constants={})
    if not isinstance(epilogue, Codes):
        raise TypeError(f"epilogue must be Sums, Reals or Codes, not {type(epilogue).__name__}")
    return _prepared_codes(epilogue, rows)


def _prepared_codes(epilogue: Codes, rows: int) -> Prepared:
    constants = epilogue.requantizer
    least, most = (-128, 127) if epilogue.signed else (0, 255)
    if not least <= constants.code_min <= constants.code_max <= most:
        raise ValueError(f"codes must lie in {least}..{most}, not {constants.code_min}..{constants.code_max}")
    if not least <= constants.zero_point <= most:
        raise ValueError(f"zero_point must be {least} to {most}, not {constants.zero_point}")
    shifts = _per_row("shifts", constants.shifts, np.int32, rows)
    multipliers = _per_row("multipliers", constants.multipliers, np.int32, rows)
    stored = multipliers[:rows]
    if stored.min() < 1 << 14 or stored.max() >= 1 << 15:
        raise ValueError(f"multipliers must be {1 << 14} to {(1 << 15) - 1}, not {stored.min()} to {stored.max()}")
    # Shifts of 32 and more leave 0 of any 32-bit sum, as a multiplier of 0 does; to the left, 16 saturate all but 0.
    multipliers[shifts > 31] = 0
    shifts = np.where(shifts > 31, 1, np.maximum(shifts, -16))
    narrow = aligned_zeros((len(multipliers) + 4,), np.int16)  # a register of the last group's reads eight
    narrow[: len(multipliers)] = multipliers
    arrays: dict[str, NDArray[Any]] = {
        "shifts": aligned_dwords(shifts),
        "multipliers": narrow,
        "shift_lanes": _repeated(shifts, 4, np.int32),
        "multiplier_lanes": _repeated(multipliers, 4, np.int16),
    }
    code, rounding = np.int8 if epilogue.signed else np.uint8, 64 * int(constants.zero_point) + 32
    numbers = {
        "rounding": rounding,
        "rounding_lanes": _dword(rounding, np.int16),
        "code_min": int(constants.code_min),
        "code_max": int(constants.code_max),
        "clamped": int((constants.code_min, constants.code_max) != (least, most)),
        "code_min_lanes": _dword(int(constants.code_min), code),
        "code_max_lanes": _dword(int(constants.code_max), code),
    }
    if epilogue.signed and epilogue.interleaved:
        raise ValueError("interleaved codes are u8")
    if epilogue.table is not None:
        if epilogue.table.dtype != np.uint8 or epilogue.table.shape != (256,):
            raise ValueError(f"table must be uint8[256], not {epilogue.table.dtype} of {epilogue.table.shape}")
        arrays["lookup"] = aligned_empty((256,), np.uint8)
        arrays["lookup"][:] = epilogue.table
    kind = "s8" if epilogue.signed else "interleaved" if epilogue.interleaved else "u8"
    output = Output(kind=kind, lookup=epilogue.table is not None)
    return Prepared(dtype=code, output=output, arrays=arrays, constants=numbers)


def aligned_dwords(values: NDArray[Any]) -> NDArray[np.int32]:
    """Return a copy as int32 on a 64-byte boundary."""
    result: NDArray[np.int32] = aligned_empty(values.shape, np.int32)
    result[:] = values
    return result


def _repeated(values: NDArray[Any], times: int, dtype: Any) -> NDArray[Any]:
    result: NDArray[Any] = aligned_empty((len(values), times), dtype)
    result[:] = values[:, None]
    return result


def _dword(value: int, dtype: Any) -> int:
    """Return the signed number of 32 bits that copies of `value` make."""
    return int(np.full(4 // np.dtype(dtype).itemsize, value, dtype).view(np.int32)[0])


def _per_row(name: str, array: NDArray[Any], dtype: Any, rows: int) -> NDArray[Any]:
    """Return a copy filled up with zeros to whole groups of rows."""
    if array.dtype != dtype or array.shape != (rows,):
        raise ValueError(f"{name} must be {np.dtype(dtype)} of shape {(rows,)}, not {array.dtype} of {array.shape}")
    result = aligned_zeros((-(-rows // 4) * 4,), dtype)
    result[:rows] = array
    return result
