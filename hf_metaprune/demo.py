"""The demo: an example task that no entry of the demo bank knows, beside the strongest way without a bank."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from .errors import BankError
from .plots import curve_picture
from .storage import check_writable, write_bytes

ROOT = Path(__file__).resolve().parents[1] / "space"
RIVAL = "no-bank"


def demo_path(given: Path | None, default: str, option: str) -> Path:
    """A path given by the user, or the one in the project's ``space`` folder.

    Raises:
        BankError: neither is there (the package was installed without the repository).
    """
    path = given or ROOT / default
    if not path.exists():
        raise BankError(f"{path} does not exist: run the demo in a clone of the repository, or pass {option}")
    return path


def run_demo(
    bank: Path | None,
    data: Path | None,
    out_dir: Path,
    seed: int,
    print_json: Callable[[Any], None] | None,
    console: Console,
    progress: bool,
) -> dict[str, Any]:
    """Adapt with and without the bank, write the model and its report, and say in three lines what happened."""
    from .cli import show_report
    from .pruner import MetaPruner
    from .reading import read_task_data
    from .result import MODEL_FILES

    began = time.perf_counter()
    bank_path, data_path = demo_path(bank, "demo_bank", "--bank"), demo_path(data, "examples/unseen_five", "--data")
    check_writable(out_dir, overwrite=MODEL_FILES)
    pruner = MetaPruner.from_hub(bank_path)
    task = read_task_data(data_path, pruner.bank.base.preprocessing, progress=progress)
    result = pruner.adapt(task, seed=seed, progress=progress)
    rival = pruner.adapt(task, seed=seed, progress=progress, strategy=RIVAL)
    result.save_pretrained(out_dir, overwrite=True)
    curves = {"with the bank": result.report.accuracy_at_step, "without": rival.report.accuracy_at_step}
    write_bytes(out_dir / "comparison.png", curve_picture(curves))
    seconds = time.perf_counter() - began
    report, other = result.report, rival.report
    summary = {
        "accuracy": report.accuracy,
        "accuracy_without_bank": other.accuracy,
        "accuracy_at_step": report.accuracy_at_step,
        "accuracy_at_step_without_bank": other.accuracy_at_step,
        "macs_share": report.macs / report.base_macs,
        "params_share": report.params / report.base_params,
        "seconds": round(seconds, 1),
        "report": str(out_dir / "report.md"),
    }
    if print_json is not None:
        print_json(summary)
        return summary
    show_report(report.to_dict())
    where = escape(str(out_dir))
    names = "; ".join(", ".join(n["labels"]) for n in report.neighbours)
    voters = "task" if len(report.neighbours) == 1 else "tasks"
    matches = zip(*(task.task.matches(entry.task) for entry in pruner.bank), strict=True)
    known = [label for label, same in zip(task.task.labels, matches, strict=True) if any(same)]
    who = f"Entries of the bank know {', '.join(known)}"
    if not known:
        who = f"The bank has no entry that knows {', '.join(report.labels)}"
    console.print(
        f"\n[bold]1.[/] {escape(who)}; the nearest {voters} "
        f"({escape(names)}) gave the {1 - report.ratio:.0%} of the units to keep, and their weights."
    )
    console.print(
        f"[bold]2.[/] From {report.train_images} images, {report.accuracy_at_step.get(0, 0):.1%} before training and "
        f"[bold]{report.accuracy:.1%}[/] after {report.options['steps']} steps; the best way without a bank: "
        f"{other.accuracy:.1%}. The model does {report.macs / report.base_macs:.0%} of the base's work "
        f"({seconds:.0f} s in all)."
    )
    console.print(
        f"[bold]3.[/] Look at {where}/report.md and {where}/comparison.png; then your own photos, a folder a class: "
        f"hf-metaprune adapt {escape(str(bank_path))} PHOTOS --out my_model"
    )
    return summary
