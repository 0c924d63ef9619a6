"""Commands whose options follow from what is registered: methods with options of their own, names of plugins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from ..config import MethodOptions
from ..errors import OptionError
from .options import option_annotations

DEFAULT_METHOD = "ifp"
_OF_METHOD = "hf_metaprune.cli.of_method"


def _similarities() -> list[str]:
    from ..similarity import similarity_names

    return similarity_names()


def _methods() -> list[str]:
    from ..methods import method_names

    return method_names()


NAMES: dict[str, Callable[[], list[str]]] = {"by": _similarities, "method": _methods}
"""The names that an option takes, of plugins, too; to know them takes an import of torch, so only help asks."""


def registered_names(option: str) -> str:
    """A sentence that lists the names which an option takes; nothing for options that take none."""
    return f" One of: {', '.join(NAMES[option]())}." if option in NAMES else ""


class Command(TyperCommand):
    """A command whose help lists what is registered."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As typer's, with the names that options take."""
        for parameter in self.get_params(ctx):
            name = parameter.name or ""
            if isinstance(parameter, TyperOption) and name in NAMES and "One of:" not in (parameter.help or ""):
                parameter.help = (parameter.help or "") + registered_names(name)
        super().format_help(ctx, formatter)


class MethodCommand(Command):
    """A command that has the options of the method which ``--method`` names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's, after the method was looked for."""
        ctx.meta[_OF_METHOD] = _parameters(method_options(_chosen(args)))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of the command and of the method."""
        return [*super().get_params(ctx), *ctx.meta.get(_OF_METHOD, [])]


def method_options(method: str) -> type[MethodOptions]:
    """The class of a method's options; those that all methods have if there is no such method."""
    from ..methods import get_method

    try:
        return get_method(method).options
    except OptionError:  # the command itself says so, once it runs
        return MethodOptions


def _chosen(args: Sequence[str]) -> str:
    """The method that a command line names."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == "--method":
            return following
        if word.startswith("--method="):
            return word.partition("=")[2]
    return DEFAULT_METHOD


def _parameters(cls: type[MethodOptions]) -> list[Any]:
    """The command line's parameters for the fields of a class of options."""

    def takes_options(**_: Any) -> None: ...

    annotations = option_annotations(cls)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    takes_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    takes_options.__annotations__ = annotations
    app = typer.Typer(add_completion=False)
    app.command()(takes_options)
    return list(typer.main.get_command(app).params)
