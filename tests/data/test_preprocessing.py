"""Image preprocessing: that of timm, and those that transformers' processors say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_metaprune.data.preprocessing import Preprocessing, crop_long_image
from hf_metaprune.errors import FormatError
from tests.tiny import tiny_preprocessing

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(("width", "height"), [(50, 40), (32, 64), (300, 200)])
def test_the_processor_resizes_and_crops_as_timm_does(width: int, height: int) -> None:
    from timm.data import create_transform

    ours = Preprocessing((3, 32, 32), interpolation="bilinear", crop_pct=0.875)
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((width, height))
    theirs = create_transform((3, 32, 32), interpolation="bilinear", crop_pct=0.875, mean=ours.mean, std=ours.std)
    difference = ours.normalize(ours.to_uint8([smooth]))[0] - theirs(smooth)
    assert difference.abs().mean() < 0.05


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"input_size": [1, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1]},
        {"input_size": [3, 32, 99999], "mean": [0, 0, 0], "std": [1, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0], "std": [1, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [0, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, float("nan")], "std": [1, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1e-40]},  # 0 in float32
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1e300]},
        {"input_size": [3, 32, 32], "mean": [0, 0, -1e300], "std": [1, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "magic"},
        {"input_size": "3", "mean": [0, 0, 0], "std": [1, 1, 1]},
        {"input_size": [3, 32, 64], "mean": [0, 0, 0], "std": [1, 1, 1]},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "crop_mode": "border"},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "crop_mode": "squash", "crop_pct": 0.8},
        {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "crop_pct": "x"},
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(config: dict) -> None:
    with pytest.raises(FormatError, match="image preprocessing"):
        Preprocessing.from_config(config)


def test_squashing_keeps_nothing_out() -> None:
    squash = Preprocessing((3, 24, 32), crop_pct=1.0, crop_mode="squash")
    assert Preprocessing.from_config(squash.to_config()) == squash
    halves = np.zeros((10, 60, 3), dtype=np.uint8)
    halves[:, 30:] = 255
    pixels = squash.to_uint8([Image.fromarray(halves)])
    assert pixels.shape == (1, 3, 24, 32)
    assert pixels[0, :, :, :8].max() < 20
    assert pixels[0, :, :, -8:].min() > 235


def written(folder: Path, config: dict) -> Path:
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def test_preprocessing_survives_its_files(tmp_path: Path) -> None:
    for ours in (tiny_preprocessing(), Preprocessing((3, 32, 32), crop_pct=1.0, crop_mode="squash")):
        assert Preprocessing.from_config(ours.to_config()) == ours
        ours.processor().save_pretrained(tmp_path)
        assert Preprocessing.from_processor(tmp_path) == ours


@pytest.mark.parametrize(
    ("config", "crop_pct", "crop_mode"),
    [
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.75, "size": 48}, 0.75, "center"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}, 1.0, "squash"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 40}}, 1.0, "squash"),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 60}, "crop_size": 48}, 0.8, "center"),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 50}, "crop_size": 34}, 0.68, "center"),
    ],
)  # fmt: skip
def test_processors_of_transformers_are_followed(config: dict, crop_pct: float, crop_mode: str, tmp_path: Path) -> None:
    """Ours gives the pixels that theirs gives."""
    from transformers import AutoImageProcessor

    ours = Preprocessing.from_processor(written(tmp_path, HALF | config))
    assert (ours.crop_pct, ours.crop_mode) == (crop_pct, crop_mode)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    expected_pixels = theirs(picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(ours.processor()(picture, return_tensors="pt")["pixel_values"], expected_pixels, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_resize": False},
        {"rescale_factor": 1.0},
        {"size": {"longest_edge": 30}},
        {"size": "64"},
        {"size": [64, 64]},
        {"resample": [3]},
        {"resample": 77},
        {"crop_pct": "x"},
        {"image_mean": "gray"},
        {"do_center_crop": True, "image_processor_type": "ViTImageProcessor", "size": {"height": 9, "width": 9}},
        {"image_processor_type": "NoSuchProcessor"},
        {"image_processor_type": "PoolFormerImageProcessor"},  # resizes by a rule of its own
    ],
)
def test_processors_that_do_something_else_are_refused(change: dict, tmp_path: Path) -> None:
    config = HALF | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}} | change
    with pytest.raises(FormatError, match="preprocessor_config.json"):
        Preprocessing.from_processor(written(tmp_path, config))


def test_of_a_long_image_only_the_middle_is_resized() -> None:
    hostile = Preprocessing((3, 1024, 1024), crop_pct=0.5)
    long_image = Image.new("RGB", (40 * 64, 64))
    assert crop_long_image(long_image, hostile).size == (2 * 64 + 55, 64)  # 12 million pixels at 2048 pixels of height
    assert crop_long_image(long_image.transpose(Image.Transpose.ROTATE_90), hostile).size == (64, 2 * 64 + 55)
    for ours in (Preprocessing(), Preprocessing((3, 32, 32), crop_pct=1.0, crop_mode="squash")):
        assert crop_long_image(long_image, ours) is long_image
    assert crop_long_image(Image.new("RGB", (640, 480)), hostile).size == (640, 480)
    with pytest.raises(FormatError, match="crop_pct"):
        Preprocessing.from_config(hostile.to_config() | {"crop_pct": 0.4})
