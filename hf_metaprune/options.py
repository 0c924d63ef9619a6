"""How an option is declared once, as a dataclass field with its help, and checked, changed and named in errors."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, field, fields, replace
from typing import Any, TypeVar

from .errors import OptionError

T = TypeVar("T")

FORMER_OPTIONS = {"neighbours": "neighbors", "normalise": "normalize", "recalibrate": "statistics"}
"""Names of options in earlier versions; they still work, with a warning."""
FORMER_VALUES: dict[tuple[str, str | bool], str] = {
    ("weights", "neighbours"): "neighbors",
    ("statistics", True): "new",
    ("statistics", False): "moving",
}
"""Values of options in earlier versions; they still work, with a warning."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Return a dataclass field with its help text.

    Args:
        default: the value if the option is left out. None: the option is open, and a recipe decides.
        help: what the option does, in a sentence.
        metadata: `choices`, `low` and `high`, which `check` checks; `only`, the values of other options that this
            option needs to have an effect (see `unused_options`); `fallback`, the value of an open option if there is
            no recipe (see `TrainingOptions.closed`).
    """
    return field(default=default, metadata={"help": help, **metadata})


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_int, "a whole number"),
    "float": (lambda v: _is_int(v) or isinstance(v, float), "a number"),
    "bool": (lambda v: isinstance(v, bool), "True or False"),
    "str": (lambda v: isinstance(v, str), "text"),
    "tuple[float, ...]": (
        lambda v: isinstance(v, (tuple, list)) and all(_is_int(n) or isinstance(n, float) for n in v),
        "numbers",
    ),
    "tuple[int, ...]": (lambda v: isinstance(v, (tuple, list)) and all(map(_is_int, v)), "whole numbers"),
    "tuple[str, ...]": (
        lambda v: isinstance(v, (tuple, list)) and all(isinstance(t, str) for t in v),
        "texts",
    ),
    "tuple[str | None, ...]": (
        lambda v: isinstance(v, (tuple, list)) and all(t is None or isinstance(t, str) for t in v),
        "texts, or None for each unknown one",
    ),
}
"""For each type of a field: a check of a value, and what an error says that the value must be."""


def _type_text(f: Field) -> str:
    """Return the type of a field as it is written, whether annotations are evaluated in its module or not."""
    return f.type.__name__ if type(f.type) is type else str(f.type)


def check(options: Any) -> None:
    """Check every field of an options dataclass against its metadata.

    Raises:
        OptionError: names the option, its value, and what it may be.
    """
    for f in fields(options):
        value, meta, type_text = getattr(options, f.name), f.metadata, _type_text(f)
        if value is None and (type_text.endswith(" | None") or "fallback" in meta):
            continue
        kind = type_text.removesuffix(" | None")
        if kind not in _KINDS:
            raise TypeError(f"option {f.name} has the type {kind}; options have one of: {', '.join(_KINDS)}")
        if not _KINDS[kind][0](value):
            raise OptionError(f"{f.name}={value!r}: must be {_KINDS[kind][1]}")
        if "choices" in meta and value not in meta["choices"]:
            raise OptionError(f"{f.name}={value!r}: must be one of {', '.join(map(str, meta['choices']))}")
        low, high = meta.get("low"), meta.get("high")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise OptionError(f"{f.name}={value!r}: must be {bounds}")


def unused_options(given: Collection[str], options: Any) -> list[str]:
    """Return one sentence for each given option that has no effect beside the others.

    Args:
        given: the names of options that a user has set.
        options: the dataclass that has them; no option is open.
    """
    return [
        f"{f.name} has no effect with {name}={getattr(options, name)}: it needs {name}={' or '.join(values)}"
        for f in fields(options)
        if f.name in given
        for name, values in f.metadata.get("only", {}).items()
        if getattr(options, name) not in values
    ]


def option_fields(cls: type) -> dict[str, Field]:
    """Return the fields of an options dataclass by name."""
    return {f.name: f for f in fields(cls) if f.default is not MISSING}


def override(options: T, changes: Mapping[str, Any]) -> T:
    """Return a copy of an options dataclass with some fields changed; None leaves a field as it is.

    Raises:
        OptionError: no such option (the nearest names are suggested), or a value out of range.
    """
    known_fields = option_fields(type(options))
    for name in changes:
        if name not in known_fields:
            raise unknown_option(name, known_fields)
    return replace(options, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[type-var]


def current_names(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes under the names that options have now; a former name is warned about.

    Raises:
        OptionError: an option is given under both names.
    """
    current_changes: dict[str, Any] = {}
    for name, value in changes.items():
        current = FORMER_OPTIONS.get(name, name)
        if current != name:
            warnings.warn(f"option {name!r} is called {current!r} now", FutureWarning, stacklevel=4)
        if current in current_changes:
            raise OptionError(f"{name!r} and {current!r} are the same option: pass one of them")
        if isinstance(value, (str, bool)) and (current, value) in FORMER_VALUES:
            warnings.warn(
                f"{current}={value!r} is called {FORMER_VALUES[current, value]!r} now", FutureWarning, stacklevel=4
            )
            value = FORMER_VALUES[current, value]
        current_changes[current] = value
    return current_changes


def unknown_option(name: str, known_names: Any) -> OptionError:
    """Return the error for an option that does not exist."""
    near = difflib.get_close_matches(name, list(known_names), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known_names))}"
    return OptionError(f"there is no option {name!r}; {hint}")


def given_options(options: Any) -> dict[str, Any]:
    """Return the fields of an options dataclass that differ from their defaults."""
    return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}
