"""The dequantizer's Verilog against the packer: pieces of a tensor in, the chain's beats of the same tensor out."""

from pathlib import Path
from typing import Final

import numpy as np

from sparsefab.formats import (
    NM,
    ChainMemory,
    Dense,
    IntFormat,
    PackedTensor,
    Pattern,
    QuantTensor,
    get_format,
    pack,
)
from sparsefab.formats.bits import unpack_bits
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import dequantize_verilog
from sparsefab.sim.report import VerifyReport
from sparsefab.sim.simulator import SimulatorName
from sparsefab.sim.streams import StreamVectors, verify_streams

__all__ = ["chain_payloads", "dequantize_vectors", "memory_beats", "random_tensor", "verify_dequantize"]

_TENSORS: Final = 2  # one after the other, so that the end of one meets the beginning of the next


def verify_dequantize(
    arch: DequantizeArch | None = None,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    rows: int = 40,
    columns: int | None = None,
    tensor: QuantTensor | None = None,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold a dequantizer to `formats.pack`: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : DequantizeArch | None
    rows, columns : int              Of a random tensor; columns None takes two and a half tiles.
    tensor : QuantTensor | None      Instead of a random one.
    build_dir, simulator, seed, modules
                                     As for `verify_chain`.
    """
    arch = DequantizeArch() if arch is None else arch
    texts = dequantize_verilog(arch, primitives="behavioural") if modules is None else modules
    vectors = dequantize_vectors(arch, seed=seed, rows=rows, columns=columns, tensor=tensor)
    return verify_streams("dequantize", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)


def dequantize_vectors(
    arch: DequantizeArch,
    *,
    seed: int = 0,
    rows: int = 40,
    columns: int | None = None,
    tensor: QuantTensor | None = None,
) -> StreamVectors:
    """Memory beats in and weight beats out of a tensor, random or given, twice; arguments as for verify_dequantize."""
    layout = arch.layout
    if tensor is None:
        tile = layout.chain.tile_columns
        tensor = random_tensor(arch, rows=rows, columns=5 * tile // 32 * 16 if columns is None else columns, seed=seed)
    return StreamVectors.through(
        memory_beats(pack(tensor, layout), arch.beat_bits) * _TENSORS,
        chain_payloads(pack(tensor, layout.chain), arch) * _TENSORS,
        {
            "rows": -(-tensor.shape[0] // layout.chain.beat_rows),
            "tiles": layout.chain.tiles(tensor.shape[1]),
        },
    )


def random_tensor(arch: DequantizeArch, *, rows: int, columns: int, seed: int) -> QuantTensor:
    """Draw a tensor that fills what a dequantizer takes: every code, every count of stored weights a block."""
    random = np.random.default_rng(seed)
    fmt, layout = arch.code_format, arch.layout
    together = layout.chain.beat_rows
    rows = -(-rows // together) * together
    pattern: Pattern = Dense()
    mask = None
    if arch.positions != "all":
        pattern = NM(layout.slots_per_m, layout.m, together)
        shape = (rows // together, columns // layout.m, layout.m)
        order = random.random(shape).argsort(axis=2)
        # blocks of 16 may be short of weights; inside one, the packers put free slots in different places
        kept = layout.slots_per_m if layout.m < 16 else random.integers(0, layout.slots_per_m + 1, (*shape[:2], 1))
        mask = np.repeat((order < kept).reshape(rows // together, columns), together, axis=0)
    codes = random.integers(0, 1 << fmt.bits, (rows, columns)).astype(np.uint16)
    zeros = None
    group = arch.zero_unit or columns
    if isinstance(fmt, IntFormat):
        values = np.clip(fmt.from_pattern(codes), fmt.code_min, fmt.code_max)
        if arch.zero_unit:
            groups = -(-columns // group)
            low, high = (fmt.code_min, fmt.code_max) if fmt.bits < 8 else ((fmt.code_min + fmt.code_max + 1) // 2,) * 2
            zeros = random.integers(low, high + 1, (rows, groups)).astype(np.int16)
    else:
        finite = np.flatnonzero(fmt.decode_table().finite)
        values = finite[codes % len(finite)].astype(np.int32)
    return QuantTensor(
        codes=values.astype(np.int16),
        format=get_format(arch.format),
        group_size=group,
        pattern=pattern,
        mask=mask,
        zero_points=zeros,
        group_multipliers=None if group == columns else np.ones((rows, -(-columns // group)), np.uint16),
        row_scales=np.ones(rows, np.float32),
    )


def memory_beats(packed: PackedTensor, beat_bits: int) -> list[int]:
    """The section `pieces` as memory delivers it, the last beat filled up with ones."""
    if not isinstance(packed.layout, ChainMemory):
        raise ValueError(f"packed must be in a chain memory layout, not {packed.layout.name}")
    raw, size = packed.sections["pieces"].tobytes(), beat_bits // 8
    raw += b"\xff" * (-len(raw) % size)
    return [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]


def chain_payloads(packed: PackedTensor, arch: DequantizeArch) -> list[int]:
    """The beats of a tensor in the chain's layout, as `hw.dequantize.dequantizer.beats_layout` has them.

    Beyond the input axis the packer leaves index 0 beside weight 0, the dequantizer what the slot implies. Dense
    slots have index 0, as `ChainArch.tile_fill` has it.
    """
    chain = arch.layout.chain
    slot = np.arange(arch.layout.used_dsps)
    in_block = slot % chain.slots
    place = in_block // max(1, arch.layout.slots_per_m) * arch.m if arch.positions == "index" else 0 * slot
    raw = packed.sections["beats"].reshape(-1, chain.beat_bytes)
    per_tile = len(raw) // chain.tiles(packed.spec.columns)
    payloads = []
    for number, beat in enumerate(raw):
        indices = unpack_bits(beat[chain.beat_rows * chain.dsps :], 4, chain.dsps)
        column = number // per_tile * chain.tile_columns + slot // chain.slots * chain.block + place
        beyond = np.flatnonzero(column >= packed.spec.columns)
        indices[beyond] = place[beyond]
        if arch.positions == "all":
            indices[:] = 0
        fields = [(int(weight), 8) for weight in beat[: chain.beat_rows * chain.dsps]]
        fields += [(int(index), 4) for index in indices] + [(int((number + 1) % per_tile == 0), 1)]
        payload = low = 0
        for value, width in fields:
            payload |= value << low
            low += width
        payloads.append(payload)
    return payloads
