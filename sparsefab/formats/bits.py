"""Codes of any width packed into bytes, least significant bit first, and back."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_bits", "packed_bytes", "unpack_bits"]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` codes of `bits` bits."""
    return -(-count * bits // 8)


def pack_bits(patterns: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint8]:
    """Pack the last axis of bit patterns; code 0 takes the lowest bits of byte 0, each row starts a byte.

    patterns : unsigned [..., n], values below 2**bits, bits <= 16  ->  uint8 [..., ceil(n * bits / 8)]
    """
    values = np.asarray(patterns, dtype=np.uint16)
    planes = (values[..., None] >> np.arange(bits, dtype=np.uint16)) & 1  # [..., n, bits]
    flat = planes.astype(np.uint8).reshape(*values.shape[:-1], values.shape[-1] * bits)
    return np.packbits(flat, axis=-1, bitorder="little")


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint16]:
    """Undo `pack_bits`: uint8 [..., bytes] -> uint16 [..., count]."""
    flat = np.unpackbits(packed, axis=-1, bitorder="little", count=count * bits)
    planes = flat.reshape(*packed.shape[:-1], count, bits).astype(np.uint16)
    codes: NDArray[np.uint16] = (planes << np.arange(bits, dtype=np.uint16)).sum(axis=-1, dtype=np.uint16)
    return codes
