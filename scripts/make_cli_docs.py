#!/usr/bin/env python
"""Write the reference of commands and options from the code: docs/reference/cli.md and docs/reference/options.md.

    uv run scripts/make_cli_docs.py

A test fails when the pages are not what this script writes.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from hf_metaprune.adapt.recipes import default_texts
from hf_metaprune.cli.app import app
from hf_metaprune.cli.commands import registered_names
from hf_metaprune.config import NOT_SWEPT, AdaptOptions, SearchOptions, TrainingOptions, TrunkOptions
from hf_metaprune.methods import get_method
from hf_metaprune.methods.method import METHODS
from hf_metaprune.options import option_fields

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
GENERATED = "<!-- Written by scripts/make_cli_docs.py from the code; do not edit. -->\n"
FIRST = ("adapt", "sweep", "predict", "inspect", "export", "publish", "demo")
"""Commands in the order of their use; others follow as they are."""
METHODS_BY_OPTIONS: dict[Any, list[str]] = {}
for _name in METHODS.names():
    if type(get_method(_name)).__module__.startswith("hf_metaprune."):  # not those of plugins that happen to be here
        METHODS_BY_OPTIONS.setdefault(get_method(_name).options, []).append(_name)
CLASSES = {
    AdaptOptions: "Adapting",
    TrainingOptions: "Fine-tuning",
    **{cls: f"Pruning by {', '.join(names)}" for cls, names in METHODS_BY_OPTIONS.items()},
    TrunkOptions: "Teaching a trunk",
    SearchOptions: "Search",
}
USED = {
    AdaptOptions: "`MetaPruner.adapt` and `hf-metaprune adapt` take these options, beside those of fine-tuning. "
    "`MetaPruner.sweep` and `hf-metaprune sweep` take all but {not_swept}.",
    TrainingOptions: "`MetaPruner.adapt`, `MetaPruner.sweep`, `hf-metaprune adapt` and `hf-metaprune sweep` take these "
    "options.",
    **{
        cls: "`build_bank` takes these options as one object, and `hf-metaprune bank build` takes them with "
        f"`--method {' or '.join(names)}`."
        for cls, names in METHODS_BY_OPTIONS.items()
    },
    TrunkOptions: "`teach_bank` takes these options as one object, and `hf-metaprune bank trunk` takes them.",
    SearchOptions: "`MetaPruner.from_search` and `hf-metaprune adapt --commons` take these options.",
}


def flag(name: str) -> str:
    """An option of the command line by its name in Python."""
    return "--" + name.replace("_", "-")


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(of: typer.Typer, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it."""
    callbacks = {
        c.name or c.callback.__name__.replace("_", "-"): c.callback for c in of.registered_commands if c.callback
    }
    order = FIRST if of is app else ()
    for name in sorted(callbacks, key=lambda name: order.index(name) if name in order else len(order)):
        yield f"{prefix} {name}", callbacks[name]
    for group in of.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix} {group.name}")


def parameters(callback: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Name, type, typer's description and default of each parameter of a command."""
    hints = typing.get_type_hints(callback, include_extras=True)
    for parameter in inspect.signature(callback).parameters.values():
        if hints.get(parameter.name) is typer.Context:
            continue
        kind, about = typing.get_args(hints.get(parameter.name, parameter.annotation))[:2]
        yield parameter.name, kind, about, parameter.default


def shown_option(name: str, kind: Any, about: Any, default: Any) -> list[str]:
    """A row about an option: how it is written, what is taken if it is left out, what it does."""
    names = [about.default, *about.param_decls] if isinstance(about.default, str) else []  # as typer reads Annotated
    forms = [part for decl in names or [flag(name)] for part in decl.split("/")]
    is_switch = bool in (kind, *typing.get_args(kind))
    if is_switch and not names:
        forms.append("--no-" + name.replace("_", "-"))
    if not is_switch:
        forms = [f"{decl} {about.metavar or _metavar(kind)}" for decl in forms]
    if isinstance(about.show_default, str):
        default = about.show_default
    if default is inspect.Parameter.empty:
        words = "needed"
    elif default in (None, "") or default is False or about.show_default is False:
        words = ""
    else:
        words = default if str(default).startswith("by the recipe") else f"`{default}`"
    return [", ".join(f"`{decl}`" for decl in forms), words, (about.help or "") + registered_names(name)]


def _metavar(kind: Any) -> str:
    kinds = [k for k in (kind, *typing.get_args(kind)) if isinstance(k, type)]
    names = {int: "INTEGER", float: "FLOAT", str: "TEXT", Path: "PATH"}
    return next((names[k] for k in kinds if k in names), "TEXT")


def about_command(name: str, callback: Any) -> str:
    """What there is to say about one command."""
    arguments, options = [], {}
    for parameter in parameters(callback):
        _, _, about, _ = parameter
        if type(about).__name__ == "ArgumentInfo":
            arguments.append([f"`{about.metavar}`", about.help or ""])
        elif not about.hidden:
            options.setdefault(about.rich_help_panel or "Options", []).append(shown_option(*parameter))
    usage = " ".join([name, *(f"{row[0][1:-1]}" for row in arguments), "[OPTIONS]"])
    parts = [f"## {name.removeprefix('hf-metaprune ')}", f"```text\n{usage}\n```", inspect.getdoc(callback) or ""]
    if arguments:
        parts.append(table(["argument", "what it is"], arguments))
    for panel, rows in options.items():
        if panel != "Options":
            parts.append(f"**{panel}**")
        parts.append(table(["option", "default", "what it does"], rows))
    if name == "hf-metaprune bank build":
        links = ", ".join(
            f"[{', '.join(names)}](options.md#{anchor(cls)})" for cls, names in METHODS_BY_OPTIONS.items()
        )
        parts.append(f"A method has options of its own, which `--method NAME --help` shows: {links}.")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def cli_page() -> str:
    """The page of all commands."""
    first = """# Commands

`hf-metaprune --help` lists the commands, `hf-metaprune COMMAND --help` says what is below. A mistake ends with one line
and exit code 1, wrong usage with 2, Ctrl-C with 130; `--debug`, anywhere, shows the traceback instead. `--json` prints
JSON on standard output, and notes on standard error. "By the recipe" means: by the size of the task, see
[options](options.md).
"""
    return "\n".join([GENERATED + first, *(about_command(*command) for command in commands(app, "hf-metaprune"))])


# --- options ----------------------------------------------------------------------------------------------------------


def anchor(cls: Any) -> str:
    """The anchor of a class's heading on the page of options."""
    return re.sub(r"[^a-z0-9]+", "-", f"{CLASSES[cls]}: {cls.__name__}".lower()).strip("-")


def type_in_words(cls: Any, name: str) -> str:
    """A field's type in words."""
    kind = str(option_fields(cls)[name].type).removesuffix(" | None")
    return kind if not kind.startswith("tuple") else f"several {re.findall('int|float|str', kind)[0]}"


def about_option(cls: Any, name: str) -> list[str]:
    """A row about one field of an options dataclass."""
    f, recipe = option_fields(cls)[name], default_texts() if cls.by_recipe else {}
    default = f.default
    if name in recipe:
        words = f"by the recipe: {recipe[name]}"
    elif default is None:
        words = ""
    else:
        words = f"`{','.join(map(str, default)) if isinstance(default, tuple) else default}`".replace("``", "none")
    meta, text = f.metadata, f.metadata["help"] + registered_names(name)
    if "choices" in meta:
        text += f" One of: {', '.join(f'`{choice}`' for choice in meta['choices'])}."
    low, high = meta.get("low"), meta.get("high")
    if low is not None or high is not None:
        low, high = (f"{bound:,}" if isinstance(bound, int) else f"{bound:g}" if bound else "" for bound in (low, high))
        text += f" From {low or 0} to {high}." if high else f" At least {low or 0}."
    for other, values in meta.get("only", {}).items():
        text += f" Only with `{other}` {' or '.join(f'`{value}`' for value in values)}."
    return [f"`{name}`", type_in_words(cls, name), words, text]


def options_page() -> str:
    """The page of all options."""
    first = """# Options

Every option exists once, as a field of a dataclass in `hf_metaprune/config.py`. In Python they are keyword arguments
(`adapt("photos", steps=50)`); on the command line the same name has dashes (`--steps 50`), `--no-` turns a switch off,
and commas separate several values. "By the recipe" means that `preset` decides an option that is left out. Three values
of the default recipe are shown if the value depends on the images per class (below 10, below 50, more); values for
networks that train like a ViT are added if they differ. An option that has no effect beside the others gives a warning.
"""
    parts = [GENERATED + first]
    for cls, title in CLASSES.items():
        names = ", ".join(f"`{name}`" for name in sorted(NOT_SWEPT))
        parts.append(f"## {title}: `{cls.__name__}`\n\n{USED[cls].format(not_swept=names)}\n")
        rows = [about_option(cls, f.name) for f in fields(cls)]
        parts.append(table(["option", "type", "default", "what it does"], rows))
    return "\n".join(parts)


PAGES = {"cli.md": cli_page, "options.md": options_page}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
        print(REFERENCE / name)


if __name__ == "__main__":
    main()
