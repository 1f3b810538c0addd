"""A compressed weight matrix as values (`QuantTensor`) and as bytes (`PackedTensor`)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError, LayoutError
from sparsefab.formats.catalog import Format, get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.scales import MULTIPLIER_BITS, group_count
from sparsefab.formats.sparsity import BLOCK_N_SIDE, BlockN, Dense, Pattern, parse_pattern

if TYPE_CHECKING:
    from sparsefab.formats.layout import Layout

__all__ = ["PackedTensor", "QuantTensor", "TensorSpec"]

ROW_SCALE_BYTES = 4  # float32
MAX_WEIGHT_BITS = 15  # codes are held as int16
OUTLIER_LIMIT = 1 << (MAX_WEIGHT_BITS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a compressed matrix [rows, columns] is, without its values.

    stored : int                Weights that are stored; rows * columns when dense, every slot with per-block N.
    group_size : int            Inputs that share a multiplier; `columns` for one scale a row, a block format's own.
    asymmetric : bool           Each group has a zero point.
    outliers : int              Weights that have an integer of 15 bits besides.
    """

    rows: int
    columns: int
    format: Format
    pattern: Pattern
    stored: int
    group_size: int
    asymmetric: bool = False
    multiplier_bits: int = MULTIPLIER_BITS
    outliers: int = 0

    def __post_init__(self) -> None:
        self.pattern.check_shape(self.rows, self.columns)
        for name, count in (("stored", self.stored), ("outliers", self.outliers)):
            if not 0 <= count <= self.rows * self.columns:
                raise ValueError(f"{name} must lie in 0..{self.rows * self.columns}, not {count}")
        if isinstance(self.format, BlockFormat) and self.group_size != self.format.block_size:
            size = self.format.block_size
            raise ValueError(f"group_size of {self.format.name} must be its block's {size}, not {self.group_size}")

    @staticmethod
    def of(
        rows: int,
        columns: int,
        fmt: Format,
        pattern: Pattern | None = None,
        group_size: int | None = None,
        asymmetric: bool = False,
        outliers: float = 0.0,
    ) -> "TensorSpec":
        """Describe a matrix by shape alone; the pattern's density says how much is stored, `outliers` is a share."""
        chosen = Dense() if pattern is None else pattern
        density = 1.0 if chosen.density is None else chosen.density
        if group_size is None:
            group_size = fmt.block_size if isinstance(fmt, BlockFormat) else columns
        return TensorSpec(
            rows=rows,
            columns=columns,
            format=fmt,
            pattern=chosen,
            stored=round(rows * columns * density),
            group_size=group_size,
            asymmetric=asymmetric,
            outliers=round(rows * columns * outliers),
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
            "outliers": self.outliers,
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
        """int4 g32 2:4, or int3 g32 +1%, as tables print it."""
        own = self.group_size < self.columns and not isinstance(self.format, BlockFormat)
        grouped = f" g{self.group_size}" if own else ""
        sparse = "" if isinstance(self.pattern, Dense) else f" {self.pattern.name}"
        extra = f" +{100 * self.outliers / (self.rows * self.columns):.2g}%" if self.outliers else ""
        return f"{self.format.name}{grouped}{sparse}{extra}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantTensor:
    """A compressed weight matrix: real = row_scale * multiplier_g * (value(code) - zero_point_g), absent weights 0.

    Outliers, where there are any, are added: real = row_scale * (multiplier_g * (...) + outlier).

    In a block format real = row_scale * m_b * 2^-d_b * value(code), where m and d follow from the block scales: see
    `formats.mx`, and `QuantTensor.of_blocks` to build one.

    Parameters
    ----------
    codes : int16[out, in]              Integers, or bit patterns of a minifloat; ignored where `mask` is False.
    format : Format
    row_scales : float32[out]           Positive and finite.
    group_size : int                    `in` for one scale a row, a block format's block; the last one may be short.
    group_multipliers : uint16[out, groups] | None     None: all 1.
    zero_points : int16[out, groups] | None            None: all 0. Integer formats only.
    block_scales : uint8[out, blocks] | None           Scale codes of a block format, else None.
    pattern : Pattern
    mask : bool[out, in] | None         True where a weight is stored; None: everywhere.
    outliers : int16[out, in] | None    15 bits, -16384 to 16383; 0 where there is none. Integer formats only.

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
    block_scales: NDArray[np.uint8] | None = None
    pattern: Pattern = Dense()  # noqa: RUF009 - frozen and stateless
    mask: NDArray[np.bool_] | None = None
    outliers: NDArray[np.int16] | None = None

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
        self._check_outliers()
        self._check_blocks()

    def _check_outliers(self) -> None:
        """Raise an error where outliers do not fit the rest."""
        if self.outliers is None:
            return
        if not isinstance(self.format, IntFormat):
            raise FormatError(f"outliers need an integer format, not {self.format.name}")
        if self.outliers.shape != self.codes.shape or self.outliers.dtype != np.int16:
            raise LayoutError(f"outliers must be int16{list(self.codes.shape)}, not {self.outliers.dtype}")
        low, high = self.outliers.min(initial=0), self.outliers.max(initial=0)
        if low < -OUTLIER_LIMIT or high >= OUTLIER_LIMIT:
            raise LayoutError(f"outliers span {low}..{high}, beyond {-OUTLIER_LIMIT}..{OUTLIER_LIMIT - 1}")

    def _check_blocks(self) -> None:
        """Raise LayoutError where block scales and format do not belong together."""
        fmt, scales = self.format, self.block_scales
        if not isinstance(fmt, BlockFormat):
            if scales is not None:
                raise LayoutError(f"block_scales need a block format, not {fmt.name}")
            return
        if self.group_size != fmt.block_size:
            raise LayoutError(f"group_size of {fmt.name} must be its block's {fmt.block_size}, not {self.group_size}")
        if self.group_multipliers is not None:
            raise LayoutError(f"{fmt.name} has block scales, so group_multipliers must be None")
        grid = (self.shape[0], fmt.blocks(self.shape[1]))
        if scales is None or scales.shape != grid or scales.dtype != np.uint8:
            raise LayoutError(f"block_scales of {fmt.name} must be uint8{list(grid)}")
        if scales.max(initial=0) > fmt.scale.max_code:
            raise LayoutError(f"a block scale of {fmt.name} is NaN or negative: code {scales.max()}")
        wanted = self.row_scales[:1] if not fmt.row_scales else self.row_scales
        if fmt.is_mx:
            wanted = np.ldexp(np.float32(1), self._split[2])
        if (self.row_scales != wanted).any():
            rule = "the powers of two of their largest block scales" if fmt.is_mx else "one value for all rows"
            raise LayoutError(f"row_scales of {fmt.name} must be {rule}")

    @staticmethod
    def of_blocks(
        codes: NDArray[np.int16],
        fmt: BlockFormat,
        block_scales: NDArray[np.uint8],
        outer: NDArray[np.float32] | None = None,
        pattern: Pattern | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> "QuantTensor":
        """Build a tensor of a block format; `outer` float32[out] are NVFP4's scales above the blocks'."""
        if outer is None:
            silent = fmt.silent(codes, mask)
            outer = np.ldexp(np.float32(1), fmt.split_scales(block_scales, silent)[2])
        return QuantTensor(
            codes=codes,
            format=fmt,
            row_scales=outer.astype(np.float32),
            group_size=fmt.block_size,
            block_scales=block_scales,
            pattern=Dense() if pattern is None else pattern,
            mask=mask,
        )

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
            outliers=0 if self.outliers is None else int(np.count_nonzero(self.outliers)),
        )

    @property
    def _stored(self) -> int:
        if self.mask is None:
            return self.codes.size
        if isinstance(self.pattern, BlockN):
            return BLOCK_N_SIDE * int(BlockN.block_n(self.mask).sum(dtype=np.int64))
        return int(self.mask.sum())

    @property
    def _split(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """m, d [out, groups] and the largest exponents [out]: see `BlockFormat.split_scales`."""
        if not isinstance(self.format, BlockFormat) or self.block_scales is None:
            grid = (self.shape[0], group_count(self.shape[1], self.group_size))
            ones = np.ones(grid, np.int64) if self.group_multipliers is None else self.group_multipliers
            return ones.astype(np.int64), np.zeros(grid, np.int64), np.zeros(grid[0], np.int64)
        return self.format.split_scales(self.block_scales, self.format.silent(self.codes, self.mask))

    @property
    def multipliers(self) -> NDArray[np.int64]:
        """int64[out, groups]: what a group's partial sum is multiplied by."""
        return self._split[0]

    @property
    def shifts(self) -> NDArray[np.int64]:
        """int64[out, groups]: what a group's partial sum is shifted right by; 0 but for MX."""
        return self._split[1]

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
        """Return multiplier * (value(code) - zero_point) + outlier, int64[out, in]: what sums are of products of.

        The shifts of MX blocks come on top.

        Raises
        ------
        OverflowError               If the format's grid is wider than an int64; `significands` serves all.
        """
        values = self.centred()
        if self.group_multipliers is not None or self.block_scales is not None:
            values = values * self.per_weight(self.multipliers, 1)
        return values if self.outliers is None else values + self.outliers

    def significands(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return int64[out, in] twice: `integers` = significand * 2^shift, on the grid of a wide format too."""
        table, patterns = self.format.decode_table(), self.format.to_pattern(self.codes)
        values = table.significand[patterns] - self.per_weight(self.zero_points, 0)
        if self.mask is not None:
            values = np.where(self.mask, values, 0)
        values = values * self.per_weight(self.multipliers, 1)
        if self.outliers is not None:  # integers have no shifts
            values = values + self.outliers
        return values, np.where(values != 0, table.shifts[patterns], 0)

    @property
    def fraction_bits(self) -> int:
        """Fraction bits of the accumulator: F of an MX format, else 0."""
        return self.format.fraction_bits if isinstance(self.format, BlockFormat) else 0

    @property
    def accumulator_scale(self) -> NDArray[np.float32]:
        """float32[out]: real weight = accumulator_scale * integers() * 2^(F - d), or in units of a wide format."""
        exponent = self.format.decode_table().unit_exponent - self.fraction_bits
        if isinstance(self.format, BlockFormat):
            exponent += self.format.scale_exponent
        scales: NDArray[np.float32] = np.ldexp(self.row_scales, exponent).astype(np.float32)
        return scales

    def dequantize(self) -> NDArray[np.float32]:
        """Return the weights as float32[out, in]."""
        significands, shifts = self.significands()
        exponents = shifts + self.format.decode_table().grid_exponent - self.per_weight(self.shifts, 0)
        if isinstance(self.format, BlockFormat):
            exponents = exponents + self.format.scale_exponent
        values: NDArray[np.float64] = np.ldexp(significands.astype(np.float64), exponents) * self.row_scales[:, None]
        return values.astype(np.float32)


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
