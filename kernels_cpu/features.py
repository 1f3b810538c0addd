"""Which instructions a kernel may use, decided before anything is compiled.

LLVM ends the process (no exception) when it is asked for an instruction that the target lacks, so the question is put
to the target that Numba will really compile for: the host's features unless ``NUMBA_CPU_FEATURES``, ``NUMBA_CPU_NAME``
or ``NUMBA_ENABLE_AVX`` say otherwise.  Where these leave a doubt, the answer is "no".
"""

import ctypes
import enum
import functools
import platform
import sys

import llvmlite.binding as llvm
from numba.core import config

__all__ = [
    "Level",
    "best_level",
    "chosen_level",
    "effective_features",
    "foreign_features",
    "level_named",
    "runs",
    "tiles_granted",
]


class Level(enum.Enum):
    """An instruction set that kernels are written for, best first.

    Each level lists the LLVM features it needs; PORTABLE needs none and runs on every architecture.
    """

    AVX512_AMX = "avx512-amx"
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
    Level.AVX512_AMX: _AVX512 | {"avx512vnni", "avx512vbmi", "avx512vbmi2", "amx-tile", "amx-int8"},
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


def level_named(name: str) -> Level:
    """Return the level of a name; raises ValueError with the names there are."""
    names = [level.value for level in Level]
    if name not in names:
        raise ValueError(f"level {name!r} is not one of {', '.join(names)}")
    return Level(name)


def runs(level: Level) -> bool:
    """Say whether kernels of `level` can be compiled and run in this process."""
    if level is Level.PORTABLE:
        return True
    if config.DISABLE_JIT:
        return False
    if not (platform.machine() in _X86 and level.needs <= effective_features()):
        return False
    return level is not Level.AVX512_AMX or tiles_granted()


@functools.cache
def tiles_granted() -> bool:
    """Ask the system for AMX's registers, which it keeps for a process only on request, and say whether it gave them.

    Linux grants them to all threads of the process; elsewhere the answer is "no".
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


# Linux on x86-64: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


def best_level() -> Level:
    """Return the first level of `Level` that this process can run."""
    return next(level for level in Level if runs(level))


def foreign_features() -> frozenset[str]:
    """Return features that Numba is told to use by a CPU's name and that the processor lacks: its code would crash.

    An LLVM target does not tell its features, so small functions are compiled for it and their code is read.
    """
    if config.CPU_NAME is None or platform.machine() not in _X86:
        return frozenset()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=config.CPU_NAME, features=config.CPU_FEATURES or "", opt=1)
    present = {name for name, on in llvm.get_host_cpu_features().items() if on}
    return frozenset(
        feature
        for feature, (text, instruction) in _PROBES.items()
        if feature not in present and instruction in machine.emit_assembly(llvm.parse_assembly(text))
    )


_PROBES = {
    "avx512vl": (
        "define <4 x i32> @f(<4 x float> %x) { %y = fptoui <4 x float> %x to <4 x i32> ret <4 x i32> %y }",
        "vcvttps2udq",
    ),
    "avx2": ("define <8 x i32> @f(<8 x i32> %x) { %y = add <8 x i32> %x, %x ret <8 x i32> %y }", "vpaddd\t%ymm"),
    "fma": (
        "declare float @llvm.fma.f32(float, float, float) "
        "define float @f(float %x) { %y = call float @llvm.fma.f32(float %x, float %x, float %x) ret float %y }",
        "vfmadd",
    ),
}


def chosen_level(level: Level | None, *, emulate: bool = False) -> Level:
    """Return `level`, or the best one for None.

    Raises
    ------
    ValueError                   If it cannot run here, and its missing instructions are not to be emulated; or if Numba
                                 compiles for a processor that is not this one.
    """
    if foreign := foreign_features():
        raise ValueError(
            f"Numba is told to compile for {config.CPU_NAME}, but this processor lacks {', '.join(sorted(foreign))}; "
            f"clear NUMBA_CPU_NAME"
        )
    if level is None:
        return best_level()
    if not runs(level) and not (emulate and not config.DISABLE_JIT):
        raise ValueError(
            f"level {level.value} cannot run here: the processor or Numba's settings lack "
            f"{', '.join(sorted(level.needs - effective_features())) or 'compilation'}"
        )
    return level
