"""Which GPU kernel runs a compressed layer, and how honestly: native, dequantized, emulated, or not at all.

A kernel that takes the format as it is comes first. Failing that, stored values are widened to the next format that a
kernel takes (int3 is stored as int4, E3M2 as fp16, N:M other than 2:4 as dense): that is 'emulated', and the wider
bytes and the dense work are what is priced. Activations are widened only among integers. What is left is absent and
refused.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from sparsefab.cost_models.result import Support
from sparsefab.cost_models.roofline import kernel_named
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import Format, get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout import RowMajor, Sparse
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.sparsity import NM, Dense
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import Device, Kernel

__all__ = ["Choice", "activation_key", "choose_kernel", "format_key"]

_SCALE_BITS = 16  # GPU kernels hold a group's scale as fp16
_FLOAT_NAMES = {"float", "fp16", "bf16", "fp32", "float32", "float16", "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A kernel for a layer; `stored` is the format that its memory holds, None for fp16."""

    kernel: Kernel
    support: Support
    stored: Format | None
    sparse: bool
    note: str

    def weight_bytes(self, spec: TensorSpec | None, rows: int, columns: int) -> float:
        """Bytes of the weights as this kernel stores them, scales and indices included."""
        if self.stored is None or spec is None:
            return 2.0 * rows * columns
        own = TensorSpec.of(
            rows, columns, self.stored, NM(2, 4) if self.sparse else Dense(), spec.group_size, spec.asymmetric
        )
        layout = Sparse("index") if self.sparse else RowMajor()
        return float(sum(layout.section_bytes(replace(own, multiplier_bits=_SCALE_BITS)).values()))


def format_key(fmt: Format) -> str:
    """Name of a format in the capability table: 'int4' whatever its range, 'e4m3' whatever its special codes.

    'mxfp4' whatever its scales' rounding, but 'mxfp4-b16' where the blocks are not those of the standard.
    """
    if isinstance(fmt, IntFormat):
        return f"{'' if fmt.signed else 'u'}int{fmt.bits}"
    if isinstance(fmt, BlockFormat):
        name, *details = fmt.name.split("-")
        return "-".join([name, *(part for part in details if part.startswith("b"))])
    return f"e{fmt.exponent_bits}m{fmt.mantissa_bits}"


def activation_key(name: str) -> str:
    """Return the table's name of an activation format; 'fp16' for the float ones."""
    return "fp16" if name in _FLOAT_NAMES else format_key(get_format(name))


def _widenings(key: str, activation: str) -> list[str]:
    """Stored weight formats to try, narrowest first, the format itself in front."""
    choices = [key]
    if key.lstrip("u").startswith("int"):
        bits = int(key.lstrip("u")[3:]) + (key[0] == "u")
        choices += [f"int{wide}" for wide in (4, 8) if bits <= wide]
    elif re.fullmatch(r"e\d+m\d+", key) and activation != "fp16":
        exponent, mantissa = (int(part) for part in key[1:].split("m"))
        choices += ["e4m3"] if exponent <= 4 and mantissa <= 3 else []
    if activation == "fp16":
        choices.append("fp16")
    return list(dict.fromkeys(choices))


def _activations(key: str) -> list[str]:
    choices = [key]
    if key.lstrip("u").startswith("int"):
        bits = int(key.lstrip("u")[3:])
        choices += [f"int{wide}" for wide in (4, 8) if bits <= wide and key.startswith("int")]
        choices += ["int8"] if key.startswith("uint") else []  # code - 128, corrected in the bias
    return list(dict.fromkeys(choices))


def choose_kernel(device: Device, spec: TensorSpec | None, activation: str) -> Choice:
    """Return the kernel that runs a layer on a GPU.

    Parameters
    ----------
    spec : TensorSpec | None        None: float weights.
    activation : str                Format name, or 'float'.

    Raises
    ------
    TargetError                     If the device has no kernel for it, wider ones included; says what is missing.
    """
    if spec is not None and spec.outliers:
        raise TargetError(
            f"absent on {device.name}: no kernel adds outliers to a product of {spec.format.name} weights"
        )
    weight = None if spec is None else spec.format
    two_four = spec is not None and isinstance(spec.pattern, NM) and spec.pattern.n <= 2  # 2:8 and 1:4 obey 2:4, too
    dense = spec is None or isinstance(spec.pattern, Dense)
    grouped = spec is not None and spec.group_size < spec.columns
    return _choose(
        device.name,
        device.gpu.kernels if device.gpu else (),
        weight,
        activation_key(activation),
        grouped,
        two_four,
        dense,
    )


@lru_cache(maxsize=4096)
def _choose(
    device: str,
    names: tuple[str, ...],
    weight: Format | None,
    activation: str,
    grouped: bool,
    two_four: bool,
    dense: bool,
) -> Choice:
    key = "fp16" if weight is None else format_key(weight)
    kernels = [kernel_named(name) for name in names]
    for acts in _activations(activation):
        for pattern in ("2:4", "dense") if two_four else ("dense",):
            for stored in _widenings(key, acts):
                for kernel in kernels:
                    fits = stored in kernel.weights and acts in kernel.activations and kernel.pattern == pattern
                    scales = "group" if grouped else "row"
                    if not fits or (stored != "fp16" and kernel.scales not in ("any", scales)):
                        continue
                    return _choice(kernel, key, stored, activation, acts, pattern == "2:4", dense)
    scale = "with a scale a group" if grouped else "with a scale a row"
    raise TargetError(
        f"{device}: no kernel multiplies {key} weights {scale} with {activation} activations (absent); "
        f"choose float activations, or formats of its kernels: {', '.join(names)}"
    )


def _choice(kernel: Kernel, key: str, stored: str, activation: str, acts: str, sparse: bool, dense: bool) -> Choice:
    notes = []
    if stored != key:
        notes.append(f"{key} weights stored as {stored}")
    if acts != activation:
        notes.append(f"{activation} activations run as {acts}")
    if not dense and not sparse:
        notes.append("sparsity not exploited: stored and multiplied as dense")
    support = Support.EMULATED if notes else Support(kernel.support)
    fmt = None if stored == "fp16" else get_format(stored)
    return Choice(kernel=kernel, support=support, stored=fmt, sparse=sparse, note="; ".join(notes))
