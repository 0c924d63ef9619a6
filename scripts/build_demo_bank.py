#!/usr/bin/env python
"""Build the demo bank: five-class tasks of CIFAR-100 pruned by IFP at r = 0.9 with the paper's J = 1000.

Twenty classes, drawn with the seed, stay out of every task, so that unseen classes can be tried. The tasks cover
the other 80 evenly: each round of 16 tasks uses every class once. The build goes on where it was stopped, and may
run in several processes. Afterwards as many entries as fit are copied to the folder that is shipped.

    uv run scripts/build_demo_bank.py --base runs/base --out runs/bank --data ../shared/data/cifar100
    uv run scripts/build_demo_bank.py --base runs/base --out runs/bank --ship space/demo_bank

Entries that grow from the trunk of a bank, in a copy of it:

    cp -r space/demo_bank runs/grown
    uv run scripts/build_demo_bank.py --method grow --tasks 46 --base runs/grown/base --out runs/grown --data ...
    uv run scripts/build_demo_bank.py --method grow --tasks 46 --set first_ratio=0.85 --base ... --out ... --data ...

A bank of vision transformers with score masks, from the base that `pretrain_base.py --arch vit` makes:

    uv run scripts/build_demo_bank.py --method ahnp --tasks 48 --base runs/vit_base --out runs/vit_bank --data ...
    uv run scripts/build_demo_bank.py --method ahnp --tasks 48 --base runs/vit_base --out runs/vit_bank \\
        --limit-mb 10 --ship space/demo_vit_bank
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hf_metaprune.bank.bank import Bank
from hf_metaprune.bank.factory import build_bank, copy_subset, entry_ids
from hf_metaprune.data.loading import read_task_data
from hf_metaprune.data.task import Task, TaskData
from hf_metaprune.files.layout import BASE_FOLDER
from hf_metaprune.methods import GrowOptions, IterativeOptions
from hf_metaprune.models.base_model import BaseModel

log = logging.getLogger("build_demo_bank")
HELD_OUT, TASK_SIZE = 20, 5
SYNSETS = Path(__file__).with_name("cifar100_synsets.json")


def held_out_classes(seed: int = 0) -> list[int]:
    """The classes that no entry has."""
    return sorted(np.random.default_rng([seed, 1]).choice(100, HELD_OUT, replace=False).tolist())


def covering_tasks(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Tasks in rounds; each round deals the classes that are not held out into tasks of five."""
    classes = np.setdiff1d(np.arange(100), held_out_classes(seed))
    rng, tasks = np.random.default_rng([seed, 2]), []
    while len(tasks) < count:
        tasks += [tuple(sorted(group.tolist())) for group in rng.permutation(classes).reshape(-1, TASK_SIZE)]
    return tasks[:count]


def read_cifar100(base: BaseModel, data: str | None) -> TaskData:
    """CIFAR-100 at the base's size, with explicit synsets."""
    synsets = json.loads(SYNSETS.read_text())
    source = data or "uoft-cs/cifar100"
    columns = {} if data else {"image_column": "img", "label_column": "fine_label"}
    cifar = read_task_data(source, base.preprocessing, progress=sys.stderr.isatty(), **columns)
    cifar.task = Task(cifar.task.labels, tuple(synsets[label] for label in cifar.task.labels))
    cifar.source = "cifar100"
    return cifar


def pruning_schedule(steps: int, ratio: float = 0.9) -> IterativeOptions:
    """The paper's schedule, squeezed into fewer steps: as many prunings, nearer to each other."""
    every = max(1, IterativeOptions.prune_every * steps // IterativeOptions.steps)
    return IterativeOptions(ratio=ratio, steps=steps, prune_every=every)


def drawn_entries(
    bank: Bank, tasks: list[tuple[int, ...]], labels: tuple[str, ...], options: IterativeOptions, method: str = "ifp"
) -> list[str]:
    """Ids of the entries that the bank has, in the order of the draw: the first 16 cover every class once."""
    return [name for name in entry_ids(Task(labels), tasks, method, options, 0) if name in bank]


def ship(bank: Bank, out: Path, limit: int, names: list[str], name: str) -> None:
    """Copy the first entries that fit into `limit` bytes, the base included."""
    size = sum(f.stat().st_size for f in (bank.root / BASE_FOLDER).iterdir()) + 100_000  # index and card
    ids = []
    for entry in names:
        size += sum(f.stat().st_size for f in bank[entry].folder.iterdir())
        if size > limit:
            break
        ids.append(entry)
    if out.exists():
        shutil.rmtree(out)
    log.info("shipped %s", copy_subset(bank, out, ids, name=name))


def main(
    base: Annotated[Path, typer.Option(help="Folder of the base that pretrain_base.py made.")] = Path("runs/base"),
    out: Annotated[Path, typer.Option(help="Folder of the whole bank.")] = Path("runs/bank"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    tasks: Annotated[int, typer.Option(help="Number of tasks.")] = 64,
    steps: Annotated[int, typer.Option(help="J; h of IFP shrinks with it.")] = 1000,
    method: Annotated[str, typer.Option(help="Pruning method: ifp or grow; of a ViT, ahnp or amp.")] = "ifp",
    ship_to: Annotated[Path | None, typer.Option("--ship", help="Copy what fits to this folder and stop.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Options of the method, as name=value.")] = None,
    limit_mb: Annotated[float, typer.Option(help="Size of the shipped bank, in MB.")] = 20.0,
) -> None:
    """Build (or go on building) the bank, or ship it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    model = BaseModel.load(base)
    options = pruning_schedule(steps) if method != "grow" else GrowOptions()
    options = replace(options, **{name: json.loads(value) for name, value in (c.split("=") for c in changes or ())})
    class_sets = covering_tasks(tasks)
    if ship_to is not None:
        whole = Bank.open(out)
        entries = drawn_entries(whole, class_sets, model.label_names, options, method)
        ship(whole, ship_to, int(limit_mb * 1e6), entries, f"CIFAR-100 demo bank by {method.upper()}")
        return
    bank = Bank.create(out, model, name="CIFAR-100 five-class tasks", defaults={"ratio": 0.9})
    began = time.perf_counter()
    for entry in build_bank(bank, read_cifar100(model, data), class_sets, method=method, options=options):
        log.info("%d of %d, %.0f s: %s %s", len(bank), tasks, time.perf_counter() - began, entry.id, entry.metrics)


if __name__ == "__main__":
    typer.run(main)
