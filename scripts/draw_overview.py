#!/usr/bin/env python
"""Draw how it works, from a real run on the demo bank: docs/overview.png.

uv run scripts/draw_overview.py
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.figure import Figure

from hf_metaprune import AdaptResult, Bank, MetaPruner
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.task import TaskData
from hf_metaprune.drawing.style import BLUE, GRAY, ORANGE
from hf_metaprune.files.storage import write_bytes

LAYER, SHOWN = "layer3.0.conv2", 4


def photos(panel: Any, data: TaskData) -> None:
    """Four training images of each class."""
    rows = []
    for c in range(len(data.task.labels)):
        images = data.train.images[data.train.targets == c][:SHOWN].permute(0, 2, 3, 1).numpy()
        rows.append(np.concatenate(list(images), axis=1))
    wall = np.concatenate(rows)
    panel.imshow(wall)
    side = wall.shape[0] // len(rows)
    panel.set_yticks([side * (i + 0.5) for i in range(len(rows))], data.task.labels, fontsize=8)
    panel.set_xticks([])
    panel.set_title("1. A few photos of your classes", fontsize=10)


def masks(panel: Any, bank: Bank, result: AdaptResult) -> None:
    """One layer's units: those that each neighbor keeps, their votes, and those that were chosen."""
    entries = [bank[n["id"]] for n in result.report.neighbors]
    size = entries[0].mask.sizes[LAYER]
    rows = np.zeros((len(entries), size))
    for row, entry in zip(rows, entries, strict=True):
        row[entry.mask[LAYER]] = 1
    votes, filters = rows.sum(0), result.model.mask()[LAYER]
    names = [", ".join(label.replace("_", " ") for label in entry.labels) for entry in entries]
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        panel.bar(np.flatnonzero(row), 0.7, bottom=-y - 0.35, width=0.9, color=BLUE)
        panel.text(0, -y + 0.42, name, fontsize=7, va="bottom")
    bottom = -len(rows) - 1.2
    panel.bar(range(size), 1.3 * votes / len(rows), bottom=bottom, width=0.9, color=GRAY)
    panel.bar(filters, 1.3 * votes[filters] / len(rows), bottom=bottom, width=0.9, color=ORANGE)
    panel.text(0, bottom + 1.35, f"votes; kept: {len(filters)} of {size} filters of {LAYER}", fontsize=7, va="bottom")
    panel.set(xlim=(-1, size), ylim=(bottom - 0.1, 1.0))
    panel.set_title(f"2. The {len(rows)} nearest tasks of {len(bank)} vote; their weights are averaged", fontsize=10)
    panel.axis("off")


def curves(panel: Any, with_bank: AdaptResult, without: AdaptResult) -> None:
    """Accuracy by step with and without the bank."""
    report = with_bank.report
    for name, result, color in (("with the bank", with_bank, BLUE), ("without", without, ORANGE)):
        points = result.report.accuracy_at_step
        panel.plot(list(points), [100 * a for a in points.values()], "o-", color=color, label=name)
    panel.set(xlabel="steps of fine-tuning", ylabel="accuracy, %")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8)
    params, macs = report.params / report.base_params, report.macs / report.base_macs
    panel.set_title(f"3. 100 steps; {params:.0%} of the parameters, {macs:.0%} of the MACs", fontsize=10)


def main(
    bank: Annotated[Path, typer.Option(help="The bank.")] = Path("space/demo_bank"),
    data: Annotated[Path, typer.Option(help="The task.")] = Path("space/examples/unseen_five"),
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/overview.png"),
    neighbors: Annotated[int, typer.Option(help="N.")] = 3,
) -> None:
    """Adapt with and without the bank, and draw."""
    pruner = MetaPruner.from_hub(bank)
    task = read_task_data(data, pruner.bank.base.preprocessing)
    with_bank = pruner.adapt(task, neighbors=neighbors)
    without = pruner.adapt(task, strategy="no-bank")
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(0.9, 1.7, 1.2))
    photos(left, task)
    masks(middle, pruner.bank, with_bank)
    curves(right, with_bank, without)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90, bbox_inches="tight")
    write_bytes(out, image.getvalue())


if __name__ == "__main__":
    typer.run(main)
