#!/usr/bin/env python
"""Grow a bank as a commons grows: its entries, and models adapted from them to further tasks of the same kind.

The demo bank's draw of five-class tasks goes on where the bank ends; each further task gets the model that the default
recipe makes for it from the first entries, with WordNet as the similarity. That costs seconds a task instead of
minutes, so that retrieval can be measured on two hundred entries. Goes on where it was stopped; several processes may
run.

    uv run scripts/grow_bank.py --bank runs/bank --out runs/bank208 --data ../shared/data/cifar100
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from build_demo_bank import covering_tasks, drawn_entries, pruning_schedule, read_cifar100

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.bank.factory import copy_subset, entry_id, task_seed
from hf_metaprune.data.task import Task
from hf_metaprune.errors import LockedError

log = logging.getLogger("grow_bank")


def main(
    bank: Annotated[Path, typer.Option(help="The bank to start from.")] = Path("runs/bank"),
    out: Annotated[Path, typer.Option(help="Folder of the larger bank.")] = Path("runs/bank208"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    entries: Annotated[int, typer.Option(help="Entries of the larger bank.")] = 208,
    per_class: Annotated[int, typer.Option(help="Images a class that a model is adapted with.")] = 100,
) -> None:
    """Grow it (or go on growing it)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    first = Bank.open(bank)
    labels, options = first.base.label_names, pruning_schedule(1000)
    if not out.exists():
        copy_subset(first, out, drawn_entries(first, covering_tasks(len(first)), labels, options), name="a grown bank")
    pruner, larger, cifar = MetaPruner(first), Bank.open(out), read_cifar100(first.base, data)
    for classes in covering_tasks(entries)[len(first) :]:
        name = entry_id(Task(tuple(labels[c] for c in classes)), "mvp", options, 0)
        try:
            with larger.lock(name, timeout=0):
                larger.reload()
                if name in larger:
                    continue
                seed = task_seed(0, name)
                result = pruner.adapt(cifar.select(classes, per_class, seed), by="wordnet", seed=seed, eval_steps=())
                larger.add(result.model, name, metrics=result.model.config.metrics)
                log.info("%d of %d: %s, %.3f", len(larger), entries, name, result.report.accuracy)
        except LockedError:
            continue  # another process is at it


if __name__ == "__main__":
    typer.run(main)
