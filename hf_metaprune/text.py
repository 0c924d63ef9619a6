"""Words for people: text from others in Markdown and YAML, shown as it is, and numbers with their nouns."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"[\\`*{}\[\]<>#|!&$~@:]|(?<!\w)_|_(?!\w)|(?<=www)\.")


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 entry``, ``2 entries``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def inline(text: str) -> str:
    """Text from others as plain Markdown text: no markup, no links, no line breaks, no table bars."""
    return _MARKUP.sub(lambda found: "\\" + found[0], " ".join(str(text).split()))
