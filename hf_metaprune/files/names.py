"""Names that people give: ids of the Hub, owners, and what may be shown of a path."""

from __future__ import annotations

import re

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


def is_repo_id(text: str) -> bool:
    """Return whether a text has the form of a Hub id, ``owner/name``; none starts with ``.``, ``/`` or ``~``."""
    return bool(REPO_ID.fullmatch(text)) and ".." not in text and "--" not in text


def public_name(source: str) -> str:
    """What others may know of where images come from: a data set's id, or the last part of a path."""
    return source if is_repo_id(source) else re.split(r"[\\/]", source.rstrip("\\/"))[-1]
