"""Recipes: the options that a task's size decides, when the user does not."""

from __future__ import annotations

from typing import Any

SIMILARITY = "auto"

PAPER: dict[str, Any] = {
    "neighbours": 3,
    "by": "leep",
    "vote": "sample",
    "weights": "neighbours",
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

PAPER_ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 0.0002}
"""What differs for vision transformers (MVP, Section 5.1)."""


def paper_recipe(strategy: str = "mvp", optimizer: str = "sgd") -> dict[str, Any]:
    """The papers' options; SMSP takes weights from the base."""
    plan = PAPER | (PAPER_ADAMW if optimizer == "adamw" else {})
    return plan | ({"weights": "base"} if strategy == "smsp" else {})


def default_recipe(images_per_class: float, strategy: str = "mvp", optimizer: str = "sgd") -> dict[str, Any]:
    """The default recipe for a task with so many training images a class.

    Chosen on tuning tasks that no benchmark uses (docs/findings.md). Weights that no bank has brought near the task
    have farther to go, and want a larger rate.
    """
    lr = 0.03
    if strategy in ("mvp", "smsp"):
        lr = 0.003 if images_per_class < 10 else 0.01 if images_per_class < 50 else 0.02
    if optimizer == "adamw":
        lr /= ADAMW_RATE
    return {
        "neighbours": 1,
        "by": SIMILARITY,
        "vote": "top",
        "weights": "neighbours",
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


ADAMW_RATE = 50.0
"""How much smaller a learning rate is for AdamW than for SGD."""


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
