"""The schedule of Algorithm 2 of MVP: how many units each layer holds while it is pruned step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..config import option
from ..masks.mask import keep_count
from .method import SgdOptions


@dataclass(frozen=True)
class IterativeOptions(SgdOptions):
    """How units go while a network is trained; MVP, Algorithm 2.

    The paper gives J and r, but neither h nor p; h = 25 with p = 10% is what its FLOPs column implies
    (docs/explanation/methods.md).
    """

    prune_every: int = option(25, "h: steps between two prunings.", low=1, high=1_000_000)
    prune_share: float = option(0.1, "p: share of a layer's remaining units pruned at a time.", low=0.001, high=1.0)


def counts_by_step(sizes: Mapping[str, int], options: IterativeOptions) -> Iterator[dict[str, int]]:
    """How many units each layer holds in each step: the schedule of Algorithm 2, which no image changes."""
    counts, goal = dict(sizes), {name: keep_count(size, options.ratio) for name, size in sizes.items()}
    for step in range(1, options.steps + 1):
        yield counts
        if step % options.prune_every == 0 and counts != goal:
            counts = {name: remaining(count, goal[name], options.prune_share) for name, count in counts.items()}


def least_steps(sizes: Mapping[str, int], options: IterativeOptions) -> int:
    """Steps after which the schedule has reached the ratio."""
    counts, goal = dict(sizes), {name: keep_count(size, options.ratio) for name, size in sizes.items()}
    prunings = 0
    while counts != goal:
        counts = {name: remaining(count, goal[name], options.prune_share) for name, count in counts.items()}
        prunings += 1
    return prunings * options.prune_every


def remaining(held: int, goal: int, share: float) -> int:
    """How many of a layer's units stay when a share of them goes: at least one goes, until the goal is reached."""
    return max(goal, held - max(1, round(share * held)))
