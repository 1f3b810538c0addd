"""s8 weights of any pattern times u8 activations, 64 or 32 tokens wide, on AMX: dense products of what is expanded.

    for run of panels:                             that stays in the second-level cache
      arrange                                      lines interleaved by fours, once: 8 unpacks for 4 inputs of 64 tokens
      for block in M / 32, for chunk in K / 384:   two tiles of rows; their weights stay in the first-level cache
        for panel, for half of its tokens:         2 x 2 tiles of sums: 32 rows, 32 tokens
          for step of 64 inputs:                   4 tile loads, 4 x tdpbsud
            beside them                            expand some rows of the next chunk; finish some of the panel before

A tile product takes 16 cycles whatever is stored of it, eight times the rate of vpdpbusd: it is faster than products of
stored 4x1 weights alone up to some 85 % zeros, and reads as little memory.  What stands beside the products needs other
ports, so that it costs little where the processor looks some 500 operations ahead: hence its place in their loop.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu import spmm_vnni32
from sparsefab.kernels_cpu.epilogues import epilogue_of
from sparsefab.kernels_cpu.expand import expand_bytes
from sparsefab.kernels_cpu.intrinsics import load, splat, store
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.scalars import count_bits, read_i8, read_i32, read_i64, read_u8, write_i32
from sparsefab.kernels_cpu.spmm_vnni import interleaved_lines
from sparsefab.kernels_cpu.tile_weights import BLOCK_ROWS, STEP_BYTES, STEP_INPUTS
from sparsefab.kernels_cpu.tiles import TILE_ROWS, configure, release, tile_dot, tile_load, tile_store, tile_zero
from sparsefab.kernels_cpu.vector import i8x64, i16x32, i32x16

__all__ = ["room_bytes", "run_of", "spmm"]

_GROUPS = BLOCK_ROWS // 4
_CHUNK_STEPS = 12
_RUN_BYTES = 512 << 10  # of arranged panels, a quarter of a second-level cache
_TILE = 1024  # bytes
_HALF = 32  # tokens of two tiles
_HALF_STEP = STEP_INPUTS * _HALF  # bytes of their activations: [2 tiles][16 quads][16 tokens][4 inputs]


def run_of(panels: int, steps: int, width: int) -> int:
    """Return how many panels are arranged at a time."""
    return max(1, min(panels, _RUN_BYTES // (steps * STEP_INPUTS * width)))


def room_bytes(panels: int, steps: int, width: int) -> int:
    """Return the bytes that a task needs: a run of arranged panels, two chunks of weights, and the run's sums."""
    run = run_of(panels, steps, width)
    return run * steps * STEP_INPUTS * width + 2 * _CHUNK_STEPS * STEP_BYTES + 4 * BLOCK_ROWS * width * (run + 1)


@functools.cache
def spmm(*, width: int, shared: int, aligned: bool, output: Output, permute: bool, native: bool) -> Any:
    """Return the compiled kernel for one kind of weights and of results.

    Parameters
    ----------
    width : int                  Tokens a panel, 64 or 32.
    shared : int                 Rows that share a mask, as in TileWeights.
    aligned : bool               Activations come interleaved, [P, K / 4, 256].
    permute : bool               True uses vpermi2b for tables.
    native : bool                The processor has AMX; else plain loops stand for it.

    Returns
    -------
    kernel                       With the signature that `layer` describes.
    """
    tiles = _native() if native else _plain()
    arrange = _copied if aligned else _interleaved if width == 64 else _interleaved_32
    finish = _finish_64(epilogue_of(output, permute=permute)) if width == 64 else _finish_32(output, permute)
    return _assemble(tiles, arrange, _expanded(shared), finish, width, shared)


def _assemble(tiles: Any, arrange: Any, expand: Any, finish: Any, width: int, shared: int) -> Any:
    start, begin, multiply, save, end = tiles
    halves, panel_sums, panel_codes = width // _HALF, 4 * BLOCK_ROWS * width, STEP_INPUTS * width

    masks = 8 * BLOCK_ROWS // max(shared, 1)  # bytes of a step's

    @piece
    def expand_some(source, mask, to, fours):
        if shared:
            for _ in range(fours):
                source = expand(source, mask, to)
                mask, to = mask + masks // _GROUPS, to + 4 * STEP_INPUTS
        return source, mask, to

    @kernel
    def spmm_tiles(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        steps, run = layer.inner_steps, layer.run
        chunks = (steps + _CHUNK_STEPS - 1) // _CHUNK_STEPS
        panel_bytes = activations.shape[1] * activations.shape[2]
        arranged = layer.room + layer.room_bytes * task
        expanded = arranged + run * steps * panel_codes
        sums = expanded + 2 * _CHUNK_STEPS * STEP_BYTES
        first_block, last_block = first_group // _GROUPS, (last_group + _GROUPS - 1) // _GROUPS
        turns = (last_block - first_block) * chunks
        start()
        for first in range(first_panel, last_panel, run):
            count = min(run, last_panel - first)
            for panel in range(count):
                lines = activations.ctypes.data + panel_bytes * (first + panel)
                arrange(layer, lines, arranged + panel * steps * panel_codes, activations.shape[1])
            # Stored weights and their masks are read in one order from here to the end of the run.
            stored = layer.packed + read_i64(layer.starts + 8 * first_block), layer.masks + first_block * steps * masks
            source, mask, to = expand_some(stored[0], stored[1], expanded, _GROUPS * (steps // chunks))
            for turn in range(turns + 1):  # a chunk of a block; after the last one, results alone
                block, chunk = first_block + turn // chunks, turn % chunks
                begins, busy = steps * chunk // chunks, steps * (chunk + 1) // chunks - steps * chunk // chunks
                panels = count
                if turn == turns:
                    busy, panels = 0, 1
                weights = expanded + turn % 2 * _CHUNK_STEPS * STEP_BYTES
                to = expanded + (turn + 1) % 2 * _CHUNK_STEPS * STEP_BYTES
                if shared == 0:
                    weights = layer.packed + (block * steps + begins) * STEP_BYTES
                following = 0  # rows of the next chunk, by fours
                if turn + 1 < turns:
                    after = (chunk + 1) % chunks
                    following = _GROUPS * (steps * (after + 1) // chunks - steps * after // chunks)
                places = halves * max(busy, 1)  # of a panel, beside which other work is done
                expanding = (following + count * places - 1) // (count * places)
                finishing = (_GROUPS + places - 1) // places
                for panel in range(panels):
                    unit = (block - first_block) * count + panel  # tells where its sums are
                    item = _GROUPS  # of the results of the unit before, by four rows
                    if unit > 0 and chunk == (0 if panel == 0 else chunks - 1):
                        item = 0
                    for half in range(halves):
                        at = sums + unit % (run + 1) * panel_sums + 4 * _TILE * half
                        codes = arranged + panel * steps * panel_codes + (half * steps + begins) * _HALF_STEP
                        begin(at, chunk == 0)
                        for step in range(max(busy, 1)):
                            if step < busy:
                                multiply(at, weights + step * STEP_BYTES, codes + step * _HALF_STEP)
                                source, mask, to = expand_some(source, mask, to, min(expanding, following))
                                following -= min(expanding, following)
                            for _ in range(min(finishing, _GROUPS - item)):
                                group = (first_block + (unit - 1) // count) * _GROUPS + item
                                if first_group <= group < last_group:
                                    ready = sums + (unit - 1) % (run + 1) * panel_sums + _place_of(item)
                                    finish(layer, out, token_scales, first + (unit - 1) % count, group, ready)
                                item += 1
                        save(at)
        end()

    return spmm_tiles


@piece
def _place_of(item):
    """Where the sums of four rows of a block lie: by tiles of 16 rows and 16 tokens."""
    return 2 * _TILE * (item // 4) + 256 * (item % 4)


# --- tiles ------------------------------------------------------------------------------------------------------------
@functools.cache
def _native() -> Any:
    """Return start(), begin(at, first), multiply(at, weights, codes), save(at), end() on AMX."""

    @piece
    def start():
        configure()

    @piece
    def begin(at, first):
        if first:
            tile_zero(0)
            tile_zero(1)
            tile_zero(2)
            tile_zero(3)
        else:
            tile_load(0, at, 64)
            tile_load(1, at + _TILE, 64)
            tile_load(2, at + 2 * _TILE, 64)
            tile_load(3, at + 3 * _TILE, 64)

    @piece
    def multiply(at, weights, codes):
        tile_load(4, weights, 64)
        tile_load(6, codes, 64)
        tile_dot(0, 4, 6)
        tile_load(7, codes + _TILE, 64)
        tile_dot(1, 4, 7)
        tile_load(5, weights + _TILE, 64)
        tile_dot(2, 5, 6)
        tile_dot(3, 5, 7)

    @piece
    def save(at):
        tile_store(0, at, 64)
        tile_store(1, at + _TILE, 64)
        tile_store(2, at + 2 * _TILE, 64)
        tile_store(3, at + 3 * _TILE, 64)

    @piece
    def end():
        release()

    return start, begin, multiply, save, end


@functools.cache
def _plain() -> Any:
    """Return the same in plain loops, on the sums in memory: for tests."""

    @piece
    def nothing():
        pass

    @piece
    def begin(at, first):
        for byte in range(0, 4 * _TILE if first else 0, 4):
            write_i32(at + byte, 0)

    @piece
    def multiply(at, weights, codes):
        for row in range(BLOCK_ROWS):
            for token in range(_HALF):
                tile = 2 * (row // TILE_ROWS) + token // 16
                here = at + _TILE * tile + 64 * (row % TILE_ROWS) + 4 * (token % 16)
                total = read_i32(here)
                for k in range(STEP_INPUTS):
                    code = read_u8(codes + _TILE * (token // 16) + 64 * (k // 4) + 4 * (token % 16) + k % 4)
                    total += read_i8(weights + STEP_INPUTS * row + k) * code
                write_i32(here, total)

    @piece
    def save(at):
        pass

    return nothing, begin, multiply, save, nothing


# --- activations ------------------------------------------------------------------------------------------------------
# Each step of a half is two tiles: the first registers of its 16 quads, then the second ones.
@piece
def _interleaved(layer, lines, to, inputs):
    """Interleave the lines of a panel of 64 tokens by fours; weights of inputs that are not there are zero."""
    half_bytes, last = layer.inner_steps * _HALF_STEP, lines + 64 * (inputs - 1)
    for k in range(0, inputs, 4):
        at = lines + 64 * k
        v0, v1, v2, v3 = interleaved_lines(at, min(at + 64, last), min(at + 128, last), min(at + 192, last))
        here = to + k // STEP_INPUTS * _HALF_STEP + k % STEP_INPUTS * 16
        store(here, v0)
        store(here + _TILE, v1)
        store(here + half_bytes, v2)
        store(here + half_bytes + _TILE, v3)


@piece
def _interleaved_32(layer, lines, to, inputs):
    index, last = load(i16x32, layer.tables), lines + 32 * (inputs - 1)
    for k in range(0, inputs, 4):
        at = lines + 32 * k
        v0, v1 = spmm_vnni32.interleaved_lines(at, min(at + 32, last), min(at + 64, last), min(at + 96, last), index)
        here = to + k // STEP_INPUTS * _HALF_STEP + k % STEP_INPUTS * 16
        store(here, v0)
        store(here + _TILE, v1)


@piece
def _copied(layer, lines, to, inputs):
    """Copy lines that come interleaved, 256 bytes for four inputs."""
    half_bytes = layer.inner_steps * _HALF_STEP
    for quad in range(min(inputs, STEP_INPUTS // 4 * layer.inner_steps)):
        at, here = lines + 256 * quad, to + quad // 16 * _HALF_STEP + quad % 16 * 64
        store(here, load(i8x64, at))
        store(here + _TILE, load(i8x64, at + 64))
        store(here + half_bytes, load(i8x64, at + 128))
        store(here + half_bytes + _TILE, load(i8x64, at + 192))


# --- weights ----------------------------------------------------------------------------------------------------------
@functools.cache
def _expanded(shared: int) -> Any:
    """Return expand(source, mask, to): write four dense rows; return what comes after their stored bytes."""

    @piece
    def of_rows(source, mask, to):
        bits = read_i64(mask)
        stored = count_bits(bits)
        store(to, expand_bytes(i8x64, source, bits))
        store(to + 64, expand_bytes(i8x64, source + stored, bits))
        store(to + 128, expand_bytes(i8x64, source + 2 * stored, bits))
        store(to + 192, expand_bytes(i8x64, source + 3 * stored, bits))
        return source + 4 * stored

    @piece
    def of_row(source, mask, to):
        for row in range(4):
            bits = read_i64(mask + 8 * row)
            store(to + 64 * row, expand_bytes(i8x64, source, bits))
            source += count_bits(bits)
        return source

    return of_row if shared == 1 else of_rows


# --- results ----------------------------------------------------------------------------------------------------------
def _finish_64(epilogue: Any) -> Any:
    """Return finish(layer, out, token_scales, panel, group, sums): the epilogue of four rows whose sums are stored."""

    @piece
    def row_of(layer, row, sums):
        start = splat(i32x16, read_i32(layer.start + 4 * row))
        x0, x1 = load(i32x16, sums) + start, load(i32x16, sums + _TILE) + start
        return x0, x1, load(i32x16, sums + 4 * _TILE) + start, load(i32x16, sums + 5 * _TILE) + start

    @piece
    def finish(layer, out, token_scales, panel, group, sums):
        row, row_bytes = 4 * group, out.itemsize * 64
        to = out.ctypes.data + panel * out.shape[1] * out.shape[2] * out.itemsize + row * row_bytes
        a, b = row_of(layer, row, sums), row_of(layer, row + 1, sums + 64)
        c, d = row_of(layer, row + 2, sums + 128), row_of(layer, row + 3, sums + 192)
        epilogue(to, row_bytes, layer, token_scales.ctypes.data + 256 * panel, row, a, b, c, d)

    return finish


def _finish_32(output: Output, permute: bool) -> Any:
    epilogue = spmm_vnni32.epilogue_of(output, permute)

    @piece
    def row_of(layer, row, sums):
        start = splat(i32x16, read_i32(layer.start + 4 * row))
        return load(i32x16, sums) + start, load(i32x16, sums + _TILE) + start

    @piece
    def finish(layer, out, token_scales, panel, group, sums):
        row, dwords = 4 * group, load(i32x16, layer.tables + 64)
        to = out.ctypes.data + (panel * out.shape[1] + row) * out.itemsize * 32
        a0, a1 = row_of(layer, row, sums)
        b0, b1 = row_of(layer, row + 1, sums + 64)
        c0, c1 = row_of(layer, row + 2, sums + 128)
        d0, d1 = row_of(layer, row + 3, sums + 192)
        tokens = token_scales.ctypes.data + 128 * panel
        epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1)

    return finish
