"""Recipes: the options that a task's size decides, when the user does not."""

from __future__ import annotations

from typing import Any

SIMILARITY = "auto"

PAPER: dict[str, Any] = {
    "neighbours": 3,
    "by": "leep",
    "vote": "sample",
    "head": "random",
    "recalibrate": False,
    "lr": 0.01,
    "momentum": 0.9,
    "ema": 0.0,
    "warmup_steps": 0,
    "freeze_stem": False,
    "mixup": 0.0,
}
"""MVP, Section 5.1 and Algorithm 1."""


def default_recipe(images_per_class: float, strategy: str = "mvp") -> dict[str, Any]:
    """The default recipe for a task with so many training images a class.

    Chosen on tuning tasks that no benchmark uses (docs/findings.md). Weights that no bank has brought near the task
    have farther to go, and want a larger rate.
    """
    lr = 0.03
    if strategy == "mvp":
        lr = 0.003 if images_per_class < 10 else 0.01 if images_per_class < 50 else 0.02
    return {
        "neighbours": 1,
        "by": SIMILARITY,
        "vote": "top",
        "head": "auto",
        "recalibrate": True,
        "lr": lr,
        "momentum": 0.9,
        "ema": 0.95,
        "warmup_steps": 10,
        "freeze_stem": True,
        "mixup": 0.0,
    }


def shown_defaults() -> dict[str, str]:
    """What the default recipe of MVP says, for help texts: one value, or those from few to many images a class."""
    plans = [default_recipe(n) for n in (5, 20, 100)]
    return {name: " / ".join(dict.fromkeys(str(plan[name]) for plan in plans)) for name in plans[0]}


def recipe(preset: str, images_per_class: float, strategy: str) -> dict[str, Any]:
    """What a preset says about the options that were left open."""
    return dict(PAPER) if preset == "paper" else default_recipe(images_per_class, strategy)
