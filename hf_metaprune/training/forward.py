"""Forward passes over a set of images, a batch at a time: the one loop that all who only look share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from .hardware import autocast

T = TypeVar("T")

EVAL_BATCH = 256


def forward(
    compute: Callable[[torch.Tensor], T],
    images: ImageSet,
    device: torch.device,
    precision: str = "fp32",
    groups: Iterable[torch.Tensor] | None = None,
) -> Iterator[T]:
    """Yield what `compute` makes of each batch of images.

    Args:
        compute: is called with normalized pixels, float32 (n, 3, height, width), on `device`, channels last.
        precision: of the arithmetic: "auto", "fp32" or "bf16".
        groups: row numbers of each batch; all rows in order, `EVAL_BATCH` at a time, if left out.
    """
    if groups is None:
        batches = (pixels for pixels, _ in images.batches(EVAL_BATCH))
    else:
        batches = (images.preprocessing.normalize(images.images[rows]) for rows in groups)
    for pixels in batches:
        with autocast(device, precision):
            yield compute(pixels.to(device).contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def predict_logits(
    model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device, precision: str = "fp32"
) -> torch.Tensor:
    """Logits float32 (n, labels) on the CPU, in eval mode."""
    model.eval()
    batches = forward(lambda pixels: model(pixels).logits, images, device, precision)
    return torch.cat([torch.empty(0, model.config.num_labels), *(logits.float().cpu() for logits in batches)])


@torch.no_grad()  # not inference mode: moving the weights there would make them unfit for training
def extract_features(
    model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device, precision: str = "fp32"
) -> torch.Tensor:
    """What the classifier sees of each image: float64 (n, features), on the CPU, in eval mode."""
    model.to(device=device, memory_format=torch.channels_last).eval()
    return torch.cat([features.double().cpu() for features in forward(model.features, images, device, precision)])


def accuracy(
    model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device, precision: str = "fp32"
) -> float:
    """Share of images whose highest logit is their label's."""
    hits = predict_logits(model, images, device, precision).argmax(1) == images.targets
    return hits.double().mean().item()
