"""Attributes and ports of the DSP48E2 under the vendor's names: one table for the twin, the instance and the reference.

Source: AMD UG579, "UltraScale Architecture DSP Slice", tables of ports and attributes.
"""

from typing import Final

__all__ = ["ATTRIBUTES", "INPUTS", "OUTPUTS"]

_ONE: Final = (0, 1)
_TWO: Final = (0, 1, 2)

# name -> (default, allowed values; None for a 48-bit number)
ATTRIBUTES: Final[dict[str, tuple[int | str, tuple[int | str, ...] | None]]] = {
    "AREG": (1, _TWO),
    "ACASCREG": (1, _TWO),
    "BREG": (1, _TWO),
    "BCASCREG": (1, _TWO),
    "CREG": (1, _ONE),
    "DREG": (1, _ONE),
    "ADREG": (1, _ONE),
    "MREG": (1, _ONE),
    "PREG": (1, _ONE),
    "OPMODEREG": (1, _ONE),
    "ALUMODEREG": (1, _ONE),
    "INMODEREG": (1, _ONE),
    "CARRYINREG": (1, _ONE),
    "CARRYINSELREG": (1, _ONE),
    "A_INPUT": ("DIRECT", ("DIRECT", "CASCADE")),
    "B_INPUT": ("DIRECT", ("DIRECT", "CASCADE")),
    "AMULTSEL": ("A", ("A", "AD")),
    "BMULTSEL": ("B", ("B", "AD")),
    "PREADDINSEL": ("A", ("A", "B")),
    "USE_MULT": ("MULTIPLY", ("NONE", "MULTIPLY", "DYNAMIC")),
    "USE_SIMD": ("ONE48", ("ONE48", "TWO24", "FOUR12")),
    "RND": (0, None),
    "USE_PATTERN_DETECT": ("NO_PATDET", ("NO_PATDET", "PATDET")),
    "PATTERN": (0, None),
    "MASK": (0x3FFFFFFFFFFF, None),
    "SEL_MASK": ("MASK", ("MASK", "C", "ROUNDING_MODE1", "ROUNDING_MODE2")),
    "SEL_PATTERN": ("PATTERN", ("PATTERN", "C")),
    "AUTORESET_PATDET": ("NO_RESET", ("NO_RESET", "RESET_MATCH", "RESET_NOT_MATCH")),
    "AUTORESET_PRIORITY": ("RESET", ("RESET", "CEP")),
    "USE_WIDEXOR": ("FALSE", ("FALSE", "TRUE")),
    "XORSIMD": ("XOR24_48_96", ("XOR24_48_96", "XOR12")),
}

# name -> bits; CLK apart
INPUTS: Final[dict[str, int]] = {
    "A": 30,
    "B": 18,
    "C": 48,
    "D": 27,
    "ACIN": 30,
    "BCIN": 18,
    "PCIN": 48,
    "CARRYIN": 1,
    "CARRYINSEL": 3,
    "ALUMODE": 4,
    "INMODE": 5,
    "OPMODE": 9,
    "CARRYCASCIN": 1,
    "MULTSIGNIN": 1,
    "CEA1": 1,
    "CEA2": 1,
    "CEAD": 1,
    "CEALUMODE": 1,
    "CEB1": 1,
    "CEB2": 1,
    "CEC": 1,
    "CECARRYIN": 1,
    "CECTRL": 1,
    "CED": 1,
    "CEINMODE": 1,
    "CEM": 1,
    "CEP": 1,
    "RSTA": 1,
    "RSTALLCARRYIN": 1,
    "RSTALUMODE": 1,
    "RSTB": 1,
    "RSTC": 1,
    "RSTCTRL": 1,
    "RSTD": 1,
    "RSTINMODE": 1,
    "RSTM": 1,
    "RSTP": 1,
}

OUTPUTS: Final[dict[str, int]] = {
    "P": 48,
    "PCOUT": 48,
    "ACOUT": 30,
    "BCOUT": 18,
    "CARRYOUT": 4,
    "CARRYCASCOUT": 1,
    "MULTSIGNOUT": 1,
    "PATTERNDETECT": 1,
    "PATTERNBDETECT": 1,
    "OVERFLOW": 1,
    "UNDERFLOW": 1,
    "XOROUT": 8,
}
