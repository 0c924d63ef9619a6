"""Pictures of a bank: a map of its tasks, the overlap of their masks, and the overlap against similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..drawing.style import BLUE, GRAY, ORANGE, WIDTH, figure, with_style
from ..masks.mask import Mask

MAX_NAMED_TASKS = 64
"""With more tasks than this, names would not be readable."""


def pairwise_iou(masks: Sequence[Mask]) -> np.ndarray:
    """Return the intersection over union of every two masks, over all layers together: float64 (masks, masks)."""
    if not masks:
        return np.zeros((0, 0))
    flags = np.array([np.concatenate(list(mask.to_bools().values())) for mask in masks], dtype=np.float64)
    n_shared, n_kept = flags @ flags.T, flags.sum(1)
    return n_shared / np.maximum(n_kept[:, None] + n_kept[None, :] - n_shared, 1)


def positions(iou: np.ndarray) -> np.ndarray:
    """Place tasks in a plane so that their distances are close to ``1 - iou``.

    The method is classical multidimensional scaling (Torgerson, 1952, "Multidimensional scaling: I").

    Args:
        iou: float64 (n, n), from `pairwise_iou`.

    Returns:
        float64 (n, 2).
    """
    n = len(iou)
    squared_distances = (1 - iou) ** 2
    center = np.eye(n) - 1 / max(1, n)
    values, vectors = np.linalg.eigh(-0.5 * center @ squared_distances @ center)
    largest = np.argsort(values)[::-1][:2]
    points = vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0))
    signs = np.sign(points[np.abs(points).argmax(0), range(points.shape[1])])
    oriented_points = points * np.where(
        signs == 0, 1, signs
    )  # eigenvectors have any sign: the picture shall not depend on it
    return np.pad(oriented_points, ((0, 0), (0, 2 - oriented_points.shape[1])))


@with_style
def map_figure(places: np.ndarray, voters: int = 0, target: int | None = None, show_numbers: bool = False) -> Any:
    """Draw a map of tasks: tasks that keep the same units are near each other.

    Args:
        places: (n, 2), the points of the tasks, from `positions`.
        voters: how many tasks vote; they are the first ones, and are marked with their rank.
        target: the row of the new task, if there is one.
        show_numbers: whether every task is shown as its number, from 1.

    Returns:
        A matplotlib figure.
    """
    picture, axes = figure(WIDTH, 3.8)
    other_tasks = [i for i in range(len(places)) if i >= voters and i != target]
    opacity = 0 if show_numbers else 0.6  # invisible points still set the limits of the axes
    axes.scatter(*places[other_tasks].T, s=26, color=GRAY, alpha=opacity, label="tasks of the bank", linewidth=0)
    if target is not None:  # larger than a voter, because a single voter has the same place and covers it
        axes.scatter(*places[[target]].T, s=300, color=ORANGE, marker="*", label="your task", linewidth=0)
    if voters:
        axes.scatter(*places[:voters].T, s=32, color=BLUE, marker="s", label="tasks that vote", linewidth=0)
    for i in other_tasks if show_numbers else []:
        axes.annotate(str(i + 1), places[i], ha="center", va="center", fontsize=7, color=BLUE)
    for i in range(voters):
        axes.annotate(str(i + 1), places[i], xytext=(5, 4), textcoords="offset points", fontweight="bold")
    axes.set_axis_off()
    axes.margins(0.12)
    axes.set_aspect("equal", adjustable="datalim")
    if voters or target is not None:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, columnspacing=1, handletextpad=0.2)
    return picture


@with_style
def heat_figure(iou: np.ndarray, names: Sequence[str]) -> Any:
    """Draw the overlap of the masks of every two tasks, with names at the edges if there is room.

    Args:
        iou: float64 (n, n), from `pairwise_iou`.
        names: short names of the tasks.
    """
    picture, axes = figure(WIDTH, 4)
    off_diagonal = np.where(np.eye(len(iou), dtype=bool), np.nan, iou)
    image = axes.imshow(off_diagonal, cmap="viridis", interpolation="none")
    if len(names) <= MAX_NAMED_TASKS:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
        axes.set_yticks(range(len(names)), names, fontsize=5)
        axes.tick_params(length=1)
    else:
        axes.set(xticks=[], yticks=[])
    picture.colorbar(image, label="overlap of two masks (IoU)")
    return picture


@with_style
def similarity_figure(similarity: np.ndarray, iou: np.ndarray, name: str) -> Any:
    """Draw the overlap of masks against the similarity of tasks, with a point per pair (Figures 1 and 2 of MVP).

    Args:
        similarity: float (pairs,), the similarity of the two tasks.
        iou: float (pairs,), the overlap of their masks, in [0, 1].
        name: what the axis calls the similarity.
    """
    picture, axes = figure(WIDTH, 3.3)
    axes.scatter(similarity, iou, s=9, alpha=0.35, color=BLUE, linewidth=0)
    if len(similarity) > 2 and np.ptp(similarity) > 0:
        edges = np.quantile(similarity, np.linspace(0, 1, 9))
        bins = np.clip(np.searchsorted(edges, similarity, side="right") - 1, 0, 7)
        bin_means = [
            (similarity[bins == bin_number].mean(), iou[bins == bin_number].mean())
            for bin_number in range(8)
            if (bins == bin_number).any()
        ]
        axes.plot(*zip(*bin_means, strict=True), "o-", color=ORANGE, label="mean of an eighth of the pairs")
        axes.legend(loc="upper left")
    axes.set(xlabel=f"similarity of two tasks ({name})", ylabel="IoU of their masks")
    axes.grid(alpha=0.3)
    return picture
