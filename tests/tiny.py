"""A tiny base, a tiny task and a tiny bank: real files, small enough to make within seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from timm.models._hub import save_for_hf

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.methods import IterativeOptions
from hf_metaprune.models.base_model import BaseModel

LABELS = ("cat", "dog", "truck", "daisy", "violin", "teapot")
SIZE = 32
TINY_VIT = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "mlp_ratio": 2.0}
TINY = {"channels": [8, 16, 24, 32], "stem_type": "deep", "stem_width": 8}


def randomize_norms(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give batch norms statistics and weights as after training, so that errors in them show."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.5, generator=generator)
                module.running_mean.normal_(0, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def striped_images(n_per_class: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Learnable pictures: each class has its own color and stripe direction, plus noise; uint8."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(classes), n_per_class)
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]
    images = []
    for c in targets:
        angle, hue = np.pi * c / classes, np.array([c % 2, (c // 2) % 2, c / classes])
        wave = 0.5 + 0.5 * np.sin(0.8 * (xs * np.cos(angle) + ys * np.sin(angle)) + rng.uniform(0, 6))
        images.append(160 * wave[None] * (0.3 + 0.7 * hue[:, None, None]) + rng.normal(40, 25, (3, SIZE, SIZE)))
    return torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8)), torch.from_numpy(targets)


def tiny_preprocessing() -> Preprocessing:
    return Preprocessing((3, SIZE, SIZE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 1.0)


def make_base(folder: Path) -> Path:
    """A tiny base, as timm saves one."""
    torch.manual_seed(0)
    network = randomize_norms(timm.create_model("resnet18", num_classes=7, **TINY))
    config = {"model_args": TINY, "pretrained_cfg": tiny_preprocessing().to_config() | {"num_classes": 7}}
    save_for_hf(network, folder, model_config=config, safe_serialization=True)
    return folder


def make_mobile_base(folder: Path) -> Path:
    """A narrow MobileNet, whose features are units that are pruned, too."""
    torch.manual_seed(0)
    network = randomize_norms(timm.create_model("mobilenetv2_035", num_classes=7))
    config = {"model_args": {}, "pretrained_cfg": tiny_preprocessing().to_config() | {"num_classes": 7}}
    save_for_hf(network, folder, model_config=config, safe_serialization=True)
    return folder


def make_vit_base(folder: Path) -> Path:
    """A tiny vision transformer, as timm saves one."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=7, **TINY_VIT)
    config = {"model_args": TINY_VIT, "pretrained_cfg": tiny_preprocessing().to_config() | {"num_classes": 7}}
    save_for_hf(network, folder, model_config=config, safe_serialization=True)
    return folder


def make_task_data() -> TaskData:
    """A tiny task of all labels."""
    train = ImageSet(*striped_images(12, len(LABELS), 0), tiny_preprocessing())
    test = ImageSet(*striped_images(8, len(LABELS), 1), tiny_preprocessing())
    return TaskData(Task(LABELS), train, test, "test", "stripes")


def make_bank(folder: Path, base: BaseModel, task_data: TaskData) -> Path:
    """A tiny bank of four entries."""
    bank = Bank.create(folder, base, name="tiny", defaults={"ratio": 0.7})
    options = IterativeOptions(
        ratio=0.7, steps=40, prune_every=3, prune_share=0.2, lr=0.02, batch_size=18, precision="fp32"
    )
    tasks = [(0, 1, 2), (2, 3, 4), (1, 4, 5), (0, 3, 5)]
    assert len(list(build_bank(bank, task_data, tasks, options=options, device=torch.device("cpu")))) == 4
    return folder
