"""A compressed weight matrix as values (`QuantTensor`) and as bytes (`PackedTensor`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError, LayoutError
from sparsefab.formats.catalog import Format, get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.scales import MULTIPLIER_BITS, group_count
from sparsefab.formats.sparsity import BLOCK_N_SIDE, BlockN, Dense, Pattern, parse_pattern

if TYPE_CHECKING:
    from sparsefab.formats.layout import Layout

__all__ = ["PackedTensor", "QuantTensor", "TensorSpec"]

ROW_SCALE_BYTES = 4  # float32
MAX_WEIGHT_BITS = 15  # codes are held as int16


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a compressed matrix [rows, columns] is, without its values.

    stored : int                Weights that are stored; rows * columns when dense, every slot with per-block N.
    group_size : int            Inputs that share a multiplier; `columns` for one scale a row.
    asymmetric : bool           Each group has a zero point.
    """

    rows: int
    columns: int
    format: Format
    pattern: Pattern
    stored: int
    group_size: int
    asymmetric: bool = False
    multiplier_bits: int = MULTIPLIER_BITS

    def __post_init__(self) -> None:
        self.pattern.check_shape(self.rows, self.columns)
        if not 0 <= self.stored <= self.rows * self.columns:
            raise ValueError(f"stored must lie in 0..{self.rows * self.columns}, not {self.stored}")

    @staticmethod
    def of(
        rows: int,
        columns: int,
        fmt: Format,
        pattern: Pattern | None = None,
        group_size: int | None = None,
        asymmetric: bool = False,
    ) -> "TensorSpec":
        """Describe a matrix by shape alone; the pattern's own density says how much is stored."""
        chosen = Dense() if pattern is None else pattern
        density = 1.0 if chosen.density is None else chosen.density
        return TensorSpec(
            rows=rows,
            columns=columns,
            format=fmt,
            pattern=chosen,
            stored=round(rows * columns * density),
            group_size=columns if group_size is None else group_size,
            asymmetric=asymmetric,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` reads back."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "format": self.format.name,
            "pattern": self.pattern.name,
            "stored": self.stored,
            "group_size": self.group_size,
            "asymmetric": self.asymmetric,
            "multiplier_bits": self.multiplier_bits,
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> "TensorSpec":
        """Undo `to_json`."""
        named = {"format": get_format(values["format"]), "pattern": parse_pattern(values["pattern"])}
        return TensorSpec(**(values | named))

    @property
    def groups(self) -> int:
        """Groups a row."""
        return group_count(self.columns, self.group_size)

    @property
    def density(self) -> float:
        """Stored share of the weights."""
        return self.stored / (self.rows * self.columns)

    @property
    def name(self) -> str:
        """int4 g32 2:4, as tables print it."""
        grouped = f" g{self.group_size}" if self.group_size < self.columns else ""
        sparse = "" if isinstance(self.pattern, Dense) else f" {self.pattern.name}"
        return f"{self.format.name}{grouped}{sparse}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantTensor:
    """A compressed weight matrix: real = row_scale * multiplier_g * (value(code) - zero_point_g), absent weights 0.

    Parameters
    ----------
    codes : int16[out, in]              Integers, or bit patterns of a minifloat; ignored where `mask` is False.
    format : Format
    row_scales : float32[out]           Positive and finite.
    group_size : int                    `in` for one scale a row; the last group may be short.
    group_multipliers : uint16[out, groups] | None     None: all 1.
    zero_points : int16[out, groups] | None            None: all 0. Integer formats only.
    pattern : Pattern
    mask : bool[out, in] | None         True where a weight is stored; None: everywhere.

    Raises
    ------
    LayoutError                         If a part's shape, a scale or the mask does not fit the rest.
    FormatError                         If the format is too wide for weights, or has zero points and is no integer.
    """

    codes: NDArray[np.int16]
    format: Format
    row_scales: NDArray[np.float32]
    group_size: int
    group_multipliers: NDArray[np.uint16] | None = None
    zero_points: NDArray[np.int16] | None = None
    pattern: Pattern = Dense()  # noqa: RUF009 - frozen and stateless
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.dtype != np.int16:
            raise LayoutError(f"codes must be int16[out, in], not {self.codes.dtype}{list(self.codes.shape)}")
        rows, columns = self.codes.shape
        if self.format.bits > MAX_WEIGHT_BITS and not (isinstance(self.format, IntFormat) and self.format.signed):
            raise FormatError(
                f"weights have at most {MAX_WEIGHT_BITS} bits a code; {self.format.name} has {self.format.bits}"
            )
        if self.row_scales.shape != (rows,) or self.row_scales.dtype != np.float32:
            raise LayoutError(f"row_scales must be float32[{rows}]")
        if not (np.isfinite(self.row_scales).all() and (self.row_scales > 0).all()):
            raise LayoutError("row_scales must be positive and finite")
        grid = (rows, group_count(columns, self.group_size))
        for name, part in (("group_multipliers", self.group_multipliers), ("zero_points", self.zero_points)):
            if part is not None and part.shape != grid:
                raise LayoutError(f"{name} must have shape {grid}, not {part.shape}")
        if self.zero_points is not None and not isinstance(self.format, IntFormat):
            raise FormatError(f"zero points need an integer format, not {self.format.name}")
        self.pattern.check_shape(rows, columns)
        if self.mask is None:
            if not isinstance(self.pattern, Dense):
                raise LayoutError(f"pattern {self.pattern.name} needs a mask")
        elif self.mask.shape != self.codes.shape or not self.pattern.holds(self.mask):
            raise LayoutError(f"the mask does not obey pattern {self.pattern.name}")

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def stored_mask(self) -> NDArray[np.bool_]:
        """bool[out, in], also for a dense tensor."""
        return np.ones(self.shape, np.bool_) if self.mask is None else self.mask

    @property
    def spec(self) -> TensorSpec:
        """What the tensor is, without its values."""
        multiplier_bits = MULTIPLIER_BITS
        if self.group_multipliers is not None:
            multiplier_bits = max(multiplier_bits, int(self.group_multipliers.max()).bit_length())
        return TensorSpec(
            rows=self.shape[0],
            columns=self.shape[1],
            format=self.format,
            pattern=self.pattern,
            stored=self._stored,
            group_size=self.group_size,
            asymmetric=self.zero_points is not None,
            multiplier_bits=multiplier_bits,
        )

    @property
    def _stored(self) -> int:
        if self.mask is None:
            return self.codes.size
        if isinstance(self.pattern, BlockN):
            return BLOCK_N_SIDE * int(BlockN.block_n(self.mask).sum(dtype=np.int64))
        return int(self.mask.sum())

    def per_weight(self, groups: NDArray[np.integer] | None, default: int) -> NDArray[np.int64]:
        """Spread a value a group over the weights: [out, groups] -> int64[out, in]."""
        if groups is None:
            return np.full(self.shape, default, np.int64)
        return np.repeat(groups.astype(np.int64), self.group_size, axis=1)[:, : self.shape[1]]

    def centred(self) -> NDArray[np.int64]:
        """Return value(code) - zero_point on the format's integer grid, int64[out, in]; absent weights are 0."""
        values = self.format.fixed_point().values[self.format.to_pattern(self.codes)]
        if self.zero_points is not None:
            values = values - self.per_weight(self.zero_points, 0)
        return values if self.mask is None else np.where(self.mask, values, 0)

    def integers(self) -> NDArray[np.int64]:
        """Return multiplier * (value(code) - zero_point), int64[out, in]: what an accumulator sums products of."""
        values = self.centred()
        return values if self.group_multipliers is None else values * self.per_weight(self.group_multipliers, 1)

    @property
    def accumulator_scale(self) -> NDArray[np.float32]:
        """float32[out]: real weight = accumulator_scale * integers()."""
        return np.ldexp(self.row_scales, self.format.fixed_point().exponent).astype(np.float32)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the weights as float32[out, in]."""
        product = self.integers().astype(np.float64) * self.accumulator_scale[:, None].astype(np.float64)
        return product.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedTensor:
    """The bytes of a compressed matrix in one layout; every section counts.

    sections : dict[str, uint8[n]]      In the layout's order.
    """

    spec: TensorSpec
    layout: "Layout"
    sections: dict[str, NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        """All bytes: codes, metadata, multipliers, zero points and row scales."""
        return sum(part.nbytes for part in self.sections.values())

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight of the dense matrix."""
        return self.nbytes * 8 / (self.spec.rows * self.spec.columns)
