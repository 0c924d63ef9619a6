"""The real files: the tiny bank, and a model saved with its card and report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from hf_metaprune import Bank, MetaPruner, TrunkOptions
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.score_file import save_scores
from hf_metaprune.reporting.card import split_card
from hf_metaprune.trunk import Teaching
from hf_metaprune.trunk.files import save_trunk
from tests.tiny import make_bank, make_base, make_task_data

TINY = {"steps": 1, "batch_size": 8, "eval_steps": (0,), "precision": "fp32"}


@dataclass
class Corpus:
    """Sound files: `bank`, `model`, `trunk`, `other_base` of transformers, `photos`, ``listed.json``, and scores."""

    root: Path

    @property
    def bank(self) -> Path:
        return self.root / "bank"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def other_base(self) -> Path:
        return self.root / "other_base"

    def first(self, pattern: str) -> str:
        """The path of the first file, or folder, that a pattern fits."""
        return sorted(self.root.glob(pattern))[0].relative_to(self.root).as_posix()

    def copy(self, to: Path) -> Corpus:
        """Files that may be altered."""
        shutil.copytree(self.root, to)
        return Corpus(to)


def make_corpus(root: Path, bank: Path, task_data: TaskData) -> Corpus:
    """From a bank that is there."""
    shutil.copytree(bank, root / "bank", ignore=shutil.ignore_patterns(".locks"))
    task = task_data.select((0, 1, 3), seed=0)
    result = MetaPruner(Bank.open(bank)).adapt(task, by="leep", neighbors=2, **TINY)
    result.save_pretrained(root / "model")
    for picture in (root / "model").glob("*.png"):
        picture.unlink()
    _save_other_base(root / "other_base")
    card = split_card((root / "model" / "README.md").read_text())[0]
    (root / "listed.json").write_text(json.dumps({"id": "eve/model", "sha": "a" * 40, "cardData": card}))
    sizes, rng = Bank.open(bank).sizes, np.random.default_rng(0)
    scores = ScoreMask({name: rng.random(size) for name, size in sizes.items()})
    save_scores(scores, root / "mask_scores.safetensors", Bank.open(bank).base_sha256)
    (root / "trunk").mkdir()
    options = TrunkOptions(ratios=(0.5, 0.8), steps=1, batch_size=8, precision="fp32")
    teaching = Teaching(Bank.open(bank).base, task.train, options, torch.device("cpu"))
    teaching.step()
    save_trunk(teaching.trunk(), root / "trunk")
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue") * 3]
    rows = {"image": pictures, "label": ["a", "b"] * 3}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features)).save_to_disk(str(root / "photos"))
    _save_pictures(root / "pictures")
    return Corpus(root)


def _save_pictures(folder: Path) -> None:
    """Write class folders with a picture of each format that is read."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    options: dict[str, dict[str, Any]] = {
        "a.jpg": {"exif": exif},
        "b.jpg": {"progressive": True, "restart_marker_blocks": 2},
        "a.png": {"exif": exif},
        "a.webp": {"exif": exif},
        "b.webp": {"lossless": True},
        "c.webp": {"save_all": True, "append_images": [Image.new("RGB", (30, 20))]},
        "a.gif": {"comment": b"a comment"},
        "a.bmp": {},
        "a.tif": {"compression": "tiff_lzw", "tiffinfo": {274: 6}},
        "b.tif": {},
        "a.ppm": {},
    }
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for name, values in options.items():
            Image.fromarray(pixels).save(folder / label / name, **values)


def make_all(root: Path) -> Corpus:
    """From nothing."""
    task_data = make_task_data()
    bank = make_bank(root / "first", BaseModel.load(make_base(root / "base")), task_data)
    return make_corpus(root / "corpus", bank, task_data)


def _save_other_base(folder: Path) -> None:
    from transformers import BitImageProcessor, ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    ResNetForImageClassification(config).save_pretrained(folder)
    sides = {"height": 32, "width": 32}
    BitImageProcessor(size={"shortest_edge": 32}, crop_size=sides, do_center_crop=True).save_pretrained(folder)
