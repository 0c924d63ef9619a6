"""Names that people give: ids on the Hub, owners, and the part of a path that may be published."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import OptionError

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000
"""Most bytes in the name of a file, and in a path, on common systems."""
OWNER = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
TOKEN_KINDS = "hf|api|oidc"
"""What tokens of the Hub begin with."""
TOKEN = rf"(?:{TOKEN_KINDS})_\w{{16}}"
"""The pattern of what may be a token of the Hub."""
NO_NAME = re.compile(r"[?=:~]")
"""What is in addresses and settings, and in no name of a data set."""


def is_repo_id(text: str) -> bool:
    """Return whether a text has the form of a Hub id, ``owner/name``; none starts with ``.``, ``/`` or ``~``.

    A name that may be a token is none: somebody has pasted it into the wrong place.
    """
    is_id = bool(REPO_ID.fullmatch(text)) and ".." not in text and "--" not in text
    return is_id and not re.search(TOKEN, text)


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with the home folder in place of ``~``.

    Raises:
        OptionError: the path is empty, has a null character, or is too long, or it begins with the home folder of a
            user whom this machine does not know.
    """
    if path == "":  # which would be the current folder
        raise OptionError("a path is empty; write . for the current folder")
    if "\0" in str(path):
        raise OptionError(f"{str(path)[:60]} is no path: it has a null character")
    is_long = len(os.fsencode(path)) > MAX_PATH_BYTES
    if is_long or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in Path(path).parts):
        raise OptionError(f"{str(path)[:60]}... is too long for the name of a file or folder")
    text = os.fspath(path)
    expanded_text = os.path.expanduser(text)  # noqa: PTH111  # Path drops the ./ of ./~name, which is a folder
    if text.startswith("~") and expanded_text == text:
        raise OptionError(f"{path}: there is no such user here; write ./{path} for a folder of this name")
    result = Path(expanded_text)
    return result.absolute() if str(result).startswith("~") else result  # or the next call would expand it


def public_name(source: str) -> str:
    """Return the name of a source of images that may be published: a data set's id, or the last part of a path.

    The name of what has a token in it is empty.
    """
    if re.search(TOKEN, source):
        return ""
    return source if is_repo_id(source) else re.split(r"[\\/]", source.rstrip("\\/"))[-1]


def public_source(source: str) -> str:
    """Return the name of a data set as `public_name` does; that of an address or a setting is empty."""
    name = public_name(source)
    return "" if NO_NAME.search(name) else name
