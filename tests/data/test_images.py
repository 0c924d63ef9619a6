"""Images as users have them: decoding, sets, augmentation."""

from __future__ import annotations

import gc
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_metaprune.data.decoding import open_image
from hf_metaprune.data.images import ImageSet, augment, crop_at_random, decode_images
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import DataError
from tests.tiny import tiny_preprocessing

RED = (200, 30, 40)


def png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=str(options.pop("format", "PNG")), **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "LA", "1", "YCbCr", "HSV"])
def test_all_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (20, 10), RED).convert(mode if mode != "LA" else "L").convert(mode)
    kind = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    rgb = open_image(image if mode == "HSV" else png(image, format=kind))
    assert (rgb.mode, rgb.size) == ("RGB", (20, 10))
    if mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"):
        assert np.abs(np.asarray(rgb).astype(int) - RED).max() < 60  # palettes are coarse


def test_transparent_palettes_and_16_bits() -> None:
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    assert open_image(png(palette, transparency=0)).mode == "RGB"
    deep = Image.fromarray(np.linspace(0, 65535, 16).reshape(4, 4).astype(np.uint16))
    pixels = np.asarray(open_image(png(deep)))
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert 100 < pixels.mean() < 150


def test_photos_are_turned_upright() -> None:
    image = Image.new("RGB", (30, 10), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(png(image, format="JPEG", exif=exif)).size == (10, 30)


def test_large_jpegs_are_decoded_small_but_never_too_small() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1600, 1200, 3), dtype=np.uint8))
    data = png(noise, format="JPEG")
    assert open_image(data).size == (1200, 1600)
    small = open_image(data, min_side=64)
    assert 128 <= min(small.size) < 1200


@pytest.mark.parametrize(
    "array",
    [
        np.full((8, 6, 3), 7, np.uint8),
        np.full((3, 8, 6), 7, np.uint8),
        np.full((8, 6), 7, np.uint8),
        np.full((1, 8, 6), 7, np.uint8),
        np.full((8, 6, 3), 7 / 255, np.float32),
        torch.full((3, 8, 6), 7, dtype=torch.uint8),
        torch.full((3, 8, 6), 7 / 255),
    ],
)
def test_arrays_and_tensors(array: object) -> None:
    image = open_image(array)
    assert image.size == (6, 8)
    assert (np.asarray(image) == 7).all()


def test_normalized_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="before normalization"):
        open_image(torch.randn(3, 8, 8) * 3)


def test_a_few_corrupt_images_are_skipped_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = png(Image.new("RGB", (40, 40), RED))
    items = [good] * 199 + [good[:60]]
    image_set = decode_images(items.__getitem__, np.arange(200) % 2, tiny_preprocessing(), lambda i: f"file {i}")
    assert len(image_set) == 199
    assert image_set.images.shape == (199, 3, 32, 32)
    assert image_set.targets.tolist() == (np.arange(199) % 2).tolist()
    assert len(image_set.skipped_images) == 1
    assert image_set.skipped_images[0].startswith("file 199")
    assert "file 199" in caplog.text


def test_too_many_corrupt_images_are_an_error() -> None:
    items = [png(Image.new("RGB", (40, 40), RED))] * 8 + [b"", b"GIF89a no"]
    with pytest.raises(DataError, match="2 of 10 images cannot be read.*row"):
        decode_images(items.__getitem__, np.zeros(10, int), tiny_preprocessing(), lambda i: f"row {i}")


def test_decompression_bombs_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    bomb = png(Image.new("RGB", (40, 40), RED))
    with pytest.raises(DataError, match="more than 50 million pixels"):
        decode_images([bomb].__getitem__, np.zeros(1, int), tiny_preprocessing())


def test_more_images_than_memory_are_refused_before_reading() -> None:
    big = Preprocessing((3, 512, 512))
    with pytest.raises(DataError, match=r"GiB.*fewer images"):
        decode_images(lambda _i: pytest.fail("read an image"), np.zeros(10_000, int), big)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_stratified_samples_are_balanced(labels: list[int], limit: int, seed: int) -> None:
    targets = torch.tensor(labels)
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    sample = ImageSet(images, targets, tiny_preprocessing()).stratified(limit, seed)
    assert len(sample) == min(limit, len(labels))
    assert len(set(sample.images[:, 0, 0, 0].tolist())) == len(sample)
    assert torch.equal(targets[sample.images[:, 0, 0, 0].long()], sample.targets)
    counts = {c: (sample.targets == c).sum().item() for c in set(labels)}
    for c, n in counts.items():  # a class has fewer only where it ran out
        assert n == labels.count(c) or n >= max(counts.values()) - 1


def test_a_set_is_a_torch_data_set(task_data: TaskData) -> None:
    images, targets = task_data.train[3]
    assert images.shape == (3, 32, 32)
    assert task_data.train.__getitems__([3, 4])[1].tolist() == [targets, task_data.train.targets[4]]
    x, _ = next(task_data.train.batches(5))
    assert x.dtype == torch.float32
    assert torch.allclose(x, (task_data.train.images[:5].float() / 255 - 0.5) / 0.25)


def test_random_crops_are_parts_of_images_at_the_images_size() -> None:
    rows = torch.linspace(0, 1, 64)
    x = torch.stack([rows[:, None].expand(64, 64), rows[None].expand(64, 64)]).expand(200, 2, 64, 64)
    assert crop_at_random(x, torch.Generator().manual_seed(0), 1.0) is x
    y = crop_at_random(x, torch.Generator().manual_seed(0), 0.25)
    assert torch.equal(y, crop_at_random(x, torch.Generator().manual_seed(0), 0.25))
    assert y.shape == x.shape
    assert torch.allclose(y[:, 0], y[:, 0, :, :1].expand_as(y[:, 0]), atol=1e-5)  # neither turned nor sheared
    heights = (y[:, 0, -1, 0] - y[:, 0, 0, 0]) * 64 / 63
    widths = (y[:, 1, 0, -1] - y[:, 1, 0, 0]) * 64 / 63
    areas = heights * widths
    assert 0.2 < areas.min() < 0.35 and 0.9 < areas.max() <= 1.02 and 0.5 < areas.mean() < 0.75
    assert 1.2 < (widths / heights).max() < 1.4 and 0.7 < (widths / heights).min() < 0.85
    assert y.min() < 0.05 and y.max() > 0.95 and y[:, 0, 0, 0].max() > 0.3


def test_augmentation_shifts_and_mirrors_and_follows_its_seed() -> None:
    x = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16)
    same = augment(x, torch.Generator().manual_seed(0), flip=False, shift=0.0)
    assert same is x
    a = augment(x, torch.Generator().manual_seed(0))
    assert a.shape == x.shape
    assert torch.equal(a, augment(x, torch.Generator().manual_seed(0)))
    images = [augment(x, torch.Generator().manual_seed(s), shift=0.0)[0] for s in range(12)]
    assert {torch.equal(m, x[0]) for m in images} == {True, False}
    assert all(torch.equal(m, x[0]) or torch.equal(m, x[0].flip(2)) for m in images)
    image = augment(x, torch.Generator().manual_seed(3), flip=False)
    assert set(image.unique().tolist()) <= set(x.unique().tolist())


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_16_bits_keep_their_brightness(dtype: type) -> None:
    dark = np.full((9, 9), 257 * 40, dtype=dtype)
    assert np.unique(np.asarray(open_image(dark))).tolist() == [40]
    file = png(Image.fromarray(dark.astype(np.uint16)))
    assert np.unique(np.asarray(open_image(file))).tolist() == [40]


def test_other_arrays() -> None:
    assert np.asarray(open_image(np.eye(9, dtype=bool))).max() == 255
    assert np.unique(np.asarray(open_image(torch.full((3, 9, 9), 0.5, dtype=torch.bfloat16)))).tolist() == [128]
    tiff = png(Image.fromarray(np.full((9, 9), 0.5, dtype=np.float32)), format="TIFF")
    assert np.unique(np.asarray(open_image(tiff))).tolist() == [128]
    for wrong in (np.full((9, 9), -3), np.full((9, 9), 70_000), np.zeros((2, 3, 9, 9)), np.zeros(0), None, 7):
        with pytest.raises((ValueError, TypeError)):
            open_image(wrong)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_nothing_but_the_turn() -> None:
    good = png(Image.new("RGB", (20, 10), RED), format="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0")
    assert open_image(good).size == (20, 10)


def test_whatever_a_source_raises_is_a_corrupt_image() -> None:
    def fetch(i: int) -> object:
        return {7: None, 8: {"bytes": None, "path": None}}.get(i, Image.new("RGB", (32, 32), RED))

    image_set = decode_images(fetch, np.zeros(300, dtype=np.int64), tiny_preprocessing())
    assert (len(image_set), len(image_set.skipped_images)) == (298, 2)


def test_images_as_long_as_a_bomb_are_refused() -> None:
    with pytest.raises(ValueError, match="too long and thin"):
        open_image(png(Image.new("RGB", (60_000, 1))))
    assert open_image(png(Image.new("RGB", (400, 10)))).size == (400, 10)


@pytest.mark.filterwarnings("error")
def test_animations_are_closed_and_transparent_palettes_are_silent(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, (0, 0, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(open_image(tmp_path / "a.gif")).reshape(-1, 3)[0].tolist() == pytest.approx(RED, abs=3)
    gc.collect()  # a file left open would warn now
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, *RED])
    file = png(palette, transparency=bytes([0, 128]))
    assert np.unique(np.asarray(open_image(file)).reshape(-1, 3), axis=0).tolist() == [list(RED)]


def test_shifts_fit_into_images_of_any_shape() -> None:
    x = torch.rand(2, 3, 40, 9)
    assert augment(x, torch.Generator().manual_seed(0), shift=0.5).shape == x.shape


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (
        tmp_path / "pipe.png",
        str(tmp_path / "pipe.png"),
        {"bytes": None, "path": str(tmp_path / "pipe.png")},
    ):
        with pytest.raises(ValueError, match="no regular file"):
            open_image(path)
