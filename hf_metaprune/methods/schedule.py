"""The schedule of MVP's Algorithm 2: how many units each layer has while it is pruned step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..masks.mask import keep_count
from ..options import option
from .method import SgdOptions


@dataclass(frozen=True)
class IterativeOptions(SgdOptions):
    """Options of methods that prune while they train (MVP, Algorithm 2).

    The paper gives J and r, but neither h nor p. The defaults, h = 25 and p = 10%, are what the paper's FLOPs column
    implies (docs/explanation/methods.md).

    Example:
        Half of the remaining units are pruned every ten steps, until a tenth is left:

        >>> options = IterativeOptions(ratio=0.9, steps=100, prune_every=10, prune_share=0.5)
        >>> tuple(dict.fromkeys(counts["conv1"] for counts in counts_by_step({"conv1": 64}, options)))
        (64, 32, 16, 8, 6)
    """

    prune_every: int = option(25, "h: steps between two prunings.", low=1, high=1_000_000)
    prune_share: float = option(0.1, "p: share of a layer's remaining units pruned at a time.", low=0.001, high=1.0)


def counts_by_step(sizes: Mapping[str, int], options: IterativeOptions) -> Iterator[dict[str, int]]:
    """Yield how many units each layer has in each training step. The images do not change this schedule.

    Args:
        sizes: units of each layer before pruning, by name.
        options: the schedule.

    Yields:
        Units by layer, once per step.
    """
    counts, goal = dict(sizes), {name: keep_count(size, options.ratio) for name, size in sizes.items()}
    for step in range(1, options.steps + 1):
        yield counts
        if step % options.prune_every == 0 and counts != goal:
            counts = {name: remaining_count(count, goal[name], options.prune_share) for name, count in counts.items()}


def least_steps(sizes: Mapping[str, int], options: IterativeOptions) -> int:
    """Return the number of steps after which the schedule has reached the ratio in every layer.

    Args:
        sizes: units of each layer before pruning, by name.
        options: the schedule; its number of steps does not matter.
    """
    counts, goal = dict(sizes), {name: keep_count(size, options.ratio) for name, size in sizes.items()}
    prunings = 0
    while counts != goal:
        counts = {name: remaining_count(count, goal[name], options.prune_share) for name, count in counts.items()}
        prunings += 1
    return prunings * options.prune_every


def remaining_count(count: int, goal: int, share: float) -> int:
    """Return how many units a layer has after one pruning.

    Args:
        count: units before.
        goal: units in the end; the layer never has fewer.
        share: share of `count` to remove; at least one unit is removed, until the goal is reached.

    Example:
        >>> remaining_count(64, goal=6, share=0.1)
        58
    """
    return max(goal, count - max(1, round(share * count)))
