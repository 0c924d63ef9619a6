"""What the commands print: for people on a terminal, for pipes, and as JSON for machines."""

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
from ..reporting.report import AdaptReport, finite, voter_name

PIPE_WIDTH = 10_000  # columns; what is piped is not cut

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH)


out, err = _console(False), _console(True)


def escape_markup(text: str) -> str:
    """Text of others for the terminal: no markup, no control characters."""
    return escape(printable(text))


def note(text: str) -> None:
    """A line on standard error."""
    err.print(f"[yellow]note:[/] {escape_markup(text)}")


def show_progress() -> bool:
    """Whether somebody watches."""
    return sys.stderr.isatty()


def print_json(value: Any) -> None:
    """A value as JSON: numbers that are not finite as null, text that standard output cannot hold escaped."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(finite(value), indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def command(text: str) -> str:
    """A command of ours to type next: with ``uv run`` where this one was called so."""
    return f"{'uv run ' if os.environ.get('UV_RUN_RECURSION_DEPTH') else ''}hf-metaprune {text}"


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column, which names things, is folded rather than cut."""
    made = Table(title=title)
    for i, column in enumerate(columns):
        made.add_column(column, overflow="fold" if i == 0 else "ellipsis")
    return made


def sparkline(shares: Iterable[float]) -> str:
    """A bar for each share of 1, low to high."""
    return "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int(8 * share)))] for share in shares)


def show_report(report: AdaptReport) -> None:
    """Print the main figures of a report."""
    voters = table("neighbor", "similarity", "labels", title="Neighbors that voted")
    for n in report.neighbors:
        voters.add_row(escape_markup(voter_name(n)), f"{n['score']:.3f}", escape_markup(", ".join(n["labels"])))
    if report.neighbors:
        out.print(voters)
    out.print(f"Accuracy [bold]{escape_markup(report.headline())}[/]")
    for name, way in report.learning_curves.items():
        steps = ", ".join(f"{a:.1%} after {s}" for s, a in way.items())
        out.print(f"  {name}: {steps} steps" if way else f"  {name}: not measured")
    share_p, share_m = report.params / report.base_params, report.macs / report.base_macs
    out.print(f"{report.params:,} parameters ({share_p:.1%} of the base), {report.macs:,} MACs ({share_m:.1%})")
    out.print(f"{sum(report.seconds.values()):.1f} s in all, {report.seconds.get('fine-tune', 0):.1f} s of it training")
    for text in report.notes:
        note(text)
    if report.skipped_words:
        note(report.skipped_words)
