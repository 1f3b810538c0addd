"""The dequantizer's parts in Amaranth's simulator, its parameters, its resources."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.sim import Simulator

from sparsefab.arch import ChainArch
from sparsefab.errors import FormatError
from sparsefab.formats import CATALOG, TensorSpec, get_format, pack
from sparsefab.hw.chain import weights_layout
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.dequantize.decode import CodeDecoder
from sparsefab.hw.dequantize.dequantizer import beats_layout
from sparsefab.hw.dequantize.expand import BitmapExpander
from sparsefab.hw.emit import dequantize_verilog
from sparsefab.hw.synthesize import synthesize
from sparsefab.sim.dequantize import random_tensor

FITTING = sorted(
    name for name, fmt in CATALOG.items() if fmt.bits <= 8 and fmt.fixed_point().fits(8) and name == fmt.name
)


@pytest.mark.parametrize(
    ("slots", "step"), [(1, 89), (4, 89), (7, 89), (16, 89), pytest.param(8, 1, marks=pytest.mark.slow)]
)
def test_every_bitmap(slots: int, step: int) -> None:
    expander = BitmapExpander(slots=slots)
    bitmaps = range(0, 1 << 16, step)

    async def bench(context: Any) -> None:
        for number, bitmap in enumerate([*bitmaps, *[0] * expander.latency]):
            context.set(expander.bitmap, bitmap)
            await context.tick()
            done = number - expander.latency + 1
            if done < 0:
                continue
            found = [bit for bit in range(16) if bitmaps[done] >> bit & 1][:slots] if done < len(bitmaps) else []
            want = found + [0] * (slots - len(found))
            assert [context.get(expander.indices[k]) for k in range(slots)] == want, bin(bitmaps[done])

    _run(expander, bench)


@pytest.mark.parametrize("name", FITTING)
def test_every_code(name: str) -> None:
    """Against the scalar specification of the format, in units of its least value."""
    decoder, fmt = CodeDecoder(format=name), CATALOG[name]
    unit = 2.0 ** fmt.fixed_point().exponent

    async def bench(context: Any) -> None:
        for pattern in range(1 << fmt.bits):
            context.set(decoder.code, pattern)
            await context.tick()
            value = float(fmt.decode(fmt.from_pattern(np.array([pattern], np.uint16)))[0])
            assert context.get(decoder.value) == (value / unit if np.isfinite(value) else 0)

    _run(decoder, bench)


def _run(component: Any, bench: Any) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("pairs", [False, True])
def test_a_beat_is_what_the_chain_takes(pairs: bool) -> None:
    chain = weights_layout(ChainArch(dsps=16, matrix_vector=pairs))
    own = beats_layout(DequantizeArch(dsps=16, pairs=pairs))
    assert Shape.cast(chain) == Shape.cast(own)
    assert [name for name, _ in chain] == [name for name, _ in own]


def test_parameters_of_a_tensor() -> None:
    arch = DequantizeArch(dsps=20, slots=10, format="uint4", zero_unit=16, positions="bitmap", beat_bits=256)
    tensor = random_tensor(arch, rows=3, columns=96, seed=0)
    layout = arch.layout
    assert DequantizeArch.of(layout, tensor.spec, beat_bits=256) == arch
    assert arch.piece_bits == 8 * layout.piece_bytes(tensor.spec) == 20 * 4 + 32 + 2 * 4
    assert pack(tensor, layout).sections["pieces"].size == 3 * 3 * 15
    assert arch.beats_per_piece == 120 / 256
    spec = TensorSpec.of(4, 64, get_format("mxfp4"), group_size=32)
    assert DequantizeArch.of(DequantizeArch().layout, spec).format == "e2m1"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "e4m3"}, FormatError, "format must have values that fit s8, which those of e4m3 do not"),
        ({"format": "mxfp4"}, FormatError, "format must be that of the elements, e2m1, not mxfp4"),
        ({"format": "int9"}, FormatError, "fit s8"),
        ({"format": "uint8"}, FormatError, "uint8 fits s8 only with zero points"),
        ({"format": "e2m1", "zero_unit": 16}, FormatError, "zero points need an integer format"),
        ({"zero_unit": 24}, ValueError, "multiple of 16 that divides the 64 inputs of a tile, not 24"),
        ({"format": "int8", "beat_bits": 256}, ValueError, "beat_bits must be at least 512"),
        ({"beat_bits": 500}, ValueError, "beat_bits must be a power of two of at least 8, not 500"),
    ],
)
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DequantizeArch(**arguments)


def test_resources() -> None:
    pytest.importorskip("pyosys")
    resources = synthesize(dequantize_verilog(DequantizeArch(dsps=16, slots=8, positions="bitmap", beat_bits=128)))
    assert resources.dsp == 0
    assert resources.depth.fast, resources.depth
