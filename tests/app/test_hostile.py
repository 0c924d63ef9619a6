"""What a visitor should not send, sent through the page: refused or cleaned in words, and the page goes on."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Served, Visit

Visits = Callable[..., Visit]


def photo(kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def huge_png() -> bytes:
    """A header that claims a picture of 100,000 x 100,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


FILES = {
    "page.png": (b"<html><script>alert(1)</script></html>", "not a photo in a common format"),
    "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "not a photo in a common format"),
    "huge.png": (huge_png(), "million"),
    "cut.jpg": (photo("JPEG")[:200], "damaged"),
    "empty.png": (b"", "not a photo in a common format"),
    "polyglot.gif": (b"GIF89a" + b"<script>alert(1)</script>", ""),
}


@pytest.mark.slow
def test_files_that_are_no_photos(visit: Visits, tmp_path: Path) -> None:
    one = visit()
    good = tmp_path / "good.jpg"
    exif = Image.Exif()
    exif[0x010E] = "<script>alert('exif')</script>"
    good.write_bytes(photo("JPEG", exif=exif))
    paths = [good]
    for name, (content, _) in FILES.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    one.add("cat", paths, "Added 1 photo to")
    messages = one.text("#messages")
    for name, (_, why) in FILES.items():
        assert f"{name}: " in messages
        assert why in messages


NAMES = ["x" * 10_000, "\u202egnp.exe\x00", "{{ 7 * 7 }}</b><script>alert(1)</script>"]


@pytest.mark.slow
def test_names_of_classes_are_text(visit: Visits, tmp_path: Path) -> None:
    one = visit()
    for number, name in enumerate(NAMES, 1):
        file = tmp_path / f"{number}.png"
        file.write_bytes(photo() + bytes(number))  # the same would be taken once
        one.add(name, [file], "Added 1 photo to")
        one.page.locator("#classes .class").nth(number - 1).wait_for()
        assert one.page.locator("#classes .class").count() == number
        assert one.page.locator("#classes script").count() == 0
    assert max(map(len, one.page.locator("#classes .class b").all_inner_texts())) <= 60


@pytest.mark.slow
def test_a_photo_to_try_is_read_within_the_limits(visit: Visits, tmp_path: Path) -> None:
    one = visit()
    one.take_example()
    one.set_steps(20)
    one.make()
    one.finish()
    wide = tmp_path / "wide.png"
    Image.new("L", (9000, 9000)).save(wide)
    one.page.locator("#photo input[type=file]").set_input_files(str(wide))
    one.message("#answer", "The photo cannot be used: 9000 x 9000 pixels")


@pytest.mark.slow
def test_archives(visit: Visits, tmp_path: Path, served: Served) -> None:
    one = visit()
    bomb, bad = tmp_path / "bomb.zip", tmp_path / "bad.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5):
            archive.writestr(f"cat/{i}.png", bytes(100_000_000))
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("cat/1.png", photo())
        archive.writestr("dog/1.png", photo() + b" ")  # the same would be taken once
        archive.writestr("../../../outside.png", photo())
        archive.writestr("dog/inner.zip", bomb.read_bytes()[:1000])
        link = zipfile.ZipInfo("dog/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(12_000):
            archive.writestr(f"cat/{i}.txt", b"")
    before = served.peak_memory()
    one.page.get_by_role("tab", name="Zip").click()
    for path, says in (
        (bomb, "larger than 25 MB"),
        (many, "more than 5000 files"),
        (bad, "Added 2 photos."),
    ):
        one.page.locator("#zip input[type=file]").set_input_files(str(path))
        one.message("#messages", says)
        one.page.locator("#zip td[aria-label]").wait_for(state="detached")  # or the next upload meets this one's end
    messages = one.text("#messages")
    assert all(why in messages for why in ("leads out of the zip", "an archive in the archive", "a link"))
    assert one.page.locator("#classes .class").count() == 2
    assert served.peak_memory() - before < 300_000_000
    assert not list(served.files.rglob("outside.png"))
