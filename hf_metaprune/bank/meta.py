"""``bank.json``: a bank's base, its prunable layers and its defaults."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from ..config import check_ratio
from ..errors import FormatError, NewerFormatError, OptionError, printable
from ..files.layout import BASE_FOLDER, TASKS_FOLDER, TRUNK_FOLDER, TRUNK_VERSION
from ..files.storage import read_json
from ..hub.files import check_relative
from ..masks.mask import check_sizes

log = logging.getLogger(__name__)

KNOWN_KEYS = {"format_version", "hf_metaprune_version", "name", "base_model", "layers", "defaults", "trunk"}


def read_meta(path: Path) -> dict[str, Any]:
    """Read and check a ``bank.json``.

    Raises:
        FormatError: the file is missing, damaged, or of a newer format version.
    """
    return check_meta(read_json(path), path)


def check_meta(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check the values of a ``bank.json``, and return them.

    Args:
        meta: the values, from the file or from its copy in the index.
        path: where they were read, for messages.

    Raises:
        FormatError: a value is missing or malformed.
        NewerFormatError: the format version is newer than this library.
    """
    version = meta.get("format_version")
    if type(version) is not int or version < 1:
        raise FormatError(f"{path}: format_version {version!r:.40} is not a version")
    if version > TRUNK_VERSION:
        raise NewerFormatError(
            f"{path.parent} has format version {version}; this hf_metaprune reads up to {TRUNK_VERSION}: "
            "upgrade with `pip install -U hf-metaprune`"
        )
    unknown = sorted(set(meta) - KNOWN_KEYS)
    if unknown:
        log.warning("%s: unknown keys ignored: %s", path, printable(", ".join(unknown))[:200])
    base, layers = meta.get("base_model"), meta.get("layers")
    sha256 = base.get("sha256") if isinstance(base, dict) else None
    if not isinstance(base, dict) or not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise FormatError(f"{path}: base_model has no sha256")
    if not isinstance(layers, dict):
        raise FormatError(f"{path}: layers must map each prunable layer to its number of units")
    try:
        check_sizes(layers)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    base_path = base.get("path", BASE_FOLDER)
    if not isinstance(base_path, str):
        raise FormatError(f"{path}: base_model: its path must be a text")
    if base_path.split("/")[0] == TASKS_FOLDER:
        raise FormatError(f"{path}: base_model: its path is a place for entries")
    try:
        check_relative(base_path)
    except FormatError as error:
        raise FormatError(f"{path}: base_model: {error}") from error
    if meta.get("trunk", TRUNK_FOLDER) != TRUNK_FOLDER:
        raise FormatError(f"{path}: trunk must be {TRUNK_FOLDER!r}, the folder of the bank's trunk")
    defaults = meta.get("defaults", {})
    if not isinstance(defaults, dict) or not isinstance(defaults.get("ratio", 0.5), float):
        raise FormatError(f"{path}: defaults must be an object, its ratio a number")
    try:
        check_ratio(defaults.get("ratio", 0.5))
    except OptionError as error:
        raise FormatError(f"{path}: defaults: {error}") from error
    return meta
