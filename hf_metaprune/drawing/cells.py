"""What notebooks show of an object: a title, sentences, figures, a picture, a table."""

from __future__ import annotations

from typing import Any

from .pages import render, style_sheet


def cell(title: str, **values: Any) -> str:
    """Return a cell as HTML.

    Args:
        values: `summary`, `tiles`, `svg`, `caption`, `header`, `rows`, `numbers`; what is not given is left out.
    """
    empty = {"summary": (), "tiles": (), "svg": None, "rows": (), "caption": "", "header": (), "numbers": 0}
    return render("cell.html", css=style_sheet(), title=title, **(empty | values))
