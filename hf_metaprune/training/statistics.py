"""Batch norm statistics, estimated again for weights that were averaged, sliced or trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from ..models.slicing import STATISTICS, is_statistic
from .forward import EVAL_BATCH, forward

STATISTICS_IMAGES = 500
"""Largest number of images for batch norm statistics. Each image gives one value per place of a feature map."""


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def statistics_images(images: ImageSet, photos: ImageSet | None, seed: int) -> ImageSet:
    """Return the images for batch norm statistics: all that are labeled, or a random sample of these and the photos.

    Args:
        images: the labeled images.
        photos: images without labels, if there are any.
        seed: seed of the sample, which has at most `STATISTICS_IMAGES`, so that large sets are not copied.
    """
    if photos is None:
        return images
    order = torch.randperm(len(images) + len(photos), generator=torch.Generator().manual_seed(seed))
    rows = order[:STATISTICS_IMAGES]
    return images.subset(rows[rows < len(images)]).joined(photos.subset(rows[rows >= len(images)] - len(images)))


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
    norms = batch_norms(model)
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


def read_statistics(model: MetaPrunedForImageClassification) -> dict[str, torch.Tensor]:
    """Return copies of a model's batch norm statistics by name, on the CPU; none if it has no batch norm."""
    state = model.network.state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if is_statistic(name)}


def set_statistics(model: MetaPrunedForImageClassification, statistics: Mapping[str, torch.Tensor]) -> None:
    """Replace a model's batch norm statistics, in place.

    Args:
        model: the model.
        statistics: float (units,) by name, see `read_statistics`.
    """
    for name, tensor in statistics.items():
        model.network.get_buffer(name).copy_(tensor)


def transferred_statistics(
    new: Mapping[str, torch.Tensor], base_new: Mapping[str, torch.Tensor], base_own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the statistics that a sub-network would have on the images that its base was trained on.

    The statistics of a few images of a few classes differ from those of all images, in a sub-network as in the base.
    What the base shows of that difference, whose own statistics are known, is undone in the sub-network:
    ``mean = m - s / s_base (m_base - m_own)`` and ``variance = s^2 s_own^2 / s_base^2``, where m and s are means and
    standard deviations of the images' activations.

    Args:
        new: the sub-network's statistics of some images: float (units,) by name.
        base_new: the base's of the same images and units.
        base_own: the base's own of the same units.

    Returns:
        The statistics by name.
    """
    mean_end, variance_end = STATISTICS
    transferred = {}
    for mean_name in (name for name in new if name.endswith(mean_end)):
        variance_name = mean_name.removesuffix(mean_end) + variance_end
        variance, base_variance = new[variance_name], base_new[variance_name].clamp(min=1e-12)
        shift = (variance / base_variance).sqrt() * (base_new[mean_name] - base_own[mean_name])
        transferred[mean_name] = new[mean_name] - shift
        transferred[variance_name] = variance * base_own[variance_name] / base_variance
    return transferred
