#!/usr/bin/env python
"""Pretrain the demo bank's base: a narrow timm ResNet-18 on CIFAR-100, in about an hour on two CPU cores.

Images are upsampled to the training size; the size grows in stages (32, 48, 64 px), which costs a third of
training at 64 px throughout. Augmentation: crop, flip and a square cutout. The result is a folder that
``timm.create_model("local-dir:OUT", pretrained=True)`` loads. A killed run continues from its last epoch.

    uv run scripts/pretrain_base.py --out runs/base --data ../shared/data/cifar100
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Annotated

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


def augment(x: torch.Tensor, generator: torch.Generator, pad: int = 4, hole: int = 8) -> torch.Tensor:
    """Random crop (reflected border), horizontal flip and an 8 x 8 cutout of float images (n, 3, s, s)."""
    n, _, s, _ = x.shape
    x = F.pad(x, (pad,) * 4, mode="reflect")
    dy, dx = (torch.randint(0, 2 * pad + 1, (n, 1), generator=generator) for _ in range(2))
    rows, cols = dy + torch.arange(s), dx + torch.arange(s)
    flip = torch.rand(n, 1, generator=generator) < 0.5
    cols = torch.where(flip, cols.flip(1), cols)
    x = x[torch.arange(n)[:, None, None], :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    cy, cx = (torch.randint(0, s, (n, 1), generator=generator) for _ in range(2))
    inside = lambda c: (torch.arange(s) >= c - hole // 2) & (torch.arange(s) < c + hole // 2)  # noqa: E731
    return x.masked_fill((inside(cy)[:, :, None] & inside(cx)[:, None, :])[:, None], 0.0)


def prepare(x: torch.Tensor, size: int) -> torch.Tensor:
    if size != x.shape[-1]:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


def normalise(x: torch.Tensor) -> torch.Tensor:
    return (x.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@torch.inference_mode()
def evaluate(model, images, labels, size, accelerator, batch=500) -> float:
    model.eval()
    hits = 0
    for i in range(0, len(images), batch):
        x = prepare(normalise(images[i : i + batch]), size).to(accelerator.device)
        with accelerator.autocast():
            hits += (model(x).argmax(1).cpu() == labels[i : i + batch]).sum().item()
    return hits / len(images)


def stage_size(epoch: int, epochs: int) -> int:
    return next(size for size, until in STAGES if epoch < until * epochs or until == 1.0)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the trained model to.")] = Path("runs/base"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    arch: Annotated[str, typer.Option(help="timm architecture.")] = "resnet18",
    channels: Annotated[str, typer.Option(help="Widths of the four stages.")] = "32,64,128,256",
    stem: Annotated[
        int, typer.Option(help="Width of a deep 3x3 stem; 0: the plain 7x7 one, a quarter of this network's MACs.")
    ] = 8,
    epochs: Annotated[int, typer.Option(help="Epochs in all.")] = 48,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 256,
    peak_lr: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 0.4,
    weight_decay: Annotated[float, typer.Option(help="On weights, not on biases and norms.")] = 5e-4,
    label_smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train, checkpoint after every epoch, evaluate on the test split and save for timm."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    accelerator = Accelerator(mixed_precision="bf16")
    set_seed(seed)
    splits = load_cifar100(data)
    (images, labels), test = splits["train"], splits["test"]
    args: dict = {"channels": [int(c) for c in channels.split(",")]}
    if stem:
        args |= {"stem_type": "deep", "stem_width": stem}
    model = timm.create_model(arch, num_classes=len(splits["names"]), **args).to(memory_format=torch.channels_last)
    decay = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decay}, {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=peak_lr, momentum=0.9, weight_decay=weight_decay, nesterov=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    per_epoch = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=epochs * per_epoch, pct_start=0.2)
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
        began, size, total = time.perf_counter(), stage_size(epoch, epochs), 0.0
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for step in range(per_epoch):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x = prepare(augment(normalise(images[rows]), generator), size).to(accelerator.device)
            with accelerator.autocast():
                logits = model(x)
            y = labels[rows].to(accelerator.device)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds += time.perf_counter() - began
        log.info("epoch %d, %d px: loss %.3f, %.0f s so far", epoch, size, total / per_epoch, seconds)
        inner = accelerator.unwrap_model(model).state_dict()
        state = {"model": inner, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state | {"epoch": epoch, "seconds": seconds}, f"{path}.new")
        Path(f"{path}.new").replace(path)
    accuracy = evaluate(model, *test, STAGES[-1][0], accelerator)
    log.info("test accuracy %.4f after %.0f s of training", accuracy, seconds)
    size = STAGES[-1][0]
    config = {"input_size": [3, size, size], "mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0}
    model_config = {
        "model_args": args,
        "label_names": splits["names"],
        "pretrained_cfg": config
        | {"num_classes": len(splits["names"]), "first_conv": "conv1.0" if stem else "conv1", "classifier": "fc"},
    }
    inner = accelerator.unwrap_model(model).to(memory_format=torch.contiguous_format).half()
    save_for_hf(inner, out, model_config=model_config, safe_serialization=True)
    facts = {"test_accuracy": accuracy, "seconds": seconds, "epochs": epochs, "seed": seed, "torch": torch.__version__}
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
