"""Vendor primitives as wrapper modules: one set of ports, a behavioural body or the vendor's, chosen by an argument."""

import re
from typing import Final

__all__ = ["PRIMITIVES", "is_wrapper"]

PRIMITIVES: Final = ("DSP48E2", "RAM32M16", "RAM32M", "LUT6_2")
_VERSAL: Final = ("DSP58",)

_WRAPPER: Final = re.compile(f"sparsefab_({'|'.join((*PRIMITIVES, *_VERSAL))})(_.*)?", re.IGNORECASE)


def is_wrapper(module: str) -> bool:
    """Say whether a module is a primitive's wrapper: only these differ between vendor and behavioural emissions."""
    return _WRAPPER.fullmatch(module) is not None
