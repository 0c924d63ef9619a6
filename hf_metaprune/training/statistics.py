"""Batch norm statistics, estimated anew."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from .forward import EVAL_BATCH, forward

STATISTICS_IMAGES = 500
"""Images from which batch norm statistics are taken: each gives as many values as its map has places."""


@torch.no_grad()
def recalibrate(
    model: MetaPrunedForImageClassification,
    images: ImageSet,
    device: torch.device,
    *,
    seed: int = 0,
) -> int:
    """Re-estimate batch norm statistics on images, at most `STATISTICS_IMAGES`, as one average over all batches.

    Batches are equally large, give or take one image: each counts as much as the others.

    Returns:
        How many images were passed forward: none where there is no batch norm.
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
    for norm in norms:  # nothing else: dropout would change what they see
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
