"""Which formats run on which GPU, and what a format that does not run says."""

import tomllib

import numpy as np
import pytest

from sparsefab.cost_models.capability import choose_kernel
from sparsefab.cost_models.gpu import product_seconds
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import parse_pattern
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import load_device
from sparsefab.targets.catalog import GPU_KERNELS


def spec(fmt: str, pattern: str = "dense", group: int | None = None) -> TensorSpec:
    return TensorSpec.of(4096, 4096, get_format(fmt), parse_pattern(pattern), group)


@pytest.mark.parametrize(("device", "fmt", "pattern", "group", "activation", "kernel", "support"), [
    ("a100", "int4", "dense", 128, "float", "int4_wo", "dequantized"),
    ("a100", "int4sym", "dense", 128, "float", "int4_wo", "dequantized"),
    ("a100", "int8", "dense", None, "int8", "sq", "native"),
    ("a100", "int8", "dense", None, "uint8", "sq", "emulated"),
    ("a100", "int3", "dense", 128, "float", "int4_wo", "emulated"),
    ("a100", "int6", "dense", None, "int8", "sq", "emulated"),
    ("a100", "e4m3fn", "dense", None, "float", "fp8_wo", "dequantized"),
    ("a100", "e3m2", "dense", None, "float", "fp16", "emulated"),
    ("a100", "int8", "2:4", None, "int8", "sq_24", "native"),
    ("a100", "int8", "1:4", None, "int8", "sq_24", "native"),
    ("a100", "int8", "4:8", None, "int8", "sq", "emulated"),
    ("a100", "int8", "4x1@0.5", None, "int8", "sq", "emulated"),
    ("a100", "int4", "2:4", None, "float", "int4_24", "dequantized"),
    ("h200", "float8_e4m3fn", "dense", None, "e4m3", "fp8", "native"),
    ("h200", "e4m3", "dense", 128, "e4m3", "fp8_block", "native"),
    ("h200", "e2m3", "dense", None, "e4m3", "fp8", "emulated"),
    ("b200", "e2m1", "dense", 16, "e2m1", "nvfp4", "native"),
    ("v100s", "int8", "dense", None, "float", "int8_wo", "dequantized"),
    ("b200", "nvfp4", "dense", None, "nvfp4", "nvfp4", "native"),
    ("gb200", "nvfp4-row", "dense", None, "nvfp4", "nvfp4", "native"),
    ("b200", "mxfp4", "dense", None, "mxfp4", "mxfp4", "native"),
    ("b200", "mxfp4-up", "dense", None, "mxfp8_e4m3", "mxfp4_mxfp8", "native"),
    ("b200", "mxfp6_e2m3", "dense", None, "mxfp8_e5m2", "mxfp6", "native"),
    ("b200", "mxfp8_e4m3", "dense", None, "mxfp8_e4m3", "mxfp8", "native"),
    ("b200", "mxfp4", "dense", None, "float", "fp4_wo", "dequantized"),
    ("h200", "mxfp4", "dense", None, "float", "fp4_wo", "dequantized"),
    ("a100", "nvfp4", "dense", None, "float", "fp4_wo", "dequantized"),
    ("h200", "mxfp8_e4m3", "dense", None, "float", "fp16", "emulated"),
    ("v100s", "mxfp4", "dense", None, "float", "fp16", "emulated"),
    ("b200", "mxfp4-b16", "dense", None, "float", "fp16", "emulated"),  # the hardware's blocks are of 32
])  # fmt: skip
def test_choices(
    device: str, fmt: str, pattern: str, group: int | None, activation: str, kernel: str, support: str
) -> None:
    choice = choose_kernel(load_device(device), spec(fmt, pattern, group), activation)
    assert (choice.kernel.name, choice.support.value) == (kernel, support)
    assert (choice.support.value == "emulated") == bool(choice.note)


@pytest.mark.parametrize(("device", "fmt", "group", "activation"), [
    ("a100", "e4m3", None, "e4m3"),   # no fp8 tensor core before Ada
    ("v100s", "int8", None, "int8"),  # no int8 tensor core
    ("h200", "int8", None, "e4m3"),   # no mixed kernel
    ("a100", "int8", 128, "int8"),    # no int8 x int8 kernel with a scale a group
    ("h200", "e2m1", 16, "e2m1"),     # fp4 arithmetic needs Blackwell
    ("h200", "nvfp4", None, "nvfp4"),
    ("h100", "mxfp4", None, "mxfp4"),
    ("l40s", "mxfp8_e4m3", None, "mxfp8_e4m3"),  # fp8 arithmetic, but no scale a block of 32
    ("b200", "mxfp4", None, "int8"),  # no mixed kernel
    ("b200", "mxint8", None, "mxint8"),
    ("b200", "mxfp4-b16", None, "mxfp4"),
])  # fmt: skip
def test_absent_formats_are_refused_with_a_reason(device: str, fmt: str, group: int | None, activation: str) -> None:
    with pytest.raises(TargetError, match=rf"^{device}: no kernel multiplies .* \(absent\); choose"):
        choose_kernel(load_device(device), spec(fmt, "dense", group), activation)


def test_float_layers_are_fp16() -> None:
    choice = choose_kernel(load_device("l4"), None, "float")
    assert (choice.kernel.name, choice.support.value, choice.weight_bytes(None, 10, 20)) == ("fp16", "native", 400.0)


def test_bytes_are_those_of_the_stored_format() -> None:
    a100 = load_device("a100")
    bits = {}
    for name, fmt, pattern, group in (("int4", "int4", "dense", 128), ("int3", "int3", "dense", 128),
                                      ("e3m2", "e3m2", "dense", None), ("2:4", "int4", "2:4", 256)):  # fmt: skip
        own = spec(fmt, pattern, group)
        bits[name] = choose_kernel(a100, own, "float").weight_bytes(own, 4096, 4096) * 8 / 4096**2
    b200 = load_device("b200")
    for name, activation, expected in (
        ("mxfp4", "mxfp4", 4.25),
        ("nvfp4", "nvfp4", 4.5),
        ("mxfp8_e4m3", "mxfp8_e4m3", 8.25),
    ):
        own = spec(name)  # elements, a scale byte a block of 32 or 16; a row's largest exponent is a byte
        stored = choose_kernel(b200, own, activation).weight_bytes(own, 4096, 4096) * 8 / 4096**2
        assert stored == pytest.approx(expected, abs=8 / 4096 + 1e-5), name
    row_scale = 32 / 4096
    assert bits["int4"] == pytest.approx(4 + 16 / 128 + row_scale)  # MARLIN: 4.125 bits a weight
    assert bits["int3"] == bits["int4"]  # widened
    assert bits["e3m2"] == 16.0
    assert bits["2:4"] == pytest.approx(2 + 1 + 16 / 256 + row_scale)  # Sparse-MARLIN: 3.0625


@pytest.mark.parametrize("kernel", ["nvfp4", "mxfp4", "mxfp4_mxfp8", "mxfp6", "mxfp8"])
def test_blackwell_s_block_kernels_are_priced_from_their_bytes(kernel: str) -> None:
    m, n, k = (np.array([float(side)]) for side in (1, 8192, 8192))
    device = load_device("b200")
    times, terms, tier, note = product_seconds(device, kernel, m, n, k)
    bits = {"nvfp4": 4.5, "mxfp6": 6.25, "mxfp8": 8.25}.get(kernel, 4.25)
    assert terms[0][0] == pytest.approx(8192 * 8192 * bits / 8 / 7700e9, rel=0.01)  # bandwidth of the data sheet
    assert times[1][0] < times[0][0] < times[2][0]
    assert tier.value in ("modelled", "assumed")
    assert note


def test_every_kernel_has_a_source() -> None:
    table = tomllib.loads(GPU_KERNELS.read_text())
    for kernel in table["kernel"]:
        assert table["sources"][kernel["source"]], kernel["name"]
