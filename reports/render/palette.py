"""Colours and marks of targets, the same in the figures and on the page.

The colours are those of Okabe and Ito, which stay apart for every kind of colour vision; each has a lighter twin for
dark backgrounds. A target also has a mark (by device) and a line, so that no figure depends on colour alone.
"""

from dataclasses import dataclass

from sparsefab.reports.points import Device

__all__ = ["DEVICE_NAMES", "Look", "look"]

_COLOURS = (
    ("#0072b2", "#5eb5e8"),
    ("#d55e00", "#ff9a56"),
    ("#009e73", "#3fd0a6"),
    ("#cc79a7", "#eaa6ca"),
    ("#b8860b", "#f0c34a"),
    ("#56b4e9", "#9ad6f7"),
    ("#5b4b9a", "#a99be6"),
    ("#6b6b6b", "#b9b9b9"),
)
_MARKS: dict[Device, str] = {"fpga": "s", "gpu": "^", "cpu": "o"}
_DASHES: tuple[tuple[int, ...], ...] = ((), (5, 2), (2, 2), (6, 2, 1, 2))

DEVICE_NAMES: dict[Device, str] = {"fpga": "FPGA", "gpu": "GPU", "cpu": "CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a target is drawn: colour on light and on dark, mark, dash lengths of its line (empty: solid)."""

    light: str
    dark: str
    mark: str
    dashes: tuple[int, ...]


def look(index: int, device: Device) -> Look:
    """The look of the target at a place in the list of targets."""
    light, dark = _COLOURS[index % len(_COLOURS)]
    return Look(light=light, dark=dark, mark=_MARKS[device], dashes=_DASHES[index // len(_COLOURS) % len(_DASHES)])
