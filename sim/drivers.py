"""Drive streams from inside a simulator: payloads are plain integers, stalls come from a seeded generator."""

import random
from collections.abc import Sequence
from typing import Any

__all__ = ["StreamSource"]


class StreamSource:
    """Offer payloads on a stream's `valid`, `payload`, `ready` ports.

    Parameters
    ----------
    dut : handle               The top.
    name : str                 Port prefix.
    payloads : ints            Sent in order.
    idle : float               Probability of withholding the next payload for a cycle.
    seed : int

    Notes
    -----
    `drive` runs on the falling edge, `sample` when all nets have settled before the rising edge. A payload once offered
    stays until it is taken.
    """

    def __init__(self, dut: Any, name: str, payloads: Sequence[int], *, idle: float = 0.0, seed: int = 0) -> None:
        self._valid, self._payload = getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__payload")
        self._ready = getattr(dut, f"{name}__ready")
        self._payloads, self._idle, self._random = payloads, idle, random.Random(f"{name} {seed}")
        self._offering = self._is_valid = False
        self.sent = 0
        self.first_cycle: int | None = None
        self.last_cycle = 0
        self._valid.value = 0

    @property
    def done(self) -> bool:
        """All payloads were taken."""
        return self.sent == len(self._payloads)

    def drive(self) -> None:
        """Set valid and payload for the coming rising edge."""
        if self._offering:
            return
        self._offering = not self.done and not (self._idle and self._random.random() < self._idle)
        if self._offering:
            self._payload.value = self._payloads[self.sent]
        if self._offering != self._is_valid:
            self._valid.value = int(self._offering)
            self._is_valid = self._offering

    def sample(self, cycle: int) -> None:
        """Note whether the coming rising edge transfers a beat."""
        if self._offering and int(self._ready.value):
            self.first_cycle = cycle if self.first_cycle is None else self.first_cycle
            self.last_cycle = cycle
            self.sent += 1
            self._offering = False

    @property
    def utilisation(self) -> float:
        """Beats per cycle between the first and the last beat."""
        if self.first_cycle is None:
            return 0.0
        return self.sent / (self.last_cycle - self.first_cycle + 1)
