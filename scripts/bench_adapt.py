#!/usr/bin/env python
"""Benchmark: adapting from a bank against ways without one, over target tasks that are not in the bank.

Targets are five-class tasks of CIFAR-100: half of the bank's classes, half of classes that no entry has. Each
row is run at several numbers of images per class and with several seeds, by the same code, on the same machine. Every
finished run is appended to a JSON lines file, so that the benchmark goes on where it was stopped; `--part 1/2` and
`--part 2/2` share the work between two processes.

    uv run scripts/bench_adapt.py --bank runs/bank --data ../shared/data/cifar100 --out docs/bench/accuracy.jsonl
    uv run scripts/bench_report.py docs/bench/accuracy.jsonl

Options are tried on other targets, which the benchmark never uses:

    uv run scripts/bench_adapt.py --tuning --row MVP --set lr=0.02 --out runs/tuning.jsonl

What a larger bank is worth: the same with the first 8, 16, 32 of its entries.

    uv run scripts/bench_adapt.py --tuning --row MVP --entries 16 --images 5,20 --out runs/size.jsonl

Torch-Pruning, which some rows compare with, is no dependency: `uv run --with torch-pruning scripts/bench_adapt.py ...`.

The same for a bank of vision transformers with score masks, with rows of its own:

    uv run scripts/bench_adapt.py --arch vit --bank runs/vit_bank --data ../shared/data/cifar100 --images 5,20,500

Wall time is only comparable with nothing else running: measure it apart, on fewer targets.

    uv run scripts/bench_adapt.py --out docs/bench/time.jsonl --targets 1 --seeds 1 --threads 2
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from build_demo_bank import (
    HELD_OUT,
    TASK_SIZE,
    covering_tasks,
    drawn_entries,
    held_out_classes,
    pruning_schedule,
    read_cifar100,
)
from teach_small_network import load_small

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.adapt.classifier import make_head
from hf_metaprune.adapt.recipes import MANY_IMAGES, default_recipe, scaled_learning_rate
from hf_metaprune.bank.factory import copy_subset
from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.images import ImageSet
from hf_metaprune.data.task import TaskData
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.methods import PruningJob, get_method
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.slicing import count_parameters
from hf_metaprune.sizing.cost_model import CostModel, count_flops
from hf_metaprune.training.feature_teacher import FeatureTeacher
from hf_metaprune.training.forward import extract_features
from hf_metaprune.training.hardware import pick_device
from hf_metaprune.training.loop import fine_tune
from hf_metaprune.training.ridge import ridge_head
from hf_metaprune.trunk.decoded_head import set_decoded_head
from hf_metaprune.trunk.decoder import Decoder

log = logging.getLogger("bench_adapt")
STEPS = (0, 20, 50, 100)
N_TARGETS = 5  # of each kind


@dataclass(frozen=True)
class Row:
    """One way to get a small model: by `adapt` with options, by a pruning method, or the whole base."""

    name: str
    by: str = "adapt"
    options: dict[str, Any] = field(default_factory=dict)
    photos: int = 0
    """Photos without labels per class, besides the labeled images."""

    def run(self, pruner: MetaPruner, data: TaskData, seed: int, photos: ImageSet | None = None) -> dict[str, Any]:
        """Accuracy by step, FLOPs, seconds by phase, parameters and MACs."""
        if self.by == "adapt":
            return run_adapt(pruner, data, seed, self.options | {"unlabeled": photos})
        if self.by == "base":
            return run_base(pruner.bank, data, seed)
        if self.by == "torch-pruning":
            return run_torch_pruning(pruner, data, seed, **self.options)
        if self.by == "small":
            return run_small(pruner.bank, data, seed, self.options.get("folder", "runs/small"), photos)
        return run_method(pruner.bank, data, seed, self.by, **self.options)


def rows() -> list[Row]:
    """The rows of the table, those of most interest first."""
    paper = {"preset": "paper"}
    table = [Row("trunk", options={"strategy": "trunk"}), Row("MVP", options={"strategy": "mvp"})]
    table += [Row("trunk, no votes on classes", options={"strategy": "trunk", "class_votes": False})]
    table += [Row("trunk, 100 photos", options={"strategy": "trunk"}, photos=100)]
    table += [Row("small network", "small"), Row("small network, 100 photos", "small", photos=100)]
    table += [Row("no bank", options={"strategy": "no-bank"})]
    table += [Row("random, paper", options=paper | {"strategy": "random"})]
    table += [Row("IFP, 1000 steps", "ifp", {"steps": 1000}), Row("IFP, 100 steps", "ifp", {"steps": 100})]
    table += [Row("whole base", "base"), Row("random", options={"strategy": "random"})]
    for n in (3, 1, 5):
        for by, name in (("leep", "LEEP"), ("wordnet", "WordNet")):
            table.append(Row(f"MVP, paper, N={n}, {name}", options=paper | {"neighbors": n, "by": by}))
            table.append(Row(f"MVP, N={n}, {name}", options={"neighbors": n, "by": by}))
    return table


RATIOS = (0.5, 0.8, 0.9, 0.95)


def vit_rows() -> list[Row]:
    """The rows for a bank of vision transformers with score masks; the ratio is the bank's where none is named."""
    table = [Row("MVP", options={"strategy": "mvp"}), Row("AHNP, 1000 steps", "ahnp", {"steps": 1000})]
    for ratio in (0.9, 0.5, 0.8, 0.95):
        for name, strategy in (("SMSP", "smsp"), ("no bank", "no-bank"), ("random", "random")):
            table.append(Row(f"{name}, r={ratio}", options={"strategy": strategy, "ratio": ratio}))
    table += [Row(f"Torch-Pruning, r={ratio}", "torch-pruning", {"ratio": ratio}) for ratio in RATIOS]
    table += [Row(f"AMP, 1000 steps, r={ratio}", "amp", {"steps": 1000, "ratio": ratio}) for ratio in RATIOS]
    paper = {"preset": "paper"}
    table += [Row("MVP, paper, N=3, LEEP", options=paper), Row("random, paper", options=paper | {"strategy": "random"})]
    table += [Row(f"SMSP, paper, r={r}", options=paper | {"strategy": "smsp", "ratio": r}) for r in RATIOS]
    return [*table, Row("AHNP, 100 steps", "ahnp", {"steps": 100}), Row("whole base", "base")]


def targets(tuning: bool = False, count: int = N_TARGETS) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(kind, classes) of the targets; the tuning targets share no unseen class with those of the benchmark."""
    unseen_classes = np.array(held_out_classes())
    seen_classes = np.setdiff1d(np.arange(100), unseen_classes)
    half = HELD_OUT // 2
    order = np.random.default_rng(11).permutation(unseen_classes)
    rng = np.random.default_rng(12 + tuning)
    tasks = [
        (kind, tuple(sorted(rng.choice(pool, TASK_SIZE, replace=False).tolist())))
        for kind, pool in (("seen", seen_classes), ("unseen", order[:half] if tuning else order[half:]))
        for _ in range(N_TARGETS)
    ]
    for kind in ("seen", "unseen"):
        yield from [target for target in tasks if target[0] == kind][:count]


def run_adapt(pruner: MetaPruner, data: TaskData, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    report = pruner.adapt(data, seed=seed, eval_steps=STEPS, **options).report
    return {
        "accuracy": report.accuracy_at_step,
        "flops": report.training_flops,
        "other_flops": report.retrieval_flops + report.preparation_flops,
        "phases": {k: s for k, s in report.seconds.items() if k not in ("evaluate", "read images")},
        "params": report.params,
        "macs": report.macs,
        "neighbors": [n["id"] for n in report.neighbors],
    }


def photos_of(data: TaskData, few: TaskData, classes: tuple[int, ...], count: int, seed: int) -> ImageSet:
    """Photos of some classes that are not among a few labeled ones."""
    labeled = {image.numpy().tobytes() for image in few.train.images}
    rng, rows = np.random.default_rng([seed, 3]), []
    for c in classes:
        own = rng.permutation(np.flatnonzero(data.train.targets.numpy() == c))
        others = (row for row in own if data.train.images[row].numpy().tobytes() not in labeled)
        rows += list(itertools.islice(others, count))
    images = data.train.images[torch.as_tensor(np.array(rows))]
    return ImageSet(images, torch.full((len(rows),), -1), data.train.preprocessing)


def run_method(
    bank: Bank, data: TaskData, seed: int, method: str, steps: int, ratio: float | None = None, **changes: Any
) -> dict[str, Any]:
    """Prune the base for the task itself."""
    options = replace(pruning_schedule(steps, ratio or bank.default_ratio or 0.9), **changes)
    job = PruningJob(
        bank.base, data.train, data.task.labels, options, pick_device(), seed, None, data.evaluation, (steps,)
    )
    model, result = get_method(method).prune(job)
    facts = {"accuracy": result.accuracy_at_step, "flops": result.flops, "phases": {method: result.seconds}}
    return facts | size(model, data)


def run_base(bank: Bank, data: TaskData, seed: int) -> dict[str, Any]:
    """The whole base: a closed-form classifier on its features (step 0), then all of it fine-tuned."""
    device, began = pick_device(), time.perf_counter()
    torch.manual_seed(seed)
    model = bank.base.whole(data.task.labels)
    make_head("ridge", model, data.train, data.task, [], device)
    seconds, training = time.perf_counter() - began, usual_training(bank, data, "mvp", 1.0)
    result = fine_tune(
        model, data.train, training, evaluation=data.evaluation, device=device, seed=seed, statistics="new"
    )
    phases = {"set the classifier": seconds, "fine-tune": result.seconds}
    return {"accuracy": result.accuracy_at_step, "flops": result.flops, "phases": phases} | size(model, data)


def run_small(bank: Bank, data: TaskData, seed: int, folder: str, photos: ImageSet | None) -> dict[str, Any]:
    """The network of `teach_small_network.py`, used as a model of the trunk is, but without what the bank knows."""
    small, decoder = load_small(Path(folder))
    device, began, labels = pick_device(), time.perf_counter(), data.task.labels
    torch.manual_seed(seed)
    base, model, layer = bank.base.whole(labels), small.whole(labels), decoder.layer()
    head = ridge_head(extract_features(base, data.train, device), data.train.targets, len(labels))

    def set_classifier(model: MetaPrunedForImageClassification) -> None:
        set_decoded_head(model, Decoder.of(layer), head, data.train, len(labels), device)

    set_classifier(model)
    images = data.train if photos is None else data.train.joined(photos)
    seconds = time.perf_counter() - began
    recipe = default_recipe(data.images_per_class, "trunk", bank.base.family.recipe, photos=photos is not None)
    names = ("optimizer", "lr", "momentum", "start_share", "warmup_steps", "loss", "clip_norm")
    is_rich = photos is not None or data.images_per_class >= MANY_IMAGES
    result = fine_tune(
        model, data.train, TrainingOptions(eval_steps=STEPS, **{name: recipe[name] for name in names}),
        evaluation=data.evaluation, device=device, seed=seed, statistics="new" if is_rich else "fixed",
        teacher=FeatureTeacher(base, images, layer, set_classifier),
    )  # fmt: skip
    phases = {"set the classifier": seconds, "fine-tune": result.seconds}
    return {"accuracy": result.accuracy_at_step, "flops": result.flops, "phases": phases} | size(model, data)


def run_torch_pruning(pruner: MetaPruner, data: TaskData, seed: int, ratio: float) -> dict[str, Any]:
    """Torch-Pruning, to the MACs that our networks have at a ratio, with the recipe of the way without a bank."""
    from torch_pruning_baseline import run_baseline

    base = pruner.bank.base
    counts = {layer: keep_count(units, ratio) for layer, units in base.sizes.items()}
    macs = CostModel(base.config(Mask.full(base.sizes), data.task.labels), data.train.images[:1]).macs(counts)
    return run_baseline(base, data, seed, macs, usual_training(pruner.bank, data, "no-bank", 1 - ratio))


def usual_training(bank: Bank, data: TaskData, strategy: str, share: float) -> TrainingOptions:
    """How a strategy's recipe trains a network that `share` of the base's units are left of."""
    family = bank.base.family.recipe
    plan = default_recipe(data.images_per_class, strategy, family)
    rate = scaled_learning_rate(plan["lr"], family, data.images_per_class, share)
    settings = {name: plan[name] for name in ("optimizer", "momentum", "ema", "warmup_steps")}
    return TrainingOptions(eval_steps=STEPS, lr=rate, **settings)


def size(model: Any, data: TaskData) -> dict[str, int]:
    return {"params": count_parameters(model), "macs": count_flops(model, data.train.images[:1])[0] // 2}


def first_entries(path: Path, count: int) -> Path:
    """A copy of the bank beside it, made once, with the first `count` entries of the draw."""
    smaller = path.with_name(f"{path.name}-{count}")
    if not smaller.exists():
        bank = Bank.open(path)
        names = drawn_entries(bank, covering_tasks(len(bank)), bank.base.label_names, pruning_schedule(1000))
        copy_subset(bank, smaller, names[:count])
    return smaller


def parse(value: str) -> Any:
    """A number or a boolean where it reads as one, else text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def finished(out: Path) -> set[str]:
    """Keys of the runs that are done."""
    return {json.loads(line)["key"] for line in out.read_text().splitlines()} if out.exists() else set()


def main(
    out: Annotated[Path, typer.Option(help="JSON lines file of finished runs.")] = Path("runs/bench.jsonl"),
    bank: Annotated[Path, typer.Option(help="The bank.")] = Path("runs/bank"),
    arch: Annotated[str, typer.Option(help="Which rows: resnet, or vit.")] = "resnet",
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    row_names: Annotated[list[str] | None, typer.Option("--row", help="Only rows of these names.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of every row.")] = 3,
    n_targets: Annotated[int, typer.Option("--targets", help="Targets of each kind.")] = N_TARGETS,
    tuning: Annotated[bool, typer.Option(help="Use the tuning targets.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    images: Annotated[str, typer.Option(help="Images a class, separated by commas.")] = "5,20,100,500",
    entries: Annotated[int, typer.Option(help="Only the first entries of the bank; 0: all.")] = 0,
    part: Annotated[str, typer.Option(help="The k-th of n equal parts of the work, as k/n.")] = "1/1",
    changes: Annotated[list[str] | None, typer.Option("--set", help="Options of the rows, as name=value.")] = None,
) -> None:
    """Run what is missing."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    table = vit_rows() if arch == "vit" else rows()
    if unknown := set(row_names or ()) - {row.name for row in table}:
        raise typer.BadParameter(f"--row {min(unknown)!r}: the rows are {'; '.join(row.name for row in table)}")
    pruner = MetaPruner.from_hub(first_entries(bank, entries) if entries else bank)
    cifar = read_cifar100(pruner.bank.base, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    keys, (k, n) = finished(out), map(int, part.split("/"))
    overrides = {name: parse(value) for name, value in (change.split("=", 1) for change in changes or [])}
    variant = [*(changes or []), *([f"{entries} entries"] if entries else [])]
    selection = [
        replace(row, name="; ".join([row.name, *variant]), options=row.options | overrides)
        for row in table
        if not row_names or row.name in row_names
    ]
    common = {"bank_entries": len(pruner.bank), "threads": threads}
    work = [
        (seed, row, number, kind, classes, per_class)
        for seed in range(seeds)
        for row in selection
        for number, (kind, classes) in enumerate(targets(tuning, n_targets))
        for per_class in map(int, images.split(","))
    ]
    for seed, row, number, kind, classes, per_class in work:
        key = f"{row.name}|{seed}|{kind}|{'-'.join(map(str, classes))}|{per_class}"
        if key in keys or (number + seed) % n != k - 1:  # targets, not rows, are dealt: equal work for each process
            continue
        few = cifar.select(classes, per_class, seed)
        photos = photos_of(cifar, few, classes, row.photos, seed) if row.photos else None
        result = row.run(pruner, few, seed, photos)
        facts = {"key": key, "row": row.name, "seed": seed, "kind": kind, "target": number, "per_class": per_class}
        with out.open("a") as file:
            file.write(json.dumps(facts | result | common) + "\n")
        log.info("%s: %s", key, result["accuracy"])


if __name__ == "__main__":
    typer.run(main)
