"""Text from others in Markdown and YAML: shown as it is, without being markup."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"[\\`*{}\[\]<>#|!&$~@:]|(?<!\w)_|_(?!\w)|(?<=www)\.")


def inline(text: str) -> str:
    """Text from others as plain Markdown text: no markup, no links, no line breaks, no table bars."""
    return _MARKUP.sub(lambda found: "\\" + found[0], " ".join(str(text).split()))
