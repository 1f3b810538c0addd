"""Logic between registers, counted on a mapped netlist: no timing, but the rule that keeps a design fast.

Yosys' own `ltp` walks through black-box DSP cascades; this walker stops at registers, DSPs and shift registers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LogicDepth", "logic_depth"]

# the read of a distributed RAM is a LUT; its data, write address and enable end in a register
_RAM_READS: Final = {"RAM32M16": "ABCDEFGH", "RAM32M": "ABCD"}
_LUTS: Final = frozenset({"LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "LUT6_2", "INV"})
_WIRES: Final = frozenset({"MUXF7", "MUXF8", "MUXF9", "BUFG"})
_CARRIES: Final = frozenset({"CARRY4", "CARRY8"})

Path = tuple[int, int]  # LUTs, carry chains


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicDepth:
    """Worst path between registers.

    lut_levels           LUTs in a row on paths without a carry chain; a distributed RAM's read counts as one.
    carry_chains         Carry chains in a row.
    lut_levels_on_carry  LUTs on a path with a carry chain, the adder's own included.
    """

    lut_levels: int
    carry_chains: int
    lut_levels_on_carry: int

    @property
    def fast(self) -> bool:
        """At most two LUT levels, or one carry chain and the LUTs of its adder."""
        return self.lut_levels <= 2 and self.carry_chains <= 1 and self.lut_levels_on_carry <= 2


def logic_depth(netlist: Mapping[str, Any], top: str) -> LogicDepth:
    """Walk a flat netlist back from every register's input.

    Parameters
    ----------
    netlist : mapping          Yosys' `write_json` of a flattened, mapped design.
    top : str                  Its module.
    """
    cells = [cell for cell in netlist["modules"][top]["cells"].values() if cell["type"] != "$scopeinfo"]
    drivers: dict[int, tuple[Mapping[str, Any], str]] = {}
    for cell in cells:
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                drivers.update({bit: (cell, port) for bit in bits if isinstance(bit, int)})
    paths: dict[int, frozenset[Path]] = {}
    worst: set[Path] = set()
    for cell in cells:
        for bit in _endpoints(cell):
            worst |= _walk(bit, drivers, paths)
    plain = [luts for luts, carries in worst if not carries]
    carried = [luts for luts, carries in worst if carries]
    return LogicDepth(
        lut_levels=max(plain, default=0),
        carry_chains=max((c for _, c in worst), default=0),
        lut_levels_on_carry=max(carried, default=0),
    )


def _endpoints(cell: Mapping[str, Any]) -> Iterator[int]:
    """Bits that end a path in this cell."""
    kind = cell["type"]
    if kind in _LUTS or kind in _WIRES or kind in _CARRIES:
        return
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] != "input":
            continue
        if kind in _RAM_READS and port.startswith("ADDR") and port[-1] != _RAM_READS[kind][-1]:
            continue
        yield from (bit for bit in bits if isinstance(bit, int))


def _walk(
    bit: int, drivers: Mapping[int, tuple[Mapping[str, Any], str]], paths: dict[int, frozenset[Path]]
) -> frozenset[Path]:
    """Paths (LUTs, carry chains) from registers to a bit; only those that no other exceeds in both."""
    if bit in paths:
        return paths[bit]
    if bit not in drivers:
        return frozenset({(0, 0)})
    cell, port = drivers[bit]
    kind = cell["type"]
    found: set[Path] = set()
    if kind in _RAM_READS:
        bits = cell["connections"][f"ADDR{port[-1]}"]
    elif kind in _LUTS or kind in _WIRES or kind in _CARRIES:
        bits = [b for p, bs in cell["connections"].items() if cell["port_directions"][p] == "input" for b in bs]
    else:
        bits = []  # a register, a DSP, a shift register with a constant address
        found.add((0, 0))
    for source in bits:
        if not isinstance(source, int):
            continue
        inside = kind in _CARRIES and source in drivers and drivers[source][0]["type"] in _CARRIES
        for luts, carries in _walk(source, drivers, paths):
            found.add((luts + (kind in _LUTS or kind in _RAM_READS), carries + (kind in _CARRIES and not inside)))
    found = found or {(0, 0)}
    kept = frozenset(p for p in found if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in found))
    # a path without a carry is judged by another rule than one with: keep the longest of each
    kept |= {max(p for p in found if not p[1])} if any(not p[1] for p in found) else frozenset()
    paths[bit] = kept
    return kept
