"""A report's files: ``report.json``, ``report.md`` and the pictures; a file to read may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.task import MAX_LABELS
from ..drawing.style import drawn_png
from ..errors import FormatError, reason
from ..files.counts import Counts
from ..files.layout import REPORT
from ..files.storage import read_json, write_bytes, write_json
from ..masks.mask import MAX_LAYERS
from ..options import FORMER_OPTIONS, FORMER_VALUES
from .figures import MAX_CONFUSION, MAX_DRAWN_LAYERS, MAX_DRAWN_VOTERS, agreement_figure, confusion_figure, curve_figure
from .model_card import ModelCard
from .report import FORMER_NAMES, AdaptReport
from .report_values import check_values

COUNTS = Counts(
    items_by_key={
        **dict.fromkeys(("labels", "accuracy_per_class", "confusion"), MAX_LABELS),
        **dict.fromkeys(("vote_agreement", "iou_with_neighbors"), MAX_LAYERS),
        "skipped_images": 100_000,
        "losses": 1_000_000,
    },
    values_by_key={
        "confusion": 2_000_000,
        "losses": 1_000_000,
        "skipped_images": 100_000,
        **dict.fromkeys(("vote_agreement", "iou_with_neighbors"), 20 * MAX_LAYERS),
    },
    characters_by_key={"skipped_images": 20_000_000, "neighbors": 2_000_000},
)
"""The most that a report may hold."""
MAX_STEPS = 2000
"""Most numbers of steps after which accuracies were measured."""


def report_drawings(report: AdaptReport) -> dict[str, tuple[str, partial[Any]]]:
    """Return the drawings that a report has data for: file name, and drawing function with its data, by title."""
    drawings = {}
    if len(report.accuracy_at_step) > 1:
        drawings["Accuracy by step"] = ("accuracy.png", partial(curve_figure, report.learning_curves))
    if np.any(report.confusion) and len(report.labels) <= MAX_CONFUSION:
        drawings["Confusion matrix"] = ("confusion.png", partial(confusion_figure, report.confusion, report.labels))
    voters = len(report.neighbors)
    if 1 < voters <= MAX_DRAWN_VOTERS and 0 < len(report.vote_agreement) <= MAX_DRAWN_LAYERS:
        drawings["Votes"] = ("votes.png", partial(agreement_figure, report.vote_agreement, voters))
    return drawings


def save_report(report: AdaptReport, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and the pictures that it shows.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for title, (name, drawing) in report_drawings(report).items():
        write_bytes(folder / name, drawn_png(drawing))
        pictures[title] = name
    write_json(folder / REPORT, report.to_dict())
    write_bytes(folder / "report.md", report.to_markdown(pictures).encode())


def load_report(path: Path) -> AdaptReport:
    """Read a report from a ``report.json``.

    Fields that the file lacks have their defaults; fields that this version does not know are ignored.

    Raises:
        FormatError: the file cannot be read, or its values cannot be shown as text and as a card.
    """
    values = {FORMER_NAMES.get(key, key): value for key, value in read_json(path).items()}
    field_names = {f.name for f in fields(AdaptReport)}
    try:
        known_values = {k: v for k, v in values.items() if k in field_names and v is not None}
        _check_counts(known_values)
        for key in {"options", "given"} & set(known_values):
            known_values[key] = {FORMER_OPTIONS.get(name, name): value for name, value in known_values[key].items()}
            if isinstance(value := known_values[key].get("statistics"), bool):
                known_values[key]["statistics"] = FORMER_VALUES["statistics", value]
        report = AdaptReport(**known_values)
        report.accuracy_at_step = _by_number(report.accuracy_at_step)
        report.baselines = {name: _by_number(steps) for name, steps in report.baselines.items()}
        report.vote_agreement = {layer: _by_number(votes) for layer, votes in report.vote_agreement.items()}
        if np.array(report.confusion, dtype=int).shape not in ((0,), 2 * (len(report.labels),)):
            raise ValueError("its confusion matrix has another shape")
        check_values(report)
        report.to_markdown()  # raises now, and not later, if a value is malformed
        ModelCard("model", {"labels": report.labels}, b"", report, "", 0).render()
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise FormatError(f"{path} is not a report: {reason(error)}") from error
    return report


def _by_number(values: Mapping[Any, Any]) -> dict[int, Any]:
    """Return values by the numbers that their keys are; long ones could have one hash, and take quadratic time.

    Raises:
        ValueError: a key is no number of at most 10 digits.
    """
    if long_keys := [key for key in values if len(key) > 10]:
        raise ValueError(f"a number is too large: {long_keys[0][:40]}")
    return {int(key): value for key, value in values.items()}


def _check_counts(values: Mapping[str, Any]) -> None:
    """Check how many items the values of a report have, before anything is made of them.

    Raises:
        ValueError: there are too many items, or a text is too long.
    """
    COUNTS.check(values)
    curves = [values.get("accuracy_at_step", {}), *values.get("baselines", {}).values()]
    if (steps := len({step for curve in curves for step in curve})) > MAX_STEPS:
        raise ValueError(f"its accuracies are of {steps} different steps, more than {MAX_STEPS}")
