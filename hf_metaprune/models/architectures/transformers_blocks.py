"""transformers' ResNet layers, sliced: what a branch gives is added into the stream at the kept places only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetBasicLayer, ResNetBottleNeckLayer


class _Adding(nn.Module):
    """Of both kinds: their last norm is a `ScatterBatchNorm2d`."""

    shortcut: Any
    layer: Any
    activation: Any

    def forward(self, hidden_state: torch.Tensor) -> torch.Tensor:
        fresh = not isinstance(self.shortcut, nn.Identity)
        stream = self.shortcut(hidden_state)
        added = self.layer[-1].normalization.add_to(stream, self.layer(hidden_state), fresh=fresh)
        return self.activation(added)


class AddingBasicLayer(_Adding, ResNetBasicLayer):
    """A sliced `ResNetBasicLayer`."""


class AddingBottleNeckLayer(_Adding, ResNetBottleNeckLayer):
    """A sliced `ResNetBottleNeckLayer`."""


ADDING: dict[type[nn.Module], type[nn.Module]] = {
    ResNetBasicLayer: AddingBasicLayer,
    ResNetBottleNeckLayer: AddingBottleNeckLayer,
}
