"""Which instructions a kernel may use, decided before anything is compiled.

LLVM ends the process (no exception) when it is asked for an instruction that the target lacks, so the question is put
to the target that Numba will really compile for: the host's features unless ``NUMBA_CPU_FEATURES``, ``NUMBA_CPU_NAME``
or ``NUMBA_ENABLE_AVX`` say otherwise.  Where these leave a doubt, the answer is "no".
"""

import enum
import platform

import llvmlite.binding as llvm
from numba.core import config

__all__ = ["Level", "best_level", "effective_features", "runs"]


class Level(enum.Enum):
    """An instruction set that kernels are written for, best first.

    Each level lists the LLVM features it needs; PORTABLE needs none and runs on every architecture.
    """

    AVX512_VNNI = "avx512-vnni"
    AVX512 = "avx512"
    AVX_VNNI = "avx-vnni"
    AVX2 = "avx2"
    PORTABLE = "portable"

    @property
    def needs(self) -> frozenset[str]:
        """LLVM feature names that must all be effective."""
        return _NEEDS[self]


_AVX512 = frozenset({"avx", "avx2", "avx512f", "avx512bw", "avx512vl"})
_NEEDS = {
    Level.AVX512_VNNI: _AVX512 | {"avx512vnni"},
    Level.AVX512: _AVX512,
    Level.AVX_VNNI: frozenset({"avx", "avx2", "avxvnni"}),
    Level.AVX2: frozenset({"avx", "avx2"}),
    Level.PORTABLE: frozenset(),
}
_X86 = ("x86_64", "AMD64", "amd64")


def effective_features() -> frozenset[str]:
    """Return the features that Numba's target is sure to have, in LLVM's names.

    Returns
    -------
    frozenset[str]               Empty when nothing is certain; on x86 ``avx*`` is missing if AVX is switched off.

    Notes
    -----
    An explicit feature string is believed only where it names a feature with ``+``; what an explicit CPU name implies
    is not counted, so forcing a CPU by name and clearing the feature string falls back to portable code.
    """
    try:
        names = {name for name, on in llvm.get_host_cpu_features().items() if on}
    except RuntimeError:  # LLVM does not know this machine
        return frozenset()
    if config.CPU_FEATURES is not None:
        # Only what is both asked for and there: more would stop at an illegal instruction.
        items = [item.strip() for item in str(config.CPU_FEATURES).split(",")]
        names &= {item[1:] for item in items if item[:1] == "+"} - {item[1:] for item in items if item[:1] == "-"}
    if not config.ENABLE_AVX:
        names = {name for name in names if not name.startswith("avx")}
    return frozenset(names)


def runs(level: Level) -> bool:
    """Say whether kernels of `level` can be compiled and run in this process."""
    if level is Level.PORTABLE:
        return True
    if config.DISABLE_JIT:
        return False
    return platform.machine() in _X86 and level.needs <= effective_features()


def best_level() -> Level:
    """Return the first level of `Level` that this process can run."""
    return next(level for level in Level if runs(level))
