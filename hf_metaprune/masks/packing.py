"""Masks as bytes: the bitmaps of all layers, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import FormatError
from .mask import Mask

_ONES = np.array([number.bit_count() for number in range(256)])
"""How many bits are set, by byte."""


def pack_mask(mask: Mask) -> bytes:
    """Return the bitmaps of all layers, one after the other, each padded to whole bytes.

    A bank's index holds masks in this form.
    """
    return b"".join(np.packbits(flags).tobytes() for flags in mask.to_bools().values())


def kept_counts(packed: bytes, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return how many units a packed mask keeps of each layer, without making the mask.

    Args:
        packed: what `pack_mask` returns.
        sizes: units of each layer, by name, in the order of the packed mask.

    Raises:
        FormatError: the length does not fit the sizes.
    """
    _check_length(packed, sizes)
    ones = np.cumsum(_ONES[np.frombuffer(packed, dtype=np.uint8)], dtype=np.int64)
    stops = np.cumsum([(size + 7) // 8 for size in sizes.values()], dtype=np.int64)
    return dict(zip(sizes, np.diff(ones[stops - 1], prepend=0).tolist(), strict=True))


def _check_length(packed: bytes, sizes: Mapping[str, int]) -> None:
    if len(packed) != sum((size + 7) // 8 for size in sizes.values()):
        raise FormatError(f"a mask of {len(packed)} bytes does not fit the base's layers")


def unpack_mask(packed: bytes, sizes: Mapping[str, int]) -> Mask:
    """Return the mask that `pack_mask` has turned into bytes.

    Args:
        packed: what `pack_mask` returns.
        sizes: units of each layer, by name, in the order of the packed mask.

    Raises:
        FormatError: the length does not fit the sizes, or padding bits are set.
    """
    _check_length(packed, sizes)
    flags, start = {}, 0
    for name, size in sizes.items():
        stop = start + (size + 7) // 8
        bits = np.unpackbits(np.frombuffer(packed[start:stop], dtype=np.uint8))
        if bits[size:].any():
            raise FormatError(f"mask of layer {name}: padding bits are set")
        flags[name], start = bits[:size].astype(bool), stop
    return Mask.from_bools(flags)
