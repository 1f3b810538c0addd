"""Drive streams from inside a simulator: payloads are plain integers, stalls come from a seeded generator."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["StreamPorts", "StreamSource"]


@dataclass(frozen=True, slots=True)
class StreamPorts:
    """A stream's handles; `fields` are the handles of its payload and their bits, lowest first."""

    valid: Any
    ready: Any
    fields: tuple[tuple[Any, int], ...]

    @staticmethod
    def amaranth(dut: Any, name: str) -> "StreamPorts":
        """Ports as Amaranth names them: name__payload, name__valid, name__ready."""
        payload = getattr(dut, f"{name}__payload")
        fields = ((payload, len(payload)),)
        return StreamPorts(getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__ready"), fields)

    @staticmethod
    def axis(dut: Any, name: str) -> "StreamPorts":
        """AXI4-Stream ports: name_tdata, then name_tlast above it."""
        data, last = getattr(dut, f"{name}_tdata"), getattr(dut, f"{name}_tlast")
        if name.startswith("s_"):
            keep = getattr(dut, f"{name}_tkeep")
            keep.value = (1 << len(keep)) - 1
        fields = ((data, len(data)), (last, 1))
        return StreamPorts(getattr(dut, f"{name}_tvalid"), getattr(dut, f"{name}_tready"), fields)

    def put(self, payload: int) -> None:
        """Drive the payload."""
        for handle, bits in self.fields:
            handle.value = payload & ((1 << bits) - 1)
            payload >>= bits

    def get(self) -> int:
        """Read the payload."""
        payload = low = 0
        for handle, bits in self.fields:
            payload |= int(handle.value) << low
            low += bits
        return payload


class StreamSource:
    """Offer payloads on a stream.

    Parameters
    ----------
    ports : StreamPorts
    payloads : ints            Sent in order.
    idle : float               Probability of withholding the next payload for a cycle.
    seed : str                 Of the idles.

    Notes
    -----
    `drive` runs on the falling edge, `sample` when all nets have settled before the rising edge. A payload once offered
    stays until it is taken.
    """

    def __init__(self, ports: StreamPorts, payloads: Sequence[int], *, idle: float = 0.0, seed: str = "") -> None:
        self._ports = ports
        self._payloads, self._idle, self._random = payloads, idle, random.Random(seed)
        self._offering = self._is_valid = False
        self.sent = 0
        self.first_cycle: int | None = None
        self.last_cycle = 0
        ports.valid.value = 0

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
            self._ports.put(self._payloads[self.sent])
        if self._offering != self._is_valid:
            self._ports.valid.value = int(self._offering)
            self._is_valid = self._offering

    def sample(self, cycle: int) -> None:
        """Note whether the coming rising edge transfers a beat."""
        if self._offering and int(self._ports.ready.value):
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
