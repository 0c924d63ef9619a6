"""Commands whose options depend on what is registered: the options of a method, and the names of plugins."""

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
_METHOD_PARAMETERS = "hf_metaprune.cli.method_parameters"
_METHOD_VALUES = "hf_metaprune.cli.method_values"
"""The key in typer's context for the parameters of the method."""


def _similarity_names() -> list[str]:
    from ..similarity import similarity_names

    return similarity_names()


def _method_names() -> list[str]:
    from ..methods import method_names

    return method_names()


NAMES: dict[str, Callable[[], list[str]]] = {"by": _similarity_names, "method": _method_names}
"""Functions that return the registered names that an option takes; they import torch, so only the help calls them."""


def registered_names(option: str) -> str:
    """Return a sentence with the registered names that an option takes; empty for options that take none."""
    return f" One of: {', '.join(NAMES[option]())}." if option in NAMES else ""


class Command(TyperCommand):
    """A command whose help lists the registered names that its options take."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the registered names."""
        for parameter in self.get_params(ctx):
            name = parameter.name or ""
            if isinstance(parameter, TyperOption) and name in NAMES and "One of:" not in (parameter.help or ""):
                parameter.help = (parameter.help or "") + registered_names(name)
        super().format_help(ctx, formatter)


class MethodCommand(Command):
    """A command with the options of the method that ``--method`` names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command line; the method is found first, because it has options of its own."""
        method = named_method(args)
        ctx.meta[_METHOD_PARAMETERS] = _option_parameters(method_options(method))
        if {"--help", "-h"} & set(args):
            from ..methods import get_method

            get_method(method)  # without help, the command raises the error when it runs
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command and of the method."""
        return [*super().get_params(ctx), *ctx.meta.get(_METHOD_PARAMETERS, [])]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; typer passes on only what the function declares, so `method_values` has the others."""
        ctx.meta[_METHOD_VALUES] = {p.name: ctx.params.pop(p.name) for p in ctx.meta[_METHOD_PARAMETERS]}
        return super().invoke(ctx)


def method_values(ctx: typer.Context) -> dict[str, Any]:
    """Return the options of the method by name; None for those that the command line does not set."""
    return ctx.meta[_METHOD_VALUES]


def method_options(method: str) -> type[MethodOptions]:
    """Return the options class of a method; for an unknown method, that of the options which all methods have."""
    from ..methods import get_method

    try:
        return get_method(method).options
    except OptionError:  # the command raises this error again when it runs
        return MethodOptions


def named_method(args: Sequence[str]) -> str:
    """Return the method that a command line names; the last one counts, as for click."""
    method = DEFAULT_METHOD
    for word, next_word in zip(args, [*args[1:], ""], strict=True):
        if word == "--method":
            method = next_word
        elif word.startswith("--method="):
            method = word.partition("=")[2]
    return method


def _option_parameters(cls: type[MethodOptions]) -> list[Any]:
    """Return typer's parameters for the fields of a class of options."""

    def command(**_: Any) -> None: ...

    annotations = option_annotations(cls)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return list(typer.main.get_command(app).params)
