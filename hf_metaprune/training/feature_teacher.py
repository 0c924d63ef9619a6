"""Distillation by features: a sub-network learns to tell the features of its base (Romero et al., 2015, FitNets)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..config import TrainingOptions
from ..data.images import ImageSet
from ..models.modeling import MetaPrunedForImageClassification
from ..sizing.cost_model import count_flops
from .hardware import autocast

LOSS_SCALE = 20.0
"""What the loss is multiplied by, because the steps of SGD, but not its weight decay, grow with it."""


class Student(nn.Module):
    """A sub-network that computes the base's features; one module, so that several processes can train it.

    Args:
        model: the sub-network.
        decoder: the map of its features to those of the base, which is trained, too.
    """

    def __init__(self, model: MetaPrunedForImageClassification, decoder: nn.Linear) -> None:
        super().__init__()
        self.model, self.decoder = model, decoder

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the base's features of images as the sub-network tells them: float (batch, features of the base)."""
        return self.decoder(self.model.features(pixels).float())


class FeatureTeacher:
    """The base of a sub-network as its teacher, see `fine_tune`.

    Args:
        base: the whole base.
        images: the images to teach on; their labels are not used.
        decoder: the map of the sub-network's features to those of the base, to begin with.
        set_classifier: a function that computes the sub-network's classifier anew, after its features have changed.

    Example::

        teacher = FeatureTeacher(base.whole(labels), photos, trunk.decoders[0.9].layer(), lambda model: None)
        fine_tune(model, data.train, TrainingOptions(), teacher=teacher)
    """

    def __init__(
        self,
        base: MetaPrunedForImageClassification,
        images: ImageSet,
        decoder: nn.Linear,
        set_classifier: Callable[[MetaPrunedForImageClassification], object],
    ) -> None:
        self.base, self.images, self.decoder, self.set_classifier = base, images, decoder, set_classifier
        self.flops_per_image = count_flops(base, images.images[:1])[0]

    def to(self, device: torch.device) -> FeatureTeacher:
        """Move the teacher to a device, and return it."""
        self.base.to(device=device, memory_format=torch.channels_last).eval()
        self.decoder.to(device)
        return self

    def loss(self, decoded: torch.Tensor, pixels: torch.Tensor, options: TrainingOptions) -> torch.Tensor:
        """Return the squared distance to the base's features, in units of their variance, times `LOSS_SCALE`.

        Args:
            decoded: what the student told: float (batch, features of the base).
            pixels: the images: float (batch, 3, height, width).
            options: the arithmetic of the base's forward pass.
        """
        with torch.no_grad(), autocast(pixels.device, options.precision):
            targets = self.base.features(pixels).float()
        return LOSS_SCALE * feature_distance(decoded.float(), targets)


def feature_distance(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance of features in units of the targets' variance.

    Args:
        features: float (batch, features).
        targets: float (batch, features).
    """
    variance = targets.var(0, correction=0).mean().clamp(min=1e-12)
    return (features - targets).square().mean() / variance
