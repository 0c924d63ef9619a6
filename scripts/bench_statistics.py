#!/usr/bin/env python
"""Benchmark: the same trained networks with the batch norm statistics that training leaves, and with new ones.

On the tuning targets of `bench_adapt.py`; the rows are its, too. A run's line is printed when it is done, and the means
at the end.

    uv run scripts/bench_statistics.py --bank runs/bank --data ../shared/data/cifar100 --images 5,20,100,500
    uv run scripts/bench_statistics.py --bank runs/bank --data ../shared/data/cifar100 --row "IFP, 1000 steps"
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from bench_adapt import N_TARGETS, rows, targets
from build_demo_bank import read_cifar100

from hf_metaprune import MetaPruner
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import TaskData
from hf_metaprune.training import loop as training
from hf_metaprune.training import statistics

COUNTS = (250, 500, 1000, 2500)
"""From how many images statistics are taken, at most."""


def measured(task: TaskData, accuracies: list[float]) -> Any:
    """`recalibrate`, noting the accuracy before, and after with statistics of each count."""

    def recalibrate(model: Any, images: ImageSet, device: torch.device, *, seed: int = 0) -> int:
        accuracies[:] = [training.accuracy(model, task.evaluation, device)]  # the last call, at the end, is what stays
        for count in COUNTS:
            with patch.object(statistics, "STATISTICS_IMAGES", count):
                true_recalibrate(model, images, device, seed=seed)
            accuracies.append(training.accuracy(model, task.evaluation, device))
        return true_recalibrate(model, images, device, seed=seed)

    true_recalibrate = training.recalibrate
    return patch.object(training, "recalibrate", recalibrate)


def main(
    bank: Annotated[Path, typer.Option(help="The bank.")] = Path("runs/bank"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    row_names: Annotated[list[str] | None, typer.Option("--row", help="Rows; MVP and no bank if left out.")] = None,
    images: Annotated[str, typer.Option(help="Images a class, separated by commas.")] = "500",
    n_targets: Annotated[int, typer.Option("--targets", help="Targets of each kind.")] = N_TARGETS,
    seed: Annotated[int, typer.Option(help="Draws images, batches and first weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print accuracies in percent: as training leaves it, then with statistics of each number of images."""
    torch.set_num_threads(threads)
    pruner = MetaPruner.from_hub(bank)
    cifar = read_cifar100(pruner.bank.base, data)
    means: dict[tuple[str, int, str], list[list[float]]] = defaultdict(list)
    selection = [row for row in rows() if row.name in (row_names or ("MVP", "no bank"))]
    for per_class in map(int, images.split(",")):
        for kind, classes in targets(True, n_targets):
            task = cifar.select(classes, per_class, seed)
            for row in selection:
                accuracies: list[float] = []
                with measured(task, accuracies):
                    row.run(pruner, task, seed)
                means[row.name, per_class, kind].append(accuracies)
                print(row.name, per_class, kind, *(f"{100 * x:.1f}" for x in accuracies), flush=True)
    print(f"\n| row | images per class | classes | before | {' | '.join(f'of {c}' for c in COUNTS)} | gain (of 500) |")
    print("| --- " * (len(COUNTS) + 5) + "|")
    for (name, per_class, kind), values in means.items():
        table = 100 * np.array(values)
        gain = table[:, 1 + COUNTS.index(500)] - table[:, 0]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float("nan")
        cells = " | ".join(f"{x:.1f}" for x in table.mean(0))
        print(f"| {name} | {per_class} | {kind} | {cells} | {gain.mean():+.1f} ± {error:.1f} |")


if __name__ == "__main__":
    typer.run(main)
