"""What an adaptation is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..config import AdaptOptions
from ..data.images import ImageSet
from ..data.task import Task
from ..models.architectures.architecture import PrunableLayer, layer_sizes
from ..models.base_model import BaseModel


@dataclass(frozen=True)
class AdaptInputs:
    """The base, the task with its training images, the options and the device: nothing that a step changes."""

    base: BaseModel
    task: Task
    images: ImageSet
    options: AdaptOptions
    ratio: float | None
    """The share of units to remove in every layer; None if the sizes follow from something else."""
    device: torch.device

    @cached_property
    def layers(self) -> list[PrunableLayer]:
        """The layers to prune."""
        return self.base.layers_with(self.options.prune_stem)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Unit counts of the layers to prune, by name."""
        return layer_sizes(self.layers)
