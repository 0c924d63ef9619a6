"""Pictures of a bank: how much the masks of its tasks overlap, as a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..masks import Mask
from .style import BLUE, GREY, ORANGE, figure, short, styled


def overlaps(masks: Sequence[Mask]) -> np.ndarray:
    """Intersection over union of every two masks over all layers together: float64 (n, n)."""
    if not masks:
        return np.zeros((0, 0))
    flags = np.array([np.concatenate(list(mask.to_bools().values())) for mask in masks], dtype=np.float64)
    shared, held = flags @ flags.T, flags.sum(1)
    return shared / np.maximum(held[:, None] + held[None, :] - shared, 1)


def positions(iou: np.ndarray) -> np.ndarray:
    """Points of a plane whose distances are near ``1 - iou``: classical scaling (Torgerson, 1952), (n, 2)."""
    n = len(iou)
    squared = (1 - iou) ** 2
    centre = np.eye(n) - 1 / max(1, n)
    values, vectors = np.linalg.eigh(-0.5 * centre @ squared @ centre)
    two = np.argsort(values)[::-1][:2]
    found = vectors[:, two] * np.sqrt(np.maximum(values[two], 0))
    signs = np.sign(found[np.abs(found).argmax(0), range(found.shape[1])])
    flat = found * np.where(signs == 0, 1, signs)  # the same picture each time
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


@styled
def map_figure(places: np.ndarray, names: Sequence[str], voters: Sequence[int], target: int | None = None) -> Any:
    """A map of tasks: near ones keep the same units.

    Args:
        places: (n, 2), of the tasks and the target.
        names: what they are called.
        voters: numbers of those that vote.
        target: number of the new task, if it is among them.
    """
    made, axes = figure(6.2, 4.2)
    others = [i for i in range(len(places)) if i not in voters and i != target]
    axes.scatter(*places[others].T, s=26, color=GREY, alpha=0.6, label="tasks of the bank", linewidth=0)
    if len(voters):
        axes.scatter(*places[list(voters)].T, s=60, color=BLUE, marker="s", label="tasks that vote", linewidth=0)
    if target is not None:
        axes.scatter(*places[[target]].T, s=150, color=ORANGE, marker="*", label="your task", zorder=3)
    for i in voters:
        axes.annotate(short(names[i]), places[i], xytext=(6, 4), textcoords="offset points", fontsize=7)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.12)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=8)
    return made
