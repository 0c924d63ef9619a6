"""Options of the command line, made from the fields of options dataclasses, so that each option is defined once."""

from __future__ import annotations

import inspect
import logging
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from ..adapt.recipes import default_texts
from ..errors import OptionError
from ..options import FORMER_OPTIONS, FORMER_VALUES, option_fields

log = logging.getLogger(__name__)


def _annotation(cls: Any, f: Field) -> Any:
    kind = field_type(cls, f.name)
    choices = f.metadata.get("choices")
    text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    conditions = [f"{name} {' or '.join(values)}" for name, values in f.metadata.get("only", {}).items()]
    text += f" Only with {' and '.join(conditions)}." if conditions else ""
    recipe = default_texts() if cls.by_recipe else {}
    default: Any = f"by the recipe: {recipe[f.name]}" if f.name in recipe else _default_text(f.default)
    metavar = None
    if typing.get_origin(kind) is tuple:
        kind, text, metavar = str, text + " Separated by commas.", "A,B,..."
    option = typer.Option(help=text, show_default=default, rich_help_panel=cls.panel, metavar=metavar)
    return Annotated[kind | None, option]


def field_type(cls: Any, name: str) -> Any:
    """Return the type of a field of an options dataclass, without None."""
    kind = typing.get_type_hints(cls)[name]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (k for k in typing.get_args(kind) if k is not type(None))
    return kind


def _default_text(default: Any) -> str | bool:
    """Return a default as the help shows it; False if the help shows none."""
    if default is None:
        return False
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def split_values(name: str, kind: Any, value: Any) -> Any:
    """Split the value of an option at its commas, if the option takes several values; else return the value unchanged.

    Args:
        name: the option.
        kind: the type of its field.
        value: its value on the command line; an empty text between commas becomes None.

    Raises:
        OptionError: the option takes numbers, and a part of the value is not a number.
    """
    if typing.get_origin(kind) is not tuple:
        return value
    item_type = typing.get_args(kind)[0] if typing.get_args(kind)[0] in (int, float) else str
    try:
        return tuple(item_type(part) if part else None for part in map(str.strip, value.split(",")))
    except ValueError:
        raise OptionError(
            f"--{name.replace('_', '-')} {value}: must be {item_type.__name__} values, such as 1,2"
        ) from None


def option_annotations(*classes: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Return typer's annotations for the fields of options dataclasses, by name.

    Args:
        classes: the dataclasses.
        without: names of fields to leave out.
    """
    return {f.name: _annotation(cls, f) for cls in classes for f in fields(cls) if f.name not in without}


def with_options(*classes: Any, without: Collection[str] = ()) -> Callable[[Callable], Callable]:
    """Return a decorator that gives a command with ``**options`` one option per field of some dataclasses.

    The command receives only the options that are set on the command line. A former name of an option works, with a
    warning, and is not in the help.

    Args:
        classes: the dataclasses.
        without: names of fields to leave out.
    """

    def decorate(command: Callable) -> Callable:
        command_hints = typing.get_type_hints(command, include_extras=True)
        command_parameters = [
            p.replace(annotation=command_hints[p.name])
            for p in inspect.signature(command).parameters.values()
            if p.kind is not p.VAR_KEYWORD
        ]
        kinds = {name: field_type(cls, name) for cls in classes for name in option_fields(cls) if name not in without}
        annotations = option_annotations(*classes, without=without)
        former_names = {former: name for former, name in FORMER_OPTIONS.items() if name in annotations}
        hidden_option = typer.Option(hidden=True)
        hidden_annotations = {
            former: Annotated[kinds[name] | None, hidden_option] for former, name in former_names.items()
        }

        def wrapper(**values: Any) -> Any:
            for former, name in former_names.items():
                if (value := values.pop(former)) is not None:
                    if values[name] is not None:
                        raise OptionError(f"--{former} and --{name} are the same option: pass one of them")
                    log.warning("--%s is called --%s now", former, name)
                    values[name] = value
            options = {name: values.pop(name) for name in list(values) if name in annotations}
            options = {name: split_values(name, kinds[name], v) for name, v in options.items() if v is not None}
            for name, value in options.items():
                if isinstance(value, str) and (current := FORMER_VALUES.get((name, value))):
                    log.warning("--%s %s is called %s now", name, value, current)
                    options[name] = current
            return command(**values, **options)

        parameters = command_parameters + [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in (annotations | hidden_annotations).items()
        ]
        hints = {p.name: p.annotation for p in parameters}
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = hints
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        return wrapper

    return decorate
