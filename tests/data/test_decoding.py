"""Images of anybody: what is decoded, at what cost, and what is not."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hf_metaprune.data import decoding
from hf_metaprune.data.decoding import open_image
from hf_metaprune.data.images import decode_images
from tests.tiny import tiny_preprocessing

SIDE = 96


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def ramp(mode: str) -> Image.Image:
    """An image that becomes lighter to the right, and a little to the bottom."""
    values = np.add.outer(np.linspace(0, 0.3, SIDE), np.linspace(0, 0.7, 2 * SIDE))
    if mode == "F":
        return Image.fromarray(values.astype(np.float32))
    if mode == "I;16":
        return Image.fromarray((values * 65535).astype(np.uint16))
    if mode == "I":
        return Image.fromarray((values * 65535).astype(np.int32))
    gray = Image.fromarray((values * 255).astype(np.uint8))
    if mode == "P":
        image = gray.convert("RGB").quantize(200, Image.Quantize.MEDIANCUT)
        image.info["transparency"] = bytes([128] * 200)
        return image
    if mode == "LAB":  # which nothing but its profile converts to
        return Image.merge("LAB", [gray, gray.point(lambda _: 128), gray.point(lambda _: 128)])
    return gray.convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "LAB", "I;16", "I", "F", "1"])
def test_a_large_image_is_the_same_in_strips(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    content = encode(ramp(mode), "TIFF" if mode in ("CMYK", "LAB", "F", "I") else "PNG")
    whole = np.asarray(open_image(content, min_side=16).resize((24, 12), Image.Resampling.BOX), dtype=float)
    monkeypatch.setattr(decoding, "STRIPS_FROM", 100)
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 1000)
    reduced = open_image(content, min_side=16)
    assert reduced.size == (64, 32)
    small = np.asarray(reduced.resize((24, 12), Image.Resampling.BOX), dtype=float)
    assert np.abs(small - whole).mean() < (6 if mode == "1" else 2)  # dots on a grid
    assert whole[0, 0].mean() < 20 and whole[-1, -1].mean() > 220


def test_an_image_that_lies_on_its_side_is_turned_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(ramp("RGB"), exif=exif)
    upright = np.asarray(open_image(content))
    assert upright.shape == (2 * SIDE, SIDE, 3)
    monkeypatch.setattr(decoding, "STRIPS_FROM", 100)
    reduced = np.asarray(open_image(content, min_side=16))
    assert reduced.shape == (64, 32, 3)
    assert upright[0].mean() < upright[-1].mean() and reduced[0].mean() < reduced[-1].mean()


def test_too_many_pixels_are_refused() -> None:
    content = encode(Image.new("L", (30, 20)))
    open_image(content, max_pixels=600)
    with pytest.raises(ValueError, match="30 x 20 pixels"):
        open_image(content, max_pixels=599)


def test_no_program_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "drawing.png"
    path.write_bytes(encode(Image.new("RGB", (9, 9)), "EPS"))
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(subprocess, "check_call", None)
    with pytest.raises(OSError, match="not an image in a format"):
        open_image(path)


def test_texts_of_an_image_are_dropped() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 100_000, zip=True)
    content = encode(Image.new("RGB", (9, 9)), pnginfo=texts)
    assert not open_image(content).info


def test_images_are_read_whatever_their_kind() -> None:
    contents = [
        encode(Image.new("RGB", (40, 40), "red"), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM")
    ]
    images = decode_images(contents.__getitem__, np.zeros(len(contents), int), tiny_preprocessing())
    assert len(images) == len(contents)
