#!/usr/bin/env python
"""The tables of findings, and a picture, from the files of docs/bench.

Files of JSON lines are the runs of `bench_adapt.py`; files of comma-separated values hold what other programs printed.

uv run scripts/bench_report.py docs/bench/accuracy.jsonl --picture docs/bench/accuracy.png
uv run scripts/bench_report.py docs/bench/accuracy.jsonl --against "no bank" --against "IFP, 1000 steps"
uv run scripts/bench_report.py docs/bench/time.jsonl --costs
uv run scripts/bench_report.py docs/bench/speed.csv
uv run scripts/bench_report.py docs/bench/vit.jsonl --together --row "SMSP, r=0.9" --against "no bank"

The pages of findings hold such tables between two marks. The first mark has the arguments that print the table:

    <!-- table: docs/bench/time.jsonl --costs -->
    <!-- end -->

uv run scripts/bench_report.py --write docs/findings
uv run scripts/bench_report.py --check docs/findings
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hf_metaprune.files.storage import write_bytes

Run = dict[str, Any]
KINDS = ("seen", "unseen")
SHOWN = ("MVP", "no bank", "random", "random, paper", "MVP, paper, N=3, LEEP")
REPO = Path(__file__).resolve().parents[1]
MARK = "<!-- table: "
MARKED = re.compile(rf"^({MARK}([^\n]+) -->\n).*?^(<!-- end -->)$", re.M | re.S)
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


def accuracy_table(runs: list[Run], names: list[str], groups: list[tuple[str, ...]]) -> str:
    """Rows by images per class; each cell has the accuracies by step, and the last one's interval over targets."""
    counts = sorted({run["per_class"] for run in runs})
    lines = ["| row | classes | " + " | ".join(f"{c} per class" for c in counts) + " |"]
    lines.append("| --- " * (len(counts) + 2) + "|")
    for kinds, name in product(groups, names):
        here = [run for run in runs if run["kind"] in kinds]
        usual = (len({(run["kind"], run["target"]) for run in here}), 3)
        mine = [run for run in here if run["row"] == name]
        cells = [cell([run for run in mine if run["per_class"] == c], usual) for c in counts]
        lines.append(f"| {name} | {' and '.join(kinds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_table(runs: list[Run], names: list[str], baselines: list[str], groups: list[tuple[str, ...]]) -> str:
    """By how many points rows are above others at the last step: means over targets of what pairs differ in."""
    counts = sorted({run["per_class"] for run in runs})
    lines = ["| row | minus | classes | " + " | ".join(f"{c} per class" for c in counts) + " |"]
    lines.append("| --- " * (len(counts) + 3) + "|")
    for baseline, name, kinds in product(baselines, names, groups):
        other = _baseline_at(runs, name, baseline)
        here = [run for run in runs if run["kind"] in kinds]
        cells = [_difference([run for run in here if run["per_class"] == c], name, other) for c in counts]
        lines.append(f"| {name} | {other} | {' and '.join(kinds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _baseline_at(runs: list[Run], name: str, baseline: str) -> str:
    """The baseline at the ratio of the row `name`, if it was run at that ratio; else the baseline itself."""
    at_ratio = f"{baseline}, r={name.rpartition(', r=')[2]}"
    return at_ratio if any(run["row"] == at_ratio for run in runs) else baseline


def _difference(runs: list[Run], name: str, baseline: str) -> str:
    ends = {(r["row"], r["target"], r["seed"]): 100 * list(r["accuracy"].values())[-1] for r in runs}
    pairs = []
    for run in runs:
        other = ends.get((baseline, run["target"], run["seed"]))
        if run["row"] == name and other is not None:
            pairs.append(run | {"above": ends[name, run["target"], run["seed"]] - other})
    values = by_target(pairs, lambda run: run["above"])
    return f"{values.mean():+.1f} ± {interval(values):.1f}" if len(values) else ""


def cost_table(runs: list[Run], names: list[str]) -> str:
    """FLOPs, seconds by phase and sizes of the rows, means over targets, by images per class."""
    lines = ["| row | images per class | GFLOPs: training | other | seconds | by phase | params | MACs |"]
    lines.append("| --- " * 8 + "|")
    groups = defaultdict(list)
    for run in runs:
        if run["row"] in names:
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
    """Accuracy by step: a row of panels for each kind of target, a column for each number of images per class."""
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
        panel.set_title(f"{kind} classes, {count} images per class", fontsize=9)
        panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("optimizer steps")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy, %")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()


def make_table(files: list[Path], rows: list[str], baselines: list[str], *, costs: bool, together: bool) -> str:
    """Return the table that the arguments ask for, as Markdown."""
    runs, groups = read_runs(files), [KINDS] if together else [(kind,) for kind in KINDS]
    row_names = list(dict.fromkeys(run["row"] for run in runs))
    if unknown := set(rows) - set(row_names):
        raise typer.BadParameter(f"--row {min(unknown)!r}: the rows are {'; '.join(row_names)}")
    if costs:
        return cost_table(runs, rows or row_names)
    if baselines:
        return difference_table(runs, rows or ["MVP"], baselines, groups)
    return accuracy_table(runs, rows or row_names, groups)


def csv_table(file: Path) -> str:
    """Return the table of a file of comma-separated values, which other programs printed, as Markdown."""
    with open(file, newline="") as lines:
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in csv.reader(lines)]
    if any(len(row) != len(header) for row in rows):
        raise typer.BadParameter(f"{file}: each row must have {len(header)} cells")
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def fill_page(text: str) -> str:
    """Return the text of a page with each marked table made again."""
    page, count = MARKED.subn(lambda match: f"{match[1]}\n{_marked_table(match[2])}\n\n{match[3]}", text)
    if count != text.count(MARK):
        raise typer.BadParameter(f"{text.count(MARK)} tables begin, {count} end: put <!-- end --> in a line below each")
    return page


def _marked_table(arguments: str) -> str:
    """The table that the program prints for the arguments of a mark, run at the root of the repository."""
    options = typer.main.get_command(app).make_context("table", shlex.split(arguments)).params
    files = [REPO / file for file in options["files"] or []]
    if [file.suffix for file in files] == [".csv"]:
        return csv_table(files[0])
    return make_table(
        files, options["rows"] or [], options["baselines"] or [], costs=options["costs"], together=options["together"]
    )


def stale_pages(folder: Path) -> dict[Path, str]:
    """Return the pages of a folder whose tables differ from the runs, with the text that they should have."""
    pages = {page: fill_page(page.read_text()) for page in sorted(folder.glob("*.md"))}
    return {page: text for page, text in pages.items() if text != page.read_text()}


app = typer.Typer(add_completion=False)


@app.command()
def main(
    files: Annotated[list[Path] | None, typer.Argument(help="JSON lines of bench_adapt.py, or a CSV file.")] = None,
    costs: Annotated[bool, typer.Option("--costs", help="Show costs instead of accuracies.")] = False,
    baselines: Annotated[
        list[str] | None, typer.Option("--against", help="Show by how much rows are above this row (at their ratio).")
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", help="Show only this row. With --against it is MVP if none is named.")
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="One table over the targets of both kinds.")] = False,
    picture_to: Annotated[Path | None, typer.Option("--picture", help="Write a picture, too.")] = None,
    write: Annotated[Path | None, typer.Option(help="Make the marked tables in this folder's pages again.")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail if a marked table in this folder differs.")] = None,
) -> None:
    """Print a table, or write or check those of pages."""
    if not (files or write or check):
        raise typer.BadParameter("name files of runs, or a folder of pages with --write or --check")
    if write is not None:
        for page, text in stale_pages(write).items():
            write_bytes(page, text.encode())
            print(f"{page}: written")
    if check is not None and (stale := stale_pages(check)):
        print(f"{', '.join(map(str, stale))}: uv run scripts/bench_report.py --write {check} makes the tables again")
        raise typer.Exit(1)
    if files and files[0].suffix == ".csv":
        print(csv_table(files[0]))
    elif files:
        print(make_table(files, rows or [], baselines or [], costs=costs, together=together))
        if picture_to is not None:
            write_bytes(picture_to, picture(read_runs(files)))


if __name__ == "__main__":
    app()
