"""Recipes: the options that a task's size and the base's family decide, where the user does not."""

from __future__ import annotations

from typing import Any

from ..config import VOTED
from ..models.architectures.recipe import CONVOLUTIONAL, TRANSFORMER, Recipe

SIMILARITY = "auto"

PAPER: dict[str, Any] = {
    "neighbors": 3,
    "by": "leep",
    "vote": "sample",
    "weights": "neighbors",
    "activations": 0.0,
    "head": "random",
    "recalibrate": False,
    "momentum": 0.9,
    "ema": 0.0,
    "warmup_steps": 0,
    "freeze_stem": False,
    "mixup": 0.0,
}
"""MVP, Section 5.1 and Algorithm 1; optimizer and learning rate are those of the family."""

SOME, MANY = 10, 50
"""From how many images per class on a task has some, and many."""

TUNED_SHARE = 0.1
"""The share of the base's units that stayed in the networks that the learning rates were chosen on."""


def paper_recipe(strategy: str = "mvp", family: Recipe = CONVOLUTIONAL, optimizer: str | None = None) -> dict[str, Any]:
    """Return the papers' options; SMSP takes weights from the base.

    Args:
        optimizer: the user's, if it is not the family's.
    """
    chosen = optimizer or family.optimizer
    lr = family.paper_lr if chosen == family.optimizer else (CONVOLUTIONAL if chosen == "sgd" else TRANSFORMER).paper_lr
    plan = PAPER | {"optimizer": chosen, "lr": lr}
    return plan | ({"weights": "base"} if strategy == "smsp" else {})


def default_recipe(
    images_per_class: float, strategy: str = "mvp", family: Recipe = CONVOLUTIONAL, optimizer: str | None = None
) -> dict[str, Any]:
    """Return the default options for a task with so many training images per class.

    They were chosen on tuning tasks that no benchmark uses (docs/findings/learning-rates.md).

    Args:
        optimizer: the user's, if it is not the family's.
    """
    optimizer = optimizer or family.optimizer
    rates = (family.near if strategy in VOTED else family.far)[optimizer]
    return {
        "neighbors": 1,
        "by": SIMILARITY,
        "vote": "top",
        "weights": "auto",
        "activations": 0.5,
        "head": "auto",
        "recalibrate": True,
        "optimizer": optimizer,
        "lr": rates.few if images_per_class < SOME else rates.some if images_per_class < MANY else rates.many,
        "momentum": 0.9,
        "ema": 0.95,
        "warmup_steps": 10,
        "freeze_stem": True,
        "mixup": 0.0,
    }


def rate_at(lr: float, family: Recipe, images_per_class: float, share: float) -> float:
    """Return the recipe's learning rate `lr` for a network in which `share` of the base's units stay.

    The more stays of a vision transformer, the less it has to learn, and the more can be spoilt by few images: there
    the rate falls as the share grows. ResNets, and many images, want the same rate at any share
    (docs/findings/learning-rates.md).
    """
    if not family.rate_falls or images_per_class >= MANY:
        return lr
    return lr * TUNED_SHARE / max(share, TUNED_SHARE)


def shown_defaults() -> dict[str, str]:
    """What the default recipe of MVP says, for help texts: one value, or those from few to many images per class.

    Where it differs for vision transformers, theirs follow.
    """
    shown: dict[str, list[str]] = {}
    for family in (CONVOLUTIONAL, TRANSFORMER):
        plans = [default_recipe(n, family=family) for n in (5, 20, 100)]
        for name in plans[0]:
            shown.setdefault(name, []).append(" / ".join(dict.fromkeys(str(plan[name]) for plan in plans)))
    return {name: ", for a ViT ".join(dict.fromkeys(values)) for name, values in shown.items()}


def recipe(
    preset: str, images_per_class: float, strategy: str, family: Recipe, optimizer: str | None = None
) -> dict[str, Any]:
    """Return what a preset says about the options that were left open."""
    if preset == "paper":
        return paper_recipe(strategy, family, optimizer)
    return default_recipe(images_per_class, strategy, family, optimizer)
