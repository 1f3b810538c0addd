"""Take beats from a stream inside a simulator, with seeded back-pressure."""

import random

from sparsefab.sim.drivers import StreamPorts

__all__ = ["StreamSink"]


class StreamSink:
    """Accept payloads and keep them.

    Parameters
    ----------
    ports : StreamPorts
    stall : float              Probability of not being ready in a cycle.
    seed : str                 Of the stalls.
    """

    def __init__(self, ports: StreamPorts, *, stall: float = 0.0, seed: str = "") -> None:
        self._ports = ports
        self._stall, self._random = stall, random.Random(seed)
        self._is_ready = False
        self.received: list[int] = []
        self._first_cycle = self._last_cycle = 0
        ports.ready.value = 0

    def drive(self) -> None:
        """Set ready for the coming rising edge."""
        ready = not (self._stall and self._random.random() < self._stall)
        if ready != self._is_ready:
            self._ports.ready.value = int(ready)
            self._is_ready = ready

    def sample(self, cycle: int) -> None:
        """Keep the payload that the coming rising edge transfers."""
        if self._is_ready and int(self._ports.valid.value):
            self._last_cycle = cycle
            if not self.received:
                self._first_cycle = cycle
            self.received.append(self._ports.get())

    @property
    def utilisation(self) -> float:
        """Beats per cycle between the first and the last beat."""
        return len(self.received) / (self._last_cycle - self._first_cycle + 1) if self.received else 0.0
