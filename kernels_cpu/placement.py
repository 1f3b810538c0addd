"""Where the kept tokens of a batch lie in panels: one sequence after another, each from a multiple of BLOCK on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.attention import BLOCK

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """Slots of tokens, panel by panel.

    width : int                         Tokens a panel.
    ids, positions : int32[P, width]    What the slots hold; id -1 is nothing.
    starts, lengths : int64[batch]      First slot and kept tokens of each sequence.
    firsts, lasts : int64[P]            The sequences with slots in each panel.
    slots : int64[batch, sequence]      Slot of a kept token; anything for the others.
    """

    width: int
    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    slots: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> "Placement":
        """Place the tokens ids[batch, sequence] whose mask is set."""
        lengths = mask.sum(axis=1, dtype=np.int64)
        room = -(-lengths // BLOCK) * BLOCK
        ends = np.cumsum(room)
        starts = ends - room
        width = 32 if ends[-1] <= 32 else 64
        panels = max(1, -(-int(ends[-1]) // width))
        slots = starts[:, None] + np.cumsum(mask, axis=1) - 1
        flat_ids, positions = np.full(panels * width, -1, np.int32), np.zeros(panels * width, np.int32)
        flat_ids[slots[mask]] = ids[mask]
        positions[slots[mask]] = np.nonzero(mask)[1]
        edges = width * np.arange(panels + 1)
        return cls(
            width=width,
            ids=flat_ids.reshape(panels, width),
            positions=positions.reshape(panels, width),
            starts=starts,
            lengths=lengths,
            firsts=np.searchsorted(ends, edges[:-1], side="right"),
            lasts=np.searchsorted(starts, edges[1:], side="left"),
            slots=slots,
        )

    @property
    def tokens(self) -> tuple[NDArray[Any], ...]:
        """What the kernel takes."""
        return self.ids, self.positions, self.starts, self.lengths, self.firsts, self.lasts
