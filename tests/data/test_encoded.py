"""Encoded images that would cost more than their pixels are refused; what programs write is read."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable

import pytest
from PIL import Image

from hf_metaprune.data import encoded
from hf_metaprune.data.decoding import open_image
from hf_metaprune.data.encoded import MAX_GIF_BLOCKS, MAX_SCANS, MAX_SEGMENTS, MAX_STRIPS, CostlyImageError


def picture(size: tuple[int, int] = (30, 20)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1]))


def encode(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **options)
    return file.getvalue()


def repeat_scan(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times more."""
    content = encode("JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * count + content[-2:]


def gif_with(extension: bytes) -> bytes:
    content = encode("GIF", Image.new("RGB", (30, 20)))
    place = content.index(b",")  # the color table is black
    return content[:place] + extension + content[place:]


COMMENT = b"!\xfe"
COSTLY: dict[str, Callable[[], bytes]] = {
    "JPEG scans": lambda: repeat_scan(MAX_SCANS),
    "JPEG parts": lambda: encode("JPEG").replace(b"\xff\xdb", b"\xff\xe5\0\2" * MAX_SEGMENTS + b"\xff\xdb", 1),
    "GIF blocks": lambda: gif_with(COMMENT + b"\1x" * (MAX_GIF_BLOCKS + 1) + b"\0"),
    "GIF comments": lambda: gif_with((COMMENT + b"\1x\0") * (MAX_GIF_BLOCKS + 1)),
    "PPM in decimals": lambda: b"P3 2 1 255 1 2 3 4 5 6 ",
    "PPM comments": lambda: b"P6 " + b"#x\n" * 500 + b"2 1 255 abcdef",
    "PPM of 254 levels": lambda: b"P6 2 1 254 abcdef",
    "TIFF strips": lambda: encode("TIFF", Image.new("1", (450, MAX_STRIPS + 1)), tiffinfo={278: 1}),
    "TIFF of JPEGs": lambda: encode("TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("make", COSTLY.values(), ids=COSTLY)
def test_what_costs_more_than_its_pixels_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(CostlyImageError):
        open_image(make())


@pytest.mark.parametrize("kind", ["ICO", "JPEG2000", "QOI", "PCX", "SGI", "TGA", "EPS"])
def test_formats_whose_decoders_are_not_bounded_are_not_read(kind: str) -> None:
    with pytest.raises(Image.UnidentifiedImageError if kind != "QOI" else (OSError, ValueError)):
        open_image(encode(kind, picture((32, 32))))


SOUND: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode("JPEG"),
    "progressive JPEG": lambda: encode("JPEG", progressive=True, comment=b"\xff\xda" * 200),
    "many scans": lambda: repeat_scan(MAX_SCANS - 20),
    "JPEG and a film": lambda: encode("JPEG", quality=90) + b"\xff\xda\0\2" * 1000,
    "JPEG with restarts": lambda: encode("JPEG", picture((300, 200)), restart_marker_blocks=1),
    "JPEG with a profile": lambda: encode("JPEG", icc_profile=bytes(200_000), exif=Image.Exif()),
    "MPO": lambda: encode("MPO", save_all=True, append_images=[picture()]),
    "GIF": lambda: encode("GIF"),
    "animated GIF": lambda: encode("GIF", save_all=True, append_images=[picture((20, 20))] * 9, comment=b"x" * 9000),
    "PPM": lambda: encode("PPM"),
    "PPM with a comment": lambda: b"P6\n# by a camera\n2 1\n255\nabcdef",
    "PGM": lambda: encode("PPM", picture().convert("L")),
    "PGM of 16 bits": lambda: encode("PPM", picture().convert("L").convert("I")),
    "PBM": lambda: encode("PPM", picture().convert("1")),
    "TIFF": lambda: encode("TIFF"),
    "TIFF by LZW": lambda: encode("TIFF", compression="tiff_lzw"),
    "TIFF by deflate": lambda: encode("TIFF", compression="tiff_adobe_deflate"),
    "BMP": lambda: encode("BMP"),
    "PNG": lambda: encode("PNG"),
    "WebP": lambda: encode("WEBP"),
    "WebP without loss": lambda: encode("WEBP", lossless=True),
    "animated WebP": lambda: encode("WEBP", save_all=True, append_images=[Image.new("RGB", (30, 20))]),
}


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND)
def test_what_programs_write_is_read(make: Callable[[], bytes]) -> None:
    content = make()
    with Image.open(io.BytesIO(content)) as image:
        expected = image.convert("RGB") if image.mode != "I" else None
    opened = open_image(content)
    assert opened.size == (expected.size if expected else (30, 20))
    assert expected is None or opened.tobytes() == expected.tobytes()


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0x"}], ids=["VP8", "VP8L", "VP8X"])
def test_pixels_of_a_webp_are_counted_before_its_decoder_is_made(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    content = encode("WEBP", picture((300, 20)), **options)
    monkeypatch.setitem(encoded.MAX_WHOLE_PIXELS, "WEBP", 6000)
    assert open_image(content).size == (300, 20)
    monkeypatch.setitem(encoded.MAX_WHOLE_PIXELS, "WEBP", 5999)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(CostlyImageError, match="300 x 20 pixels"):
        open_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "PPM", "WEBP", "TIFF", "PNG", "BMP"])
def test_damage_raises_what_callers_expect(kind: str) -> None:
    content, rng = encode(kind), random.Random(kind)
    for _ in range(300):
        damaged = bytearray(content[: rng.randint(0, len(content))])
        for _ in range(rng.randint(0, 4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(OSError, ValueError, TypeError, SyntaxError, UserWarning):
            open_image(bytes(damaged))
