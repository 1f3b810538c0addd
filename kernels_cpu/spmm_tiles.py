"""s8 weights of any pattern times u8 activations, 64, 32 or 16 tokens wide, on AMX: dense products of what is expanded.

    for run of panels:                             that stays in the second-level cache
      arrange                                      lines interleaved by fours, once: 8 unpacks for 4 inputs of 64 tokens
      for block in M / 32, for chunk of inputs:    two tiles of rows; their weights stay in the first-level cache
        for panel, for half of its tokens:         2 x 2 tiles of sums: 32 rows, 32 tokens (2 x 1 for 16 tokens)
          for step of 64 inputs:                   4 tile loads, 4 x tdpbsud (3 and 2)
            beside them                            expand some rows of the next chunk; finish some of the panel before

A tile product takes 16 cycles whatever is stored of it, eight times the rate of vpdpbusd: it is faster than products of
stored 4x1 weights alone up to some 80 % zeros, and reads as little memory.  What stands beside the products needs other
ports, and costs little if all of it stays in the first-level cache and no tile product has to be looked for far ahead:
hence chunks of few steps, and other work between the four parts of a step.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.ahead import ahead
from sparsefab.kernels_cpu.expand import expand_bytes, keep_bytes
from sparsefab.kernels_cpu.intrinsics import broadcast, load_unaligned, store
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.scalars import count_bits, read_i8, read_i32, read_i64, read_u8, write_i32
from sparsefab.kernels_cpu.shuffles import permute_bytes
from sparsefab.kernels_cpu.tile_panels import arrange_of, finish_of, tiles_across
from sparsefab.kernels_cpu.tile_weights import BLOCK_ROWS, STEP_BYTES, STEP_INPUTS
from sparsefab.kernels_cpu.tiles import (
    TILE_BYTES,
    TILE_ROWS,
    configure,
    release,
    tile_dot,
    tile_load,
    tile_store,
    tile_zero,
)
from sparsefab.kernels_cpu.vector import i8x64

__all__ = ["room_bytes", "run_of", "spmm", "spreads"]

_GROUPS = BLOCK_ROWS // 4
# Steps of weights in the cache at a time; few if each is multiplied once or twice, so that all else stays there too.
_CHUNK_STEPS, _FEW_STEPS = 12, 4
_TWO_ROWS = 32  # stored bytes a row, so that two rows fit a register
_RUN_BYTES = 512 << 10  # of arranged panels, a quarter of a second-level cache


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
    width : int                  Tokens a panel, 64, 32 or 16.
    shared : int                 Rows that share a mask, as in TileWeights.
    aligned : bool               Activations come interleaved, [P, K / 4, 4 * width].
    permute : bool               True uses vpermi2b for tables.
    native : bool                The processor has AMX; else plain loops stand for it.

    Returns
    -------
    kernel                       With the signature that `layer` describes.
    """
    across = tiles_across(width)
    tiles = _native(across) if native else _plain(across)
    arrange, finish = arrange_of(width, aligned=aligned), finish_of(width, output, permute=permute)
    return _assemble(tiles, arrange, _expanded(shared), finish, width, shared)


def _assemble(tiles: Any, arrange: Any, expand: Any, finish: Any, width: int, shared: int) -> Any:
    start, begin, multiply_0, multiply_1, multiply_2, multiply_3, save, end = tiles
    across = tiles_across(width)
    halves, half_step, half_sums = width // (16 * across), TILE_BYTES * across, 2 * TILE_BYTES * across
    panel_sums, panel_codes = half_sums * halves, half_step * halves

    masks = 8 * BLOCK_ROWS // max(shared, 1)  # bytes of a step's
    streams = width < 64  # weights may come out of memory faster than few tokens are multiplied

    @piece
    def expand_some(table, source, mask, to, fours):
        if shared:
            for _ in range(fours):
                if streams:
                    ahead(source)
                source = expand(table, source, mask, to)
                mask, to = mask + masks // _GROUPS, to + 4 * STEP_INPUTS
        return source, mask, to

    @kernel
    def spmm_tiles(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        steps, run, table = layer.inner_steps, layer.run, layer.controls
        panel_bytes = activations.shape[1] * activations.shape[2]
        arranged = layer.room + layer.room_bytes * task
        expanded = arranged + run * steps * panel_codes
        sums = expanded + 2 * _CHUNK_STEPS * STEP_BYTES
        first_block, last_block = first_group // _GROUPS, (last_group + _GROUPS - 1) // _GROUPS
        start()
        for first in range(first_panel, last_panel, run):
            count = min(run, last_panel - first)
            once = count * halves == 1  # sums stay in their tiles from chunk to chunk
            chunks = (steps - 1) // (_FEW_STEPS if count * halves <= 2 else _CHUNK_STEPS) + 1
            turns = (last_block - first_block) * chunks
            for panel in range(count):
                lines = activations.ctypes.data + panel_bytes * (first + panel)
                arrange(layer, lines, arranged + panel * steps * panel_codes, activations.shape[1])
            # Stored weights and their masks are read in one order from here to the end of the run.
            stored = layer.packed + read_i64(layer.starts + 8 * first_block), layer.masks + first_block * steps * masks
            source, mask, to = expand_some(table, stored[0], stored[1], expanded, _GROUPS * (steps // chunks))
            item = _GROUPS  # of the results of the unit before, by four rows
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
                finishing = (_GROUPS - 1) // (steps if once and busy else places) + 1
                for panel in range(panels):
                    unit = (block - first_block) * count + panel  # tells where its sums are
                    if chunk == (0 if panel == 0 else chunks - 1):
                        item = 0 if unit > 0 else _GROUPS
                    elif not once:
                        item = _GROUPS
                    for half in range(halves):
                        at = sums + unit % (run + 1) * panel_sums + half_sums * half
                        codes = arranged + panel * steps * panel_codes + (half * steps + begins) * half_step
                        if chunk == 0 or not once:
                            begin(at, chunk == 0)
                        for step in range(max(busy, 1)):
                            if step < busy:
                                a, b = weights + step * STEP_BYTES, codes + step * half_step
                                fours = min(expanding, following)
                                following -= fours
                                if streams and fours:
                                    ahead(mask)
                                multiply_0(at, a, b)
                                source, mask, to = expand_some(table, source, mask, to, fours >> 2)
                                multiply_1(at, a, b)
                                source, mask, to = expand_some(table, source, mask, to, (fours + 2) >> 2)
                                multiply_2(at, a, b)
                                source, mask, to = expand_some(table, source, mask, to, (fours + 1) >> 2)
                                multiply_3(at, a, b)
                                source, mask, to = expand_some(table, source, mask, to, (fours + 3) >> 2)
                            for _ in range(min(finishing, _GROUPS - item)):
                                group = (first_block + (unit - 1) // count) * _GROUPS + item
                                if first_group <= group < last_group:
                                    ready = sums + (unit - 1) % (run + 1) * panel_sums
                                    ready += across * TILE_BYTES * (item // 4) + 256 * (item % 4)
                                    finish(layer, out, token_scales, first + (unit - 1) % count, group, ready)
                                item += 1
                        if chunk == chunks - 1 or not once:
                            save(at)
        end()

    return spmm_tiles


# --- tiles ------------------------------------------------------------------------------------------------------------
@functools.cache
def _native(across: int) -> Any:
    """Return start(), begin(at, first), four parts of multiply(at, weights, codes), save(at), end() on AMX.

    A product is in parts so that other work can stand between them.

    Parameters
    ----------
    across : int                 Tiles of 16 tokens beside each other, 2 or 1; those of 32 rows are two, always.
    """
    two = across == 2

    @piece
    def start():
        configure()

    @piece
    def begin(at, first):
        if first:
            tile_zero(0)
            tile_zero(2)
            if two:
                tile_zero(1)
                tile_zero(3)
        else:
            tile_load(0, at, 64)
            tile_load(2, at + across * TILE_BYTES, 64)
            if two:
                tile_load(1, at + TILE_BYTES, 64)
                tile_load(3, at + 3 * TILE_BYTES, 64)

    @piece
    def multiply_0(at, weights, codes):
        tile_load(4, weights, 64)
        tile_load(6, codes, 64)
        tile_dot(0, 4, 6)

    @piece
    def multiply_1(at, weights, codes):
        if two:
            tile_load(7, codes + TILE_BYTES, 64)
            tile_dot(1, 4, 7)

    @piece
    def multiply_2(at, weights, codes):
        tile_load(5, weights + TILE_BYTES, 64)
        tile_dot(2, 5, 6)

    @piece
    def multiply_3(at, weights, codes):
        if two:
            tile_dot(3, 5, 7)

    @piece
    def save(at):
        tile_store(0, at, 64)
        tile_store(2, at + across * TILE_BYTES, 64)
        if two:
            tile_store(1, at + TILE_BYTES, 64)
            tile_store(3, at + 3 * TILE_BYTES, 64)

    @piece
    def end():
        release()

    return start, begin, multiply_0, multiply_1, multiply_2, multiply_3, save, end


@functools.cache
def _plain(across: int) -> Any:
    """Return the same in plain loops, on the sums in memory: for tests."""

    @piece
    def nothing():
        pass

    @piece
    def begin(at, first):
        for byte in range(0, 2 * across * TILE_BYTES if first else 0, 4):
            write_i32(at + byte, 0)

    @piece
    def multiply(at, weights, codes):
        for row in range(BLOCK_ROWS):
            for token in range(16 * across):
                tile = across * (row // TILE_ROWS) + token // 16
                here = at + TILE_BYTES * tile + 64 * (row % TILE_ROWS) + 4 * (token % 16)
                total = read_i32(here)
                for k in range(STEP_INPUTS):
                    code = read_u8(codes + TILE_BYTES * (token // 16) + 64 * (k // 4) + 4 * (token % 16) + k % 4)
                    total += read_i8(weights + STEP_INPUTS * row + k) * code
                write_i32(here, total)

    @piece
    def later(at, weights, codes):
        pass

    @piece
    def save(at):
        pass

    return nothing, begin, multiply, later, later, later, save, nothing


# --- weights ----------------------------------------------------------------------------------------------------------
@functools.cache
def spreads() -> Any:
    """Return what `of_rows` expands by: uint8[64], 0 to 63; behind it uint32[33], a count in all four bytes."""
    result = aligned_empty((64 + 4 * (_TWO_ROWS + 1),), np.uint8)
    result[:64] = np.arange(64)
    result[64:] = np.repeat(np.arange(_TWO_ROWS + 1), 4)
    return result


@functools.cache
def _expanded(shared: int) -> Any:
    """Return expand(table, source, mask, to): write four dense rows; return what comes after their stored bytes."""

    @piece
    def of_rows(table, source, mask, to):
        """Rows of one mask: their stored bytes are permuted alike, those of two rows out of one register."""
        bits = read_i64(mask)
        stored = count_bits(bits)
        if stored > _TWO_ROWS:
            for row in range(4):
                store(to + 64 * row, expand_bytes(i8x64, source + row * stored, bits))
        else:
            first = expand_bytes(i8x64, table, bits)
            second = first + broadcast(i8x64, table + 64 + 4 * stored)
            a, b = load_unaligned(i8x64, source), load_unaligned(i8x64, source + 2 * stored)
            store(to, keep_bytes(permute_bytes(a, first), bits))
            store(to + 64, keep_bytes(permute_bytes(a, second), bits))
            store(to + 128, keep_bytes(permute_bytes(b, first), bits))
            store(to + 192, keep_bytes(permute_bytes(b, second), bits))
        return source + 4 * stored

    @piece
    def of_row(table, source, mask, to):
        for row in range(4):
            bits = read_i64(mask + 8 * row)
            store(to + 64 * row, expand_bytes(i8x64, source, bits))
            source += count_bits(bits)
        return source

    return of_row if shared == 1 else of_rows
