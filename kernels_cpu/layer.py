"""What a kernel knows of a layer: one record of addresses and constants, filled once, read by every kernel.

A kernel has the signature

    kernel(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group)

with `layers` one record of LAYER, of N:M weights one for each task; activations uint8[P, K, width]; out [P, rows,
width] of the output's type; token_scales float32[P * width] (anything where the output is not f32); `task` the caller's
number among those at work.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYER", "Output", "filled"]

LAYER = np.dtype(
    [
        ("pointers", np.int64),  # address of int64[groups + 1]: first quad of each group of four rows
        ("offsets", np.int64),  # of int32[quads, 4]: 64 * k of each input
        ("values", np.int64),  # of int8[quads, 4 rows, 4 k]
        ("start", np.int64),  # of int32[rows]: what each sum starts with
        ("row_scales", np.int64),  # of float32[rows]
        ("shifts", np.int64),  # of int32[rows], -16 to 31; the half that rounds a shift is in start
        ("multipliers", np.int64),  # of int16[rows]
        # "lanes": the same again, each as often as it takes to fill a register by a load alone. The broadcast of a
        # word, and a shift whose count is one number, need the port that packs and unpacks.
        ("shift_lanes", np.int64),  # of int32[rows][4]
        ("multiplier_lanes", np.int64),  # of int16[rows][4]
        ("rounding", np.int64),  # 64 * zero_point + 32
        ("rounding_lanes", np.int64),  # the same in both words of a dword
        ("code_min", np.int64),
        ("code_max", np.int64),
        ("clamped", np.int64),  # whether these are less than the codes' type holds
        ("code_min_lanes", np.int64),  # the same in all bytes of a dword
        ("code_max_lanes", np.int64),
        ("tables", np.int64),  # of a kernel's shuffle indices
        ("lookup", np.int64),  # of uint8[256], on a 64-byte boundary: what becomes of each code
        ("residual", np.int64),  # bytes from out to the residual, an array of the same shape
        ("statistics", np.int64),  # bytes from token_scales to the statistics, float32[3 or 1][P * width]
        ("plane", np.int64),  # bytes of one of these three
        ("scratch", np.int64),  # of int32[threads, 4, 64], where a kernel keeps sums in memory
        # N:M weights, which a task expands into its own room, `values`; a record for each task
        ("packed", np.int64),  # of int8[tiles, tile_bytes]: what is stored
        ("masks", np.int64),  # of uint64[tiles]
        ("controls", np.int64),  # of the table in `expand`
        ("steps", np.int64),  # of int64[batch + 1]: first quad of each group of a batch
        ("tile_bytes", np.int64),
        ("tiles", np.int64),  # a group
        ("batch", np.int64),  # groups that are expanded at a time
        # weights for AMX, whose `packed` and `masks` are those of TileWeights; a task's room is
        # uint8[run][K / 64][64 * width] of activations, int8[2][K / 64][32][64] of weights, int32[2][32][width] of sums
        ("starts", np.int64),  # of int64[M / 32]: first stored byte of each block
        ("inner_steps", np.int64),  # K / 64
        ("room", np.int64),  # of uint8[threads, room_bytes]
        ("room_bytes", np.int64),
        ("run", np.int64),  # panels that are arranged at a time
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a kernel is compiled for.

    Attributes
    ----------
    kind : str                   's32', 'f32', 'u8', 's8' or 'interleaved' (u8, four rows side by side).
    lookup : bool                Codes go through a table of 256 bytes.
    residual : bool              Reals have another array's reals added.
    statistics : str             What sums a token reals leave behind: '', 'moments' or 'squares'; see `reals`.
    """

    kind: str
    lookup: bool = False
    residual: bool = False
    statistics: str = ""


def filled(**fields: NDArray[Any] | int) -> NDArray[np.void]:
    """Return one record; an array stands for its address, and the caller keeps it alive."""
    record = np.zeros(1, LAYER)
    for name, value in fields.items():
        record[name] = value if isinstance(value, int) else value.ctypes.data
    return record
