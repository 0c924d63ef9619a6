"""The demo: an example task that no entry of the demo bank knows, beside the strongest way without a bank."""

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
    """Adapt with and without the bank, write the model and its report, and say in three lines what happened."""
    from ..data.loading import read_task_data
    from ..files.layout import MODEL_FILES
    from ..pruner import MetaPruner

    began = time.perf_counter()
    bank_path = bank if bank is not None else shipped_path(DEMO_BANK)
    data_path = data if data is not None else shipped_path(EXAMPLE_TASK)
    check_writable(out_dir, overwrite=MODEL_FILES)
    pruner = MetaPruner.from_hub(bank_path)
    task = read_task_data(data_path, pruner.bank.base.preprocessing, progress=show_progress())
    result = pruner.adapt(task, seed=seed, progress=show_progress(), compare=True)
    result.save_pretrained(out_dir, overwrite=True)
    report, seconds = result.report, time.perf_counter() - began
    (other,) = report.baselines.values()
    if as_json:
        print_json(_summary(report, other, seconds) | {"report": str(out_dir / "report.md")})
        return
    show_report(report)
    known = _known_labels(task.task, [entry.task for entry in pruner.bank])
    for line in _story(report, other, seconds, known):
        out.print(line)
    out.print(
        f"[bold]3.[/] Look at {escape_markup(str(out_dir))}/report.md; then your own photos, a folder a class: "
        + escape_markup(command(f"adapt {DEMO_BANK if bank is None else bank} PHOTOS --out my_model"))
    )


def _summary(report: AdaptReport, other: dict[int, float], seconds: float) -> dict[str, Any]:
    return {
        "accuracy": report.accuracy,
        "accuracy_without_bank": list(other.values())[-1],
        "accuracy_at_step": report.accuracy_at_step,
        "accuracy_at_step_without_bank": other,
        "macs_share": report.macs / report.base_macs,
        "params_share": report.params / report.base_params,
        "seconds": round(seconds, 1),
    }


def _known_labels(task: Task, others: list[Task]) -> list[str]:
    """The classes of a task that any of the others has."""
    matches = zip(*(task.matches(other) for other in others), strict=True)
    return [label for label, same in zip(task.labels, matches, strict=True) if any(same)]


def _story(report: AdaptReport, other: dict[int, float], seconds: float, known: list[str]) -> list[str]:
    """The first two lines: where the units came from, and what was reached."""
    names = "; ".join(", ".join(n["labels"]) for n in report.neighbors)
    voters = "task" if len(report.neighbors) == 1 else "tasks"
    who = f"Entries of the bank know {', '.join(known)}"
    if not known:
        who = f"The bank has no entry that knows {', '.join(report.labels)}"
    kept, steps, work = f"{1 - report.ratio:.0%}", report.options["steps"], f"{report.macs / report.base_macs:.0%}"
    first = f"the nearest {voters} ({escape_markup(names)}) gave the {kept} of the units to keep"
    reached = (
        f"{report.accuracy_at_step.get(0, 0):.1%} before training, [bold]{report.accuracy:.1%}[/] after {steps} steps"
    )
    without = f"the best way without a bank: {list(other.values())[-1]:.1%}"
    cost = f"The model does {work} of the base's work ({seconds:.0f} s in all)"
    return [
        f"\n[bold]1.[/] {escape_markup(who)}; {first}.",
        f"[bold]2.[/] From {report.train_images} images, {reached}; {without}. {cost}.",
    ]
