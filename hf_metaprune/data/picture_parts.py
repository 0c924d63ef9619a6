"""The parts of an encoded image that a decoder needs: all others are left out, for decoders may take long over them."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

MAX_PARTS = 50_000
"""Most parts of a file: segments, chunks or blocks."""
MAX_PIXELS = 50_000_000
"""Most pixels of an image."""
MAX_WEBP_PIXELS = 16_000_000
"""Most pixels of a WebP, whose decoder needs several copies of all of them at once."""
MAX_SCANS = 100
"""Most passes of a JPEG over its pixels, each of which costs as much as all of them (programs write about 10)."""
MAX_HEADER = 1000
"""Most bytes of a PPM before its pixels, with its comments."""
PPM_FIELD = re.compile(rb"[^\s#]{1,10}")
MAX_EXIF_ENTRIES = 1000
ORIENTATION = 0x0112
"""The tag of EXIF data that says how an image lies."""

JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker of a JPEG, but those that lie among pixels."""
FIRST_MARKER, START, END, SCAN, APP1 = 0xC0, 0xD8, 0xD9, 0xDA, 0xE1
FRAMES, OTHER_FRAMES = frozenset({0xC0, 0xC1, 0xC2}), frozenset({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of frames that are decoded, which cameras and programs write, and of others: without loss, or arithmetic."""
DECODED_MARKERS = FRAMES | {0xC4, 0xDA, 0xDB, 0xDC, 0xDD}
"""Markers of frames, tables and scans."""
PROGRESSIVE = 0xC2
MAX_COEFFICIENTS = 120_000_000
"""Most coefficients of a JPEG of which decoders keep all: a progressive one, or one whose scans have parts of it."""
COLOR_MARKERS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
"""Markers of segments that say what colors mean, with what those begin with."""
MAX_COLOR_SEGMENT = 100
PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
WEBP_KEPT = frozenset({b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"})
WEBP_SIZED = frozenset({b"VP8X", b"VP8 ", b"VP8L"})
"""Chunks that state the number of pixels."""
MAX_PNG_BYTES = 280_000_000
"""Most bytes of the pixels of a PNG, each of which may depend on those beside and above it."""
PNG_TEXTS, MAX_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"}), 1 << 20
"""Chunks of a PNG with texts, and most bytes of a text in which an orientation is looked for."""
XMP_KEY, RAW_PROFILE_KEY = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
WEBP_FLAGS = 0x12
"""The flags of a WebP that it is an animation, and has an alpha channel."""


class CostlyImageError(ValueError):
    """An encoded image has too many pixels, or would cost more than an image of its pixels should."""


class Picture(NamedTuple):
    """A file with one picture alone."""

    content: bytes
    """The file."""
    orientation: int = 1
    """How the picture lies, from 1 to 8 as EXIF says it; 1 is upright."""


def check_pixels(width: int, height: int, most: int) -> None:
    """Refuse a picture with too many pixels.

    Raises:
        CostlyImageError: it has more than `most`.
    """
    if width * height > most:
        raise CostlyImageError(f"{width} x {height} pixels: at most {most // 1_000_000} million are read")


def jpeg_parts(content: bytes) -> Picture:
    """Return the frame, tables and scans of a JPEG, of the first picture if it has several.

    Raises:
        CostlyImageError: it has too many scans or parts.
        ValueError: it has a marker that no JPEG has; decoders do not agree where its data end.
    """
    parts, place, n_scans, n_coefficients, is_kept = [content[:2]], 2, 0, 0, False
    exif, xmp, n_components = b"", b"", b""
    for _ in range(MAX_PARTS):
        marker = JPEG_MARKER.search(content, place)
        if marker is None or marker[1][0] == END:
            parts += [marker[0]] if marker else []
            return Picture(b"".join(parts), exif_orientation(exif) or xmp_orientation(xmp) or 1)
        kind, start = marker[1][0], marker.end()
        if kind < FIRST_MARKER or kind == START:
            raise ValueError(f"a JPEG with marker {kind:02x}")
        if kind in OTHER_FRAMES:
            raise CostlyImageError(f"a JPEG of an unusual kind ({kind:02x}): save it as an ordinary one, or as PNG")
        place = start + int.from_bytes(content[start : start + 2], "big")
        body = content[start + 2 : place]
        if kind == SCAN:
            n_scans += 1
            if n_scans > MAX_SCANS:
                raise CostlyImageError(f"a JPEG with more than {MAX_SCANS} scans")
            is_kept |= n_scans > 1 or body[:1] != n_components
            if is_kept and n_coefficients > MAX_COEFFICIENTS:
                raise CostlyImageError(f"a JPEG of several scans with {n_coefficients} coefficients")
            following = JPEG_MARKER.search(content, place)
            place = following.start() if following else len(content)
        if kind in FRAMES:
            n_coefficients, n_components = max(n_coefficients, _n_coefficients(body)), body[5:6]
            is_kept |= kind == PROGRESSIVE
        if kind == APP1:
            exif = exif or (body[6:] if body.startswith(b"Exif\0\0") else b"")
            xmp = xmp or (body if body.startswith(XMP_SEGMENT) else b"")
        colors = COLOR_MARKERS.get(kind)
        if kind in DECODED_MARKERS or (colors and body.startswith(colors) and len(body) <= MAX_COLOR_SEGMENT):
            parts.append(content[marker.start() : place])
    raise CostlyImageError(f"a JPEG with more than {MAX_PARTS} parts")


def _n_coefficients(frame: bytes) -> int:
    """Return the number of coefficients of a JPEG by its frame; parts of the picture may have fewer for colors."""
    height, width = (int.from_bytes(frame[place : place + 2], "big") for place in (1, 3))
    factors = [(byte >> 4, byte & 15) for byte in frame[7::3]]
    largest = max((across for across, _ in factors), default=1) * max((down for _, down in factors), default=1)
    return width * height * sum(across * down for across, down in factors) // max(1, largest)


def png_parts(content: bytes) -> Picture:
    """Return the header, palette, transparency and pixels of a PNG.

    Raises:
        CostlyImageError: it has too many chunks.
    """
    parts, place, exif, xmp, raw_profile = [content[:8]], 8, b"", b"", b""
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    bits = _png_bits(content)
    check_pixels(width, height, MAX_PIXELS)
    if width * height * bits > 8 * MAX_PNG_BYTES:
        most = MAX_PNG_BYTES // 1_000_000
        raise CostlyImageError(f"{width} x {height} pixels of {bits} bits: at most {most} MB are read")
    seen: set[bytes] = set()
    for _ in range(MAX_PARTS):
        size, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        start, place = place, place + 12 + size
        if kind == b"eXIf":
            exif = content[start + 8 : place - 4]
        elif kind in PNG_TEXTS:
            text = content[start + 4 : place - 4]
            xmp = xmp or (text if text[4:].startswith(XMP_KEY) else b"")
            raw_profile = raw_profile or (text if text[4:].startswith(RAW_PROFILE_KEY) else b"")
        if kind in PNG_KEPT and (size or kind == b"IEND") and (kind == b"IDAT" or kind not in seen):
            parts.append(content[start:place])
        seen.add(kind)
        if kind == b"IEND" or place >= len(content):
            orientation = exif_orientation(exif) or raw_profile_orientation(raw_profile) or xmp_orientation(xmp) or 1
            return Picture(b"".join(parts), orientation)
    raise CostlyImageError(f"a PNG with more than {MAX_PARTS} chunks")


def _png_bits(content: bytes) -> int:
    """Return the bits of a pixel that a PNG states."""
    depth, color = content[24:25], content[25:26]
    channels = {2: 3, 4: 2, 6: 4}.get(color[0], 1) if color else 1
    return channels * (depth[0] if depth else 8)


def webp_parts(content: bytes) -> Picture:
    """Return the first picture of a WebP.

    Raises:
        CostlyImageError: it has too many chunks, or too many pixels: its decoder is made for all of them at once.
    """
    content = content[: 8 + int.from_bytes(content[4:8], "little")]  # what is behind it belongs to nothing
    parts, place, exif, xmp = list[bytes](), 12, b"", b""
    seen: set[bytes] = set()
    for _ in range(MAX_PARTS):
        kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        chunk = content[place : place + 8 + size + size % 2]
        if kind == b"EXIF":
            exif = chunk[8:].removeprefix(b"Exif\0\0")
        if kind == b"XMP ":
            xmp = chunk
        if kind in WEBP_SIZED:
            check_pixels(*_webp_size(chunk), MAX_WEBP_PIXELS)
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & WEBP_FLAGS]) + chunk[9:] if len(chunk) > 8 else chunk
        if kind in WEBP_KEPT and kind not in seen:
            parts.append(chunk)
        seen.add(kind)
        place += 8 + size + size % 2
        if place >= len(content):
            body = b"".join([content[8:12], *parts])
            orientation = exif_orientation(exif) or xmp_orientation(xmp) or 1
            return Picture(b"RIFF" + len(body).to_bytes(4, "little") + body, orientation)
    raise CostlyImageError(f"a WebP with more than {MAX_PARTS} chunks")


def _webp_size(chunk: bytes) -> tuple[int, int]:
    """Return width and height that a chunk of a WebP states."""
    if chunk.startswith(b"VP8X"):
        width, height = (int.from_bytes(chunk[place : place + 3], "little") + 1 for place in (12, 15))
    elif chunk.startswith(b"VP8L"):
        bits = int.from_bytes(chunk[9:13], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(chunk[place : place + 2], "little") & 0x3FFF for place in (14, 16))
    return width, height


def gif_parts(content: bytes) -> Picture:
    """Return a GIF from its first picture on, without the comments and the like before.

    Raises:
        CostlyImageError: it has too many blocks before.
        ValueError: it has no picture.
    """
    place = 13 + (3 << (content[10] & 7) + 1 if content[10:11] and content[10] & 0x80 else 0)
    head, control, n_blocks = content[:place], b"", 0
    while n_blocks < MAX_PARTS:
        n_blocks += 1
        introducer = content[place : place + 1]
        if introducer == b",":
            return Picture(head + control + content[place:])
        if introducer != b"!":
            raise ValueError("a GIF without a picture")
        start, place = place, place + 2
        while (size := content[place] if place < len(content) else 0) and n_blocks < MAX_PARTS:
            n_blocks, place = n_blocks + 1, place + 1 + size
        place += 1
        if content[start + 1 : start + 3] == b"\xf9\x04":  # which color is transparent
            control = content[start:place]
    raise CostlyImageError(f"a GIF with more than {MAX_PARTS} blocks before its picture")


def bmp_parts(content: bytes) -> Picture:
    """Return a BMP as it is, if its pixels are not packed.

    Raises:
        CostlyImageError: they are; Pillow takes long to unpack them.
    """
    header_size, compression = (int.from_bytes(content[place : place + 4], "little") for place in (14, 30))
    if header_size > 12 and compression not in (0, 3):  # 3: as they are, with masks of the colors
        raise CostlyImageError("a BMP whose pixels are packed")
    return Picture(content)


def ppm_parts(content: bytes) -> Picture:
    """Return a PPM, PGM or PBM without its comments, if its pixels are bytes that Pillow reads at once.

    Raises:
        CostlyImageError: they are not, or its header is long.
    """
    fields, place = list[bytes](), 0
    n_fields = 3 if content.startswith(b"P4") else 4
    while len(fields) < n_fields and place < min(len(content), MAX_HEADER):
        byte = content[place : place + 1]
        if byte.isspace():
            place += 1
        elif byte == b"#":
            ends = [end for mark in (b"\n", b"\r") if (end := content.find(mark, place, MAX_HEADER)) > 0]
            place = min(ends, default=MAX_HEADER)
        else:
            field = PPM_FIELD.match(content, place)
            assert field is not None
            fields.append(field[0])
            place = field.end()
    ends_well = len(fields) == n_fields and content[place : place + 1].isspace()
    if not ends_well or not all(field.isdigit() for field in fields[1:]):
        raise CostlyImageError(f"a PPM without numbers in its first {MAX_HEADER} bytes")
    return Picture(b" ".join(fields) + b"\n" + content[place + 1 :])


def xmp_orientation(xmp: bytes) -> int:
    """Return the orientation that XMP data state, from 1 to 8; 0 if they state none."""
    match = XMP_ORIENTATION.search(xmp[:MAX_TEXT])
    return int(match[1]) if match else 0


def raw_profile_orientation(chunk: bytes) -> int:
    """Return the orientation that EXIF data in hex, in a text of a PNG, state; 0 if they state none."""
    kind, text = chunk[:4], chunk[4 + len(RAW_PROFILE_KEY) :]
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], MAX_TEXT)
        exif = bytes.fromhex("".join(text[:MAX_TEXT].decode("ascii").split("\n")[3:]))
    except (zlib.error, ValueError):
        return 0
    return exif_orientation(exif.removeprefix(b"Exif\0\0"))


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that EXIF data state, from 1 to 8; 0 if they state none, or are damaged."""
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 0

    def number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size], "little" if exif.startswith(b"II") else "big")

    start = number(4, 4)
    for place in range(start + 2, start + 2 + 12 * min(number(start, 2), MAX_EXIF_ENTRIES), 12):
        if number(place, 2) == ORIENTATION:
            value = number(place + 8, {3: 2, 4: 4, 8: 2, 9: 4}.get(number(place + 2, 2), 0))  # shorts and longs
            return value if 1 <= value <= 8 else 0
    return 0
