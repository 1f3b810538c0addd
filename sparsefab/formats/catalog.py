"""Named formats, and names for any other.

int5, uint4, int4sym; e3m2, e4m3fn, e5m2i, e4m3fnuz, e8m0fnu, ue4m3, e3m2b5; mxint4, mxfp8_e4m3, mxfp4-up-f8-b16,
nvfp4-row.
"""

import difflib
import re

from sparsefab.errors import FormatError
from sparsefab.formats.floats import FloatFormat, Specials
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.mx import E8M0, BlockFormat, block_format

__all__ = ["CATALOG", "SCALE_FORMATS", "Format", "get_format"]

Format = IntFormat | FloatFormat | BlockFormat

_INTS = {f"int{bits}": IntFormat(bits=bits) for bits in range(2, 9)}
_SYMMETRIC = {f"int{bits}sym": IntFormat(bits=bits, symmetric=True) for bits in range(3, 9)}
_UNSIGNED = {f"uint{bits}": IntFormat(bits=bits, signed=False) for bits in range(2, 9)}
# Every split of 3 to 8 bits that the minifloat paper searches (arXiv 2311.12359), without specials.
_SPLITS = {
    f"e{e}m{m}": FloatFormat(exponent_bits=e, mantissa_bits=m)
    for bits in range(3, 9)
    for e in range(1, 6)
    for m in [bits - 1 - e]
    if 0 <= m <= 6
}
# ml_dtypes' names. Source: ml_dtypes 0.6.0; OCP MX v1.0 for the 6- and 4-bit types.
_ML_DTYPES = {
    "float8_e5m2": FloatFormat(exponent_bits=5, mantissa_bits=2, specials="ieee"),
    "float8_e4m3": FloatFormat(exponent_bits=4, mantissa_bits=3, specials="ieee"),
    "float8_e4m3fn": FloatFormat(exponent_bits=4, mantissa_bits=3, specials="fn"),
    "float8_e4m3fnuz": FloatFormat(exponent_bits=4, mantissa_bits=3, specials="fnuz"),
    "float8_e4m3b11fnuz": FloatFormat(exponent_bits=4, mantissa_bits=3, bias=11, specials="fnuz"),
    "float8_e5m2fnuz": FloatFormat(exponent_bits=5, mantissa_bits=2, specials="fnuz"),
    "float8_e3m4": FloatFormat(exponent_bits=3, mantissa_bits=4, specials="ieee"),
    "float6_e3m2fn": FloatFormat(exponent_bits=3, mantissa_bits=2),
    "float6_e2m3fn": FloatFormat(exponent_bits=2, mantissa_bits=3),
    "float4_e2m1fn": FloatFormat(exponent_bits=2, mantissa_bits=1),
}
_BLOCKS = {
    name: found
    for name in ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "nvfp4")
    if (found := block_format(name)) is not None
}
# What weights and activations may be stored in.
CATALOG: dict[str, Format] = {**_INTS, **_SYMMETRIC, **_UNSIGNED, **_SPLITS, **_ML_DTYPES, **_BLOCKS}
# What their scales may be stored in, too.
SCALE_FORMATS: dict[str, FloatFormat] = {"float8_e8m0fnu": E8M0}

_INT_NAME = re.compile(r"(u?)int(\d+)(sym)?")
_FLOAT_NAME = re.compile(r"(u?)e(\d+)m(\d+)(fnuz|fnu|fn|i)?(?:b(-?\d+))?")
_SPECIALS: dict[str | None, Specials] = {"fn": "fn", "fnuz": "fnuz", "fnu": "fn", "i": "ieee", None: "none"}


def get_format(name: str) -> Format:
    """Return the format of a catalogue name or a systematic one.

    Raises
    ------
    FormatError                     If the name is neither; the message offers the nearest names.
    """
    if name in CATALOG:
        return CATALOG[name]
    if name in SCALE_FORMATS:
        return SCALE_FORMATS[name]
    try:
        found = _systematic(name)
    except FormatError as error:
        raise FormatError(f"number format {name!r}: {error}") from error
    if found is None:
        near = difflib.get_close_matches(name, CATALOG, n=3) or ["int8", "int4", "e4m3", "e2m1"]
        raise FormatError(f"unknown number format {name!r}; did you mean {', '.join(near)}?")
    return found


def _systematic(name: str) -> Format | None:
    """Read a name that spells its format out; None if it does not."""
    if match := _INT_NAME.fullmatch(name):
        return IntFormat(bits=int(match[2]), signed=not match[1], symmetric=bool(match[3]))
    if match := _FLOAT_NAME.fullmatch(name):
        return FloatFormat(
            exponent_bits=int(match[2]),
            mantissa_bits=int(match[3]),
            bias=None if match[5] is None else int(match[5]),
            specials=_SPECIALS[match[4]],
            signed=not match[1] and match[4] != "fnu",
            zero=match[4] != "fnu",
        )
    return block_format(name)
