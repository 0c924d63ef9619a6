"""One look for all pictures: colors that color-blind readers tell apart, and a figure as PNG or as SVG for a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
T = TypeVar("T")

BLUE, ORANGE, GREEN, PINK, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"  # Okabe & Ito
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (GRAY, "v"))
"""A color and a mark for each line of a chart: none is told by its color alone."""
INK = "#24292f"
"""Of text, ticks and frames; where a page shows a picture, the page's own color of text takes its place."""
DPI = 150
WIDTH = 4.6
"""Inches of most pictures: the text is read on a phone, too."""
LONGEST_NAME = 24

_LINES = "stroke-linejoin:round;stroke-linecap:butt;image-rendering:pixelated"
_PAGEWIDE = re.compile(r'<metadata>.*?</metadata>|<style.*?</style>|(?<=<g) id="[^"]*"| id="image[^"]*"', re.DOTALL)
"""What matplotlib writes for a file of its own: rules and names that would hold for the whole page."""

_RULES = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # of one measure, so that a browser without the first lays out alike
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "text.parse_math": False,  # names from others may have dollar signs
    "svg.fonttype": "none",  # text that can be read aloud and searched
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Give a function that draws a figure this look."""

    @wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(_RULES):
            return draw(*args, **kwargs)

    return in_style


def figure(width: float, height: float, **subplots: Any) -> tuple[Any, Any]:
    """An empty figure of so many inches, and its axes; `subplots` as of matplotlib's ``Figure.subplots``."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(**subplots)


def png(made: Any) -> bytes:
    """The figure as a PNG on white."""
    return _saved(made, "png", dpi=DPI)


def svg(made: Any, description: str) -> str:
    """The figure as SVG to put into a page: as wide as there is room, in the page's color of text.

    Args:
        description: what it shows, for those who cannot see it.
    """
    text = _svg(made, description)
    opening, drawing = re.split(r"(?<=>)", text[text.index("<svg") :], maxsplit=1)
    width = re.search(r' width="([\d.]+)pt"', opening)
    view = re.search(r' viewBox="[^"]*"', opening)
    assert width and view
    shown = f"{_LINES};width:100%;max-width:{round(float(width[1]) * 4 / 3)}px;height:auto"
    drawing = _PAGEWIDE.sub("", drawing).replace(INK, "currentColor")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names}{view[0]} role="img" aria-label="{escape(description)}" style="{shown}">{drawing}'


def _svg(made: Any, description: str) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": description}):  # of ids, which a page must not have twice
        return _saved(made, "svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()


@styled
def _saved(made: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a browser has fonts of its own for names in any script
        made.savefig(out, format=kind, bbox_inches="tight", **options)
    return out.getvalue()


def short(name: str) -> str:
    """A name that fits beside a chart, without characters that no picture can show."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def tint(color: str, strength: float) -> tuple[float, ...]:
    """A color mixed with white; 1 leaves it as it is."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - c) for c in np.array(to_rgb(color)))
