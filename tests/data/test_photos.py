"""Photos without labels: every source of them, and every way it can be wrong."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_metaprune.data.photos import NO_CLASS, read_photos
from hf_metaprune.errors import DataError, OptionError
from tests import REPO
from tests.tiny import tiny_preprocessing

PHOTOS = [Image.fromarray(np.full((40, 36, 3), 20 * i, np.uint8)) for i in range(5)]


def read(source: object, **options: object):
    return read_photos(source, tiny_preprocessing(), **options)


def test_all_sources_give_the_same_photos(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": PHOTOS, "label": ["a", None, "", "b", "a"]}, features=features)
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(str(tmp_path / "parquet" / "some.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for i, photo in enumerate(PHOTOS):
        photo.save(tmp_path / "photos" / ("deep" if i > 2 else "") / f"{i}.png")
    (tmp_path / "photos" / "stray.parquet").write_bytes(b"no data")
    first = read(PHOTOS)
    assert first.images.shape == (5, 3, 32, 32)
    assert first.targets.tolist() == [NO_CLASS] * 5
    for source in (
        tuple(PHOTOS), rows, tmp_path / "parquet", tmp_path / "parquet" / "some.parquet", tmp_path / "saved",
        str(tmp_path / "photos"),
    ):  # fmt: skip
        assert (read(source).images == first.images).all(), source
    assert len(read(tmp_path / "photos" / "0.png")) == 1


def test_the_examples_are_photos() -> None:
    assert len(read(REPO / "space" / "examples" / "unseen_five")) >= 50


def test_few_of_many_are_drawn_once_for_all() -> None:
    some = read(PHOTOS, limit=2)
    assert len(some) == 2
    assert (some.images == read(PHOTOS, limit=2).images).all()
    assert len(read(PHOTOS, limit=9)) == 5


def test_what_holds_no_photos_is_refused(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path, "holds no image"),
        (tmp_path / "nowhere", "no such file or folder"),
        ([], "the list holds no image"),
        (5, "a int is no source of photos"),
        (datasets.Dataset.from_dict({"text": ["a"]}), "no image column"),
    ):
        with pytest.raises(DataError, match=message):
            read(source)
    with pytest.raises(OptionError, match="a path is empty"):
        read("")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png"):
        read(tmp_path)
