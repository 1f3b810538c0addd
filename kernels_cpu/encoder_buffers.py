"""Memory of a compiled encoder, kept from call to call: what all tasks share, and what each has for itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.attention import BLOCK, scratch_bytes
from sparsefab.kernels_cpu.panels import aligned_zeros

__all__ = ["EncoderBuffers"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncoderBuffers:
    """Memory of a plan for panels of one width; see `encoder.encoder`."""

    x: NDArray[np.float32]
    arranged: NDArray[np.int8]
    of_tasks: tuple[NDArray[Any], ...]
    portable: NDArray[np.int32]
    room: NDArray[np.uint8]
    longest: int

    @classmethod
    def of(
        cls, *, width: int, inner: int, panels: int, lanes: int, longest: int, tasks: int, room: int
    ) -> "EncoderBuffers":
        """Make zeros for `panels` panels of `lanes` tokens, sequences of up to `longest`, and `tasks` threads.

        Each of these has `room` bytes for the products' own use.
        """
        hidden = aligned_zeros((tasks, inner, lanes), np.int8)
        return cls(
            x=aligned_zeros((panels, lanes // 16, width, 16), np.float32),
            arranged=aligned_zeros((2, panels, 3 * width, lanes), np.int8),
            of_tasks=(
                aligned_zeros((tasks, 3 * width, lanes), np.int8),
                aligned_zeros((tasks, width, lanes), np.uint8),
                aligned_zeros((tasks, width, lanes), np.uint8),
                hidden,
                hidden.view(np.uint8),
                aligned_zeros((tasks, width, lanes), np.float32),
                aligned_zeros((tasks, scratch_bytes(max(longest, BLOCK))), np.uint8),
            ),
            portable=aligned_zeros((tasks, 4, 64), np.int32),
            room=aligned_zeros((tasks, room), np.uint8),
            longest=longest,
        )

    @property
    def panels(self) -> int:
        """How many it holds."""
        return len(self.x)

    @property
    def nbytes(self) -> int:
        """All of it; the two views of the inner codes are one."""
        parts: tuple[NDArray[Any], ...] = (self.x, self.arranged, *self.of_tasks, self.portable, self.room)
        return sum(int(part.nbytes) for part in parts) - int(self.of_tasks[4].nbytes)
