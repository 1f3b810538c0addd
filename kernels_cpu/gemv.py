"""Weight-only quantized products of few tokens: the decode side, bound by the bytes of the weights.

weights = NibbleWeights.from_packed(pack(tensor, Nibbles16()))   # integers of up to 4 bits, group scales, zero points
product = MatrixVector(weights, row_scales=tensor.accumulator_scale)
results = product.run(codes, token_scales)                      # codes int8[tokens, in] -> float32[tokens, out]

sum[token, row] = sum over groups g of s_g * sum over i in g of (q_i - z_g) * x_i            exact integers
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.kernels_cpu import gemv_avx2, gemv_portable, gemv_vnni
from sparsefab.kernels_cpu.features import Level, chosen_level, runs
from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros
from sparsefab.kernels_cpu.threads import check_threads, run_blocks
from sparsefab.kernels_cpu.weights import NibbleWeights

__all__ = ["MatrixVector", "NibbleWeights"]

_ROWS = 16  # a block: one row in each dword of a register
_PART = 32  # inputs in a block's 256 bytes
_S32_MAX = (1 << 31) - 1
_MODULES: dict[Level, Any] = {Level.AVX512_VNNI: gemv_vnni, Level.AVX2: gemv_avx2, Level.PORTABLE: gemv_portable}


class MatrixVector:
    """A weight-only quantized layer ready to run on a few tokens.

    Parameters
    ----------
    weights : NibbleWeights      The matrix.
    row_scales : float32[rows] | None         Results are float32(sum) * row_scale, then * token_scale; None gives sums.
    level : Level | None         AVX512_VNNI, AVX2 or PORTABLE; None takes the best that runs here and holds every sum.
    emulate : bool               Emulate the level's instructions that the processor lacks: for tests, slow.

    Raises
    ------
    ValueError                   If the scales do not fit, or `level` cannot run here.
    LayoutError                  If a sum needs more than 32 bits and `level` or the results have no more.
    """

    def __init__(
        self,
        weights: NibbleWeights,
        *,
        row_scales: NDArray[np.float32] | None = None,
        level: Level | None = None,
        emulate: bool = False,
    ) -> None:
        fits = weights.reach <= _S32_MAX
        if level is None:
            level = next(each for each in _MODULES if runs(each) and (fits or each is Level.PORTABLE))
        if level not in _MODULES:
            raise ValueError(f"level {level.value} has no such kernel")
        level = chosen_level(level, emulate=emulate)
        if not fits and (level is not Level.PORTABLE or row_scales is None):
            raise LayoutError(f"a sum can reach {weights.reach}, beyond 32 bits")
        self.weights = weights
        self.level = level
        self._scales = aligned_zeros((weights.values.shape[0] * _ROWS,), np.float32)
        if row_scales is not None:
            if row_scales.dtype != np.float32 or row_scales.shape != (weights.rows,):
                raise ValueError(f"row_scales must be float32 of shape {(weights.rows,)}, not {row_scales.shape}")
            if not np.isfinite(row_scales).all():
                raise ValueError("row_scales must be finite")
            self._scales[: weights.rows] = row_scales
        self._dtype: Any = np.int32 if row_scales is None else np.float32
        self._kernel = _MODULES[level].gemv(
            asymmetric=weights.zeros.size > 1, output="s32" if row_scales is None else "f32"
        )

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
        weights = self.weights
        if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] != weights.columns:
            raise ValueError(f"codes must be int8[tokens, {weights.columns}], not {codes.dtype} of {codes.shape}")
        tokens = len(codes)
        scales = np.ones(tokens, np.float32) if token_scales is None else token_scales
        if scales.dtype != np.float32 or scales.shape != (tokens,) or not np.isfinite(scales).all():
            raise ValueError(f"token_scales must be finite float32 of shape {(tokens,)}")
        check_threads(threads)
        blocks, groups, parts, _ = weights.values.shape
        grouped = aligned_empty((tokens, groups, _PART * parts), np.int8)
        shifts = np.empty((tokens, groups), np.int32)
        factor = -int(weights.zeros[0, 0, 0]) if weights.zeros.size == 1 else 1
        if _arrange(codes, weights.group_size, factor, grouped, shifts):
            raise ValueError("codes must be -127 to 127")
        out = aligned_empty((tokens, blocks * _ROWS), self._dtype)
        arguments = (
            weights.values, weights.multipliers, weights.zeros, grouped, shifts, self._scales,
            np.ascontiguousarray(scales), out,
        )  # fmt: skip
        if threads == 1:
            self._kernel(*arguments, 0, blocks)
        else:
            run_blocks(self._kernel, threads, blocks, arguments)
        return out[:, : weights.rows]


@kernel
def _arrange(codes, group_size, factor, grouped, shifts):  # type: ignore[no-untyped-def]
    """Fill groups up with zeros, and sum each; say whether a code is -128."""
    least = 0
    for token in range(codes.shape[0]):
        for group in range(grouped.shape[1]):
            begin = group * group_size
            count = min(group_size, codes.shape[1] - begin)
            total = 0
            for i in range(count):
                code = codes[token, begin + i]
                grouped[token, group, i] = code
                total += code
                least = min(least, code)
            grouped[token, group, count:] = 0
            shifts[token, group] = factor * total
    return least < -127
