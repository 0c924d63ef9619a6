"""Output of the commands: for people on a terminal, for pipes, and as JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import printable
from ..reporting.report import AdaptReport, replace_nonfinite, voter_name

PIPE_WIDTH = 10_000  # characters; so wide that piped tables are not cut

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH)


out, err = _console(False), _console(True)


def escape_markup(text: str) -> str:
    """Return text from others as plain text for the terminal: without markup or control characters."""
    return escape(printable(text))


def note(text: str) -> None:
    """Print a note on standard error."""
    err.print(f"[yellow]note:[/] {escape_markup(text)}")


def show_progress() -> bool:
    """Return whether progress is shown: only if standard error is a terminal."""
    return sys.stderr.isatty()


def print_json(value: Any) -> None:
    """Print a value as JSON.

    Numbers that are not finite become null. Characters that standard output cannot encode are escaped.
    """
    text = json.dumps(replace_nonfinite(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(replace_nonfinite(value), indent=2, allow_nan=False)
    lines = text.split("\n")  # texts have their line breaks as \\n
    sys.stdout.write("".join(f"{line if line.isprintable() else _escape(line)}\n" for line in lines))


def _escape(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def command(text: str) -> str:
    """Return a command of ours for the user to type next; it begins with ``uv run`` if the present one does.

    Args:
        text: the words after ``hf-metaprune``.
    """
    return f"{'uv run ' if os.environ.get('UV_RUN_RECURSION_DEPTH') else ''}hf-metaprune {text}"


def table(*columns: str, title: str | None = None) -> Table:
    """Return a table; long texts in its first column, which has names, are wrapped and not cut."""
    new_table = Table(title=title)
    for i, column in enumerate(columns):
        new_table.add_column(column, overflow="fold" if i == 0 else "ellipsis")
    return new_table


def sparkline(shares: Iterable[float]) -> str:
    """Return one bar per share as text.

    Args:
        shares: heights of the bars, in [0, 1].
    """
    return "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int(8 * share)))] for share in shares)


def show_report(report: AdaptReport) -> None:
    """Print the main figures of a report."""
    voters = table("neighbor", "similarity", "labels", title="Neighbors that voted")
    for n in report.neighbors:
        voters.add_row(escape_markup(voter_name(n)), f"{n['score']:.3f}", escape_markup(", ".join(n["labels"])))
    if report.neighbors:
        out.print(voters)
    out.print(f"Accuracy [bold]{escape_markup(report.headline())}[/]")
    for name, curve in report.learning_curves.items():
        accuracies = ", ".join(f"{accuracy:.1%} after {step}" for step, accuracy in curve.items())
        out.print(f"  {name}: {accuracies} steps" if curve else f"  {name}: not measured")
    params_share, macs_share = report.params / report.base_params, report.macs / report.base_macs
    out.print(f"{report.params:,} parameters ({params_share:.1%} of the base), {report.macs:,} MACs ({macs_share:.1%})")
    out.print(
        f"{sum(report.seconds.values()):.1f} s in all, {report.seconds.get('fine-tune', 0):.1f} s of them training"
    )
    for text in report.notes:
        note(text)
    if report.skipped_summary:
        note(report.skipped_summary)
