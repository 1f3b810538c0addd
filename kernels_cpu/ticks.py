"""A cycle counter that compiled code reads, to say where the time of one call goes."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsefab.kernels_cpu.kernel import piece

__all__ = ["lap", "ticks"]


@intrinsic
def ticks(typing_context: Any) -> Any:
    """`ticks()`: the processor's counter (rdtsc); only for x86, elsewhere a program may not be allowed to read one."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), emit


@piece
def lap(spent, kind, since):  # type: ignore[no-untyped-def]
    """Add the ticks since `since` to spent[kind] and return the time now; does nothing where `spent` is None."""
    if spent is None:
        return 0
    now = ticks()
    spent[kind] += now - since
    return now
