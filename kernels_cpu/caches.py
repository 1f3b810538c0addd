"""The caches of this machine by name and size, as Linux lists them."""

import functools
from pathlib import Path

__all__ = ["cache_of", "cache_sizes"]

_SHARE = 0.75  # of a cache that weights may fill and stay in


@functools.cache
def cache_sizes() -> dict[str, int]:
    """Return the bytes of the second and later caches of the first processor, nearest first; empty where not listed."""
    result = {}
    for path in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, size = (path / "level").read_text().strip(), (path / "size").read_text().strip()
        except OSError:
            continue
        unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
        if level != "1":
            result[f"L{level}"] = int(size.rstrip("KM")) * unit
    return result


def cache_of(nbytes: int) -> str:
    """Return the name of the nearest cache that so many bytes stay in, 'cache' where that is not known."""
    return next((name for name, size in cache_sizes().items() if nbytes <= _SHARE * size), "cache")
