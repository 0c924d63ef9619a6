"""Templates: whatever text goes in is shown as text, but for the pictures that were drawn here."""

from __future__ import annotations

import base64
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _templates() -> Environment:
    loader = PackageLoader("hf_metaprune", "drawing/templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals["bar"] = bar
    return made


@cache
def style_sheet() -> Markup:
    """The style sheet of all pages."""
    return Markup(files("hf_metaprune").joinpath("drawing/templates/look.css").read_text())


def render(template: str, **values: Any) -> str:
    """A template filled in; text from others is escaped."""
    return _templates().get_template(template).render(values)


def drawn(svg: str) -> Markup:
    """A picture that `pictures.style.svg` made, which is markup already."""
    return Markup(svg)


def bar(share: float) -> Markup:
    """A bar as long as a share of its full length; the number stands beside it."""
    length = 6 * min(1.0, max(0.0, share))
    return Markup('<span class="bar" style="width:{:.2f}em" aria-hidden="true"></span>').format(length)


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the address of an image that lies in the page itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
