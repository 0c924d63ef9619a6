"""Recipes: the options that a task's size and the base's architecture decide, unless the user does."""

from __future__ import annotations

from typing import Any

from ..config import VOTED
from ..models.architectures.recipe import CONVOLUTIONAL, TRANSFORMER, Recipe

SIMILARITY = "auto"
"""The default similarity."""

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
"""The options of MVP, Section 5.1 and Algorithm 1, except optimizer and learning rate, which depend on the base."""

SOME_IMAGES = 10
"""Images per class from which on a task gets the learning rate for some images."""
MANY_IMAGES = 50
"""Images per class from which on a task gets the learning rate for many images."""

TUNED_SHARE = 0.1
"""Share of units that stayed in the networks on which the learning rates were chosen."""


def paper_recipe(strategy: str = "mvp", family: Recipe = CONVOLUTIONAL, optimizer: str | None = None) -> dict[str, Any]:
    """Return the papers' options by name.

    Args:
        strategy: the strategy; "smsp" takes its first weights from the base.
        family: the recipe of the base's architecture.
        optimizer: the user's optimizer; None: that of `family`.
    """
    optimizer = optimizer or family.optimizer
    values = PAPER | {"optimizer": optimizer, "lr": family.paper_lr[optimizer]}
    return values | ({"weights": "base"} if strategy == "smsp" else {})


def default_recipe(
    images_per_class: float, strategy: str = "mvp", family: Recipe = CONVOLUTIONAL, optimizer: str | None = None
) -> dict[str, Any]:
    """Return the default options by name.

    They were chosen on tuning tasks that no benchmark uses (docs/findings/learning-rates.md).

    Args:
        images_per_class: mean number of training images per class.
        strategy: the strategy.
        family: the recipe of the base's architecture.
        optimizer: the user's optimizer; None: that of `family`.
    """
    optimizer = optimizer or family.optimizer
    rates = (family.near if strategy in VOTED else family.far)[optimizer]
    lr = rates.many
    if images_per_class < MANY_IMAGES:
        lr = rates.few if images_per_class < SOME_IMAGES else rates.some
    return {
        "neighbors": 1,
        "by": SIMILARITY,
        "vote": "top",
        "weights": "auto",
        "activations": 0.5,
        "head": "auto",
        "recalibrate": True,
        "optimizer": optimizer,
        "lr": lr,
        "momentum": 0.9,
        "ema": 0.95,
        "warmup_steps": 10,
        "freeze_stem": True,
        "mixup": 0.0,
    }


def scaled_learning_rate(lr: float, family: Recipe, images_per_class: float, share: float) -> float:
    """Return the learning rate for a network of a given size.

    For vision transformers and ConvNeXts the rate falls as the network grows, because a larger part of the base has
    less to learn, and few images can damage it more. ResNets need the same rate at any size, and so does any network
    with many images (docs/findings/learning-rates.md).

    Args:
        lr: the recipe's learning rate, chosen for networks in which `TUNED_SHARE` of the units stay.
        family: the recipe of the base's architecture.
        images_per_class: mean number of training images per class.
        share: share of the base's units that stay.
    """
    if not family.rate_falls or images_per_class >= MANY_IMAGES:
        return lr
    return lr * TUNED_SHARE / max(share, TUNED_SHARE)


def default_texts() -> dict[str, str]:
    """Return the defaults of the default recipe of MVP, by option, as texts for help.

    A text has one value, or the values for few, some and many images per class. If vision transformers and ConvNeXts
    have other values, these follow.
    """
    texts: dict[str, list[str]] = {}
    for family in (CONVOLUTIONAL, TRANSFORMER):
        recipes = [default_recipe(n, family=family) for n in (5, 20, 100)]
        for name in recipes[0]:
            texts.setdefault(name, []).append(" / ".join(dict.fromkeys(str(values[name]) for values in recipes)))
    return {name: ", for a ViT or ConvNeXt ".join(dict.fromkeys(values)) for name, values in texts.items()}


def preset_values(
    preset: str, images_per_class: float, strategy: str, family: Recipe, optimizer: str | None = None
) -> dict[str, Any]:
    """Return the options of a preset by name: see `paper_recipe` and `default_recipe`."""
    if preset == "paper":
        return paper_recipe(strategy, family, optimizer)
    return default_recipe(images_per_class, strategy, family, optimizer)
