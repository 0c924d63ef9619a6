#!/usr/bin/env python
"""Benchmark: adapting from a bank against ways without one, over target tasks that are not in the bank.

Targets are five-class tasks of CIFAR-100: half of the bank's classes, half of classes that no entry has. Each
row is run at several numbers of images a class and with several seeds, by the same code, on the same machine. Every
finished run is appended to a JSON lines file, so that the benchmark goes on where it was stopped.

    uv run scripts/bench_adapt.py --bank runs/bank --data ../shared/data/cifar100 --out runs/bench.jsonl
    uv run scripts/bench_adapt.py --out runs/bench.jsonl --table
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from build_demo_bank import HELD_OUT, TASK_SIZE, held_out_classes, read_cifar100

from hf_metaprune import Bank, MetaPruner
from hf_metaprune.config import MethodOptions
from hf_metaprune.methods import PruningJob, get_method
from hf_metaprune.task import TaskData
from hf_metaprune.training import pick_device

log = logging.getLogger("bench_adapt")
STEPS = (0, 20, 50, 100)
PER_CLASS = (5, 20, 100, 500)
N_TARGETS = 5  # of each kind


@dataclass(frozen=True)
class Row:
    """One way to get a small model: options of ``adapt``, or a pruning method with its number of steps."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    method: str | None = None
    steps: int = 100
    seeds: int = 3

    def __hash__(self) -> int:
        return hash(self.name)


def rows() -> list[Row]:
    """The rows of the table."""
    paper = {"preset": "paper"}
    made = [Row("mvp", {}), Row("no bank", {"strategy": "no-bank"})]
    made += [Row(f"mvp, N={n}", {"neighbours": n}) for n in (1, 3)]
    made += [Row("mvp, WordNet", {"by": "wordnet"})]
    made += [Row(f"paper, N={n}", paper | {"neighbours": n}) for n in (1, 3, 5)]
    made += [Row("paper, WordNet", paper | {"by": "wordnet"})]
    made += [Row("random, paper", paper | {"strategy": "random"}), Row("random, our head", {"strategy": "random"})]
    made += [Row("ifp@100", method="ifp", steps=100, seeds=1), Row("ifp@1000", method="ifp", steps=1000, seeds=1)]
    return made


def targets(tuning: bool = False) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(kind, classes) of the targets; the tuning targets share no unseen class with those of the benchmark."""
    unseen = np.array(held_out_classes())
    seen = np.setdiff1d(np.arange(100), unseen)
    half = HELD_OUT // 2
    order = np.random.default_rng(11).permutation(unseen)
    rng = np.random.default_rng(12 + tuning)
    for kind, pool in (("seen", seen), ("unseen", order[:half] if tuning else order[half:])):
        for _ in range(N_TARGETS):
            yield kind, tuple(sorted(rng.choice(pool, TASK_SIZE, replace=False).tolist()))


def run_adapt(pruner: MetaPruner, data: TaskData, row: Row, seed: int) -> dict[str, Any]:
    report = pruner.adapt(data, seed=seed, eval_steps=STEPS, **row.options).report
    seconds = sum(s for phase, s in report.seconds.items() if phase not in ("evaluate", "read images"))
    facts = {"flops": report.training_flops, "seconds": seconds, "params": report.params, "macs": report.macs}
    return facts | {"accuracy": {str(k): a for k, a in report.accuracy_at_step.items()}, "phases": report.seconds}


def run_method(bank: Bank, data: TaskData, row: Row, seed: int) -> dict[str, Any]:
    options = MethodOptions(ratio=bank.default_ratio or 0.9, steps=row.steps)
    if row.steps < 1000:  # the same schedule, squeezed into fewer steps
        options = MethodOptions(ratio=options.ratio, steps=row.steps, prune_every=max(1, 25 * row.steps // 1000))
    job = PruningJob(
        bank.base, data.train, data.task.labels, options, pick_device(), seed, None, data.evaluation, (row.steps,)
    )
    assert row.method is not None
    _, result = get_method(row.method).prune(job)
    accuracy = {str(k): a for k, a in result.accuracy_at_step.items()}
    return {"flops": result.flops, "seconds": result.seconds, "accuracy": accuracy}


def done_runs(out: Path) -> dict[str, dict[str, Any]]:
    """Finished runs by key."""
    lines = out.read_text().splitlines() if out.exists() else []
    return {run["key"]: run for run in map(json.loads, lines)}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean accuracy over targets, in percent, after each number of steps, with a 95% interval for the last.

    Seeds of one target are averaged first: the interval is over targets.
    """
    lines = ["| row | kind | images a class | targets | accuracy by steps | GFLOPs | s |", "| --- " * 7 + "|"]
    groups: dict[tuple[str, str, int], dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        target = run["key"].split("|")[3]
        group = groups.setdefault((run["row"], run["kind"], run["per_class"]), {})
        group.setdefault(target, []).append(run)
    for (name, kind, per_class), by_target in sorted(groups.items(), key=lambda item: (item[0][1:], item[0][0])):
        steps = list(next(iter(by_target.values()))[0]["accuracy"])
        means = np.array([[np.mean([r["accuracy"][s] for r in rs]) for s in steps] for rs in by_target.values()])
        error = 1.96 * means[:, -1].std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else float("nan")
        shown = " / ".join(f"{100 * m:.1f}" for m in means.mean(0)) + f" ± {100 * error:.1f} ({', '.join(steps)})"
        flat = [r for rs in by_target.values() for r in rs]
        flops, seconds = (np.mean([r[k] for r in flat]) for k in ("flops", "seconds"))
        lines.append(f"| {name} | {kind} | {per_class} | {len(means)} | {shown} | {flops / 1e9:.0f} | {seconds:.1f} |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="JSON lines file of finished runs.")] = Path("runs/bench.jsonl"),
    bank: Annotated[Path, typer.Option(help="The bank.")] = Path("runs/bank"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    only: Annotated[str, typer.Option(help="Only rows whose name contains this.")] = "",
    tuning: Annotated[bool, typer.Option(help="Use the tuning targets.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    show_table: Annotated[bool, typer.Option("--table", help="Print the table of what is finished, and stop.")] = False,
) -> None:
    """Run what is missing."""
    if show_table:
        print(table(list(done_runs(out).values())))
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    pruner = MetaPruner.from_hub(bank)
    cifar = read_cifar100(pruner.bank.base, data)
    finished = done_runs(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for row in rows():
        if only not in row.name:
            continue
        for seed in range(row.seeds):
            for kind, classes in targets(tuning):
                for per_class in PER_CLASS:
                    key = f"{row.name}|{seed}|{kind}|{'-'.join(map(str, classes))}|{per_class}"
                    if key in finished:
                        continue
                    task = cifar.select(classes, per_class, seed)
                    found = (
                        run_method(pruner.bank, task, row, seed) if row.method else run_adapt(pruner, task, row, seed)
                    )
                    facts = {"key": key, "row": row.name, "seed": seed, "kind": kind, "per_class": per_class}
                    with out.open("a") as file:
                        file.write(json.dumps(facts | found) + "\n")
                    log.info("%s: %s", key, found["accuracy"])


if __name__ == "__main__":
    typer.run(main)
