#!/usr/bin/env python
"""Pretrain a demo bank's base on CIFAR-100, in about an hour on two CPU cores: a narrow ResNet-18, or a small ViT.

ResNet: images are upsampled to the training size; the size grows in stages (32, 48, 64 px), which costs a third of
training at 64 px throughout. Augmentation: crop, flip and a square cutout.

    uv run scripts/pretrain_base.py --out runs/base --data ../shared/data/cifar100

ViT: 32 px in patches of 4 x 4, half of which are dropped at random in training (which halves its cost); mixup; and a
ResNet for a teacher, whose opinion of each image and of its mirror image is asked once. A transformer that sees only
50,000 small images learns much more from such soft labels than from the classes alone (Touvron et al., 2021).

    uv run scripts/pretrain_base.py --arch vit --teacher runs/base --out runs/vit_base --data ../shared/data/cifar100

The result is a folder that ``timm.create_model("local-dir:OUT", pretrained=True)`` loads. A killed run continues from
its last epoch.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from timm.models import save_for_hf

log = logging.getLogger("pretrain_base")
MEAN, STD = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
STAGES = ((32, 0.28), (48, 0.61), (64, 1.0))  # (pixels, until this share of the epochs)
VIT = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 8,
    "mlp_ratio": 4.0,
    "class_token": False,
    "global_pool": "avg",
}


def load_cifar100(data: str | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Both splits as (uint8 images (n, 3, 32, 32), int64 labels (n,)), with the label names under ``names``."""
    ds = load_dataset("parquet", data_dir=data) if data else load_dataset("uoft-cs/cifar100")
    image, label = ("image", "label") if "label" in ds["train"].features else ("img", "fine_label")
    out = {}
    for split in ("train", "test"):
        images = np.stack([np.asarray(row.convert("RGB")) for row in ds[split][image]])
        out[split] = (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(ds[split][label]))
    out["names"] = ds["train"].features[label].names
    return out


def augment(
    x: torch.Tensor, generator: torch.Generator, pad: int = 4, hole: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crop (reflected border), mirroring and an 8 x 8 cutout of images (n, 3, s, s), and which are mirrored."""
    n, _, s, _ = x.shape
    x = F.pad(x, (pad,) * 4, mode="reflect")
    dy, dx = (torch.randint(0, 2 * pad + 1, (n, 1), generator=generator) for _ in range(2))
    rows, cols = dy + torch.arange(s), dx + torch.arange(s)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    cols = torch.where(flip, cols.flip(1), cols)
    x = x[torch.arange(n)[:, None, None], :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    cy, cx = (torch.randint(0, s, (n, 1), generator=generator) for _ in range(2))
    inside = lambda c: (torch.arange(s) >= c - hole // 2) & (torch.arange(s) < c + hole // 2)  # noqa: E731
    return x.masked_fill((inside(cy)[:, :, None] & inside(cx)[:, None, :])[:, None], 0.0), flip[:, 0]


def prepare(x: torch.Tensor, size: int) -> torch.Tensor:
    if size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


def normalize(x: torch.Tensor) -> torch.Tensor:
    return (x.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@torch.inference_mode()
def evaluate(model, images, labels, size, accelerator, batch=500) -> float:
    model.eval()
    hits = 0
    for i in range(0, len(images), batch):
        x = prepare(normalize(images[i : i + batch]), size).to(accelerator.device)
        with accelerator.autocast():
            hits += (model(x).argmax(1).cpu() == labels[i : i + batch]).sum().item()
    return hits / len(images)


def prefers_bf16(arch: str) -> bool:
    """Whether bfloat16 is faster: where the processor computes in it itself.

    A small ViT's backward pass on a CPU is no such case: with avx512_bf16 it took 3.5 times as long as in float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if arch == "vit":
        return False
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asks if ask is not None)


def stage_size(epoch: int, epochs: int, stages: tuple[tuple[int, float], ...]) -> int:
    return next(size for size, until in stages if epoch < until * epochs or until == 1.0)


@torch.inference_mode()
def teach(folder: Path, images: torch.Tensor, temperature: float, batch: int = 500) -> torch.Tensor:
    """What a trained network of timm says of each image and of its mirror image: softened shares (2, n, classes)."""
    teacher = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().to(memory_format=torch.channels_last)
    size = teacher.pretrained_cfg["input_size"][-1]
    out = []
    for view in (images, images.flip(3)):
        parts = [teacher(prepare(normalize(view[i : i + batch]), size)) for i in range(0, len(view), batch)]
        out.append((torch.cat(parts) / temperature).softmax(1))
    return torch.stack(out)


@dataclass(frozen=True)
class Recipe:
    """What differs between the two kinds of base."""

    args: dict[str, Any]
    stages: tuple[tuple[int, float], ...]
    first_conv: str
    classifier: str
    decay: float
    mixup: float
    train_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network that matter in training only."""

    def optimizer(self, model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
        weights = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        if self.classifier == "head":
            return torch.optim.AdamW(groups, lr=lr)
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def named_recipe(arch: str, channels: str, stem: int) -> tuple[str, Recipe]:
    """timm's name of the network, and how it is trained."""
    if arch == "vit":
        return "vit_tiny_patch16_224", Recipe(
            VIT, ((32, 1.0),), "patch_embed.proj", "head", 0.05, 0.4, {"patch_drop_rate": 0.5, "drop_path_rate": 0.05}
        )
    args: dict[str, Any] = {"channels": [int(c) for c in channels.split(",")]}
    if stem:
        args |= {"stem_type": "deep", "stem_width": stem}
    return arch, Recipe(args, STAGES, "conv1.0" if stem else "conv1", "fc", 5e-4, 0.0)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the trained model to.")] = Path("runs/base"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    arch: Annotated[str, typer.Option(help="timm ResNet, or vit.")] = "resnet18",
    channels: Annotated[str, typer.Option(help="Widths of a ResNet's four stages.")] = "32,64,128,256",
    stem: Annotated[
        int, typer.Option(help="Width of a deep 3x3 stem; 0: the plain 7x7 one, a quarter of this network's MACs.")
    ] = 8,
    epochs: Annotated[int, typer.Option(help="Epochs in all.")] = 48,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 256,
    peak_lr: Annotated[
        float | None, typer.Option(help="Peak of the one-cycle schedule; 0.4, or 0.002 for a ViT.")
    ] = None,
    label_smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    teacher: Annotated[Path | None, typer.Option(help="Folder of a trained network to learn from, too.")] = None,
    temperature: Annotated[float, typer.Option(help="How soft the teacher's labels are.")] = 2.0,
    limit: Annotated[int, typer.Option(help="Only so many images, to try things out; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train, checkpoint after every epoch, evaluate on the test split and save for timm."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    accelerator = Accelerator(mixed_precision="bf16" if prefers_bf16(arch) else "no")
    set_seed(seed)
    splits = load_cifar100(data)
    (images, labels), test = splits["train"], splits["test"]
    images, labels = images[: limit or None], labels[: limit or None]
    name, recipe = named_recipe(arch, channels, stem)
    size = recipe.stages[-1][0]
    lr = peak_lr or (0.002 if arch == "vit" else 0.4)
    classes = len(splits["names"])
    model = timm.create_model(name, num_classes=classes, **recipe.args, **recipe.train_args)
    model = model.to(memory_format=torch.channels_last)
    optimizer = recipe.optimizer(model, lr, recipe.decay)
    model, optimizer = accelerator.prepare(model, optimizer)
    soft = teach(teacher, images, temperature) if teacher is not None else None
    mixing = np.random.default_rng(seed)
    per_epoch = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * per_epoch, pct_start=0.2)
    start, seconds, path = 0, 0.0, out / "checkpoint.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        accelerator.unwrap_model(model).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start, seconds = state["epoch"] + 1, state["seconds"]
        log.info("continuing at epoch %d", start)
    out.mkdir(parents=True, exist_ok=True)
    for epoch in range(start, epochs):
        began, pixels, total = time.perf_counter(), stage_size(epoch, epochs, recipe.stages), 0.0
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for step in range(per_epoch):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x, flipped = augment(normalize(images[rows]), generator)
            targets = F.one_hot(labels[rows], classes).float()
            if label_smoothing:
                targets = targets * (1 - label_smoothing) + label_smoothing / classes
            if soft is not None:
                targets = 0.5 * targets + 0.5 * soft[flipped.long(), rows]
            if recipe.mixup:
                share, partners = mixing.beta(recipe.mixup, recipe.mixup), torch.randperm(len(x), generator=generator)
                x, targets = share * x + (1 - share) * x[partners], share * targets + (1 - share) * targets[partners]
            with accelerator.autocast():
                logits = model(prepare(x.float(), pixels).to(accelerator.device))
            loss = F.cross_entropy(logits.float(), targets.float().to(accelerator.device))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds += time.perf_counter() - began
        log.info("epoch %d, %d px: loss %.3f, %.0f s so far", epoch, pixels, total / per_epoch, seconds)
        inner = accelerator.unwrap_model(model).state_dict()
        state = {"model": inner, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state | {"epoch": epoch, "seconds": seconds}, f"{path}.new")
        Path(f"{path}.new").replace(path)
    accuracy = evaluate(model, *test, size, accelerator)
    log.info("test accuracy %.4f after %.0f s of training", accuracy, seconds)
    config = {"input_size": [3, size, size], "mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0}
    model_config = {
        "model_args": recipe.args,
        "label_names": splits["names"],
        "pretrained_cfg": config
        | {"num_classes": classes, "first_conv": recipe.first_conv, "classifier": recipe.classifier},
    }
    inner = accelerator.unwrap_model(model).to(memory_format=torch.contiguous_format).half()
    save_for_hf(inner, out, model_config=model_config, safe_serialization=True)
    facts = {"test_accuracy": accuracy, "seconds": seconds, "epochs": epochs, "seed": seed, "torch": torch.__version__}
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
