"""The tags of a TIFF that a decoder needs; others may repeat the whole file, or lead to directories of their own."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from typing import NamedTuple

from .picture_parts import MAX_TEXT, CostlyImageError, Picture, xmp_orientation

MAX_ENTRIES, MAX_STRIPS, MAX_COLORS = 1000, 20_000, 3 << 16
"""Most tags, parts of the picture, and numbers of its palette."""
MAX_VALUES = 20
"""Most values of the other tags that are kept."""
WIDTH, HEIGHT, COMPRESSION, ORIENTATION, TILE_WIDTH, TILE_HEIGHT = 256, 257, 259, 274, 322, 323
BITS, SAMPLES, ROWS_PER_STRIP, PLANES, XMP = 258, 277, 278, 284, 700
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES = 273, 279, 324, 325
FREE_PIXELS = 1_000_000
"""Pixels that the parts of a picture may have beyond twice its own."""
MAX_MEMORY = 260_000_000
"""Most bytes of a picture with four of each pixel, and of one part of it."""
COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946})
"""None, LZW, Deflate, PackBits, and the former number of Deflate."""
SINGLE_TAGS = frozenset({WIDTH, HEIGHT, COMPRESSION, TILE_WIDTH, TILE_HEIGHT})
"""Tags with one value, which is checked."""
MAX_COUNTS = {
    **dict.fromkeys((*SINGLE_TAGS, BITS, 262, 266, SAMPLES, ROWS_PER_STRIP), MAX_VALUES),
    **dict.fromkeys((PLANES, 317, 338, 339, 529, 530, 532), MAX_VALUES),
    **dict.fromkeys((STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES), MAX_STRIPS),
    320: MAX_COLORS,
}
"""Most values of each tag that is kept."""
STRIP_TAGS = frozenset({ROWS_PER_STRIP, STRIP_OFFSETS, STRIP_BYTES})
TILE_TAGS = frozenset({TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES})
"""What says where a picture in strips, or in tiles, is stored; what belongs to the other kind is not handed on."""
TYPE_SIZES = {1: 1, 3: 2, 4: 4}
"""Bytes of a value by the type of a tag: bytes, shorts and longs."""


class _Entry(NamedTuple):
    tag: int
    kind: int
    n_values: int
    value: int
    raw: bytes


def tiff_parts(content: bytes) -> Picture:
    """Return a TIFF with its first picture alone, and with the tags that say how it is stored.

    Raises:
        CostlyImageError: its picture has too many or too large parts, or a compression whose cost is not bounded.
        ValueError: its directory is damaged, or it is a BigTIFF.
    """
    order = "<" if content.startswith(b"II") else ">"
    try:
        magic, start = struct.unpack_from(f"{order}HI", content, 2)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        if magic != 42 or count > MAX_ENTRIES:
            raise ValueError("a TIFF of another kind, or with a damaged directory")
        entries = [_read_entry(content, start + 2 + 12 * i, order) for i in range(count)]
    except struct.error as error:
        raise ValueError("a TIFF that is cut short") from error
    values = {entry.tag: entry.value for entry in entries}
    if start < 8 or len(values) < len(entries):
        raise ValueError("a TIFF with a damaged directory")
    if any(entry.tag in SINGLE_TAGS and (entry.n_values != 1 or entry.kind not in TYPE_SIZES) for entry in entries):
        raise ValueError("a TIFF whose size or compression is no number")
    compression = values.get(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise CostlyImageError(f"a TIFF with compression {compression}: save it with LZW or none, or as PNG or JPEG")
    if STRIP_OFFSETS in values and TILE_OFFSETS in values:  # decoders do not agree on which they read
        raise CostlyImageError("a TIFF of strips and of tiles at once")
    unused = STRIP_TAGS if TILE_OFFSETS in values else TILE_TAGS
    kept = [entry for entry in entries if entry.tag in MAX_COUNTS and entry.tag not in unused]
    for entry in kept:
        if entry.n_values > MAX_COUNTS[entry.tag]:
            raise CostlyImageError(f"a TIFF with {entry.n_values} values of tag {entry.tag}")
    _check_sizes(content, {entry.tag: entry for entry in kept}, order, compression)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(entry.raw for entry in kept) + bytes(4)
    xmp = next((_bytes_of(content, entry, order) for entry in entries if entry.tag == XMP), b"")
    orientation = values.get(ORIENTATION) or xmp_orientation(xmp) or 1
    head = content[:4] + struct.pack(f"{order}I", start)
    body = b"".join([head, content[8:start], directory, content[start + len(directory) :]])
    return Picture(body, orientation if 1 <= orientation <= 8 else 1)


def _check_sizes(content: bytes, entries: Mapping[int, _Entry], order: str, compression: int) -> None:
    """Check that the parts of a picture are not more than it needs, share no bytes, and are not too large.

    Raises:
        CostlyImageError: they are, or do.
        ValueError: their number or size cannot be told.
    """

    def numbers(tag: int, default: int) -> list[int]:
        if tag not in entries:
            return [default]
        entry = entries[tag]
        if entry.kind not in TYPE_SIZES:
            raise ValueError(f"a TIFF whose tag {tag} has no numbers")
        size = TYPE_SIZES[entry.kind]
        data = _bytes_of(content, entry, order)
        return [
            int.from_bytes(data[place : place + size], "little" if order == "<" else "big")
            for place in range(0, len(data), size)
        ] or [default]

    width, height = numbers(WIDTH, 0)[0], numbers(HEIGHT, 0)[0]
    part_width = numbers(TILE_WIDTH, width)[0]
    part_height = numbers(TILE_HEIGHT, min(height, numbers(ROWS_PER_STRIP, height)[0]))[0]
    if not part_width or not part_height:
        raise ValueError("a TIFF without a size")
    samples, planes = numbers(SAMPLES, 1)[0], 1
    if numbers(PLANES, 1)[0] == 2:
        samples, planes = 1, samples
    part_bytes = part_width * part_height * samples * max(numbers(BITS, 1)) // 8
    n_down = -(-height // part_height)
    n_parts = -(-width // part_width) * n_down * planes
    offsets = numbers(TILE_OFFSETS if TILE_OFFSETS in entries else STRIP_OFFSETS, 0)
    sizes = numbers(TILE_BYTES if TILE_BYTES in entries else STRIP_BYTES, 0)
    if len(offsets) > n_parts or n_parts * part_width * part_height > 2 * planes * width * height + FREE_PIXELS:
        raise CostlyImageError("a TIFF whose parts have more pixels than the picture")
    if compression == 1:  # each is read up to the place of the next one
        sizes = [part_bytes] * len(offsets)
        if TILE_OFFSETS not in entries:  # the last strip of each plane has the rows that are left
            last_rows = height - (n_down - 1) * part_height
            sizes[n_down - 1 :: n_down] = [part_bytes * last_rows // part_height] * len(sizes[n_down - 1 :: n_down])
    elif sum(sizes) > len(content):
        raise CostlyImageError("a TIFF whose parts have more bytes than the file")
    elif part_bytes + 4 * width * height > MAX_MEMORY:
        raise CostlyImageError("a TIFF in parts that are too large: save it in strips of a few rows")
    places = sorted(zip(offsets, sizes, strict=False))
    if len(sizes) < len(offsets) or any(start + size > end for (start, size), (end, _) in itertools.pairwise(places)):
        raise CostlyImageError("a TIFF whose parts have bytes in common")


def _bytes_of(content: bytes, entry: _Entry, order: str) -> bytes:
    """Return the values of an entry as they are stored, in the entry or elsewhere in the file."""
    size = entry.n_values * TYPE_SIZES.get(entry.kind, 1)
    if size <= 4:
        return entry.raw[8 : 8 + size]
    place = int.from_bytes(entry.raw[8:], "little" if order == "<" else "big")
    return content[place : place + min(size, MAX_TEXT)]


def _read_entry(content: bytes, place: int, order: str) -> _Entry:
    """Return an entry of a directory; its value is the first one, if it lies in the entry."""
    tag, kind, count = struct.unpack_from(f"{order}HHI", content, place)
    raw = content[place : place + 12]
    size = TYPE_SIZES.get(kind, 0)
    value = int.from_bytes(raw[8 : 8 + size], "little" if order == "<" else "big") if count * size <= 4 else 0
    return _Entry(tag, kind, count, value, raw)
