"""Compare what a bench received with what the reference expects."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Mismatch", "compare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One beat that differs; None stands for a beat that is missing on that side."""

    beat: int
    expected: int | None
    received: int | None


def compare(expected: Sequence[int], received: Sequence[int]) -> list[Mismatch]:
    """Compare beat by beat; missing and surplus beats count, too."""
    found = []
    for beat in range(max(len(expected), len(received))):
        want = expected[beat] if beat < len(expected) else None
        got = received[beat] if beat < len(received) else None
        if want != got:
            found.append(Mismatch(beat=beat, expected=want, received=got))
    return found
