"""The types and the sizes of a report's values, which may be anybody's: what shows a report relies on them."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from .report import AdaptReport

PLAIN = str | int | float | bool | None
_TYPES: dict[str, Any] = get_type_hints(AdaptReport) | {
    **dict.fromkeys(("options", "given", "bank", "versions"), dict[str, PLAIN | list[PLAIN]]),
}
_NEIGHBOR_TYPES: dict[str, Any] = {"labels": list[str], "score": float, "share": float}


def check_values(report: AdaptReport) -> None:
    """Check the type of each value, at all levels, and that numbers can be shown.

    Raises:
        ValueError: a value has another type, a number is infinite or huge, or an accuracy is outside 0 to 1.
    """
    for name, kind in _TYPES.items():
        if not _has_type(getattr(report, name), kind):
            raise ValueError(f"its {name} has another type, or a value of another type in it")
    for neighbor in report.neighbors:
        for key, kind in _NEIGHBOR_TYPES.items():
            if key in neighbor and not _has_type(neighbor[key], kind):
                raise ValueError(f"a neighbor's {key} has another type")
    if report.latency_ms and not {"model", "base"} <= set(report.latency_ms):
        raise ValueError("its latency_ms lacks the model or the base")
    _check_numbers(report)


def _has_type(value: Any, kind: Any) -> bool:
    """Return whether a JSON value has a type of annotations; whole numbers count as float."""
    container, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if container is list:
        return isinstance(value, list) and _have_type(value, parts[0])
    if container is dict:
        return isinstance(value, dict) and _have_type(value, parts[0]) and _have_type(value.values(), parts[1])
    if parts:  # a union
        return any(_has_type(value, part) for part in parts)
    return isinstance(value, (int, float) if kind is float else kind)


def _have_type(values: Any, kind: Any) -> bool:
    """Return whether all values have a type; each class among them is asked once, for there may be a million values."""
    if get_origin(kind) in (list, dict) or any(get_origin(part) for part in get_args(kind)):
        return all(_has_type(value, kind) for value in values)
    return all(_has_type(cls(), kind) for cls in set(map(type, values)))


def _check_numbers(report: AdaptReport) -> None:
    """Check that all numbers, at all levels, are of a size that can be shown.

    Raises:
        ValueError: a number is infinite or huge, or an accuracy is outside 0 to 1.
    """
    losses = np.abs(np.array(report.losses, dtype=float))
    if not np.all((losses < 2**63) | np.isnan(losses)):
        raise ValueError("a loss is too large")
    # a confusion matrix is checked by numpy, too: both may have a million numbers
    pending = [value for name, value in vars(report).items() if name not in ("confusion", "losses")]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple)):
            pending += part
        elif isinstance(part, (int, float)) and part == part and not abs(part) < 2**63:
            raise ValueError("a number is too large")
    for curve in (report.accuracy_at_step, *report.baselines.values()):
        if not all(value != value or 0 <= value <= 1 for value in curve.values()):
            raise ValueError("an accuracy is outside 0 to 1")
