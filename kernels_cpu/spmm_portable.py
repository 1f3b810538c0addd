"""4x1 block-sparse s8 weights times u8 activations in plain loops: any architecture, the same panels and results.

Loop order as in the vector kernels: panel, group of four rows, quad, row, token; LLVM vectorizes over the 64 tokens.
Sums live in `sums`, int32[4, 64], given by the caller, because a kernel allocates nothing.
"""

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel, piece

__all__ = ["spmm"]


@functools.cache
def spmm(*, output: str) -> Any:
    """Return the compiled kernel for one kind of output: 's32', 'f32', 'u8' or 's8'.

    Returns
    -------
    kernel(ptr, offsets, values, activations, start, parameters, out, panels, groups, sums)
        As in `spmm_vnni.spmm`, and sums int32[4, 64], overwritten.
    """
    return _assemble(_EPILOGUES[output])


def _assemble(epilogue: Any) -> Any:
    @kernel
    def spmm_4x1_portable(ptr, offsets, values, activations, start, parameters, out, panels, groups, sums):  # type: ignore[no-untyped-def]
        for panel in range(panels[0], panels[1]):
            lines = activations[panel]
            for group in range(groups[0], groups[1]):
                row = 4 * group
                for r in range(4):
                    sums[r, :] = start[row + r]
                for quad in range(ptr[group], ptr[group + 1]):
                    k0, k1 = lines[offsets[quad, 0] >> 6], lines[offsets[quad, 1] >> 6]
                    k2, k3 = lines[offsets[quad, 2] >> 6], lines[offsets[quad, 3] >> 6]
                    for r in range(4):
                        w0, w1 = np.int32(values[quad, r, 0]), np.int32(values[quad, r, 1])
                        w2, w3 = np.int32(values[quad, r, 2]), np.int32(values[quad, r, 3])
                        for t in range(64):
                            sums[r, t] += (w0 * np.int32(k0[t]) + w1 * np.int32(k1[t])) + (
                                w2 * np.int32(k2[t]) + w3 * np.int32(k3[t])
                            )
                for r in range(4):
                    epilogue(out[panel, row + r], parameters, panel, row + r, sums[r])

    return spmm_4x1_portable


@piece
def _store_sums(to, parameters, panel, row, sums):  # type: ignore[no-untyped-def]
    for t in range(64):
        to[t] = sums[t]


@piece
def _store_reals(to, parameters, panel, row, sums):  # type: ignore[no-untyped-def]
    row_scales, token_scales = parameters
    scale, first = row_scales[row], 64 * panel
    for t in range(64):
        to[t] = np.float32(np.float32(sums[t]) * scale) * token_scales[first + t]


@piece
def _code(value, shift, parameters, row):  # type: ignore[no-untyped-def]
    """Return one code by the house's requantization; the half that rounds the shift is in the sum."""
    x = np.int64(value)
    x = x >> shift if shift >= 0 else x << -shift
    x = ((min(max(x, -32768), 32767) * parameters[1][row] + 16384) >> 15) + parameters[2]
    return min(max(min(max(x, -32768), 32767) >> 6, parameters[3]), parameters[4])


@piece
def _store_codes(to, parameters, panel, row, sums):  # type: ignore[no-untyped-def]
    shift = np.int64(parameters[0][row])
    for t in range(64):
        to[t] = _code(sums[t], shift, parameters, row)


_EPILOGUES = {"s32": _store_sums, "f32": _store_reals, "u8": _store_codes, "s8": _store_codes}
