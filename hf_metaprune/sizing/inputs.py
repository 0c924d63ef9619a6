"""The inputs of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..config import AdaptOptions
from ..data.images import ImageSet
from ..data.task import Task
from ..models.architectures.layers import PrunableLayer, layer_sizes
from ..models.base_model import BaseModel


@dataclass(frozen=True)
class AdaptInputs:
    """The inputs of an adaptation, which no step changes."""

    base: BaseModel
    """The base model."""
    task: Task
    """The target task's labels and synsets."""
    images: ImageSet
    """The target task's training images."""
    options: AdaptOptions
    """The options, with every choice made."""
    ratio: float | None
    """The share of units to remove in every layer; None if a budget or other options decide the sizes."""
    device: torch.device
    """Where models run."""
    photos: ImageSet | None = None
    """Images of the target task without labels, if there are any."""

    @cached_property
    def layers(self) -> list[PrunableLayer]:
        """The layers to prune."""
        return self.base.layers_with(self.options.prune_stem)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Units of each layer to prune, by name."""
        return layer_sizes(self.layers)
