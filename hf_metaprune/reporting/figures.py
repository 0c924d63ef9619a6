"""Pictures of one model: its accuracy, its errors, and the vote on its units."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..drawing.style import BLUE, GRAY, SERIES, WIDTH, figure, short_name, tint, with_style
from ..drawing.units import draw_stripe, hide_axes
from ..masks.mask import Mask

LEAST_RANGE = 25
"""Points of accuracy that an axis covers at least: less would make noise look like a difference."""
MAX_CONFUSION, MAX_WRITTEN = 40, 20
"""Most classes of a confusion matrix, and most for which the numbers are written into it."""
LONGEST_LAYER = 60
"""Most characters of a layer's name in a picture."""
MAX_DRAWN_VOTERS, MAX_DRAWN_LAYERS = 20, 100
"""Most voters and layers of a drawing of the votes."""


@with_style
def curve_figure(curves: dict[str, dict[int, float]]) -> Any:
    """Draw accuracy against steps, with one line per name.

    Args:
        curves: accuracy in [0, 1] by step, by name.
    """
    picture, axes = figure(WIDTH, 3.2)
    for (name, points), (color, mark) in zip(curves.items(), SERIES, strict=False):
        caption = f"{short_name(name)}: {list(points.values())[-1]:.1%}"
        axes.plot(
            list(points), [100 * accuracy for accuracy in points.values()], marker=mark, color=color, label=caption
        )
    axes.set(xlabel="steps of fine-tuning", ylabel="accuracy, %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, min(low, high - LEAST_RANGE)), min(101, max(high, low + LEAST_RANGE)))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return picture


@with_style
def cost_figure(rows: list[dict[str, Any]], base_macs: int) -> Any:
    """Draw accuracy against the share of the base's MACs, with the 95% interval of each model.

    Args:
        rows: the models, as `sweep.curve_rows` returns them.
        base_macs: MACs per image of the base.
    """
    picture, axes = figure(WIDTH, 3.2)
    shares = [100 * row["macs"] / base_macs for row in rows]
    accuracies = [100 * row["accuracy"] for row in rows]
    error_bars = [[100 * abs(row["accuracy"] - bound) for bound in row["accuracy_interval"]] for row in rows]
    axes.errorbar(shares, accuracies, list(zip(*error_bars, strict=True)), fmt="o-", color=BLUE, capsize=3)
    for row, x, y in zip(rows, shares, accuracies, strict=True):
        axes.annotate(f"r = {row['ratio']:g}", (x, y), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.set(xlabel="MACs, % of the base's", ylabel="accuracy, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    return picture


@with_style
def confusion_figure(confusion: list[list[int]], labels: list[str]) -> Any:
    """Draw a confusion matrix.

    Args:
        confusion: test images by true class (rows) and predicted class (columns).
        labels: the class labels.
    """
    matrix = np.array(confusion, dtype=float)
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    side = 2.2 + 0.42 * min(len(labels), MAX_WRITTEN) + 0.15 * max(0, len(labels) - MAX_WRITTEN)
    picture, axes = figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    names = [short_name(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(labels) <= MAX_WRITTEN:
        for i, j in np.ndindex(matrix.shape):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:.0f}", ha="center", va="center", color=color)
    return picture


@with_style
def agreement_figure(agreement: dict[str, dict[int, int]], voters: int) -> Any:
    """Draw the shares of each layer's kept units by the number of neighbors that keep them.

    Args:
        agreement: by layer and number of neighbors, the number of units.
        voters: number of neighbors.
    """
    layers = list(agreement)
    picture, axes = figure(WIDTH, 1.8 + 0.22 * len(layers))
    starts = np.zeros(len(layers))
    for n_voters in range(voters, -1, -1):
        counts = np.array([agreement[name].get(n_voters, 0) for name in layers], dtype=float)
        widths = counts / np.array([max(1, sum(agreement[name].values())) for name in layers])
        shade = GRAY if n_voters == 0 else tint(BLUE, 0.25 + 0.75 * n_voters / voters)
        axes.barh(range(len(layers)), 100 * widths, left=starts, color=shade, label=f"{n_voters} of {voters}")
        starts += 100 * widths
    axes.set_yticks(range(len(layers)), [short_name(name, LONGEST_LAYER) for name in layers], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="share of the kept units, %", title="Neighbors that keep the chosen units", xlim=(0, 100))
    picture.legend(title="kept by", loc="outside lower center", ncols=3)
    return picture


@with_style
def vote_figure(layer: str, masks: dict[str, Mask], new_mask: Mask) -> Any:
    """Draw one layer's vote: a stripe per neighbor with the units that it keeps, and below a stripe of the new model.

    Args:
        layer: name of the layer.
        masks: the neighbors' masks by name.
        new_mask: the mask of the new model.
    """
    size = new_mask.sizes[layer]
    picture, axes = figure(WIDTH, 0.75 + 0.3 * (len(masks) + 1))
    for row, mask in enumerate(masks.values()):
        draw_stripe(axes, row, mask[layer], size, BLUE)
    draw_stripe(axes, len(masks), new_mask[layer], size, SERIES[1][0])
    counts = [len(mask[layer]) for mask in (*masks.values(), new_mask)]
    for row, count in enumerate(counts):
        axes.text(1.01, row, f"{count} of {size}", va="center")
    axes.set_yticks(range(len(counts)), [*map(short_name, masks), "new model"])
    hide_axes(axes, len(counts))
    return picture
