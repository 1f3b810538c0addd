"""Take beats from a stream inside a simulator, with seeded back-pressure."""

import random
from typing import Any

__all__ = ["StreamSink"]


class StreamSink:
    """Accept payloads and keep them.

    Parameters
    ----------
    dut : handle               The top.
    name : str                 Port prefix.
    stall : float              Probability of not being ready in a cycle.
    seed : int
    """

    def __init__(self, dut: Any, name: str, *, stall: float = 0.0, seed: int = 0) -> None:
        self._valid, self._payload = getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__payload")
        self._ready = getattr(dut, f"{name}__ready")
        self._stall, self._random = stall, random.Random(f"{name} {seed}")
        self._is_ready = False
        self.received: list[int] = []
        self._ready.value = 0

    def drive(self) -> None:
        """Set ready for the coming rising edge."""
        ready = not (self._stall and self._random.random() < self._stall)
        if ready != self._is_ready:
            self._ready.value = int(ready)
            self._is_ready = ready

    def sample(self, cycle: int) -> None:
        """Keep the payload that the coming rising edge transfers."""
        if self._is_ready and int(self._valid.value):
            self.received.append(int(self._payload.value))
