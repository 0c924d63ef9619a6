"""Batch norm statistics, estimated again for weights that were averaged, sliced or trained."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from .forward import EVAL_BATCH, forward

STATISTICS_IMAGES = 500
"""Largest number of images for batch norm statistics. Each image gives one value per place of a feature map."""


@torch.no_grad()
def recalibrate(
    model: MetaPrunedForImageClassification,
    images: ImageSet,
    device: torch.device,
    *,
    seed: int = 0,
) -> int:
    """Estimate a model's batch norm statistics again, as the average over batches of random images.

    The batches have the same number of images, give or take one, because each counts as much as the others.

    Args:
        model: the model; it is moved to `device`, changed in place, and left in eval mode.
        images: the images to draw from; at most `STATISTICS_IMAGES` are used.
        device: where to compute.
        seed: seed of the choice and order of images.

    Returns:
        The number of images that were passed forward; 0 if the model has no batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        model.to(device).eval()
        return 0
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to ask for the cumulative average
    model.to(device=device, memory_format=torch.channels_last).eval()
    for norm in norms:  # only batch norms train: dropout would change their input
        norm.train()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)  # a batch of one class would bias the variances
    order = order[:STATISTICS_IMAGES]
    groups = order.tensor_split(math.ceil(len(order) / EVAL_BATCH))
    for _ in forward(model, images, device, "auto", groups):
        pass
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    return len(order)
