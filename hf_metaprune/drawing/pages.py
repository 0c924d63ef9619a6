"""HTML from templates: values are escaped, except for pictures that this library drew."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..errors import printable
from ..text import JOINERS


@cache
def _templates() -> Environment:
    loader = PackageLoader("hf_metaprune", "drawing/templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["bar"] = bar
    return environment


@cache
def style_sheet() -> Markup:
    """Return the style sheet of all pages."""
    return Markup(files("hf_metaprune").joinpath("drawing/templates/style.css").read_text())


def render(template: str, **values: Any) -> str:
    """Fill in a template, and return the HTML; values that are not `Markup` are escaped.

    Characters that control what shows them, such as those that change the direction of text, are replaced.

    Args:
        template: name of a file in ``drawing/templates``.
        values: what the template shows.
    """
    return printable(_templates().get_template(template).render(values), f"{JOINERS}\n\t\xa0")


def svg_markup(svg: str) -> Markup:
    """Return a picture that `drawing.style.svg` made as markup, which templates do not escape."""
    return Markup(svg)


def bar(share: float) -> Markup:
    """Return a bar whose length shows a share in [0, 1]; screen readers skip it, because a number stands beside it."""
    length = 6 * min(1.0, max(0.0, share))
    return Markup('<span class="bar" style="width:{:.2f}em" aria-hidden="true"></span>').format(length)


def data_uri(jpeg: bytes) -> str:
    """Return a ``data:`` address of a JPEG file, so that a page can hold the image itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
