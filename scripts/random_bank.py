"""Banks of any size for benchmarks of their handling: sub-networks of a base with random masks, without training.

Their sketches are random, too: as large as real ones, and harder to compress.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from build_demo_bank import SYNSETS, covering_tasks

from hf_metaprune import Bank
from hf_metaprune.bank.factory import entry_id
from hf_metaprune.bank.folders import new_path
from hf_metaprune.bank.repair import recover
from hf_metaprune.bank.sketch import MAX_FEATURES, pack_sketch
from hf_metaprune.data.task import Task
from hf_metaprune.files.storage import new_folder
from hf_metaprune.masks.mask import Mask
from hf_metaprune.methods import SgdOptions
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.saving import save_model

RATIO = 0.9


def cifar100_task(base: BaseModel, classes: Sequence[int]) -> Task:
    """The task of some of CIFAR-100's classes, with explicit synsets."""
    synsets: Mapping[str, str] = json.loads(SYNSETS.read_text())
    labels = tuple(base.label_names[c] for c in classes)
    return Task(labels, tuple(synsets[label] for label in labels))


def random_models(
    base: BaseModel, count: int, first: int = 0
) -> Iterator[tuple[str, MetaPrunedForImageClassification]]:
    """The sub-networks numbered from `first` up to `count`, with ids."""
    for seed, classes in list(enumerate(covering_tasks(count)))[first:]:
        task, mask = cifar100_task(base, classes), Mask.random(base.sizes, RATIO, seed)
        config = base.config(mask, task.labels, synsets=task.synsets, ratio=RATIO, method="random")
        config.seed, config.metrics = seed, {"accuracy": 0.2, "test_images": 500}
        yield entry_id(task, "random", SgdOptions(ratio=RATIO), seed), base.slice(config)


def make_bank(folder: Path, base: BaseModel, count: int) -> Bank:
    """A bank of random sub-networks; its index is written once, since `Bank.add` writes it for every entry."""
    bank = Bank.create(folder, base, name="random masks", defaults={"ratio": RATIO})
    for name, model in random_models(base, count):
        with new_folder(bank.root / new_path(name, 0)) as work:
            save_model(model, work, "float16")
    recover(bank)
    rng, features = np.random.default_rng(0), min(base.network.num_features, MAX_FEATURES)
    sketches = {e.id: pack_sketch(rng.normal(size=(features + 1, len(e.labels)))) for e in bank}
    bank.update_index({e.id: replace(e, sketch=sketches[e.id]) for e in bank})
    return bank
