"""Command-line options made from the fields of options dataclasses: each option and its help exist once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer

from .config import option_fields


def _annotation(cls: type, f: Field) -> Any:
    kind = typing.get_type_hints(cls)[f.name]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = (k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]
    kind = kind | None  # None: not set on the command line
    choices = f.metadata.get("choices")
    text = f.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    default = _shown(f.default)
    return Annotated[kind, typer.Option(help=text, show_default=default)]


def _shown(default: Any) -> str | bool:
    if default is None:
        return False
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def with_options(*classes: type, leave_out: Iterable[str] = ()) -> Callable[[Callable], Callable]:
    """Give a command, which takes ``**options``, one option for every field of the dataclasses.

    The command sees only those that were set on the command line.
    """

    def decorate(command: Callable) -> Callable:
        hinted = typing.get_type_hints(command, include_extras=True)
        declared = inspect.signature(command).parameters.values()
        own = [p.replace(annotation=hinted[p.name]) for p in declared if p.kind is not p.VAR_KEYWORD]
        added: dict[str, Any] = {}
        for cls in classes:
            for name in option_fields(cls):
                if name not in leave_out and name not in added:
                    f = next(f for f in fields(cls) if f.name == name)
                    added[name] = _annotation(cls, f)

        def wrapper(**values: Any) -> Any:
            chosen = {k: values.pop(k) for k in list(values) if k in added}
            set_ones = {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items() if v not in (None, [])}
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
