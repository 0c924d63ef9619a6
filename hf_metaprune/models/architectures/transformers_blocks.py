"""transformers' ResNet layers, sliced: the output of a branch is added into the stream at the kept channels only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer


class _AddingLayer(nn.Module):
    """The forward pass of both layers, whose last norm is a `ScatterBatchNorm2d`."""

    shortcut: Any
    layer: Any
    activation: Any

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        fresh = not isinstance(self.shortcut, nn.Identity)
        stream = self.shortcut(hidden_state)
        stream = self.layer[-1].normalization.add_to(stream, self.layer(hidden_state), fresh=fresh)
        return self.activation(stream)


class AddingBasicLayer(_AddingLayer, ResNetBasicLayer):
    """A sliced `ResNetBasicLayer`."""


class AddingBottleNeckLayer(_AddingLayer, ResNetBottleNeckLayer):
    """A sliced `ResNetBottleNeckLayer`."""


ADDING_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    ResNetBasicLayer: AddingBasicLayer,
    ResNetBottleNeckLayer: AddingBottleNeckLayer,
}
"""The class that a sliced layer gets, per class of transformers."""
