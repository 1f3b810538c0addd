"""Block-sparse int8 products: the public door to the kernels, which checks everything before a pointer is touched.

weights = BlockWeights.from_packed(packed) # the Vnni4x1 layout of sparsefab.formats
product = Product(weights, Codes(requantizer=r), bias=bias, zero_point=128)
results = product.run(panels)              # u8 [panels, rows, 64], the next layer's activations

sum[row, token] = bias[row] + sum over inputs of q[row, input] * (x[input, token] - zero_point)      exact, s32
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu import spmm_avx2, spmm_portable, spmm_vnni, spmm_vnni1, spmm_vnni16, spmm_vnni32
from sparsefab.kernels_cpu.features import Level, chosen_level, effective_features
from sparsefab.kernels_cpu.layer import Output, filled
from sparsefab.kernels_cpu.panels import WIDTHS, aligned_empty, aligned_zeros, interleaved, misaligned
from sparsefab.kernels_cpu.threads import check_threads, run_threaded, tasks
from sparsefab.kernels_cpu.weights import BlockWeights

__all__ = ["BlockWeights", "Call", "Codes", "Product", "Reals", "Sums", "moments"]

_WIDE = (Level.AVX512_VNNI, Level.AVX512)
_MORE_QUADS = 1.3  # for products of bytes, which take so much less time than those of words
_NO_SCALES = np.zeros(1, np.float32)
_S32_MAX = (1 << 31) - 1


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
                                 and variance: what LayerNorm and RMSNorm need. Rows must be a multiple of 4.
    """

    row_scales: NDArray[np.float32]
    residual: bool = False
    statistics: bool = False


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


class Product:
    """A layer ready to run: weights, start values and epilogue, all checked once.

    Parameters
    ----------
    weights : BlockWeights       The matrix.
    epilogue : Sums | Reals | Codes           What becomes of the sums.
    bias : int64[rows] | None    In units of the sums; None is 0.
    zero_point : int             Code of the activations that means 0, -128 to 255; of s8 codes, give theirs plus 128.
    level : Level | None         Instruction set to use; None takes the best one that runs here.
    emulate : bool               Emulate the level's instructions that the processor lacks: for tests, slow.

    Raises
    ------
    ValueError, TypeError        If an argument has the wrong shape, type or range, or `level` cannot run here.
    LayoutError                  If a sum could leave 32 bits.
    """

    def __init__(
        self,
        weights: BlockWeights,
        epilogue: Sums | Reals | Codes,
        *,
        bias: NDArray[np.int64] | None = None,
        zero_point: int = 0,
        level: Level | None = None,
        emulate: bool = False,
    ) -> None:
        self.epilogue = epilogue
        self.level = chosen_level(level, emulate=emulate)
        product = "vnni"
        if self.level in (Level.AVX512, Level.AVX2):
            paired = weights.paired()
            product = "paired" if len(paired.offsets) <= _MORE_QUADS * len(weights.offsets) else "widened"
            weights = paired if product == "paired" else weights
        self.weights = weights
        start = _start_values(weights, bias, zero_point)
        self._dtype, output, self._arrays, constants = _prepared(epilogue, weights)
        if isinstance(epilogue, Codes):  # each sum starts with the half that rounds its shift
            shifts = self._arrays["shifts"].astype(np.int64)
            start += np.where(shifts > 0, np.int64(1) << np.maximum(shifts - 1, 0), 0)
        low, high = weights.reach()
        low, high = np.minimum(low + start, start), np.maximum(high + start, start)
        worst = int(np.argmax(np.maximum(high, -low)))
        if high.max() > _S32_MAX or low.min() < -_S32_MAX - 1:
            raise LayoutError(
                f"the sum of row {worst} can reach {max(high[worst], -low[worst])}, beyond 32 bits; "
                f"split the layer's {weights.columns} inputs"
            )
        self._arrays |= {
            "pointers": weights.ptr,
            "offsets": weights.offsets,
            "values": weights.values,
            "start": _aligned(start),
        }
        tables = {64: 0, 32: spmm_vnni32.tables(), 16: spmm_vnni16.tables(), 1: 0}
        self._layers = {width: filled(**self._arrays, **constants, tables=tables[width]) for width in WIDTHS}
        self._interleaved = output.kind == "interleaved"
        self._statistics = output.statistics
        widths = (64, 16, 1) if weights.aligned else WIDTHS
        permute = self.level is Level.AVX512_VNNI and (emulate or "avx512vbmi" in effective_features())
        self._kernels = {
            width: _kernel(self.level, product, output, width, weights.aligned, permute) for width in widths
        }

    def width(self, tokens: int) -> int:
        """Return the width of panels, 64, 32, 16 or 1, that is fastest for so many tokens."""
        if tokens <= (3 if self.weights.aligned else 1) and self.level is not Level.PORTABLE:
            return 1
        if tokens <= 16 and self.level in _WIDE:
            return 16
        return 32 if tokens <= 32 and not self.weights.aligned and not self._interleaved else 64

    def prepared(self, width: int) -> tuple[Any, NDArray[np.void], dict[str, NDArray[Any]]]:
        """Return the kernel for panels of a width, its record and the arrays that the record points to.

        A caller that compiles the kernel into a larger one takes over the checks of `run`, and sets the record's
        scratch.
        """
        return self._kernels[width], self._layers[width], self._arrays

    @property
    def padded_rows(self) -> int:
        """Rows of the result buffer: the matrix's rows, filled up to groups of four."""
        return 4 * self.weights.groups

    def run(
        self,
        activations: NDArray[np.uint8],
        *,
        token_scales: NDArray[np.float32] | None = None,
        residual: NDArray[np.float32] | None = None,
        statistics: NDArray[np.float32] | None = None,
        out: NDArray[Any] | None = None,
        threads: int = 1,
    ) -> NDArray[Any]:
        """Multiply.

        Parameters
        ----------
        activations : uint8[panels, inputs, width]  From `panels_of` or another product; inputs >= columns.
                      uint8[panels, inputs / 4, 4 * width]  for aligned weights, from `interleaved` or a product.
        token_scales : float32[tokens] | None       Only for Reals, where None is 1; up to width * panels.
        residual : float32[panels, padded_rows, width] | None   Where Reals asks for it; may be `out` itself.
        statistics : float32[3, panels * width] | None          Likewise; from `aligned_empty`.
        out : [panels, padded_rows, width] | None   Buffer from `aligned_empty`; s32, f32, u8 or s8 by the epilogue.
        threads : int                               At most `available_threads()`.

        Returns
        -------
        [panels, padded_rows, width]                `out`, or a new buffer; [panels, padded_rows / 4, 4 * width] where
                                                    the results are interleaved.

        Raises
        ------
        TypeError, ValueError    If an array's type, shape, order or alignment does not fit; nothing is written then.
        """
        call = self.bind(
            activations,
            token_scales=token_scales,
            residual=residual,
            statistics=statistics,
            out=out,
            threads=threads,
        )
        call()
        return call.out

    def bind(
        self,
        activations: NDArray[np.uint8],
        *,
        token_scales: NDArray[np.float32] | None = None,
        residual: NDArray[np.float32] | None = None,
        statistics: NDArray[np.float32] | None = None,
        out: NDArray[Any] | None = None,
        threads: int = 1,
    ) -> "Call":
        """Check arguments as `run` does and return the call, to be made any number of times on the same buffers.

        Token scales are read anew each time if they are a whole buffer, float32[panels * width] on a 64-byte boundary.
        """
        panels, width = self._checked_activations(activations)
        if threads != 1:
            check_threads(threads)
        plain = (panels, self.padded_rows, width)
        shape = (panels, self.weights.groups, 4 * width) if self._interleaved else plain
        if out is None:
            out = aligned_empty(shape, self._dtype)
        else:
            _check("out", out, self._dtype, shape)
            if np.may_share_memory(out, activations):
                raise ValueError("out must not overlap activations")
        if isinstance(self.epilogue, Reals):
            scales = _padded_scales(token_scales, panels, width)
        elif token_scales is None:
            scales = _NO_SCALES
        else:
            raise ValueError(f"token_scales belong to Reals, not to {type(self.epilogue).__name__}")
        layer = self._layers[width].copy()
        wants = (self.epilogue.residual, self.epilogue.statistics) if isinstance(self.epilogue, Reals) else (False,) * 2
        for name, array, wanted, kind in (
            ("residual", residual, wants[0], plain),
            ("statistics", statistics, wants[1], (3, panels * width)),
        ):
            if (array is not None) != wanted:
                raise ValueError(f"{name} must be given if and only if the epilogue is Reals({name}=True)")
            if array is not None:
                _check(name, array, np.float32, kind)
                base = out if name == "residual" else scales
                layer[name] = array.ctypes.data - base.ctypes.data
        layer["plane"] = 4 * panels * width
        held: tuple[Any, ...] = (self, residual, statistics)
        if self.level not in _WIDE or width == 32:
            scratch = aligned_empty(
                (tasks(threads, panels, 1 if self._statistics else self.weights.groups), 4, 64), np.int32
            )
            layer["scratch"] = scratch.ctypes.data
            held = (*held, scratch)
        by_loops = self.level is Level.PORTABLE or (width == 16 and self.level not in _WIDE)
        unordered = aligned_empty(plain, self._dtype) if self._interleaved and by_loops else None
        return Call(
            kernel=self._kernels[width],
            layer=layer,
            activations=activations,
            out=out,
            scales=scales,
            groups=self.weights.groups,
            by_panel=self._statistics,
            threads=threads,
            unordered=unordered,
            held=held,
        )

    def _checked_activations(self, activations: NDArray[np.uint8]) -> tuple[int, int]:
        """Return the number and the width of the panels."""
        _check("activations", activations, np.uint8, 3)
        panels, lines, width = activations.shape
        if self.weights.aligned:
            least = -(-self.weights.columns // 4)
            if width not in (256, 64, 4) or lines < least:
                raise ValueError(
                    f"activations must be [panels, {least} or more, 256, 64 or 4], not {list(activations.shape)}"
                )
            return panels, width // 4
        if width not in WIDTHS or lines < self.weights.columns:
            raise ValueError(
                f"activations must be [panels, {self.weights.columns} or more, 64, 32, 16 or 1], "
                f"not {list(activations.shape)}"
            )
        if width == 32 and self._interleaved:
            raise ValueError("interleaved results need panels of 64, 16 or 1 tokens")
        return panels, width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A product with its buffers, checked: what a plan keeps of a layer. Made by `Product.bind`.

    Attributes
    ----------
    kernel : compiled function   With the signature that `layer` describes.
    layer : LAYER[1]             Its record.
    by_panel : bool              A panel's rows must all be done by one thread, in order.
    held : tuple                 What else must stay alive.
    """

    kernel: Any
    layer: NDArray[np.void]
    activations: NDArray[np.uint8]
    out: NDArray[Any]
    scales: NDArray[np.float32]
    groups: int
    by_panel: bool
    threads: int
    unordered: NDArray[Any] | None
    held: tuple[Any, ...]

    def __call__(self) -> None:
        """Multiply what is in the buffers now."""
        out = self.out if self.unordered is None else self.unordered
        if self.threads == 1:
            panels = len(self.activations)
            self.kernel(self.layer, self.activations, out, self.scales, 0, 0, panels, 0, self.groups)
        else:
            run_threaded(
                self.kernel,
                self.threads,
                self.layer,
                self.activations,
                out,
                self.scales,
                self.groups,
                by_panel=self.by_panel,
            )
        if self.unordered is not None:
            interleaved(self.unordered, out=self.out)


def moments(statistics: NDArray[np.float32], rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance (of the population) a token, float64[tokens] each, from what `run` left behind.

    Their sum of mean squared and variance is the mean of squares that RMSNorm divides by.
    """
    first, total, squares = statistics.astype(np.float64)
    return first + total / rows, squares / rows - (total / rows) ** 2


def _kernel(level: Level, product: str, output: Output, width: int, aligned: bool, permute: bool) -> Any:
    """Return a kernel, not compiled yet."""
    if level is not Level.PORTABLE and width == 1:
        return spmm_vnni1.spmm(product=product, aligned=aligned, output=output)
    if level in _WIDE and width != 32:
        module = spmm_vnni if width == 64 else spmm_vnni16
        return module.spmm(product=product, permute=permute, aligned=aligned, output=output)
    if level is Level.AVX512_VNNI:
        return spmm_vnni32.spmm(permute=permute, output=output)
    if level is not Level.PORTABLE and width != 16:
        return spmm_avx2.spmm(product=product, aligned=aligned, tokens=width, output=output)
    if output.kind == "interleaved":
        output = replace(output, kind="u8")
    return spmm_portable.spmm(aligned=aligned, output=output)


def _prepared(
    epilogue: Sums | Reals | Codes, weights: BlockWeights
) -> tuple[Any, Output, dict[str, NDArray[Any]], dict[str, int]]:
    """Return the result's type, the output, and the arrays and constants of the layer's record."""
    if isinstance(epilogue, Sums):
        return np.int32, Output(kind="s32"), {}, {}
    if isinstance(epilogue, Reals):
        scales = _per_row("row_scales", epilogue.row_scales, np.float32, weights)
        if not np.isfinite(scales).all():
            raise ValueError("row_scales must be finite")
        if epilogue.statistics and weights.rows % 4:
            raise ValueError(f"statistics need a multiple of 4 rows, not {weights.rows}")
        output = Output(kind="f32", residual=epilogue.residual, statistics=epilogue.statistics)
        return np.float32, output, {"row_scales": scales}, {}
    if not isinstance(epilogue, Codes):
        raise TypeError(f"epilogue must be Sums, Reals or Codes, not {type(epilogue).__name__}")
    constants = epilogue.requantizer
    least, most = (-128, 127) if epilogue.signed else (0, 255)
    if not least <= constants.code_min <= constants.code_max <= most:
        raise ValueError(f"codes must lie in {least}..{most}, not {constants.code_min}..{constants.code_max}")
    if not least <= constants.zero_point <= most:
        raise ValueError(f"zero_point must be {least} to {most}, not {constants.zero_point}")
    shifts = _per_row("shifts", constants.shifts, np.int32, weights)
    multipliers = _per_row("multipliers", constants.multipliers, np.int32, weights)
    stored = multipliers[: weights.rows]
    if stored.min() < 1 << 14 or stored.max() >= 1 << 15:
        raise ValueError(f"multipliers must be {1 << 14} to {(1 << 15) - 1}, not {stored.min()} to {stored.max()}")
    # Shifts of 32 and more leave 0 of any 32-bit sum, as a multiplier of 0 does; to the left, 16 saturate all but 0.
    multipliers[shifts > 31] = 0
    shifts = np.where(shifts > 31, 1, np.maximum(shifts, -16))
    narrow = aligned_zeros((len(multipliers) + 4,), np.int16)  # a register of the last group's reads eight
    narrow[: len(multipliers)] = multipliers
    arrays: dict[str, NDArray[Any]] = {"shifts": _aligned(shifts), "multipliers": narrow}
    numbers = {
        "rounding": 64 * int(constants.zero_point) + 32,
        "code_min": int(constants.code_min),
        "code_max": int(constants.code_max),
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
    return (np.int8 if epilogue.signed else np.uint8), output, arrays, numbers


def _start_values(weights: BlockWeights, bias: NDArray[np.int64] | None, zero_point: int) -> NDArray[np.int64]:
    if not -128 <= zero_point <= 255:
        raise ValueError(f"zero_point must be -128 to 255, not {zero_point}")
    start = -int(zero_point) * weights.row_sums()
    if bias is not None:
        if bias.shape != (weights.rows,) or bias.dtype.kind != "i":
            raise ValueError(
                f"bias must be signed integers of shape {(weights.rows,)}, not {bias.dtype} of {bias.shape}"
            )
        start[: weights.rows] += np.clip(bias, -1 << 40, 1 << 40).astype(np.int64)  # what is cut fits no sum either
    return start


def _aligned(values: NDArray[Any]) -> NDArray[np.int32]:
    result: NDArray[np.int32] = aligned_empty(values.shape, np.int32)
    result[:] = values
    return result


def _per_row(name: str, array: NDArray[Any], dtype: Any, weights: BlockWeights) -> NDArray[Any]:
    """Return a copy filled up with zeros to whole groups of rows."""
    if array.dtype != dtype or array.shape != (weights.rows,):
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of shape {(weights.rows,)}, not {array.dtype} of {array.shape}"
        )
    result = aligned_zeros((4 * weights.groups,), dtype)
    result[: weights.rows] = array
    return result


def _padded_scales(scales: NDArray[np.float32] | None, panels: int, width: int) -> NDArray[np.float32]:
    """Return a whole, aligned buffer of scales: the one given if it is that, else a copy."""
    tokens = panels * width
    if scales is None:
        result = aligned_empty((tokens,), np.float32)
        result.fill(1)
        return result
    if scales.dtype != np.float32 or scales.ndim != 1 or not tokens - width < scales.size <= tokens:
        raise ValueError(
            f"token_scales must be float32 with one element a token, {tokens} at most, not {scales.dtype} of "
            f"{scales.shape}"
        )
    if not np.isfinite(scales).all():
        raise ValueError("token_scales must be finite")
    if scales.size == tokens and scales.flags.c_contiguous and not misaligned(scales):
        return scales
    result = aligned_zeros((tokens,), np.float32)
    result[: scales.size] = scales
    return result


def _check(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...] | int) -> None:
    """Check type, axes or shape, order and alignment; an array of a given shape is written to."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(
            f"{name} must be an array of {np.dtype(dtype)}, not {getattr(array, 'dtype', type(array).__name__)}"
        )
    axes = shape if isinstance(shape, int) else len(shape)
    if array.ndim != axes or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous with {axes} axes, not {array.shape}")
    if not isinstance(shape, int) and (array.shape != shape or not array.flags.writeable):
        raise ValueError(f"{name} must be writable, of shape {list(shape)}, not {list(array.shape)}")
    if array.size and misaligned(array):
        raise ValueError(f"{name} must start on a 64-byte boundary; make it with aligned_empty or panels_of")
