"""Masks as bytes: the bitmaps of all layers, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import FormatError
from .mask import Mask


def pack_mask(mask: Mask) -> bytes:
    """Return the bitmaps of all layers, one after the other, each padded to whole bytes.

    A bank's index holds masks in this form.
    """
    return b"".join(np.packbits(flags).tobytes() for flags in mask.to_bools().values())


def unpack_mask(packed: bytes, sizes: Mapping[str, int]) -> Mask:
    """Return the mask that `pack_mask` has turned into bytes.

    Args:
        packed: what `pack_mask` returns.
        sizes: units of each layer, by name, in the order of the packed mask.

    Raises:
        FormatError: the length does not fit the sizes, or padding bits are set.
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
