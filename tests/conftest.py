"""Shared fixtures: a tiny base, a tiny task, a tiny bank; real files, made once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports huggingface_hub
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Before torch, and for what tests start: more threads round differently, and are slower on networks as tiny as these.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import timm
import torch
from hypothesis import settings
from PIL import Image
from timm.models._hub import save_for_hf

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.factory import build_bank
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.methods import IterativeOptions
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.pruner import MetaPruner

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"
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


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseModel:
    return BaseModel.load(base_folder)


@pytest.fixture(scope="session")
def vit_base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.load(make_vit_base(tmp_path_factory.mktemp("vit") / "base"))


@pytest.fixture(scope="session")
def task_data() -> TaskData:
    return make_task_data()


@pytest.fixture(scope="session")
def bank_folder(tmp_path_factory: pytest.TempPathFactory, base: BaseModel, task_data: TaskData) -> Path:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank", base, task_data)


@pytest.fixture
def bank(bank_folder: Path) -> Bank:
    """The tiny bank; do not write to it (see `own_bank`)."""
    return Bank.open(bank_folder)


@pytest.fixture
def pruner(bank_folder: Path) -> MetaPruner:
    return MetaPruner.from_hub(bank_folder)


@pytest.fixture
def own_bank(bank_folder: Path, tmp_path: Path) -> Bank:
    """A copy of the tiny bank to break."""
    import shutil

    shutil.copytree(bank_folder, tmp_path / "bank")
    return Bank.open(tmp_path / "bank")


@pytest.fixture
def photos(tmp_path: Path, task_data: TaskData) -> Path:
    """A folder of class folders, as a user has it."""
    root = tmp_path / "photos"
    for i, (image, c) in enumerate(zip(task_data.train.images, task_data.train.targets, strict=True)):
        folder = root / task_data.task.labels[c]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 40)).save(folder / f"{i}.jpg")
    return root


def wordnet_found() -> bool:
    """Look for WordNet where NLTK looks, and beside the repository."""
    import nltk

    if (SHARED / "nltk_data").is_dir():
        nltk.data.path.append(str(SHARED / "nltk_data"))
    try:
        nltk.data.find("corpora/wordnet")
    except LookupError:
        try:
            nltk.data.find("corpora/wordnet.zip")
        except LookupError:
            return False
    return True


needs_wordnet = pytest.mark.skipif(
    not wordnet_found(), reason="needs the WordNet data: python -m nltk.downloader wordnet"
)


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run code in another process; gives its standard output, fails with its errors."""

    def run(code: str, *arguments: str, env: dict[str, str] | None = None, ok: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=REPO,
            env=os.environ | (env or {}),
            timeout=300,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout

    return run
