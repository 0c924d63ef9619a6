"""Model arguments from config files of strangers: which arguments are accepted, and which values each may have.

A family lists its arguments with one `Rule` each. Most functions here return a rule; `share`, `flag` and `text` are
rules themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import ArchitectureError

Rule = Callable[[Any], bool]
"""A function that returns whether a value is acceptable."""

MAX_WIDTH = 1 << 16  # channels
MAX_DEPTH = 160  # blocks of all stages; timm's deepest networks have some 140
MAX_VIT_DEPTH = 100  # the deepest vision transformers have some 60


def whole_number(low: int, high: int) -> Rule:
    """Accept a whole number between two bounds, both included."""
    return lambda value: type(value) is int and low <= value <= high


def whole_numbers(low: int, high: int) -> Rule:
    """Accept one to eight whole numbers between two bounds, one per stage."""
    item = whole_number(low, high)
    return lambda value: isinstance(value, (list, tuple)) and 1 <= len(value) <= 8 and all(map(item, value))


def block_counts(value: Any) -> bool:
    """Accept one to eight numbers of blocks, one per stage, that are together no more than `MAX_DEPTH`."""
    return whole_numbers(1, MAX_DEPTH)(value) and sum(value) <= MAX_DEPTH


def side_lengths(low: int, high: int) -> Rule:
    """Accept a whole number for both sides of an image, or one for each side."""
    item = whole_number(low, high)
    return lambda value: item(value) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(item, value)))


def share(value: Any) -> bool:
    """Accept a number from 0 to below 1."""
    return type(value) in (int, float) and 0 <= value < 1


def positive(high: float) -> Rule:
    """Accept a number above 0, up to a bound."""
    return lambda value: type(value) in (int, float) and 0 < value <= high


def flag(value: Any) -> bool:
    """Accept True or False."""
    return type(value) is bool


def one_of(*names: str) -> Rule:
    """Accept one of these texts."""
    return lambda value: isinstance(value, str) and value in names


def text(value: Any) -> bool:
    """Accept a short text, which the library itself looks up."""
    return isinstance(value, str) and len(value) <= 40


def check_model_args(model_args: Any, rules: Mapping[str, Rule], what: str) -> None:
    """Refuse arguments without a rule, and values that their rule does not accept.

    Args:
        model_args: arguments of a network by name; anything from a config file.
        rules: a rule per accepted argument.
        what: the network's name, for messages.

    Raises:
        ArchitectureError: an argument is refused; the message names it.
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
