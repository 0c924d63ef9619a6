#!/usr/bin/env python
"""Tables and a picture of what `bench_adapt.py` measured.

uv run scripts/bench_report.py docs/bench/accuracy.jsonl --picture docs/bench/accuracy.png
uv run scripts/bench_report.py docs/bench/accuracy.jsonl --against "no bank" --against "IFP, 1000 steps"
uv run scripts/bench_report.py docs/bench/time.jsonl --costs
uv run scripts/bench_report.py docs/bench/vit.jsonl --together --row "SMSP, r=0.9" --against "no bank, r=0.9"
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hf_metaprune.files.storage import write_bytes

Run = dict[str, Any]
KINDS = ("seen", "unseen")
SHOWN = ("MVP", "no bank", "random", "random, paper", "MVP, paper, N=3, LEEP")
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5% quantiles for 1, 2, ... degrees of freedom


def read_runs(files: list[Path]) -> list[Run]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def by_target(runs: list[Run], value: Any) -> np.ndarray:
    """Values (targets, ...): means over the seeds of each target."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["kind"], run["target"]].append(value(run))
    return np.array([np.mean(values, axis=0) for _, values in sorted(groups.items())])


def interval(values: np.ndarray) -> float:
    """Half of the 95% interval of a mean over targets (Student's t)."""
    n = len(values)
    return STUDENT[min(n - 2, 8)] * values.std(ddof=1) / n**0.5 if n > 1 else float("nan")


def cell(runs: list[Run], usual: tuple[int, int]) -> str:
    """Accuracies by step, with the interval of the last; [targets x seeds] where they are not the usual ones."""
    if not runs:
        return ""
    steps = [step for step in runs[0]["accuracy"] if all(step in run["accuracy"] for run in runs)]
    values = 100 * by_target(runs, lambda run: [run["accuracy"][step] for step in steps])
    text = " / ".join(f"{m:.1f}" for m in values.mean(0)) + f" ± {interval(values[:, -1]):.1f}"
    seeds = len({run["seed"] for run in runs})
    return text + (f" [{len(values)} x {seeds}]" if (len(values), seeds) != usual else "")


def accuracy_table(runs: list[Run], kinds: tuple[str, ...]) -> str:
    """Rows by images a class; each cell has the accuracies by step, and the last one's interval over targets."""
    runs = [run for run in runs if run["kind"] in kinds]
    usual = (len({(run["kind"], run["target"]) for run in runs}), 3)
    names = list(dict.fromkeys(run["row"] for run in runs))
    counts = sorted({run["per_class"] for run in runs})
    lines = [
        f"| {' and '.join(kinds)} | " + " | ".join(f"{c} a class" for c in counts) + " |",
        "| --- " * (len(counts) + 1) + "|",
    ]
    for name in names:
        mine = [run for run in runs if run["row"] == name]
        cells = [cell([run for run in mine if run["per_class"] == c], usual) for c in counts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_table(runs: list[Run], name: str, baselines: list[str], groups: list[tuple[str, ...]]) -> str:
    """By how many points a row is above others at the last step: means over targets of what pairs differ in."""
    counts = sorted({run["per_class"] for run in runs})
    lines = [f"| {name} minus | classes | " + " | ".join(f"{c} a class" for c in counts) + " |"]
    lines.append("| --- " * (len(counts) + 2) + "|")
    for rival in baselines:
        for kinds in groups:
            here = [run for run in runs if run["kind"] in kinds]
            cells = [_difference([run for run in here if run["per_class"] == c], name, rival) for c in counts]
            lines.append(f"| {rival} | {' and '.join(kinds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(runs: list[Run], name: str, rival: str) -> str:
    ends = {(r["row"], r["target"], r["seed"]): 100 * list(r["accuracy"].values())[-1] for r in runs}
    pairs = []
    for run in runs:
        other = ends.get((rival, run["target"], run["seed"]))
        if run["row"] == name and other is not None:
            pairs.append(run | {"above": ends[name, run["target"], run["seed"]] - other})
    values = by_target(pairs, lambda run: run["above"])
    return f"{values.mean():+.1f} ± {interval(values):.1f}" if len(values) else ""


def cost_table(runs: list[Run]) -> str:
    """FLOPs, seconds by phase and sizes of every row, means over targets, by images a class."""
    lines = ["| row | images a class | GFLOPs: training | other | seconds | by phase | params | MACs |"]
    lines.append("| --- " * 8 + "|")
    groups = defaultdict(list)
    for run in runs:
        groups[run["per_class"], run["row"]].append(run)
    for (count, name), mine in sorted(groups.items(), key=lambda item: item[0][0]):
        training, other = (np.mean([run.get(k, 0) for run in mine]) / 1e9 for k in ("flops", "other_flops"))
        phases = {p: float(np.mean([run["phases"][p] for run in mine])) for p in mine[0]["phases"]}
        by_phase = ", ".join(f"{phase} {s:.1f}" for phase, s in phases.items())
        size = f"{mine[0]['params']:,} | {mine[0]['macs']:,}"
        total = f"{sum(phases.values()):.1f}"
        lines.append(f"| {name} | {count} | {training:.0f} | {other:.0f} | {total} | {by_phase} | {size} |")
    return "\n".join(lines)


def picture(runs: list[Run]) -> bytes:
    """Accuracy by step: a row of panels for each kind of target, a column for each number of images a class."""
    import io

    from matplotlib.figure import Figure

    kinds, counts = KINDS, sorted({run["per_class"] for run in runs})
    figure = Figure(figsize=(3.2 * len(counts), 6), layout="constrained")
    panels = figure.subplots(2, len(counts), sharex=True, sharey=True, squeeze=False)
    colors = dict(zip(SHOWN, ("#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#56B4E9"), strict=True))
    for panel, kind, count in ((panels[i, j], k, c) for i, k in enumerate(kinds) for j, c in enumerate(counts)):
        here = [run for run in runs if run["kind"] == kind and run["per_class"] == count]
        for name, color in colors.items():
            mine = [run for run in here if run["row"] == name]
            if mine:
                steps = list(mine[0]["accuracy"])
                values = 100 * by_target(mine, lambda run, s=steps: [run["accuracy"][step] for step in s])
                panel.plot([int(s) for s in steps], values.mean(0), "o-", color=color, label=name, markersize=3)
        for name, style in (("IFP, 1000 steps", "--"), ("whole base", ":")):
            mine = [run for run in here if run["row"] == name]
            if mine:
                last = 100 * by_target(mine, lambda run: list(run["accuracy"].values())[-1]).mean()
                panel.axhline(last, color="black", linestyle=style, linewidth=1, label=name)
        panel.set_title(f"{kind} classes, {count} images a class", fontsize=9)
        panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("optimizer steps")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy, %")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()


def main(
    files: Annotated[list[Path], typer.Argument(help="JSON lines files of bench_adapt.py.")],
    costs: Annotated[bool, typer.Option(help="Show costs instead of accuracies.")] = False,
    baselines: Annotated[
        list[str] | None, typer.Option("--against", help="Show by how much MVP is above this row.")
    ] = None,
    row: Annotated[str, typer.Option(help="The row that is compared with --against.")] = "MVP",
    together: Annotated[bool, typer.Option("--together", help="One table over the targets of both kinds.")] = False,
    picture_to: Annotated[Path | None, typer.Option("--picture", help="Write a picture, too.")] = None,
) -> None:
    """Print the tables."""
    runs, groups = read_runs(files), [KINDS] if together else [(kind,) for kind in KINDS]
    if costs:
        print(cost_table(runs))
    elif baselines:
        print(difference_table(runs, row, baselines, groups))
    else:
        print("\n\n".join(accuracy_table(runs, kinds) for kinds in groups))
    if picture_to is not None:
        write_bytes(picture_to, picture(runs))


if __name__ == "__main__":
    typer.run(main)
