"""Small images that would cost much to decode."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.hostile_files import data_case, png

FULL = 4_900_000
"""Bytes of an image, with which the data set stays below 5 MB."""


def image_case(name: str, suffix: str, make: Callable[[], bytes]) -> None:
    """Add a data set of class folders with one such image among seven small ones."""

    @data_case(name)
    def _(folder: Path) -> None:
        for i in range(8):
            path = folder / "ab"[i % 2] / f"{i}.{suffix if i == 0 else 'png'}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(make() if i == 0 else png(8 + i))


def encode(kind: str, size: tuple[int, int] = (16, 16), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def gif(part: bytes, begin: bytes = b"", end: bytes = b"") -> bytes:
    """A GIF with a part repeated before its picture."""
    content = encode("GIF")
    place = content.index(b",")  # the table of colors is black
    return content[:place] + begin + part * (FULL // len(part)) + end + content[place:]


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG of so many scans, each of which goes over all of its pixels in a few bytes."""
    content = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    content += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    content += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")  # one code: many blocks of nothing
    blocks, bits = (-(-side // 8)) ** 2, ""
    while blocks > 0:
        run = min(blocks, 32767)
        bits += "0" + (format(run - 16384, "014b") if run >= 16384 else "1" * 14)
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    scan = segment(0xDA, b"\1\1\0\1\x3f\0") + data
    return content + scan * min(count, FULL // len(scan)) + b"\xff\xd9"


def tiles(count: int) -> bytes:
    """A TIFF of one row of tiles, each of one pixel."""
    entries = [
        (256, 4, 1, 1000), (257, 4, 1, count // 1000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
        (322, 3, 1, 1), (323, 3, 1, 1), (324, 4, count, 200), (325, 4, count, 200 + 4 * count),
    ]  # fmt: skip
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    content += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return content.ljust(200, b"\0") + struct.pack("<I", 8) * count + struct.pack("<I", 1) * count


def exif(tags: int) -> bytes:
    """EXIF data whose tags all have the whole of it for their value."""
    entries = b"".join(struct.pack("<HHII", 1000 + i, 7, FULL - 9, 8) for i in range(tags))
    return (b"II*\0" + struct.pack("<IH", 8, tags) + entries).ljust(FULL, b"\0")


def with_exif(data: bytes) -> bytes:
    content = encode("PNG")
    chunk = b"eXIf" + data
    return content[:33] + struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def hidden_scans(rounds: int) -> bytes:
    """A JPEG with markers that decoders skip, and whose next bytes would be a length, before many scans."""
    content = scans(3000, 1)
    scan = content[content.index(b"\xff\xda") : -2]
    restart = segment(0xDD, struct.pack(">H", 1))
    hidden = b"\xff\x02\xff\xff" + scan * (65_000 // len(scan))
    return content[:-2] + restart + (scan + hidden) * rounds + content[-2:]


def large_tile(side: int) -> bytes:
    """A TIFF of 300 x 300 pixels in one tile that is much larger."""
    data = zlib.compress(bytes(side * side), 9)
    values = {256: 300, 257: 300, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(values)) + entries).ljust(200, b"\0") + data


def strips(count: int, compression: int, rows: int, tags: Mapping[int, int] | None = None) -> bytes:
    """A TIFF whose strips all have the same bytes, with some tags more or instead."""
    data, lists = b"\x80" * 1_000_000, struct.pack("<I", 200) * count
    lists += struct.pack("<I", len(data)) * count
    values = {256: 400, 257: count * rows, 258: 8, 259: compression, 262: 1, 273: 200 + len(data), 277: 1, 278: rows}
    values[279] = values[273] + 4 * count
    values |= tags or {}
    counts = {273: count, 279: count}
    entries = b"".join(struct.pack("<HHII", tag, 4, counts.get(tag, 1), value) for tag, value in values.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(values)) + entries).ljust(200, b"\0") + data + lists


def lab(side: int) -> bytes:
    """A TIFF of CIELAB, whose colors take long to compute."""
    row = np.random.default_rng(0).integers(0, 256, 3 * side, dtype=np.uint8).tobytes()
    image = Image.frombytes("LAB", (side, side), row * side)
    file = io.BytesIO()
    image.save(file, "TIFF", compression="tiff_adobe_deflate", strip_size=3 * side * 64)
    return file.getvalue()


def behind_junk(side: int) -> bytes:
    """A WebP whose size is not in its first chunk."""
    content = encode("WEBP", (side, side), lossless=True)
    return content[:12] + b"junk\x08\0\0\0" + bytes(8) + content[12:]


def inside_icon(side: int) -> bytes:
    """An icon of 256 x 256 pixels that has a picture of others inside."""
    picture = encode("PNG", (side, side), "L")
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(picture), 22) + picture


image_case("a GIF of comments", "gif", lambda: gif(b"!\xfe\1x\0"))
image_case("a GIF with a comment of small blocks", "gif", lambda: gif(b"\1x", b"!\xfe", b"\0"))
image_case("a PPM of comments", "ppm", lambda: b"P6\n" + b"#\n" * (FULL // 2) + b"16 16\n255\n" + bytes(768))
image_case("a PGM of 254 levels", "pgm", lambda: b"P5\n2200 2200\n254\n" + b"\1" * 2200**2)
image_case("a QOI of single pixels", "qoi", lambda: (
    b"qoif" + struct.pack(">II", 2200, 2200) + b"\3\0" + b"\x6a" * 2200**2 + bytes(7) + b"\1"
))  # fmt: skip
image_case("a JPEG of 100 scans", "jpg", lambda: scans(7000, 100))
image_case("a JPEG of 1,000 scans", "jpg", lambda: scans(7000, 1000))
image_case("a JPEG of 100,000 scans", "jpg", lambda: scans(3000, 100_000))
image_case("a JPEG of empty parts", "jpg", lambda: (
    (jpeg := encode("JPEG"))[:2] + b"\xff\xe5\0\2" * (FULL // 4) + jpeg[2:]
))  # fmt: skip
image_case("a TIFF of 600,000 tiles", "tif", lambda: tiles(600_000))
image_case("a TIFF of 20,000 tiles", "tif", lambda: tiles(20_000))
image_case("a JPEG 2000 of 4 million pixels", "jp2", lambda: encode("JPEG2000", (2000, 2000)))
image_case("an icon with 169 million pixels inside", "ico", lambda: inside_icon(13_000))
image_case("a WebP of 49 million pixels", "webp", lambda: encode("WEBP", (7000, 7000), lossless=True))
image_case("a WebP of 16 million pixels", "webp", lambda: encode("WEBP", (4000, 4000), lossless=True))
image_case("an AVIF of 25 million pixels", "avif", lambda: encode("AVIF", (5000, 5000)))
image_case("a progressive JPEG of 49 million pixels", "jpg", lambda: encode("JPEG", (7000, 7000), progressive=True))
image_case("a GIF of 49 million pixels", "gif", lambda: encode("GIF", (7000, 7000), "L"))
image_case("a PNG of overlapping EXIF data", "png", lambda: with_exif(exif(1000)))
image_case("a TIFF of overlapping tags", "tif", lambda: exif(1000))
image_case("a JPEG of hidden scans", "jpg", lambda: hidden_scans(40))
image_case("a TIFF with a tile of 400 million pixels", "tif", lambda: large_tile(20_000))
image_case("a BMP of runs", "bmp", lambda: encode("BMP", (7000, 7000), "L")[:30] + b"\1" + bytes(9000))
image_case("a thin PNG of 40 million pixels", "png", lambda: encode("PNG", (44_700, 894), "I;16"))
image_case("a thin PNG of 16 million pixels", "png", lambda: encode("PNG", (28_000, 560), "I;16"))
image_case("a TIFF of strips that share their bytes", "tif", lambda: strips(20_000, 32773, 1))
image_case("a TIFF of strips, and of one tile", "tif", lambda: strips(
    20_000, 1, 500, {256: 1600, 257: 1000, 322: 1600, 323: 1000, 324: 200, 325: 1_000_000}
))  # fmt: skip
image_case("a TIFF of strips, with the size of tiles", "tif", lambda: strips(
    20_000, 1, 500, {256: 1600, 257: 1000, 322: 1, 323: 1}
))  # fmt: skip
image_case("a TIFF of 49 million pixels of CIELAB", "tif", lambda: lab(7000))
image_case("a TIFF in one strip of 49 million pixels", "tif", lambda: encode(
    "TIFF", (7000, 7000), compression="tiff_lzw", strip_size=1 << 28
))  # fmt: skip
image_case("a WebP of 49 million pixels behind another chunk", "webp", lambda: behind_junk(7000))
image_case("a progressive JPEG of 49 million pixels with all colors", "jpg", lambda: encode(
    "JPEG", (7000, 7000), progressive=True, subsampling=0
))  # fmt: skip
