"""Block-sparse int8 products: the public door to the kernels, which checks everything before a pointer is touched.

weights = BlockWeights.from_packed(packed) # the Vnni4x1 layout of sparsefab.formats
product = Product(weights, Codes(requantizer=r), bias=bias, zero_point=128)
results = product.run(panels)              # u8 [panels, rows, 64], the next layer's activations

sum[row, token] = bias[row] + sum over inputs of q[row, input] * (x[input, token] - zero_point)      exact, s32
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.kernels_cpu.call import Call, check_array, padded_scales
from sparsefab.kernels_cpu.dispatch import (
    TABLES,
    TILED_WIDTHS,
    WIDE,
    fastest_width,
    kernel_of,
    masked_kernel_of,
    masked_width,
    tiled_kernel_of,
    tiles_are_faster,
)
from sparsefab.kernels_cpu.expand import native_expansion
from sparsefab.kernels_cpu.features import Level, chosen_level, effective_features, runs
from sparsefab.kernels_cpu.layer import filled
from sparsefab.kernels_cpu.masked import MaskedWeights
from sparsefab.kernels_cpu.panels import WIDTHS, aligned_empty
from sparsefab.kernels_cpu.results import Codes, Reals, Sums, aligned_dwords, mean_squares, moments, prepared
from sparsefab.kernels_cpu.spmm_tiles import room_bytes, run_of, spreads
from sparsefab.kernels_cpu.threads import check_threads
from sparsefab.kernels_cpu.tile_weights import BLOCK_ROWS, TileWeights
from sparsefab.kernels_cpu.weights import BlockWeights

__all__ = ["BlockWeights", "Call", "Codes", "MaskedWeights", "Product", "Reals", "Sums", "mean_squares", "moments"]

_MORE_QUADS = 1.3  # for products of bytes, which take so much less time than those of words
_NO_SCALES = np.zeros(1, np.float32)
_S32_MAX = (1 << 31) - 1


class Product:
    """A layer ready to run: weights, start values and epilogue, all checked once.

    Parameters
    ----------
    weights : BlockWeights | MaskedWeights    The matrix.
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
        weights: BlockWeights | MaskedWeights,
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
            product = "widened"
            if isinstance(weights, BlockWeights):
                paired = weights.paired()
                if len(paired.offsets) <= _MORE_QUADS * len(weights.offsets):
                    product, weights = "paired", paired
        self.weights = weights
        start = _start_values(weights, bias, zero_point)
        ready = prepared(epilogue, weights.rows)
        self._dtype, output, self._arrays = ready.dtype, ready.output, ready.arrays
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
        self._arrays |= {"start": aligned_dwords(start), **weights.arrays()}
        constants = ready.constants | (weights.constants() if isinstance(weights, MaskedWeights) else {})
        self._layers = {width: filled(**self._arrays, **constants, tables=TABLES[width]) for width in WIDTHS}
        self._output = output
        # Asking LLVM takes 0.3 ms, as long as a small model's token.
        self._has_tiles = self.level is Level.AVX512_AMX and runs(self.level)
        self._expands = isinstance(weights, MaskedWeights) and native_expansion(self.level)
        self._interleaved = output.kind == "interleaved"
        self._statistics = bool(output.statistics)
        widths = (64, 16, 1) if weights.aligned else WIDTHS
        permute = self.level in (Level.AVX512_AMX, Level.AVX512_VNNI)
        permute = self._permute = permute and (emulate or "avx512vbmi" in effective_features())
        choose = masked_kernel_of if isinstance(weights, MaskedWeights) else kernel_of
        self._kernels = {
            width: choose(
                self.level, product=product, output=output, width=width, aligned=weights.aligned, permute=permute
            )
            for width in widths
        }

    def width(self, tokens: int) -> int:
        """Return the width of panels, 64, 32, 16 or 1, that is fastest for so many tokens."""
        if isinstance(self.weights, MaskedWeights):
            return masked_width(tokens, self.level, expands=self._expands)
        return fastest_width(tokens, self.level, aligned=self.weights.aligned, interleaved=self._interleaved)

    def prepared(self, width: int, *, panels: int = 1) -> tuple[Any, NDArray[np.void], dict[str, NDArray[Any]]]:
        """Return the kernel for panels of a width, its record and the arrays that the record points to.

        A caller that compiles the kernel into a larger one takes over the checks of `run`, calls it for so many panels
        at a time, and sets the record's scratch, and its room where `room_bytes` asks for one.
        """
        tiles = self.tiled(width, panels)
        if tiles is None:
            return self._kernels[width], self._layers[width], self._arrays
        layer = self._layers[width].copy()
        layer["inner_steps"], layer["run"] = tiles.steps, run_of(panels, tiles.steps, width)
        layer["room_bytes"] = self.room_bytes(width, panels=panels)
        arrays: dict[str, NDArray[Any]] = {
            "controls": spreads(),
            "packed": tiles.values,
            "masks": tiles.masks,
            "starts": tiles.starts,
        }
        for name, array in arrays.items():
            layer[name] = array.ctypes.data
        compiled = tiled_kernel_of(
            width=width,
            shared=tiles.shared,
            aligned=self.weights.aligned,
            output=self._output,
            permute=self._permute,
            native=self._has_tiles,
        )
        return compiled, layer, {**self._arrays, **arrays}

    def room_bytes(self, width: int, *, panels: int = 1) -> int:
        """Return the bytes that a task of the kernel of `prepared` works in; 0 where it needs none."""
        tiles = self.tiled(width, panels)
        return 0 if tiles is None else room_bytes(panels, tiles.steps, width)

    def tiled(self, width: int, panels: int) -> TileWeights | None:
        """Return the weights as AMX reads them if so many panels of a width are multiplied so."""
        if self.level is not Level.AVX512_AMX or width not in TILED_WIDTHS or width not in self._kernels:
            return None
        weights = self.weights
        quads = len(weights.offsets) if isinstance(weights, BlockWeights) else weights.groups * -(-weights.columns // 4)
        size = {"groups": weights.groups, "columns": weights.columns, "width": width, "panels": panels}
        return self._tiles if tiles_are_faster(quads, **size, aligned=weights.aligned) else None

    @functools.cached_property
    def _tiles(self) -> TileWeights:
        return TileWeights.of(self.weights.matrix())

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
        statistics : float32[3, panels * width] | None          Likewise; from `aligned_empty`. Of squares,
                                                    float32[1, panels * width].
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
    ) -> Call:
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
            check_array("out", out, self._dtype, shape)
            if np.may_share_memory(out, activations):
                raise ValueError("out must not overlap activations")
        if isinstance(self.epilogue, Reals):
            scales = padded_scales(token_scales, panels, width)
        elif token_scales is None:
            scales = _NO_SCALES
        else:
            raise ValueError(f"token_scales belong to Reals, not to {type(self.epilogue).__name__}")
        together = panels if threads == 1 else 1
        kernel, record, arrays = self.prepared(width, panels=together)
        layer = record.copy()
        reals = self.epilogue if isinstance(self.epilogue, Reals) else None
        adds, sums = reals is not None and reals.residual, reals is not None and self._statistics
        planes = 1 if reals is not None and reals.squares else 3
        for name, array, wanted, kind in (
            ("residual", residual, adds, plain),
            ("statistics", statistics, sums, (planes, panels * width)),
        ):
            if (array is not None) != wanted:
                raise ValueError(f"{name} must be given if and only if the epilogue is Reals({name}=True)")
            if array is not None:
                check_array(name, array, np.float32, kind)
                base = out if name == "residual" else scales
                layer[name] = array.ctypes.data - base.ctypes.data
        layer["plane"] = 4 * panels * width
        held: tuple[Any, ...] = (self, arrays, residual, statistics)
        size = self.room_bytes(width, panels=together)
        if size:
            room = aligned_empty((threads, size), np.uint8)
            layer["room"] = room.ctypes.data
            held = (*held, room)
        elif self.level not in WIDE or width == 32:
            scratch = aligned_empty((threads, 4, 64), np.int32)
            layer["scratch"] = scratch.ctypes.data
            held = (*held, scratch)
        if not size and isinstance(self.weights, MaskedWeights):
            layer = np.repeat(layer, threads)
            held = (*held, self.weights.room(layer, panels, width))
        by_loops = self.level is Level.PORTABLE or (width == 16 and self.level not in WIDE)
        unordered = aligned_empty(plain, self._dtype) if self._interleaved and by_loops else None
        return Call(
            kernel=kernel,
            layer=layer,
            activations=activations,
            out=out,
            scales=scales,
            groups=self.weights.groups,
            by_panel=self._statistics,
            unit=BLOCK_ROWS // 4 if size else 1,
            threads=threads,
            unordered=unordered,
            held=held,
        )

    def _checked_activations(self, activations: NDArray[np.uint8]) -> tuple[int, int]:
        """Return the number and the width of the panels."""
        check_array("activations", activations, np.uint8, 3)
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


def _start_values(
    weights: BlockWeights | MaskedWeights, bias: NDArray[np.int64] | None, zero_point: int
) -> NDArray[np.int64]:
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
