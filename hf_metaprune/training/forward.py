"""Forward passes over a set of images, batch by batch: the loop that everything but training shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from ..data.images import ImageSet
from ..errors import DataError
from ..models.modeling import MetaPrunedForImageClassification
from .hardware import autocast

T = TypeVar("T")

EVAL_BATCH = 256
"""Images per batch of a forward pass without training."""


def forward(
    compute: Callable[[torch.Tensor], T],
    images: ImageSet,
    device: torch.device,
    precision: str = "fp32",
    groups: Iterable[torch.Tensor] | None = None,
) -> Iterator[T]:
    """Yield what `compute` returns for each batch of images.

    Args:
        compute: called with normalized pixels: float32 (batch, 3, height, width), on `device`, channels last.
        images: the images.
        device: where to compute.
        precision: "auto", "fp32" or "bf16": see `autocast`.
        groups: row numbers of each batch, int64 (batch,); None: all rows in order, `EVAL_BATCH` per batch.

    Yields:
        The result for each batch.
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
    """Return the model's logits for each image.

    Args:
        model: the model, on `device`; it is left in eval mode.
        images: the images.
        device: where to compute.
        precision: "auto", "fp32" or "bf16": see `autocast`.

    Returns:
        float32 (images, labels), on the CPU.
    """
    model.eval()
    batches = forward(lambda pixels: model(pixels).logits, images, device, precision)
    return torch.cat([torch.empty(0, model.config.num_labels), *(logits.float().cpu() for logits in batches)])


@torch.no_grad()  # not inference mode: moving the weights there would make them unfit for training
def extract_features(
    model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device, precision: str = "fp32"
) -> torch.Tensor:
    """Return the features that the model's classifier gets for each image.

    Args:
        model: the model; it is moved to `device` and left in eval mode.
        images: the images.
        device: where to compute.
        precision: "auto", "fp32" or "bf16": see `autocast`.

    Returns:
        float64 (images, features), on the CPU.
    """
    model.to(device=device, memory_format=torch.channels_last).eval()
    return torch.cat([features.double().cpu() for features in forward(model.features, images, device, precision)])


def finite_features(model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device) -> torch.Tensor:
    """Return a model's features of images, see `extract_features`.

    Raises:
        DataError: a feature is not finite.
    """
    features = extract_features(model, images, device)
    if not torch.isfinite(features).all():
        raise DataError(
            "the sub-network's features of the images are not finite: choose other neighbors, or statistics='new'"
        )
    return features


def accuracy(
    model: MetaPrunedForImageClassification, images: ImageSet, device: torch.device, precision: str = "fp32"
) -> float:
    """Return the share of images whose highest logit is that of their label, in [0, 1]; NaN if there is no image."""
    is_correct = predict_logits(model, images, device, precision).argmax(1) == images.targets
    return is_correct.double().mean().item()
