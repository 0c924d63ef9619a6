"""Encoded images that would cost more than their pixels are refused; what programs write is read."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, features

from hf_metaprune.data import picture_parts
from hf_metaprune.data.decoding import open_image
from hf_metaprune.data.picture_parts import MAX_PARTS, MAX_SCANS, CostlyImageError, gif_parts
from hf_metaprune.data.tiff_parts import MAX_STRIPS, tiff_parts


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
    "JPEG parts": lambda: encode("JPEG").replace(b"\xff\xdb", b"\xff\xe5\0\2" * MAX_PARTS + b"\xff\xdb", 1),
    "GIF blocks": lambda: gif_with(COMMENT + b"\1x" * (MAX_PARTS + 1) + b"\0"),
    "GIF comments": lambda: gif_with((COMMENT + b"\1x\0") * (MAX_PARTS + 1)),
    "BMP of runs": lambda: (
        encode("BMP", Image.new("L", (30, 20)))[:30] + b"\1" + encode("BMP", picture().convert("L"))[31:]
    ),
    "JPEG without loss": lambda: encode("JPEG").replace(b"\xff\xc0", b"\xff\xc3", 1),
    "arithmetic JPEG": lambda: encode("JPEG", progressive=True).replace(b"\xff\xc2", b"\xff\xca", 1),
    "JPEG of many coefficients": lambda: encode("JPEG", progressive=True, subsampling=0).replace(
        b"\0\x14\0\x1e\3\1\x11", b"\x1b\x58\x1b\x58\3\1\x11", 1
    ),
    "WebP behind another chunk": lambda: (
        (webp := encode("WEBP", Image.new("RGB", (4100, 4000)), lossless=True))[:12]
        + b"junk\x08\0\0\0"
        + bytes(8)
        + webp[12:]
    ),
    "TIFF strips of the same bytes": lambda: tiff_of({259: 32773, 278: 1}, strips=20),
    "TIFF strips one byte apart": lambda: tiff_of({278: 1}, strips=20),
    "TIFF of more strips than rows": lambda: tiff_of({278: 20}, strips=2),
    "TIFF of tiles above its edge": lambda: tiff_of({256: 3000, 257: 1, 322: 16, 323: 2048, 324: 400, 325: 600}),
    "TIFF of strips and one tile": lambda: tiff_of({278: 1, 322: 32, 323: 32}, strips=20).replace(
        struct.pack("<H", 277), struct.pack("<H", 324), 1
    ),
    "PNG of 16 bits": lambda: encode("PNG").replace(b"\0\0\0\x1e\0\0\0\x14\x08", b"\0\0\x1b\x58\0\0\x1b\x58\x10", 1),
    "TIFF in one strip": lambda: tiff_of({256: 7000, 257: 7000, 259: 5, 277: 3, 278: 7000}),
    "PNG chunks": lambda: encode("PNG")[:33] + (bytes(4) + b"abCd" + bytes(4)) * MAX_PARTS + encode("PNG")[33:],
    "WebP chunks": lambda: b"RIFF" + b"\xff" * 4 + encode("WEBP")[8:] + b"abcd\0\0\0\0" * MAX_PARTS,
    "PPM comments": lambda: b"P6 " + b"#x\n" * 500 + b"2 1 255 abcdef",
    "PPM of 254 levels": lambda: b"P6 2 1 254 abcdef",
    "TIFF strips": lambda: encode("TIFF", Image.new("1", (450, MAX_STRIPS + 1)), tiffinfo={278: 1}),
    "TIFF of JPEGs": lambda: encode("TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("make", COSTLY.values(), ids=COSTLY)
def test_what_costs_more_than_its_pixels_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(CostlyImageError):
        open_image(make())


def exif_of(tags: int, orientation: int = 6) -> bytes:
    """EXIF data whose tags all lead to the same 60 kB."""
    entries = [struct.pack("<HHII", 0x0112, 3, 1, orientation)]
    entries += [struct.pack("<HHII", 1000 + i, 7, 60_000, 8) for i in range(tags)]
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return data.ljust(60_100, b"\0")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_of_exif_data_the_orientation_alone_is_read(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content = encode(kind, exif=b"Exif\0\0" + exif_of(800))
    monkeypatch.setattr(Image.Exif, "load", None)  # which copies the value of each tag
    assert open_image(content).size == (20, 30)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
STATED: dict[str, Callable[[], bytes]] = {
    "signed short": lambda: encode("PNG", exif=exif_of(0).replace(b"\x12\1\3\0", b"\x12\1\x08\0", 1)),
    "XMP of a JPEG": lambda: encode("JPEG", xmp=XMP),
    "XMP of a WebP": lambda: encode("WEBP", xmp=XMP),
    "XMP of a TIFF": lambda: encode("TIFF", tiffinfo={700: XMP}),
    "XMP of a PNG": lambda: encode("PNG", pnginfo=texts({"XML:com.adobe.xmp": XMP.decode()})),
    "raw profile of a PNG": lambda: encode("PNG", pnginfo=texts({"Raw profile type exif": raw_profile()}, zip=True)),
    "a long": lambda: encode("PNG", exif=exif_of(0).replace(b"\x12\1\3\0", b"\x12\1\4\0", 1)),
}


def texts(values: dict[str, str], zip: bool = False) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in values.items():
        info.add_text(key, value, zip=zip)
    return info


def raw_profile() -> str:
    data = b"Exif\0\0" + exif_of(0)[:100]
    return f"\nexif\n{len(data):8}\n" + "\n".join(data.hex()[i : i + 72] for i in range(0, 2 * len(data), 72))


@pytest.mark.parametrize("make", STATED.values(), ids=STATED)
def test_an_orientation_is_read_wherever_pillow_finds_it(make: Callable[[], bytes]) -> None:
    content = make()
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert expected.size == (20, 30)
    assert open_image(content).tobytes() == expected.tobytes()


def test_numbers_of_16_bits_in_either_order() -> None:
    gray = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    images = [open_image(encode("TIFF", Image.fromarray(gray.astype(kind)))) for kind in ("<u2", ">u2")]
    assert images[0].tobytes() == images[1].tobytes()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", "<>")
def test_orientations_are_those_of_pillow(orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112], exif[0x0131] = "maker", orientation, "program"
    expected = (
        picture()
        if orientation in (0, 9)
        else ImageOps.exif_transpose(Image.open(io.BytesIO(encode("PNG", exif=exif))))
    )
    assert open_image(encode("PNG", exif=exif)).tobytes() == expected.convert("RGB").tobytes()


def test_a_tiff_is_turned_by_its_tag_and_keeps_no_other() -> None:
    content = encode("TIFF", tiffinfo={274: 6, 270: "a description" * 1000, 33432: "somebody"})
    assert open_image(content).size == (20, 30)
    parts = tiff_parts(content)
    with Image.open(io.BytesIO(parts.content)) as image:
        assert {270, 274, 33432}.isdisjoint(image.tag_v2)
        assert image.tobytes() == picture().tobytes()


def tiff_of(tags: dict[int, int], strips: int = 1) -> bytes:
    """A TIFF of 30 x 20 pixels with some tags more, and strips that are all the same bytes."""
    values = {256: 30, 257: 20, 258: 8, 259: 1, 262: 1, 273: 400, 277: 1, 278: 20, 279: 600} | tags
    if 324 in tags:
        del values[273], values[278], values[279]
    counts = dict.fromkeys(values, 1)
    if strips > 1:  # the lists of their places and sizes
        counts |= {273: strips, 279: strips}
        values |= {273: 200, 279: 300}
    entries = [struct.pack("<HHII", tag, 4, counts[tag], value) for tag, value in sorted(values.items())]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    step = 0 if tags.get(259) else 1
    lists = (
        struct.pack("<25I", *range(400, 400 + 25 * step, step) if step else [400] * 25) + struct.pack("<I", 600) * 25
    )
    return head.ljust(200, b"\0") + lists + bytes(600)


def test_parts_of_a_tiff_are_as_large_as_its_picture() -> None:
    assert open_image(tiff_of({})).size == (30, 20)
    with pytest.raises(CostlyImageError, match="more pixels than the picture"):
        open_image(tiff_of({322: 20_000, 323: 20_000, 324: 400, 325: 600}))
    with pytest.raises(CostlyImageError, match="bytes in common"):  # sizes of tiles that there are not
        open_image(tiff_of({278: 1, 322: 1, 323: 1}, strips=20))
    for tags in ({256: 2**31, 257: 2**31}, {259: 7}):
        with pytest.raises(ValueError):
            open_image(tiff_of(tags))
    for damaged in (tiff_of({})[:20], tiff_of({}).replace(b"II*", b"II+"), tiff_of({})[:4] + b"\4" + tiff_of({})[5:]):
        with pytest.raises(ValueError):
            open_image(damaged)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["in order", "last first"])
@pytest.mark.parametrize("planes", [1, 3])
def test_the_last_strip_of_a_plane_has_the_rows_that_are_left(order: tuple[int, ...], planes: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (planes, 20, 30), dtype=np.uint8)
    strips = [plane[y : y + 8].tobytes() for plane in pixels for y in (0, 8, 16)]
    stored = [plane * 3 + i for plane in range(planes) for i in order]
    places = dict(zip(stored, itertools.accumulate([400, *(len(strips[i]) for i in stored)]), strict=False))
    lists = [*(places[i] for i in range(len(strips))), *map(len, strips)]
    tags = {256: 30, 257: 20, 258: 8, 259: 1, 262: 2 if planes > 1 else 1, 273: 200, 277: planes, 278: 8, 284: 2}
    entries = [struct.pack("<HHII", tag, 4, 1 if tag != 273 else len(strips), tags[tag]) for tag in tags]
    entries.insert(8, struct.pack("<HHII", 279, 4, len(strips), 200 + 4 * len(strips)))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    content = head.ljust(200, b"\0") + struct.pack(f"<{len(lists)}I", *lists)
    content = content.ljust(400, b"\0") + b"".join(strips[i] for i in stored)
    expected = np.repeat(pixels, 3, axis=0) if planes == 1 else pixels
    assert np.array_equal(np.asarray(open_image(content)), expected.transpose(1, 2, 0))


def test_what_is_behind_a_webp_is_left_out() -> None:
    assert open_image(encode("WEBP") + bytes(9 * MAX_PARTS)).size == (30, 20)


def test_only_what_a_gif_shows_first_is_decoded() -> None:
    comments = b"!\x01\0" + (COMMENT + b"\1x\0") * 10  # after an empty block Pillow reads on
    assert open_image(gif_with(comments)).size == (30, 20)
    assert gif_parts(gif_with(comments)).content == gif_parts(gif_with(b"")).content


def test_markers_that_no_jpeg_has_are_refused() -> None:
    """Where a restart marker should be, a decoder skips such a marker alone, and a reader of lengths skips scans."""
    content = encode("JPEG", picture((300, 200)), restart_marker_blocks=1)
    with pytest.raises(ValueError, match="a JPEG with marker 02"):
        open_image(content.replace(b"\xff\xd3", b"\xff\x02", 1))


def test_long_and_thin_pictures_have_fewer_pixels() -> None:
    content = encode("PNG", Image.new("L", (30_000, 620)))
    assert open_image(content).size == (30_000, 620)
    with pytest.raises(ValueError, match="too long and thin"):
        open_image(content, min_side=224)
    assert open_image(content, min_side=64).size == (7500, 155)
    photo = encode("PNG", Image.new("L", (6000, 4000)))
    assert open_image(photo, min_side=1024).size == (6000, 4000)  # which a large network needs


@pytest.mark.parametrize("kind", ["ICO", "JPEG2000", "QOI", "PCX", "SGI", "TGA", "EPS", "AVIF"])
def test_formats_whose_decoders_are_not_bounded_are_not_read(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    with pytest.raises(Image.UnidentifiedImageError, match="not an image in a format that is read: JPEG, PNG"):
        open_image(encode(kind, picture((32, 32))))


SOUND: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode("JPEG"),
    "progressive JPEG": lambda: encode("JPEG", progressive=True, comment=b"\xff\xda" * 200),
    "many scans": lambda: repeat_scan(MAX_SCANS - 20),
    "JPEG and a film": lambda: encode("JPEG", quality=90) + b"\xff\xda\0\2" * 1000,
    "JPEG with restarts": lambda: encode("JPEG", picture((300, 200)), restart_marker_blocks=1),
    "JPEG with a profile": lambda: encode("JPEG", icc_profile=bytes(200_000), exif=Image.Exif()),
    "progressive JPEG of 4:4:4": lambda: encode("JPEG", picture((300, 200)), progressive=True, subsampling=0),
    "MPO": lambda: encode("MPO", save_all=True, append_images=[picture()]),
    "GIF": lambda: encode("GIF"),
    "animated GIF": lambda: encode("GIF", save_all=True, append_images=[picture((20, 20))] * 9, comment=b"x" * 9000),
    "PPM": lambda: encode("PPM"),
    "PPM with a comment": lambda: b"P6\n# by a camera\n2 1\n255\nabcdef",
    "PGM": lambda: encode("PPM", picture().convert("L")),
    "PGM of 16 bits": lambda: encode("PPM", picture().convert("L").convert("I")),
    "PBM": lambda: encode("PPM", picture().convert("1")),
    "TIFF": lambda: encode("TIFF"),
    "TIFF of YCbCr": lambda: encode("TIFF", picture().convert("YCbCr"), compression="tiff_lzw"),
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
    monkeypatch.setattr(picture_parts, "MAX_WEBP_PIXELS", 6000)
    assert open_image(content).size == (300, 20)
    monkeypatch.setattr(picture_parts, "MAX_WEBP_PIXELS", 5999)
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
