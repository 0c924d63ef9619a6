"""What strangers send: refused or cleaned, in words, within limits of count, pixels, bytes and time."""

from __future__ import annotations

import io
import itertools
import stat
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_metaprune.app.limits import UploadLimits
from hf_metaprune.app.uploads import Photos, clean_label, read_photo
from hf_metaprune.errors import DataError
from tests.tiny import tiny_preprocessing

LIMITS = UploadLimits()


NUMBERS = itertools.count()


def photo(kind: str = "JPEG", size: tuple[int, int] = (40, 30), color: object = (200, 30, 30), **save: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind, **save)
    return out.getvalue() + next(NUMBERS).to_bytes(4, "big")  # no two are the same file


TWO = photo("PNG"), photo("PNG")


def photos(**limits: object) -> Photos:
    return Photos(tiny_preprocessing(), UploadLimits(**limits))


def zipped(tmp_path: Path, files: dict[str, bytes], **options: object) -> Path:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + head + end


def test_photos_become_a_task(tmp_path: Path) -> None:
    uploads = photos()
    path = tmp_path / "a.jpg"
    path.write_bytes(photo())
    assert uploads.add("cat", [path, photo("PNG"), photo("WEBP")]).summary() == "Added 3 photos."
    assert uploads.add(" Cat ", [photo("GIF"), photo("BMP")]).n_added == 2
    uploads.add("dog", [photo(color=(0, 0, 250)) for _ in range(5)])
    data = uploads.data(seed=1)
    assert data.task.labels == ("cat", "dog")
    assert (len(data.train), len(data.evaluation)) == (8, 2)
    assert data.train.images.shape[1:] == (3, 32, 32)
    red = data.train.images[data.train.targets == 0].float().mean((0, 2, 3))
    assert red[0] > 150 > 80 > red[2]
    uploads.remove("dog")
    with pytest.raises(DataError, match="photos of 1 class: add photos of at least two"):
        uploads.data()


def test_a_class_of_one_photo_is_named() -> None:
    uploads = photos()
    uploads.add("cat", [photo()])
    uploads.add("dog", [photo() for _ in range(3)])
    with pytest.raises(DataError, match="fewer than 2 readable images .* in: cat"):
        uploads.data()


@pytest.mark.parametrize("root", ["", "my photos/", "a/b/c/"])
def test_a_zip_has_a_folder_for_each_class(tmp_path: Path, root: str) -> None:
    files = {f"{root}{label}/{i}.jpg": photo() for label in ("cat", "dog") for i in range(3)}
    junk = {"__MACOSX/cat/._1.jpg": b"x", f"{root}.DS_Store": b"x", f"{root}cat/Thumbs.txt": b"x"}
    uploads = photos()
    receipt = uploads.add_zip(zipped(tmp_path, files | junk))
    assert {name: len(images) for name, images in uploads.by_class.items()} == {"cat": 3, "dog": 3}
    assert receipt.refusals == ["Thumbs.txt: not a photo in a common format, such as JPEG or PNG"]


def test_a_zip_with_backslashes_has_folders_too(tmp_path: Path) -> None:
    uploads = photos()
    uploads.add_zip(zipped(tmp_path, {f"photos\\{label}\\1.jpg": photo() for label in ("cat", "dog")}))
    assert {name: len(images) for name, images in uploads.by_class.items()} == {"cat": 1, "dog": 1}


def test_splits_in_a_zip_are_no_classes(tmp_path: Path) -> None:
    uploads = photos()
    uploads.add_zip(
        zipped(tmp_path, {f"d/{s}/{c}/{s}.jpg": photo() for s in ("train", "test") for c in ("cat", "dog")})
    )
    assert {name: len(images) for name, images in uploads.by_class.items()} == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not a photo in a common format"),
        (b"<html><script>alert(1)</script></html>", "not a photo in a common format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a photo in a common format"),
        (b"", "not a photo in a common format"),
        (png_header(30_000, 20_000), "30000 x 20000 pixels: at most 50 million are read"),
        (png_header(9_000, 9_000), "9000 x 9000 pixels: at most 50 million are read"),
        (png_header(20_000, 5), "too long and thin"),
        (png_header(50, 50), "damaged"),
        (photo()[:400], "damaged"),
        (photo("TIFF"), "not a photo in a common format"),
    ],
    ids=["svg", "html", "eps", "empty", "bomb", "pixels", "thin", "no-pixels", "cut", "tiff"],
)
def test_what_is_no_photo_is_refused_in_words(data: bytes, why: str) -> None:
    receipt = photos().add("cat", [data, photo()])
    assert receipt.n_added == 1
    assert len(receipt.refusals) == 1
    assert receipt.refusals[0].startswith("file 1: ")
    assert why in receipt.refusals[0]


def test_odd_photos_are_cleaned() -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue", "green")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert read_photo(out.getvalue(), LIMITS).getpixel((5, 5))[0] > 250  # the first of an animation
    deep = io.BytesIO()
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(deep, "PNG")
    assert read_photo(deep.getvalue(), LIMITS).getpixel((5, 5)) == (156, 156, 156)
    exif = Image.Exif()
    exif[0x010E] = "<script>alert(1)</script>"
    exif[0x0112] = 6
    image = read_photo(photo(size=(40, 20), exif=exif), LIMITS)
    assert image.size == (20, 40)
    polyglot = photo("GIF") + b"<script>alert(1)</script>"
    uploads = photos()
    uploads.add("cat", [polyglot, photo(exif=exif)])
    assert all(p.shape == (3, 32, 32) and p.dtype == torch.uint8 for p in uploads.by_class["cat"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "needs a name"),
        (" \x00\n", "needs a name"),
        ("\u3164\u115f ", "needs a name"),
        ("x" * 61, "at most 60 characters, not 61"),
        ("x" * 10_000, "at most 60 characters"),
    ],
)
def test_names_that_cannot_be_used_are_refused(name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        photos().add(name, [photo()])


@given(st.text(max_size=80))
def test_a_clean_name_is_one_printable_line_and_stays_so(text: str) -> None:
    try:
        name = clean_label(text, 60)
    except DataError:
        return
    assert 0 < len(name) <= 60
    assert name.isprintable()
    assert clean_label(name, 60) == name


def test_the_same_name_twice_is_one_class() -> None:
    uploads = photos()
    for name in ("Café", "Cafe\u0301", "CAFÉ", " café\n", "<b>café</b>"):
        uploads.add(name, [photo()])
    assert {name: len(images) for name, images in uploads.by_class.items()} == {"Café": 4, "<b>café</b>": 1}


def test_the_same_file_is_taken_once() -> None:
    uploads, one = photos(), photo()
    receipt = uploads.add("cat", [one, one, photo()])
    assert receipt.n_added == 2
    assert receipt.refusals == ["file 2: the class “cat” has this photo already"]
    assert uploads.add("dog", [one]).n_added == 0  # or it would be both
    uploads.remove("cat")
    assert uploads.add("dog", [one]).n_added == 1


def test_photos_without_labels_are_kept_apart() -> None:
    uploads, files = photos(photos=5), [photo() for _ in range(6)]
    assert uploads.unlabeled_images() is None
    uploads.add("cat", files[:2])
    receipt = uploads.add_unlabeled(files[1:4])
    assert receipt.n_added == 2
    assert receipt.refusals == ["file 1: the class “cat” has this photo already"]
    assert uploads.add("dog", files[3:4]).refusals == ["file 1: those without labels have this photo already"]
    images = uploads.unlabeled_images()
    assert images is not None
    assert images.targets.tolist() == [-1, -1]
    assert len(uploads) == 4
    assert "the limit is 5 photos" in uploads.add_unlabeled(files[4:]).summary()
    uploads.remove(None)
    assert uploads.unlabeled_images() is None
    assert uploads.add("dog", files[3:4]).n_added == 1
    assert {name: len(images) for name, images in uploads.by_class.items()} == {"cat": 2, "dog": 1}


def test_limits_of_count_bytes_and_time() -> None:
    receipt = photos(photos=3).add("cat", [photo() for _ in range(1000)])
    assert receipt.n_added == 3
    assert receipt.refusals == ["file 4: the limit is 3 photos; this file and the following ones are skipped"]
    assert "larger than 0 MB" in photos(file_bytes=10).add("cat", [photo()]).refusals[0]
    one = len(photo())
    assert photos(total_bytes=2 * one).add("cat", [photo() for _ in range(9)]).n_added == 2
    assert photos(seconds=-1).add("cat", [photo()]).refusals == [
        "file 1: the limit is -1 s per upload; this file and the following ones are skipped"
    ]
    few = photos(classes=2)
    for name in ("a", "b", "A"):
        few.add(name, [photo()])
    with pytest.raises(DataError, match="the limit is 2 classes"):
        few.add("c", [photo()])


@pytest.mark.slow
def test_a_zip_bomb_costs_no_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path, {f"{c}/{i}.png": bytes(80_000_000) for c in "ab" for i in range(2)})
    assert path.stat().st_size < 1_000_000
    lie = path.read_bytes().replace(struct.pack("<L", 80_000_000), struct.pack("<L", 1000))
    lying = tmp_path / "lying.zip"
    lying.write_bytes(lie)
    for bomb in (path, lying):
        tracemalloc.start()
        with pytest.raises(DataError, match="no photos in folders"):
            photos(file_bytes=1_000_000).add_zip(bomb)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()


def test_a_zip_stops_at_its_limits(tmp_path: Path) -> None:
    path = zipped(tmp_path, {f"{c}/{i}.jpg": photo() for c in "ab" for i in range(8)})
    assert photos(photos=5).add_zip(path).n_added == 5
    assert photos(total_bytes=3 * len(photo())).add_zip(path).n_added == 3
    with pytest.raises(DataError, match="16 files; the limit is 10"):
        photos(members=10).add_zip(path)
    with pytest.raises(DataError, match="more than 5 files"):
        photos(members=5).add_zip(path)
    one_class = photos(classes=1).add_zip(path)
    assert one_class.n_added == 8
    assert len(one_class.refusals) == 8


def test_paths_links_archives_and_locks_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.jpg", photo())
        archive.writestr("dog/1.jpg", photo())
        archive.writestr("../../etc/cat.jpg", photo())
        archive.writestr("/etc/passwd.jpg", photo())
        archive.writestr("C:/x/1.jpg", photo())
        archive.writestr("..\\..\\win.jpg", photo())
        archive.writestr("cat/inner.zip", path.name)
        archive.writestr("loose.jpg", photo())
        link = zipfile.ZipInfo("cat/link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr(zipfile.ZipInfo("dog/odd.jpg"), photo(), compress_type=zipfile.ZIP_LZMA)
    before = sorted(tmp_path.rglob("*"))
    uploads = photos()
    receipt = uploads.add_zip(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert {name: len(images) for name, images in uploads.by_class.items() if images} == {"cat": 1, "dog": 1}
    words = receipt.summary()
    for name, why in (
        ("cat.jpg", "leads out"),
        ("passwd.jpg", "leads out"),
        ("1.jpg", "leads out"),
        ("win.jpg", "leads out"),
        ("inner.zip", "an archive in the archive"),
        ("loose.jpg", "in no folder"),
        ("link.jpg", "a link"),
        ("odd.jpg", "compressed by an unusual method"),
    ):
        assert any(refusal.startswith(name) and why in refusal for refusal in receipt.refusals), (name, words)


def test_a_zip_that_is_gone_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose it again"):
        Photos(tiny_preprocessing(), UploadLimits()).add_zip(tmp_path / "x.zip")


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 99, b"PK\x05\x06" + bytes(18), photo()])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises(DataError, match="zip"):
        photos().add_zip(path)


def test_a_zip_whose_other_list_is_longer_is_refused(tmp_path: Path) -> None:
    """Its usual end says that it has one file; `zipfile` believes the end for huge archives, which says more."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", b"")
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<2L", content[end + 12 : end + 20])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1_000_000, 1_000_000, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    path.write_bytes(content[:end] + record + locator + content[end:])
    with pytest.raises(DataError, match="Zip64"):
        photos().add_zip(path)


def test_a_zip_of_a_file_without_a_name_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path, {f"{c}/1.jpg": photo() for c in "ab"} | {"nameless": photo()})
    path.write_bytes(path.read_bytes().replace(b"nameless", b"\0ameless"))  # zipfile ends a name at a NUL
    assert photos().add_zip(path).n_added == 2


@given(st.data())
def test_a_damaged_zip_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for c, content in zip("ab", TWO, strict=True):
            archive.writestr(f"{c}/1.png", content)
    raw = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".zip") as file:
        file.write(bytes(raw))
        file.flush()
        uploads = photos()
        try:
            receipt = uploads.add_zip(file.name)
        except DataError:
            return
        assert receipt.n_added <= 2


@pytest.mark.parametrize(("typed", "taken"), [(None, 3), (float("nan"), 3), (9, 5), (-1, 1), (2, 2), (float("inf"), 5)])
def test_a_slider_takes_the_nearest_number_of_its_range(typed: float | None, taken: float) -> None:
    pytest.importorskip("gradio")
    from hf_metaprune.app import fields
    from hf_metaprune.app.fields import SliderField

    assert not Path(fields.__file__).with_suffix(".pyi").exists()  # which Gradio writes
    assert SliderField(1, 5, value=3).preprocess(typed) == taken
