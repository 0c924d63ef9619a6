"""Recipes: the options that a task's size and the base's architecture decide, unless the user does."""

from __future__ import annotations

from typing import Any

from ..config import AUTO, VOTED
from ..models.architectures.recipe import CONVOLUTIONAL, RECIPES, Recipe

SIMILARITY = "auto"
"""The default similarity."""

PAPER: dict[str, Any] = {
    "neighbors": 3,
    "by": "leep",
    "vote": "sample",
    "weights": "neighbors",
    "activations": 0.0,
    "head": "random",
    "statistics": "moving",
    "momentum": 0.9,
    "ema": 0.0,
    "start_share": 0.0,
    "warmup_steps": 0,
    "freeze_stem": False,
    "mixup": 0.0,
    "loss": "labels",
    "clip_norm": 0.0,
}
"""The options of MVP, Section 5.1 and Algorithm 1, except optimizer and learning rate, which depend on the base."""

SOME_IMAGES = 10
"""Images per class from which on a task gets the learning rate for some images."""
MANY_IMAGES = 50
"""Images per class from which on a task gets the learning rate for many images."""

TUNED_SHARE = 0.1
"""Share of units that stayed in the networks on which the learning rates were chosen."""


def paper_recipe(strategy: str = "mvp", recipe: Recipe = CONVOLUTIONAL, optimizer: str | None = None) -> dict[str, Any]:
    """Return the papers' options by name.

    Args:
        strategy: the strategy; "smsp" takes its first weights from the base.
        recipe: the recipe of the base's architecture.
        optimizer: the user's optimizer; None: that of `recipe`.
    """
    optimizer = optimizer or recipe.optimizer
    values = PAPER | {"optimizer": optimizer, "lr": recipe.paper_lr[optimizer]}
    return values | ({"weights": "base"} if strategy == "smsp" else {})


def default_recipe(
    images_per_class: float,
    strategy: str = "mvp",
    recipe: Recipe = CONVOLUTIONAL,
    optimizer: str | None = None,
    photos: bool = False,
) -> dict[str, Any]:
    """Return the default options by name.

    They were chosen on tuning tasks that no benchmark uses (docs/findings/learning-rates.md).

    Args:
        images_per_class: mean number of training images per class.
        strategy: the strategy.
        recipe: the recipe of the base's architecture.
        optimizer: the user's optimizer; None: that of `recipe`.
        photos: whether there are photos without labels.
    """
    optimizer = optimizer or recipe.optimizer
    is_taught = strategy == "trunk"
    rates = (recipe.near if strategy in (AUTO, *VOTED) and not photos else recipe.taught if is_taught else recipe.far)[
        optimizer
    ]
    lr = rates.many
    if images_per_class < MANY_IMAGES and not (is_taught and photos):
        lr = rates.few if images_per_class < SOME_IMAGES else rates.some
    return {
        "neighbors": 1,
        "by": SIMILARITY,
        "vote": "top",
        "weights": "auto",
        "activations": 0.5,
        "head": "decoded" if is_taught else "auto",
        # others train on with the statistics of batches, and must begin with such
        "statistics": "auto" if is_taught else "new",
        "optimizer": optimizer,
        "lr": lr,
        "momentum": 0.9,
        "ema": 0.0 if is_taught else 0.95,
        "start_share": 0.5 if is_taught and not photos and images_per_class < MANY_IMAGES else 0.0,
        "warmup_steps": 10,
        "freeze_stem": not is_taught,
        "mixup": 0.0,
        "loss": "features" if is_taught else "labels",
        "clip_norm": 10.0 if is_taught else 0.0,
    }


def scaled_learning_rate(lr: float, recipe: Recipe, images_per_class: float, share: float) -> float:
    """Return the learning rate for a network of a given size.

    Where `recipe.rate_falls`, the rate falls as the network grows, because a larger part of the base has less to learn,
    and few images can damage it more. Other networks need the same rate at any size, and so does any network with many
    images (docs/findings/learning-rates.md).

    Args:
        lr: the recipe's learning rate, chosen for networks in which `TUNED_SHARE` of the units stay.
        recipe: the recipe of the base's architecture.
        images_per_class: mean number of training images per class.
        share: share of the base's units that stay.
    """
    if not recipe.rate_falls or images_per_class >= MANY_IMAGES:
        return lr
    return lr * TUNED_SHARE / max(share, TUNED_SHARE)


def default_texts() -> dict[str, str]:
    """Return the defaults of the default recipe of MVP, by option, as texts for help.

    A text has one value, or the values for few, some and many images per class. The values of other recipes of the
    library follow where they differ from those of convolutional networks.
    """
    texts = _texts_by_option(CONVOLUTIONAL)
    for recipe in RECIPES:
        for name, text in _texts_by_option(recipe).items():
            if text != texts[name]:
                texts[name] += f", for {recipe.networks} {text}"
    return texts


def _texts_by_option(recipe: Recipe) -> dict[str, str]:
    by_images = [default_recipe(n, recipe=recipe) for n in (5, 20, 100)]
    return {name: " / ".join(dict.fromkeys(str(values[name]) for values in by_images)) for name in by_images[0]}


def preset_values(
    preset: str,
    images_per_class: float,
    strategy: str,
    recipe: Recipe,
    optimizer: str | None = None,
    photos: bool = False,
) -> dict[str, Any]:
    """Return the options of a preset by name: see `paper_recipe` and `default_recipe`."""
    if preset == "paper":
        return paper_recipe(strategy, recipe, optimizer)
    return default_recipe(images_per_class, strategy, recipe, optimizer, photos)
