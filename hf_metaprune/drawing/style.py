"""The style of all pictures, with colors that color-blind readers can tell apart, and pictures as PNG or SVG."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
T = TypeVar("T")

BLUE, ORANGE, GREEN, PINK, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"  # Okabe & Ito
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (GRAY, "v"))
"""A color and a mark for each line of a chart, because color alone does not suffice."""
INK = "#24292f"
"""Color of text, ticks and frames; in a page it becomes the page's color of text."""
DPI = 150
"""Pixels per inch of a PNG."""
WIDTH = 4.6
"""Width of most pictures in inches: their text can be read on a phone, too."""
LONGEST_NAME = 24
"""Most characters of a name beside a chart."""

_LINES = "stroke-linejoin:round;stroke-linecap:butt;image-rendering:pixelated"
_PAGE_WIDE = re.compile(r'<metadata>.*?</metadata>|<style.*?</style>|(?<=<g) id="[^"]*"| id="image[^"]*"', re.DOTALL)
"""Parts of matplotlib's SVG that would affect the whole page: metadata, style rules and ids."""

_RULES = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # these have the same widths: one can replace the other
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "text.parse_math": False,  # names from others may have dollar signs
    "svg.fonttype": "none",  # text that can be read aloud and searched
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def with_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that draws a figure, so that it uses the style of this module."""

    @wraps(draw)
    def draw_in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(_RULES):
            return draw(*args, **kwargs)

    return draw_in_style


def figure(width: float, height: float, **subplots: Any) -> tuple[Any, Any]:
    """Return an empty matplotlib figure and its axes.

    Args:
        width: in inches.
        height: in inches.
        subplots: arguments of matplotlib's ``Figure.subplots``.
    """
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    picture = Figure(figsize=(width, height), layout="constrained")
    return picture, picture.subplots(**subplots)


def png(picture: Any) -> bytes:
    """Return a figure as a PNG file on white."""
    return _save_figure(picture, "png", dpi=DPI)


def drawn_png(drawing: partial[Any]) -> bytes:
    """Return what a drawing function draws as a PNG file on white; the last files are kept in memory.

    Saving and publishing a model draw the same pictures, and a picture takes a tenth of a second.

    Args:
        drawing: a drawing function with its data.
    """
    return _draw(_Drawing(drawing))


class _Drawing:
    """A drawing function with its data, equal to another one with equal data."""

    def __init__(self, draw: partial[Any]) -> None:
        self.draw = draw
        self.content = pickle.dumps(draw)  # to compare; nothing is read from it

    def __hash__(self) -> int:
        return hash(self.content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Drawing) and other.content == self.content


@lru_cache(maxsize=32)
def _draw(drawing: _Drawing) -> bytes:
    return png(drawing.draw())


def svg(picture: Any, description: str) -> str:
    """Return a figure as SVG markup for a page: as wide as there is room, and in the page's color of text.

    Args:
        picture: a matplotlib figure.
        description: what the picture shows, for readers who cannot see it.
    """
    text = _svg(picture, description)
    opening, drawing = re.split(r"(?<=>)", text[text.index("<svg") :], maxsplit=1)
    width = re.search(r' width="([\d.]+)pt"', opening)
    view = re.search(r' viewBox="[^"]*"', opening)
    assert width and view
    style = f"{_LINES};width:100%;max-width:{round(float(width[1]) * 4 / 3)}px;height:auto"
    drawing = _PAGE_WIDE.sub("", drawing).replace(INK, "currentColor")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names}{view[0]} role="img" aria-label="{escape(description)}" style="{style}">{drawing}'


def _svg(picture: Any, description: str) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": description}):  # makes ids differ between the pictures of a page
        return _save_figure(picture, "svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()


@with_style
def _save_figure(picture: Any, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a browser has fonts of its own for names in any script
        picture.savefig(buffer, format=file_format, bbox_inches="tight", **options)
    return buffer.getvalue()


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name of at most `longest` characters, without characters that a picture cannot show."""
    shown_name = "".join(c if c.isprintable() else " " for c in name[:longest])
    return shown_name if len(name) <= longest else shown_name[:-1] + "…"


def tint(color: str, strength: float) -> tuple[float, ...]:
    """Return a color mixed with white, as RGB in [0, 1]; a strength of 1 leaves it as it is."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - c) for c in np.array(to_rgb(color)))
