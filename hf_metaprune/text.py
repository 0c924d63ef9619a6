"""Words for people: text from others in Markdown and YAML, shown as it is, and numbers with their nouns."""

from __future__ import annotations

import re

from .errors import printable

JOINERS = "\u200c\u200d"
"""Characters without a shape that are parts of words in some scripts, and of emoji."""
_MARKUP = re.compile(r"[\\`*{}\[\]<>#|!&$~@:]|(?<!\w)_|_(?!\w)|(?<=www)\.")


def quantity(n: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun in the singular or the plural.

    Args:
        n: the number; thousands are separated by commas.
        singular: the noun for one thing.
        plural: the noun for any other number; if left out, `singular` with an s.

    Example:
        >>> quantity(1, "entry", "entries"), quantity(2000, "image")
        ('1 entry', '2,000 images')
    """
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def escape_markdown(text: str) -> str:
    r"""Escape text from others, so that Markdown shows it as it is.

    The result has no markup, no links, no line breaks, no table bars, and no characters that control a terminal or the
    direction of writing.

    Example:
        >>> escape_markdown("a|b")
        'a\\|b'
    """
    line = " ".join(str(text).split())
    return _MARKUP.sub(lambda match: "\\" + match[0], printable(line, JOINERS))
