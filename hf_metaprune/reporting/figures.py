"""Pictures of one model: how accurate it is, where it errs, what it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..drawing.style import BLUE, GRAY, SERIES, WIDTH, figure, short, styled, tint
from ..drawing.units import bare, stripe
from ..masks.mask import Mask

LEAST_RANGE = 25  # points of accuracy; less would make noise look like news
MAX_CONFUSION = 60  # classes; a larger matrix cannot be read


@styled
def curve_figure(curves: dict[str, dict[int, float]]) -> Any:
    """Accuracy against steps, one line for each name."""
    made, axes = figure(WIDTH, 3.2)
    for (name, points), (color, mark) in zip(curves.items(), SERIES, strict=False):
        last = f"{short(name)}: {list(points.values())[-1]:.1%}"
        axes.plot(list(points), [100 * a for a in points.values()], marker=mark, color=color, label=last)
    axes.set(xlabel="steps of fine-tuning", ylabel="accuracy, %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, min(low, high - LEAST_RANGE)), min(101, max(high, low + LEAST_RANGE)))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return made


@styled
def cost_figure(rows: list[dict[str, Any]], base_macs: int) -> Any:
    """Accuracy against the share of the base's MACs, with the 95% interval of each model."""
    made, axes = figure(WIDTH, 3.2)
    shares = [100 * row["macs"] / base_macs for row in rows]
    accuracies = [100 * row["accuracy"] for row in rows]
    spans = [[100 * abs(row["accuracy"] - bound) for bound in row["accuracy_interval"]] for row in rows]
    axes.errorbar(shares, accuracies, list(zip(*spans, strict=True)), fmt="o-", color=BLUE, capsize=3)
    for row, x, y in zip(rows, shares, accuracies, strict=True):
        axes.annotate(f"r = {row['ratio']:g}", (x, y), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.set(xlabel="MACs, % of the base's", ylabel="accuracy, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    return made


@styled
def confusion_figure(confusion: list[list[int]], labels: list[str]) -> Any:
    """Counts of true (rows) against predicted (columns) classes."""
    matrix = np.array(confusion, dtype=float)
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    side = 2.2 + 0.42 * len(labels)
    made, axes = figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    names = [short(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(labels) <= 20:
        for i, j in np.ndindex(matrix.shape):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]:.0f}", ha="center", va="center", color=color)
    return made


@styled
def agreement_figure(agreement: dict[str, dict[int, int]], voters: int) -> Any:
    """For each layer, how many of the kept units how many neighbors had kept."""
    layers = list(agreement)
    made, axes = figure(WIDTH, 1.8 + 0.22 * len(layers))
    left = np.zeros(len(layers))
    for held in range(voters, -1, -1):
        counts = np.array([agreement[name].get(held, 0) for name in layers], dtype=float)
        widths = counts / np.array([max(1, sum(agreement[name].values())) for name in layers])
        shade = GRAY if held == 0 else tint(BLUE, 0.25 + 0.75 * held / voters)
        axes.barh(range(len(layers)), 100 * widths, left=left, color=shade, label=f"{held} of {voters}")
        left += 100 * widths
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="share of the kept units, %", title="Neighbors that keep the chosen units", xlim=(0, 100))
    made.legend(title="kept by", loc="outside lower center", ncols=3)
    return made


@styled
def vote_figure(layer: str, masks: dict[str, Mask], chosen: Mask) -> Any:
    """One layer's vote: a stripe for each neighbor with the units that it keeps, and below those of the new model.

    Args:
        masks: the neighbors' by name.
    """
    size = chosen.sizes[layer]
    made, axes = figure(WIDTH, 0.75 + 0.3 * (len(masks) + 1))
    for row, mask in enumerate(masks.values()):
        stripe(axes, row, mask[layer], size, BLUE)
    stripe(axes, len(masks), chosen[layer], size, SERIES[1][0])
    counts = [len(mask[layer]) for mask in (*masks.values(), chosen)]
    for row, count in enumerate(counts):
        axes.text(1.01, row, f"{count} of {size}", va="center")
    axes.set_yticks(range(len(counts)), [*map(short, masks), "new model"])
    bare(axes, len(counts))
    return made
