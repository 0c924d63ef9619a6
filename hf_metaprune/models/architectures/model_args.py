"""Model arguments from config files of strangers: which ones there may be, and which values each may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import ArchitectureError

Rule = Callable[[Any], bool]
"""Whether a value is acceptable."""

MAX_WIDTH = 1 << 16  # channels
MAX_DEPTH = 256  # blocks a stage; timm's deepest ResNet has 36


def whole(low: int, high: int) -> Rule:
    """A whole number between two bounds, both included."""
    return lambda value: type(value) is int and low <= value <= high


def wholes(low: int, high: int) -> Rule:
    """One to eight such numbers: one a stage."""
    item = whole(low, high)
    return lambda value: isinstance(value, (list, tuple)) and 1 <= len(value) <= 8 and all(map(item, value))


def sides(low: int, high: int) -> Rule:
    """Such a number for both sides of an image, or one for each."""
    item = whole(low, high)
    return lambda value: item(value) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(item, value)))


def share(value: Any) -> bool:
    """A number from 0 to below 1."""
    return type(value) in (int, float) and 0 <= value < 1


def positive(high: float) -> Rule:
    """A number above 0, up to a bound."""
    return lambda value: type(value) in (int, float) and 0 < value <= high


def flag(value: Any) -> bool:
    """True or false."""
    return type(value) is bool


def one_of(*names: str) -> Rule:
    """One of these texts."""
    return lambda value: isinstance(value, str) and value in names


def text(value: Any) -> bool:
    """A short text, which the library itself looks up."""
    return isinstance(value, str) and len(value) <= 40


def check_model_args(model_args: Any, rules: Mapping[str, Rule], what: str) -> None:
    """Refuse arguments without a rule, and values that theirs does not accept.

    Raises:
        ArchitectureError: names the argument.
    """
    if not isinstance(model_args, Mapping):
        raise ArchitectureError(f"{what}: model_args must be an object, not {str(model_args)[:60]!r}")
    for key, value in model_args.items():
        if key not in rules:
            raise ArchitectureError(
                f"{what}: model argument {str(key)[:60]!r} is not accepted; accepted: {list(rules)}"
            )
        if not rules[key](value):
            raise ArchitectureError(f"{what}: model argument {key}={str(value)[:60]!r} is not acceptable")
