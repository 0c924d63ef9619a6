"""Pictures of a bank: a map of its tasks, how much their masks overlap, and whether similar tasks overlap more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..drawing.style import BLUE, GRAY, ORANGE, WIDTH, figure, styled
from ..masks.mask import Mask

MOST_NAMED = 64


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
    center = np.eye(n) - 1 / max(1, n)
    values, vectors = np.linalg.eigh(-0.5 * center @ squared @ center)
    two = np.argsort(values)[::-1][:2]
    found = vectors[:, two] * np.sqrt(np.maximum(values[two], 0))
    signs = np.sign(found[np.abs(found).argmax(0), range(found.shape[1])])
    flat = found * np.where(signs == 0, 1, signs)  # the same picture each time
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


@styled
def map_figure(places: np.ndarray, voters: int = 0, target: int | None = None, numbered: bool = False) -> Any:
    """A map of tasks: near ones keep the same units.

    Args:
        places: (n, 2), of the tasks and the target.
        voters: how many of them, the first, vote; they are marked with their rank.
        target: number of the new task, if it is among them.
        numbered: whether every task stands there as its number, from 1.
    """
    made, axes = figure(WIDTH, 3.8)
    others = [i for i in range(len(places)) if i >= voters and i != target]
    seen = 0 if numbered else 0.6  # the points are there for the axes' limits
    axes.scatter(*places[others].T, s=26, color=GRAY, alpha=seen, label="tasks of the bank", linewidth=0)
    if target is not None:  # below a voter in the same place, and larger: one that votes alone is copied
        axes.scatter(*places[[target]].T, s=300, color=ORANGE, marker="*", label="your task", linewidth=0)
    if voters:
        axes.scatter(*places[:voters].T, s=32, color=BLUE, marker="s", label="tasks that vote", linewidth=0)
    for i in others if numbered else []:
        axes.annotate(str(i + 1), places[i], ha="center", va="center", fontsize=7, color=BLUE)
    for i in range(voters):
        axes.annotate(str(i + 1), places[i], xytext=(5, 4), textcoords="offset points", fontweight="bold")
    axes.set_axis_off()
    axes.margins(0.12)
    axes.set_aspect("equal", adjustable="datalim")
    if voters or target is not None:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, columnspacing=1, handletextpad=0.2)
    return made


@styled
def heat_figure(iou: np.ndarray, names: Sequence[str]) -> Any:
    """How much the masks of every two tasks overlap; short names stand at the edges, if not too many."""
    made, axes = figure(WIDTH, 4)
    shown = np.where(np.eye(len(iou), dtype=bool), np.nan, iou)
    image = axes.imshow(shown, cmap="viridis", interpolation="none")
    if len(names) <= MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
        axes.set_yticks(range(len(names)), names, fontsize=5)
        axes.tick_params(length=1)
    else:
        axes.set(xticks=[], yticks=[])
    made.colorbar(image, label="overlap of two masks (IoU)")
    return made


@styled
def similarity_figure(similarity: np.ndarray, iou: np.ndarray, name: str) -> Any:
    """Overlap of masks against similarity of tasks, a point for every two (Figures 1 and 2 of MVP).

    Args:
        similarity, iou: (pairs,).
        name: of the similarity.
    """
    made, axes = figure(WIDTH, 3.3)
    axes.scatter(similarity, iou, s=9, alpha=0.35, color=BLUE, linewidth=0)
    if len(similarity) > 2 and np.ptp(similarity) > 0:
        edges = np.quantile(similarity, np.linspace(0, 1, 9))
        place = np.clip(np.searchsorted(edges, similarity, side="right") - 1, 0, 7)
        middles = [(similarity[place == b].mean(), iou[place == b].mean()) for b in range(8) if (place == b).any()]
        axes.plot(*zip(*middles, strict=True), "o-", color=ORANGE, label="mean of an eighth of the pairs")
        axes.legend(loc="upper left")
    axes.set(xlabel=f"similarity of two tasks ({name})", ylabel="IoU of their masks")
    axes.grid(alpha=0.3)
    return made
