"""How networks of a family are fine-tuned: what the family decides, and not the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Rates(NamedTuple):
    """Peak learning rates for few, some and many training images per class."""

    few: float
    some: float
    many: float


NEAR: Mapping[str, Rates] = {"sgd": Rates(0.003, 0.01, 0.02), "adamw": Rates(0.0002, 0.0003, 0.0005)}
"""By optimizer, where a bank has brought the weights near the task (docs/findings/learning-rates.md)."""
FAR: Mapping[str, Rates] = {"sgd": Rates(0.03, 0.03, 0.03), "adamw": Rates(0.0005, 0.001, 0.003)}
"""By optimizer, where weights come from the base: they have farther to go, and want a larger rate."""
TAUGHT: Mapping[str, Rates] = {"sgd": Rates(0.005, 0.01, 0.1), "adamw": Rates(0.0002, 0.0004, 0.0005)}
"""By optimizer, for features from a trunk, whose statistics, and half of whose weights, stay if images are few.

Those of AdamW are not tuned.
"""
PAPER_LR: Mapping[str, float] = {"sgd": 0.01, "adamw": 0.0002}
"""By optimizer, what the papers fine-tune with after a vote."""


@dataclass(frozen=True)
class Recipe:
    """What a family decides about fine-tuning and voting; the defaults are those of convolutional networks.

    Example:
        A family that AdamW trains better, at its usual rates:

        >>> recipe = Recipe(optimizer="adamw")
        >>> recipe.near[recipe.optimizer].few
        0.0002
    """

    networks: str = "convolutional networks"
    """What the help of options calls such networks."""
    optimizer: str = "sgd"
    """What the papers fine-tune such networks with."""
    near: Mapping[str, Rates] = field(default_factory=lambda: NEAR)
    """Learning rates by optimizer, where neighbors vote."""
    far: Mapping[str, Rates] = field(default_factory=lambda: FAR)
    """Learning rates by optimizer, without neighbors, or with photos without labels."""
    taught: Mapping[str, Rates] = field(default_factory=lambda: TAUGHT)
    """Learning rates by optimizer, from a trunk; with photos without labels, those of many images."""
    rate_falls: bool = False
    """Whether the rate falls as more of the network stays and images are few."""
    min_held_share: float = 0.4
    """The share of the kept units that neighbors have to hold for their weights to be better than the base's."""
    paper_lr: Mapping[str, float] = field(default_factory=lambda: PAPER_LR)
    """The papers' learning rates by optimizer."""
    is_scheduled: bool = True
    """Whether the papers prune such networks by a schedule (IFP), and not when scores say so (AHNP)."""


CONVOLUTIONAL = Recipe()
TRANSFORMER = Recipe(
    "networks that train like a ViT", "adamw", rate_falls=True, min_held_share=0.75, is_scheduled=False
)
RECIPES = (CONVOLUTIONAL, TRANSFORMER)
"""The recipes that families of the library share; the help of options has their values."""
