"""Recipes: the options that a task's size decides, when the user does not."""

from __future__ import annotations

from typing import Any

from ..config import VOTED

SIMILARITY = "auto"

PAPER: dict[str, Any] = {
    "neighbours": 3,
    "by": "leep",
    "vote": "sample",
    "weights": "neighbours",
    "activations": 0.0,
    "head": "random",
    "recalibrate": False,
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "ema": 0.0,
    "warmup_steps": 0,
    "freeze_stem": False,
    "mixup": 0.0,
}
"""MVP, Section 5.1 and Algorithm 1, for ResNets."""

SOME, MANY = 10, 50
"""From how many images a class on a task has some, and many."""

LEARNING_RATES: dict[tuple[str, bool], tuple[float, float, float]] = {
    ("sgd", True): (0.003, 0.01, 0.02),
    ("sgd", False): (0.03, 0.03, 0.03),
    ("adamw", True): (0.0002, 0.0003, 0.0005),
    ("adamw", False): (0.0005, 0.001, 0.003),
}
"""By optimiser, and whether neighbours brought the weights near: with few, some and many images a class."""

ENOUGH_HELD: dict[str, float] = {"sgd": 0.4, "adamw": 0.75}
"""Of the units that stay, the share that neighbours have to hold for their weights to be better; by the optimiser.

Weights that were trained beside few others do not fit to those of the whole base (docs/findings/weights.md).
"""

TUNED_SHARE = 0.1
"""Of the base's units, the share that stayed in the networks that the learning rates were chosen on."""

PAPER_ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 0.0002}
"""What differs for vision transformers (MVP, Section 5.1)."""


def paper_recipe(strategy: str = "mvp", optimizer: str = "sgd") -> dict[str, Any]:
    """The papers' options; SMSP takes weights from the base."""
    plan = PAPER | (PAPER_ADAMW if optimizer == "adamw" else {})
    return plan | ({"weights": "base"} if strategy == "smsp" else {})


def default_recipe(images_per_class: float, strategy: str = "mvp", optimizer: str = "sgd") -> dict[str, Any]:
    """The default recipe for a task with so many training images a class.

    Chosen on tuning tasks that no benchmark uses (docs/findings/learning-rates.md). Weights that no bank has brought
    near the task have farther to go, and want a larger rate.
    """
    few, some, many = LEARNING_RATES[optimizer, strategy in VOTED]
    lr = few if images_per_class < SOME else some if images_per_class < MANY else many
    return {
        "neighbours": 1,
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


def rate_at(lr: float, optimizer: str, images_per_class: float, share: float) -> float:
    """The recipe's learning rate `lr` for a network of which `share` of the base's units stay.

    The more stays of a vision transformer, the less it has to learn, and the more can be spoilt by few images: there
    the rate falls as the share grows. ResNets, and many images, want the same rate at any share
    (docs/findings/learning-rates.md).
    """
    if optimizer != "adamw" or images_per_class >= MANY:
        return lr
    return lr * TUNED_SHARE / max(share, TUNED_SHARE)


def shown_defaults() -> dict[str, str]:
    """What the default recipe of MVP says, for help texts: one value, or those from few to many images a class.

    Where it differs for vision transformers, theirs follow.
    """
    shown: dict[str, list[str]] = {}
    for optimizer in ("sgd", "adamw"):
        plans = [default_recipe(n, optimizer=optimizer) for n in (5, 20, 100)]
        for name in plans[0]:
            shown.setdefault(name, []).append(" / ".join(dict.fromkeys(str(plan[name]) for plan in plans)))
    return {name: ", for a ViT ".join(dict.fromkeys(values)) for name, values in shown.items()}


def recipe(preset: str, images_per_class: float, strategy: str, optimizer: str = "sgd") -> dict[str, Any]:
    """What a preset says about the options that were left open; `optimizer` is that of the base's family."""
    if preset == "paper":
        return paper_recipe(strategy, optimizer)
    return default_recipe(images_per_class, strategy, optimizer)
