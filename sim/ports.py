"""Ports of an emitted module, read from its text."""

import re

__all__ = ["has_port", "port_bits"]


def port_bits(verilog: str, port: str) -> int:
    """Width of a module's port.

    Raises
    ------
    ValueError                 If there is no such port.
    """
    found = _port(verilog, port)
    if found is None:
        raise ValueError(f"the module has no port {port}")
    return int(found[1] or 0) + 1


def has_port(verilog: str, port: str) -> bool:
    """Say whether a module has a port."""
    return _port(verilog, port) is not None


def _port(verilog: str, port: str) -> re.Match[str] | None:
    declared = rf"^\s*(?:input|output)\s+(?:wire\s+)?(?:signed\s+)?(?:\[(\d+):0\]\s+)?{re.escape(port)}\s*[;,)]?$"
    return re.search(declared, verilog, re.MULTILINE)
