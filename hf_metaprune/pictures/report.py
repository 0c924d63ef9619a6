"""Pictures of a report, as PNG bytes by matplotlib; in colours that colour-blind readers tell apart."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .masks import Mask
    from .report import AdaptReport

BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#8C8C8C", "#009E73"  # Okabe & Ito
LEAST_RANGE = 25  # points of accuracy; less would make noise look like news
MAX_CONFUSION = 60  # classes; a larger matrix cannot be read


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight")
    return out.getvalue()


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def curve_picture(curves: dict[str, dict[int, float]]) -> bytes:
    """Accuracy against steps, one line for each name."""
    figure, axes = _figure(6, 3.6)
    for (name, points), color in zip(curves.items(), [BLUE, ORANGE, GREEN, GREY], strict=False):
        last = f"{name}: {list(points.values())[-1]:.1%}"
        axes.plot(list(points), [100 * a for a in points.values()], "o-", color=color, label=last)
    axes.set(xlabel="optimiser steps", ylabel="accuracy, %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, min(low, high - LEAST_RANGE)), min(101, max(high, low + LEAST_RANGE)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return _png(figure)


def cost_picture(rows: list[dict[str, Any]], base_macs: int) -> bytes:
    """Accuracy against the share of the base's MACs, with the 95% interval of each model."""
    figure, axes = _figure(6, 3.6)
    shares = [100 * row["macs"] / base_macs for row in rows]
    accuracies = [100 * row["accuracy"] for row in rows]
    spans = [[100 * abs(row["accuracy"] - bound) for bound in row["accuracy_interval"]] for row in rows]
    axes.errorbar(shares, accuracies, list(zip(*spans, strict=True)), fmt="o-", color=BLUE, capsize=3)
    for row, x, y in zip(rows, shares, accuracies, strict=True):
        axes.annotate(f"r = {row['ratio']:g}", (x, y), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.set(xlabel="MACs, % of the base's", ylabel="accuracy, %", xlim=(0, None))
    axes.grid(alpha=0.3)
    return _png(figure)


def confusion_picture(confusion: list[list[int]], labels: list[str]) -> bytes:
    """Counts of true (rows) against predicted (columns) classes."""
    matrix = np.array(confusion, dtype=float)
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    side = 2.2 + 0.42 * len(labels)
    figure, axes = _figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [label if len(label) <= 24 else label[:23] + "…" for label in labels]
    names = [name.replace("$", r"\$") for name in names]
    axes.set_xticks(range(len(labels)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(labels) <= 20:
        for i, j in np.ndindex(matrix.shape):
            axes.text(
                j, i, f"{matrix[i, j]:.0f}", ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black"
            )
    return _png(figure)


def votes_picture(agreement: dict[str, dict[int, int]], voters: int) -> bytes:
    """For each layer, how many of the kept units how many neighbours had kept."""
    layers = list(agreement)
    figure, axes = _figure(7, 1.4 + 0.22 * len(layers))
    left = np.zeros(len(layers))
    for held in range(voters, -1, -1):
        counts = np.array([agreement[name].get(held, 0) for name in layers], dtype=float)
        widths = counts / np.array([max(1, sum(agreement[name].values())) for name in layers])
        shade = GREY if held == 0 else _mix(BLUE, 0.25 + 0.75 * held / voters)
        axes.barh(range(len(layers)), 100 * widths, left=left, color=shade, label=f"{held} of {voters}")
        left += 100 * widths
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="share of the kept units, %", title="Neighbours that keep the chosen units", xlim=(0, 100))
    axes.legend(title="kept by", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _png(figure)


def units_picture(mask: Mask) -> bytes:
    """Which units each layer keeps, in the base's order: a stripe a layer, a mark a unit."""
    figure, axes = _figure(7, 1.2 + 0.24 * len(mask))
    for row, (name, kept) in enumerate(mask.items()):
        size = mask.sizes[name]
        axes.broken_barh([(0, 1)], (row - 0.38, 0.76), color="#EEEEEE")
        axes.broken_barh([(unit / size, 1 / size) for unit in kept], (row - 0.38, 0.76), color=BLUE)
        axes.text(1.01, row, f"{len(kept)} of {size}", va="center", fontsize=7)
    axes.set_yticks(range(len(mask)), list(mask), fontsize=7)
    axes.set_xticks([])
    axes.set(xlim=(0, 1), ylim=(len(mask) - 0.5, -0.5), title="Units kept in each layer, in the base's order")
    return _png(figure)


def _mix(color: str, strength: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - c) for c in to_rgb(color))


def report_pictures(report: AdaptReport) -> dict[str, tuple[str, bytes]]:
    """File name and PNG of each picture that a report has data for, by title."""
    out = {}
    if len(report.accuracy_at_step) > 1:
        curves = {"this model": report.accuracy_at_step, **report.rivals}
        out["Accuracy by step"] = ("accuracy.png", curve_picture(curves))
    if np.any(report.confusion) and len(report.labels) <= MAX_CONFUSION:
        out["Confusion matrix"] = ("confusion.png", confusion_picture(report.confusion, report.labels))
    voters = len(report.neighbours)
    if voters > 1 and report.vote_agreement:
        out["Votes"] = ("votes.png", votes_picture(report.vote_agreement, voters))
    return out
