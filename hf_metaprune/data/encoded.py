"""Encoded images of anybody: the structure of each tells what a decoder would do with it, before one sees it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF", "HEIF", "TIFF", "PPM")
"""Formats that are decoded, as Pillow calls them.

Decoders of others start programs (EPS), are written in Python and slow (QOI), take memory without bound (JPEG 2000), or
find another image inside that is as large as it likes (ICO).
"""
MAX_PIXELS = 50_000_000
"""Most pixels of an image."""
MAX_WHOLE_PIXELS = {"WEBP": 16_000_000, "AVIF": 25_000_000, "HEIF": 25_000_000}
"""The same by the formats whose decoders need several copies of all pixels at once."""
MAX_JPEG_BYTES = 256 << 20
MAX_SCANS, MAX_SEGMENTS = 100, 20_000
"""Most passes of a JPEG over its pixels (cameras and programs write about 10), and most parts."""
MAX_GIF_BLOCKS = 20_000
"""Most blocks of comments and the like before the first picture of a GIF: Pillow joins them one by one."""
MAX_STRIPS = 20_000
"""Most strips or tiles of a TIFF."""
TIFF_COMPRESSIONS = frozenset({"raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"})
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
"""Tags of a TIFF that list its strips or its tiles."""
MAX_PPM_HEADER = 1000
"""Most bytes of a PPM before its pixels, with its comments."""
JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
"""A marker of a JPEG that begins a part; those that may lie among pixels do not count."""
PPM_COMMENT = re.compile(rb"#[^\n\r]*")
FAST_DECODERS = frozenset({"bmp_rle"})
"""Decoders in Python that are fast enough."""
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA


class CostlyImageError(ValueError):
    """An encoded image has too many pixels, or would cost more than an image of its pixels should."""


def readable_formats(formats: Sequence[str] = FORMATS) -> list[str]:
    """Return those of some formats that this Pillow can decode."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


@contextlib.contextmanager
def opened_image(file: BinaryIO, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """Open an encoded image after a check of its structure; its pixels are not decoded yet.

    Args:
        file: the encoded image, from its beginning.
        formats: the formats that are accepted, of `FORMATS`.

    Yields:
        The image, whose file is closed afterwards.

    Raises:
        CostlyImageError: it has too many pixels, or would cost more than an image of its pixels should.
        OSError: it is of another format, or damaged.
    """
    start = file.tell()
    prefix = file.read(32)
    file.seek(start)
    for magic, check in CHECKS:
        if prefix.startswith(magic):
            check(file)
            file.seek(start)
    names = readable_formats(formats)
    try:
        opened = Image.open(file, formats=names)
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(f"not an image in a format that is read: {', '.join(names)}") from error
    with opened as image:
        _check_pixels(image.width, image.height, MAX_WHOLE_PIXELS.get(image.format or "", MAX_PIXELS))
        if image.format == "TIFF":
            _check_tiff(image)
        decoders = {tile[0] for tile in image.tile or ()}
        if slow_decoders := decoders & Image.DECODERS.keys() - FAST_DECODERS:  # those that are written in Python
            raise CostlyImageError(f"a {image.format} whose pixels are packed in an unusual way ({min(slow_decoders)})")
        yield image


def _check_pixels(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise CostlyImageError(f"{width} x {height} pixels: at most {most // 1_000_000} million are read")


def _check_jpeg(file: BinaryIO) -> None:
    """Check how often a JPEG goes over its pixels: each time costs as much as all of them, however few its bytes."""
    content = file.read(MAX_JPEG_BYTES + 1)
    if len(content) > MAX_JPEG_BYTES:
        raise CostlyImageError(f"more than {MAX_JPEG_BYTES >> 20} MiB")
    place = scans = 0
    for _ in range(MAX_SEGMENTS):
        marker = JPEG_MARKER.search(content, place)
        kind = marker[1][0] if marker else END_OF_IMAGE
        if marker is None or kind == END_OF_IMAGE:
            return
        place = marker.end()
        if kind == 0xD8:  # the start, which has no length
            continue
        scans += kind == START_OF_SCAN
        if scans > MAX_SCANS:
            raise CostlyImageError(f"a JPEG with more than {MAX_SCANS} scans")
        place += int.from_bytes(content[place : place + 2], "big")
    raise CostlyImageError(f"a JPEG with more than {MAX_SEGMENTS} parts")


def _check_gif(file: BinaryIO) -> None:
    """Check how many blocks come before the first picture of a GIF."""
    flags = file.read(13)[10:11]
    if flags and flags[0] & 0x80:  # a table of colors
        file.seek(3 << (flags[0] & 7) + 1, 1)
    for _ in range(MAX_GIF_BLOCKS):
        marker = file.read(1)
        if marker in (b"", b",", b";"):
            return
        if marker != b"!":
            continue
        file.seek(1, 1)
        if not _skip_blocks(file):
            break
    raise CostlyImageError(f"a GIF with more than {MAX_GIF_BLOCKS} blocks before its picture")


def _skip_blocks(file: BinaryIO) -> bool:
    """Skip the blocks of one extension of a GIF, and return whether they are few."""
    for _ in range(MAX_GIF_BLOCKS):
        size = file.read(1)
        if size in (b"", b"\0"):
            return True
        file.seek(size[0], 1)
    return False


def _check_webp(file: BinaryIO) -> None:
    """Check the pixels of a WebP, whose decoder takes the memory for all before it tells their number."""
    header = file.read(32)
    kind = header[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(header[place : place + 3], "little") + 1 for place in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(header[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(header[place : place + 2], "little") & 0x3FFF for place in (26, 28))
    _check_pixels(width, height, MAX_WHOLE_PIXELS["WEBP"])


def _check_ppm(file: BinaryIO) -> None:
    """Check that a PPM has its pixels as bytes, and few comments before: Pillow reads a header byte by byte."""
    header = file.read(MAX_PPM_HEADER)
    n_tokens = 3 if header.startswith(b"P4") else 4
    if header[:2] not in (b"P4", b"P5", b"P6") or len(PPM_COMMENT.sub(b" ", header).split(maxsplit=4)) < n_tokens:
        raise CostlyImageError("a PPM of another kind than P4, P5 and P6, or with long comments")


def _check_tiff(image: Image.Image) -> None:
    """Check the compression and the parts of a TIFF."""
    compression = image.info.get("compression", "raw")
    if compression not in TIFF_COMPRESSIONS:
        raise CostlyImageError(f"a TIFF with compression {str(compression)[:20]!r}; save it as PNG or JPEG")
    for tag in (STRIP_OFFSETS, TILE_OFFSETS):
        places = getattr(image, "tag_v2", {}).get(tag, ())
        if isinstance(places, tuple) and len(places) > MAX_STRIPS:
            raise CostlyImageError(f"a TIFF of more than {MAX_STRIPS} parts")


CHECKS: tuple[tuple[bytes, Callable[[BinaryIO], None]], ...] = (
    (b"\xff\xd8", _check_jpeg),
    (b"GIF8", _check_gif),
    (b"RIFF", _check_webp),
    (b"P", _check_ppm),
)
"""Checks by what a file begins with."""
