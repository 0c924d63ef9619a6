"""A mask as bytes: the bitmaps of all layers, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import FormatError
from .mask import Mask


def pack_mask(mask: Mask) -> bytes:
    """The bitmaps of all layers, each padded to whole bytes, one after the other (as the index holds them)."""
    return b"".join(np.packbits(flags).tobytes() for flags in mask.to_bools().values())


def unpack_mask(packed: bytes, sizes: Mapping[str, int]) -> Mask:
    """The inverse of `pack_mask`, given the layers and their sizes.

    Raises:
        FormatError: the length does not fit, or padding bits are set.
    """
    if len(packed) != sum((size + 7) // 8 for size in sizes.values()):
        raise FormatError(f"a mask of {len(packed)} bytes does not fit the base's layers")
    flags, start = {}, 0
    for name, size in sizes.items():
        stop = start + (size + 7) // 8
        bits = np.unpackbits(np.frombuffer(packed[start:stop], dtype=np.uint8))
        if bits[size:].any():
            raise FormatError(f"mask of layer {name}: padding bits are set")
        flags[name], start = bits[:size].astype(bool), stop
    return Mask.from_bools(flags)
