"""Command-line options made from the fields of options dataclasses: each option and its help exist once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from ..adapt.recipes import shown_defaults
from ..config import option_fields
from ..errors import OptionError


def _annotation(cls: Any, f: Field) -> Any:
    kind = _kind(cls, f.name)
    choices = f.metadata.get("choices")
    text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    needed = [f"{name} {' or '.join(values)}" for name, values in f.metadata.get("only", {}).items()]
    text += f" Only with {' and '.join(needed)}." if needed else ""
    recipe = shown_defaults() if cls.by_recipe else {}
    default: Any = f"by the recipe: {recipe[f.name]}" if f.name in recipe else _shown(f.default)
    metavar = None
    if typing.get_origin(kind) is tuple:
        kind, text, metavar = str, text + " Separated by commas.", "A,B,..."
    shown = typer.Option(help=text, show_default=default, rich_help_panel=cls.panel, metavar=metavar)
    return Annotated[kind | None, shown]


def _kind(cls: Any, name: str) -> Any:
    """The type of a field, without None."""
    kind = typing.get_type_hints(cls)[name]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (k for k in typing.get_args(kind) if k is not type(None))
    return kind


def _shown(default: Any) -> str | bool:
    if default is None:
        return False
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _split(name: str, kind: Any, value: Any) -> Any:
    """The items of an option that holds several; an empty one is None."""
    if typing.get_origin(kind) is not tuple:
        return value
    item = int if typing.get_args(kind)[0] is int else str
    try:
        return tuple(item(part) if part else None for part in map(str.strip, value.split(",")))
    except ValueError:
        raise OptionError(f"--{name.replace('_', '-')} {value}: must be {item.__name__} values, such as 1,2") from None


def option_annotations(*classes: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Typer's annotations for the fields of options dataclasses, by name."""
    return {f.name: _annotation(cls, f) for cls in classes for f in fields(cls) if f.name not in without}


def with_options(*classes: Any, without: Collection[str] = ()) -> Callable[[Callable], Callable]:
    """Give a command, which takes ``**options``, one option for every field of the dataclasses, but for some.

    The command sees only those that were set on the command line.
    """

    def decorate(command: Callable) -> Callable:
        hinted = typing.get_type_hints(command, include_extras=True)
        declared = inspect.signature(command).parameters.values()
        own = [p.replace(annotation=hinted[p.name]) for p in declared if p.kind is not p.VAR_KEYWORD]
        kinds = {name: _kind(cls, name) for cls in classes for name in option_fields(cls) if name not in without}
        added = option_annotations(*classes, without=without)

        def wrapper(**values: Any) -> Any:
            chosen = {k: values.pop(k) for k in list(values) if k in added}
            set_ones = {k: _split(k, kinds[k], v) for k, v in chosen.items() if v is not None}
            return command(**values, **set_ones)

        parameters = own + [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in added.items()
        ]
        hints = {p.name: p.annotation for p in parameters}
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = hints
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        return wrapper

    return decorate
