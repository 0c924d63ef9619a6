"""Opening encoded images of anybody: Pillow gets only the parts of a file that it needs to decode one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from .picture_parts import (
    MAX_PIXELS,
    CostlyImageError,
    Picture,
    bmp_parts,
    check_pixels,
    gif_parts,
    jpeg_parts,
    png_parts,
    ppm_parts,
    webp_parts,
)
from .tiff_parts import tiff_parts

MAX_BYTES = 512 << 20
"""Most bytes of an encoded image."""


class Format(NamedTuple):
    """A format that is decoded."""

    magic: tuple[bytes, ...]
    """What its files begin with."""
    parts: Callable[[bytes], Picture]
    """A function that returns the parts of a file that a decoder needs."""


FORMATS = {
    "JPEG": Format((b"\xff\xd8",), jpeg_parts),
    "PNG": Format((b"\x89PNG\r\n\x1a\n",), png_parts),
    "WEBP": Format((b"RIFF",), webp_parts),
    "GIF": Format((b"GIF8",), gif_parts),
    "BMP": Format((b"BM",), bmp_parts),
    "TIFF": Format((b"II", b"MM"), tiff_parts),
    "PPM": Format((b"P4", b"P5", b"P6"), ppm_parts),
}
"""The formats that are decoded, by the names that Pillow has for them.

Decoders of others start programs (EPS), are slow (QOI, P3), take memory without bound (JPEG 2000), or decode another
picture than the one that the file states (ICO, AVIF).
"""


@contextmanager
def opened_image(
    file: BinaryIO, formats: Sequence[str] = tuple(FORMATS), max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Image.Image, int]]:
    """Open an encoded image; its pixels are not decoded yet.

    Args:
        file: the encoded image.
        formats: the formats that are accepted, of `FORMATS`.
        max_pixels: most pixels.

    Yields:
        The first picture of the file, and the orientation that its EXIF data states, from 1 to 8.

    Raises:
        CostlyImageError: it has too many pixels, or would cost more than an image of its pixels should.
        UnidentifiedImageError: it is of another format.
        OSError, ValueError: it is damaged.
    """
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise CostlyImageError(f"more than {MAX_BYTES >> 20} MiB")
    name = next((name for name in formats if content.startswith(FORMATS[name].magic)), None)
    if name is None:
        raise UnidentifiedImageError(f"not an image in a format that is read: {', '.join(formats)}")
    picture = FORMATS[name].parts(content)
    del content
    try:
        opened = Image.open(BytesIO(picture.content), formats=[name])
    except UnidentifiedImageError as error:
        raise OSError(f"a damaged {name}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CostlyImageError(f"more than {max_pixels // 1_000_000} million pixels") from error
    with opened as image:
        check_pixels(image.width, image.height, max_pixels)
        if slow_decoders := {tile[0] for tile in image.tile or ()} & Image.DECODERS.keys():  # those in Python
            raise CostlyImageError(f"a {name} whose pixels are stored in an unusual way ({min(slow_decoders)})")
        yield image, picture.orientation
