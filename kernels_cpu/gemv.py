"""Weight-only quantized products of few tokens: the decode side, bound by the bytes of the weights.

weights = LaneWeights.from_packed(pack(tensor, Lanes16.of(tensor.spec)))   # up to 8 bits, group scales, zero points
weights = GroupWeights.from_packed(pack(tensor, GroupRows.of(tensor.spec)))         # the same, of kept groups alone
product = MatrixVector(weights, row_scales=tensor.accumulator_scale)
results = product.run(codes, token_scales)                      # codes int8[tokens, in] -> float32[tokens, out]

sum[token, row] = sum over groups g of s_g * sum over i in g of (q_i - z_g) * x_i            exact integers
                + sum over the row's outliers o of o * x_i                                   if there are any
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.kernels_cpu import gemv_groups, gemv_groups_portable, gemv_lanes, gemv_portable
from sparsefab.kernels_cpu.arrange import arranged_groups, arranged_lanes
from sparsefab.kernels_cpu.features import Level, chosen_level, runs
from sparsefab.kernels_cpu.group_weights import GroupWeights
from sparsefab.kernels_cpu.lane_weights import LaneWeights, OutlierWeights
from sparsefab.kernels_cpu.outliers import with_outliers
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros
from sparsefab.kernels_cpu.threads import check_threads, run_blocks

__all__ = ["GroupWeights", "LaneWeights", "MatrixVector", "OutlierWeights", "VectorCall"]

_ROWS = 16  # a block: one row in each dword of a register
_S32_MAX = (1 << 31) - 1
_LEVELS = (Level.AVX512_VNNI, Level.AVX2, Level.PORTABLE)


class MatrixVector:
    """A weight-only quantized layer ready to run on a few tokens.

    Parameters
    ----------
    weights : LaneWeights | GroupWeights      The matrix.
    outliers : OutlierWeights | None          Weights of more bits, added to it, in units of the same row scales.
    row_scales : float32[rows] | None         Results are float32(sum) * row_scale, then * token_scale; None gives sums.
    level : Level | None         AVX512_VNNI, AVX2 or PORTABLE; None takes the best that runs here and holds every sum.
    emulate : bool               Emulate the level's instructions that the processor lacks: for tests, slow.

    Raises
    ------
    ValueError                   If the scales do not fit, or `level` cannot run here.
    LayoutError                  If a sum needs more than 32 bits and `level` or the results have no more, or outliers
                                 belong to a matrix of another shape.
    """

    def __init__(
        self,
        weights: LaneWeights | GroupWeights,
        *,
        outliers: OutlierWeights | None = None,
        row_scales: NDArray[np.float32] | None = None,
        level: Level | None = None,
        emulate: bool = False,
    ) -> None:
        reach = weights.reach
        if outliers is not None:
            if (outliers.rows, outliers.columns) != (weights.rows, weights.columns):
                raise LayoutError(
                    f"outliers of {outliers.rows} x {outliers.columns} do not fit {weights.rows} x {weights.columns}"
                )
            if outliers.reach > _S32_MAX:
                raise LayoutError(f"a sum of outliers can reach {outliers.reach}, beyond 32 bits")
            reach += outliers.reach
        fits = reach <= _S32_MAX
        if level is None:
            level = next(each for each in _LEVELS if runs(each) and (fits or each is Level.PORTABLE))
        if level not in _LEVELS:
            raise ValueError(f"level {level.value} has no such kernel")
        level = chosen_level(level, emulate=emulate)
        if not fits and (level is not Level.PORTABLE or row_scales is None):
            raise LayoutError(f"a sum can reach {reach}, beyond 32 bits")
        self.weights: LaneWeights | GroupWeights = weights
        self.outliers = outliers
        self.level = level
        self._blocks = -(-weights.rows // _ROWS)
        self._scales = aligned_zeros((self._blocks * _ROWS,), np.float32)
        if row_scales is not None:
            if row_scales.dtype != np.float32 or row_scales.shape != (weights.rows,):
                raise ValueError(f"row_scales must be float32 of shape {(weights.rows,)}, not {row_scales.shape}")
            if not np.isfinite(row_scales).all():
                raise ValueError("row_scales must be finite")
            self._scales[: weights.rows] = row_scales
        self._dtype: Any = np.int32 if row_scales is None else np.float32
        self._kernel = _kernel(weights, level, "s32" if row_scales is None else "f32")
        if outliers is not None:
            self._kernel = with_outliers(self._kernel)

    @property
    def name(self) -> str:
        """4-bit groups and outliers, avx512-vnni."""
        return f"{self.weights.name}{'' if self.outliers is None else ' and outliers'}, {self.level.value}"

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that one product reads."""
        return self.weights.nbytes + (0 if self.outliers is None else self.outliers.nbytes)

    def run(
        self, codes: NDArray[np.int8], token_scales: NDArray[np.float32] | None = None, *, threads: int = 1
    ) -> NDArray[Any]:
        """Multiply.

        Parameters
        ----------
        codes : int8[tokens, columns]            -127 to 127, zero point 0.
        token_scales : float32[tokens] | None    None is 1.
        threads : int                            At most `available_threads()`.

        Returns
        -------
        float32 or int32[tokens, rows]           A view of a buffer of whole blocks.
        """
        call = self.bind(codes, token_scales, threads=threads)
        call()
        return call.out

    def bind(
        self, codes: NDArray[np.int8], token_scales: NDArray[np.float32] | None = None, *, threads: int = 1
    ) -> "VectorCall":
        """Check arguments as `run` does and return the call, which reads codes and scales anew each time it is made."""
        weights = self.weights
        if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] != weights.columns:
            raise ValueError(f"codes must be int8[tokens, {weights.columns}], not {codes.dtype} of {codes.shape}")
        tokens = len(codes)
        scales = np.ones(tokens, np.float32) if token_scales is None else token_scales
        if scales.dtype != np.float32 or scales.shape != (tokens,) or not np.isfinite(scales).all():
            raise ValueError(f"token_scales must be finite float32 of shape {(tokens,)}")
        check_threads(threads)
        codes, scales = np.ascontiguousarray(codes), np.ascontiguousarray(scales)
        if isinstance(weights, GroupWeights):
            arrange, inputs = arranged_groups(weights, codes, self.level)
        else:
            arrange, inputs = arranged_lanes(weights, codes)
        out = aligned_empty((tokens, self._blocks * _ROWS), self._dtype)
        start = aligned_zeros(out.shape, np.int32)
        arguments: tuple[Any, ...] = (*weights.arrays, self._scales, *inputs, start, scales, out)
        if self.outliers is not None:
            outliers = self.outliers
            arguments = (outliers.pointers, outliers.inputs, outliers.values, codes, start, *arguments)
        return VectorCall(
            arrange=arrange,
            kernel=self._kernel,
            arguments=arguments,
            blocks=self._blocks,
            threads=threads,
            out=out[:, : weights.rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorCall:
    """A product with its buffers, checked. Made by `MatrixVector.bind`.

    Attributes
    ----------
    arrange : function           Brings the codes into the kernel's order; says whether one is -128.
    kernel : compiled function   See `gemv_lanes.gemv`, `gemv_groups.gemv` and `outliers.with_outliers`.
    arguments : tuple            Its arguments, but for the blocks.
    out : float32 or int32[tokens, rows]
    """

    arrange: Callable[[], bool]
    kernel: Any
    arguments: tuple[Any, ...]
    blocks: int
    threads: int
    out: NDArray[Any]

    def __call__(self) -> None:
        """Multiply what is in the buffers now; raises ValueError for a code of -128."""
        if self.arrange():
            raise ValueError("codes must be -127 to 127")
        if self.threads == 1:
            self.kernel(*self.arguments, 0, self.blocks)
        else:
            run_blocks(self.kernel, self.threads, self.blocks, self.arguments)


def _kernel(weights: LaneWeights | GroupWeights, level: Level, output: str) -> Any:
    """Return a kernel, not compiled yet."""
    bits, wide = weights.bits, level is Level.AVX512_VNNI
    if isinstance(weights, GroupWeights):
        width, asymmetric = weights.width, weights.asymmetric
        if level is Level.PORTABLE:
            return gemv_groups_portable.gemv(bits=bits, width=width, asymmetric=asymmetric, output=output)
        return gemv_groups.gemv(bits=bits, units=weights.units, wide=wide, asymmetric=asymmetric, output=output)
    asymmetric = weights.zeros.size > 1
    if level is Level.PORTABLE:
        return gemv_portable.gemv(bits=bits, asymmetric=asymmetric, output=output)
    return gemv_lanes.gemv(bits=bits, wide=wide, asymmetric=asymmetric, narrow=weights.narrow, output=output)
