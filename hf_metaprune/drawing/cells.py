"""The view of an object in notebooks: a title, sentences, main figures, a picture and a table."""

from __future__ import annotations

from typing import Any

from .pages import render, style_sheet


def cell(title: str, **values: Any) -> str:
    """Return what a notebook shows for an object, as HTML.

    Args:
        title: the headline.
        values: any of `summary` (sentences), `tiles` (figures and their captions), `svg` (a picture), `caption`, and
            for the table `header`, `rows` and `numbers` (how many of the last columns are numbers).
    """
    empty = {"summary": (), "tiles": (), "svg": None, "rows": (), "caption": "", "header": (), "numbers": 0}
    return render("cell.html", css=style_sheet(), title=title, **(empty | values))
