"""Accuracy against cost: the models of a sweep as a table, a picture and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..drawing.style import png
from ..files.storage import write_bytes, write_json
from .figures import cost_figure
from .report import AdaptReport, replace_nonfinite


def curve_rows(reports: Sequence[AdaptReport]) -> list[dict[str, Any]]:
    """Return the ratio, the costs and the accuracy of each model."""
    return [
        {
            "ratio": report.ratio,
            "params": report.params,
            "macs": report.macs,
            "latency_ms": report.latency_ms["model"],
            "accuracy": report.accuracy,
            "accuracy_interval": report.accuracy_interval,
            "accuracy_at_step": report.accuracy_at_step,
        }
        for report in reports
    ]


def curve_markdown(reports: Sequence[AdaptReport]) -> str:
    """Return the table as a page of Markdown."""
    first = reports[0]
    lines = [
        f"# Accuracy against cost: {len(first.labels)} classes, {first.train_images} images",
        "",
        "![Accuracy against cost](sweep.png)",
        "",
        "| ratio | parameters | MACs per image | ms per image | accuracy | 95% confidence |",
        "| ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in curve_rows(reports):
        low, high = row["accuracy_interval"]
        parameter_share, mac_share = row["params"] / first.base_params, row["macs"] / first.base_macs
        lines.append(
            f"| {row['ratio']:g} | {row['params']:,} ({parameter_share:.1%}) | {row['macs']:,} ({mac_share:.1%}) | "
            f"{row['latency_ms']:.2f} | {row['accuracy']:.1%} | {low:.0%} to {high:.0%} |"
        )
    base = f"| base | {first.base_params:,} | {first.base_macs:,} | {first.latency_ms['base']:.2f} | | |"
    lines += [base, "", f"Time: one image at a time, median, on {first.machine}. Measured on {first.evaluated_on}."]
    return "\n".join(lines) + "\n"


def save_curve(reports: Sequence[AdaptReport], folder: Path) -> None:
    """Write ``sweep.json``, ``sweep.md`` and ``sweep.png``.

    Raises:
        StorageError: the folder cannot be written.
    """
    rows = curve_rows(reports)
    write_bytes(folder / "sweep.png", png(cost_figure(rows, reports[0].base_macs)))
    write_json(folder / "sweep.json", replace_nonfinite({"labels": reports[0].labels, "models": rows}))
    write_bytes(folder / "sweep.md", curve_markdown(reports).encode())
