"""The demo: an example task that no entry of the demo bank has, compared with the best baseline without a bank."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.shipped import EXAMPLE_TASK, shipped_path
from ..files.storage import check_writable
from ..reporting.report import AdaptReport
from .output import command, escape_markup, out, print_json, show_progress, show_report

if TYPE_CHECKING:
    from ..data.task import Task

DEMO_BANK = "demo-bank"


def run_demo(bank: Path | None, data: Path | None, out_dir: Path, seed: int, as_json: bool) -> None:
    """Adapt with and without the bank, write the model and its report, and print a summary of three lines.

    Args:
        bank: folder of a bank; the demo bank by default.
        data: folder of a task; the example that comes with the project by default.
        out_dir: folder for the model and its report.
        seed: seed of every random choice.
        as_json: whether to print JSON instead.
    """
    from ..data.loading import read_task_data
    from ..files.layout import MODEL_FILES
    from ..pruner import MetaPruner

    started_at = time.perf_counter()
    bank_path = bank if bank is not None else shipped_path(DEMO_BANK)
    data_path = data if data is not None else shipped_path(EXAMPLE_TASK)
    check_writable(out_dir, overwrite=MODEL_FILES)
    pruner = MetaPruner.from_hub(bank_path)
    task = read_task_data(data_path, pruner.bank.base.preprocessing, progress=show_progress())
    result = pruner.adapt(task, seed=seed, progress=show_progress(), compare=True)
    result.save_pretrained(out_dir, overwrite=True)
    report, seconds = result.report, time.perf_counter() - started_at
    baseline = report.baselines["without a bank"]
    if as_json:
        print_json(_summary(report, baseline, seconds) | {"report": str(out_dir / "report.md")})
        return
    show_report(report)
    known_labels = _known_labels(task.task, [entry.task for entry in pruner.bank])
    for line in _story(report, baseline, seconds, known_labels):
        out.print(line)
    out.print(
        f"[bold]3.[/] Look at {escape_markup(str(out_dir))}/report.md; then try your own photos, one folder per class: "
        + escape_markup(command(f"adapt {DEMO_BANK if bank is None else bank} PHOTOS --out my_model"))
    )


def _summary(report: AdaptReport, baseline: dict[int, float], seconds: float) -> dict[str, Any]:
    return {
        "accuracy": report.accuracy,
        "accuracy_without_bank": list(baseline.values())[-1],
        "accuracy_at_step": report.accuracy_at_step,
        "accuracy_at_step_without_bank": baseline,
        "macs_share": report.macs / report.base_macs,
        "params_share": report.params / report.base_params,
        "seconds": round(seconds, 1),
    }


def _known_labels(task: Task, bank_tasks: list[Task]) -> list[str]:
    """Return the classes of a task that a task of the bank has, too."""
    matches = zip(*(task.matches(bank_task) for bank_task in bank_tasks), strict=True)
    return [label for label, flags in zip(task.labels, matches, strict=True) if any(flags)]


def _story(report: AdaptReport, baseline: dict[int, float], seconds: float, known_labels: list[str]) -> list[str]:
    """Return the first two lines: where the units came from, and how good the model is."""
    names = "; ".join(", ".join(n["labels"]) for n in report.neighbors)
    voters = "task" if len(report.neighbors) == 1 else "tasks"
    overlap = f"Entries of the bank know {', '.join(known_labels)}"
    if not known_labels:
        overlap = f"The bank has no entry that knows {', '.join(report.labels)}"
    kept_share, steps = f"{1 - report.ratio:.0%}", report.options["steps"]
    macs_share = f"{report.macs / report.base_macs:.0%}"
    vote = f"the nearest {voters} ({escape_markup(names)}) chose the {kept_share} of the units that stay"
    if report.strategy == "trunk":
        vote = (
            f"its trunk, one network of all sizes that the base has taught, holds the {kept_share} of units that stay"
        )
    accuracies = (
        f"{report.accuracy_at_step.get(0, 0):.1%} before training, [bold]{report.accuracy:.1%}[/] after {steps} steps"
    )
    without = f"the best baseline without a bank: {list(baseline.values())[-1]:.1%}"
    cost = f"The model needs {macs_share} of the base's MACs. The demo took {seconds:.0f} s"
    return [
        f"\n[bold]1.[/] {escape_markup(overlap)}; {vote}.",
        f"[bold]2.[/] From {report.train_images} images, {accuracies}; {without}. {cost}.",
    ]
