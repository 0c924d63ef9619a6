"""Names that people give: ids on the Hub, owners, and the part of a path that may be published."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import OptionError

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


def is_repo_id(text: str) -> bool:
    """Return whether a text has the form of a Hub id, ``owner/name``; none starts with ``.``, ``/`` or ``~``."""
    return bool(REPO_ID.fullmatch(text)) and ".." not in text and "--" not in text


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with the home folder in place of ``~``.

    Raises:
        OptionError: the path begins with the home folder of a user whom this machine does not know.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OptionError(f"{path}: there is no such user here; write ./{path} for a folder of this name") from error


def public_name(source: str) -> str:
    """Return the name of a source of images that may be published: a data set's id, or the last part of a path."""
    return source if is_repo_id(source) else re.split(r"[\\/]", source.rstrip("\\/"))[-1]
