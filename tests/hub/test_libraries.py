"""Libraries that read from the Hub read from the loopback Hub."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import timm
import torch
from PIL import Image

from tests.hub import LoopbackHub


def test_timm_loads_a_model(hub: LoopbackHub, base_folder: Path):
    hub.put_folder("me/base", base_folder)
    config = {"channels": [8, 16, 24, 32], "stem_type": "deep", "stem_width": 8}
    hub_model = timm.create_model("hf-hub:me/base", pretrained=True, **config)
    local_model = timm.create_model(f"local-dir:{base_folder}", pretrained=True, **config)
    assert all(torch.equal(a, b) for a, b in zip(hub_model.parameters(), local_model.parameters(), strict=True))
    assert hub.count(host="storage") == 1


def test_datasets_are_pushed_and_loaded(hub: LoopbackHub):
    pictures = {"image": [Image.new("RGB", (8, 8), color) for color in ("red", "blue")], "label": [0, 1]}
    datasets.Dataset.from_dict(pictures).cast_column("image", datasets.Image()).push_to_hub("me/photos")
    assert any(path.endswith(".parquet") for path in hub.read_files("me/photos", repo_type="dataset"))
    data = datasets.load_dataset("me/photos", split="train")
    assert (data["label"][:], data[1]["image"].getpixel((0, 0))) == ([0, 1], (0, 0, 255))


def test_a_folder_of_pictures_is_a_dataset(hub: LoopbackHub):
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, "png")
    hub.put_files("me/folder", {f"train/{label}/1.png": png.getvalue() for label in "ab"}, repo_type="dataset")
    data = datasets.load_dataset("me/folder", split="train")
    assert (data.features["label"].names, data["label"][:]) == (["a", "b"], [0, 1])
