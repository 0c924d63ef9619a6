"""A report's files: ``report.json``, ``report.md`` and their pictures, written, and read again from anybody."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing.style import png
from ..errors import FormatError, reason
from ..files.layout import REPORT
from ..files.storage import read_json, write_bytes, write_json
from .figures import MAX_CONFUSION, agreement_figure, confusion_figure, curve_figure
from .model_card import ModelCard
from .report import FORMER_NAMES, AdaptReport


def report_figures(report: AdaptReport) -> dict[str, tuple[str, Any]]:
    """File name and figure of each picture that a report has data for, by title."""
    out = {}
    if len(report.accuracy_at_step) > 1:
        out["Accuracy by step"] = ("accuracy.png", curve_figure(report.learning_curves))
    if np.any(report.confusion) and len(report.labels) <= MAX_CONFUSION:
        out["Confusion matrix"] = ("confusion.png", confusion_figure(report.confusion, report.labels))
    voters = len(report.neighbors)
    if voters > 1 and report.vote_agreement:
        out["Votes"] = ("votes.png", agreement_figure(report.vote_agreement, voters))
    return out


def report_pictures(report: AdaptReport) -> dict[str, tuple[str, bytes]]:
    """As `report_figures`, drawn as PNG."""
    return {title: (name, png(made)) for title, (name, made) in report_figures(report).items()}


def save_report(report: AdaptReport, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and the pictures it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for title, (name, picture) in report_pictures(report).items():
        write_bytes(folder / name, picture)
        pictures[title] = name
    write_json(folder / REPORT, report.to_dict())
    write_bytes(folder / "report.md", report.to_markdown(pictures).encode())


def load_report(path: Path) -> AdaptReport:
    """From a ``report.json``; fields it lacks keep their defaults, and those unknown here are ignored.

    Raises:
        FormatError: it cannot be read, or what is made of a report (text, card) cannot be made of it.
    """
    values = {FORMER_NAMES.get(key, key): value for key, value in read_json(path).items()}
    known = {f.name for f in fields(AdaptReport)}
    try:
        report = AdaptReport(**{k: v for k, v in values.items() if k in known and v is not None})
        report.accuracy_at_step = {int(k): v for k, v in report.accuracy_at_step.items()}
        report.baselines = {name: {int(k): v for k, v in steps.items()} for name, steps in report.baselines.items()}
        report.vote_agreement = {
            layer: {int(k): n for k, n in votes.items()} for layer, votes in report.vote_agreement.items()
        }
        if np.array(report.confusion, dtype=int).shape not in ((0,), 2 * (len(report.labels),)):
            raise ValueError("its confusion matrix has another shape")
        _check_values(report)
        report.to_markdown()  # whatever a stranger wrote is found now
        _check_card(report)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise FormatError(f"{path} is not a report: {reason(error)}") from error
    return report


def _check_card(report: AdaptReport) -> None:
    """Make the card of a report, to see whether it can be: whatever is wrong with its values is raised."""
    for name, usual in vars(AdaptReport()).items():
        if not isinstance(getattr(report, name), (int, float) if isinstance(usual, float) else type(usual)):
            raise ValueError(f"its {name} is of another type")
    ModelCard("model", {"labels": report.labels}, b"", report, "", 0).render()


def _check_values(report: AdaptReport) -> None:
    """Raise a ValueError where a field holds what it cannot: text that is no text, a text for a number."""
    plain = (str, int, float, bool, type(None))
    for name in ("options", "given", "bank", "versions"):
        for key, value in getattr(report, name).items():
            values = value if isinstance(value, list) else [value]
            if not isinstance(key, str) or not all(isinstance(item, plain) for item in values):
                raise ValueError(f"its {name} hold {str(key)[:40]!r}, which is no plain value")
    for name in ("seconds", "latency_ms", "emissions", "baseline_flops"):
        for key, value in getattr(report, name).items():
            if not isinstance(key, str) or not isinstance(value, (int, float)):
                raise ValueError(f"its {name} hold {str(key)[:40]!r}, which is no number")
