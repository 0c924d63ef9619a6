"""The folders of a bank's entries: the path of a new one, the entry that one holds, and a list of all."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..data.task import Task
from ..errors import BaseMismatchError, FormatError, named_errors
from ..files.layout import CONFIG, ENTRY_FILES, SCORES, TASKS_FOLDER, TEMPORARY, WEIGHTS
from ..files.reading import copy_regular, is_present, sha256_file, walk
from ..files.storage import storage_errors
from ..masks.packing import pack_mask
from ..models.class_means import from_text
from ..models.saving import load_config
from .entry import Entry
from .entry_checks import check_id, check_network
from .reader import BankReader

log = logging.getLogger(__name__)

SHARD = re.compile(r"[0-9a-f]{2}")
"""Names of sub-folders; an entry of such a name goes into a sub-folder, because one folder cannot be both."""
MAX_FLAT_ENTRIES = 5_000
"""Most entries in one folder; the Hub asks for fewer than 10,000 files per folder."""


def new_path(entry_id: str, count: int) -> str:
    """Return the path of a new entry in a bank of `count` entries: large banks have sub-folders."""
    if count < MAX_FLAT_ENTRIES and not SHARD.fullmatch(entry_id):
        return f"{TASKS_FOLDER}/{entry_id}"
    return f"{TASKS_FOLDER}/{hashlib.sha256(entry_id.encode()).hexdigest()[:2]}/{entry_id}"


def check_entry_path(path: str, kept_paths: Iterable[str] = ()) -> None:
    """Check that a path from an index is a folder that only one entry uses, before the folder is deleted.

    Strangers may have written the index.

    Args:
        path: the path of the entry, relative to the bank.
        kept_paths: paths of the entries that stay.

    Raises:
        FormatError: the path is not one for entries, or an entry that stays is in it, or has it inside.
    """
    parts = path.split("/")
    if parts[0] != TASKS_FOLDER or len(parts) < 2 or {"", ".", ".."} & set(parts):
        raise FormatError(
            f"the index says that an entry lies in {path[:100]!r}, which is no place for one: repair the index first"
        )
    occupied_place = next(
        (
            kept_path
            for kept_path in kept_paths
            if kept_path == path or kept_path.startswith(f"{path}/") or path.startswith(f"{kept_path}/")
        ),
        None,
    )
    if occupied_place is not None:
        raise FormatError(
            f"the index says that another entry lies in {occupied_place[:100]!r}, too: repair the index first"
        )


def entry_from_folder(bank: BankReader, entry_id: str, path: str, folder: Path | None = None) -> Entry:
    """Make an entry from the files in its folder.

    Args:
        bank: the bank that the entry belongs to.
        entry_id: the entry's id.
        path: the entry's path in the index.
        folder: where the files are; if left out, the folder of `path`.

    Raises:
        FormatError: the config is malformed, or does not fit the bank's base.
        BaseMismatchError: the model belongs to another base.
    """
    folder = folder or bank.files.path(path)
    config = load_config(folder)
    base_sha256 = (config.base_model or {}).get("sha256")
    if base_sha256 != bank.base_sha256:
        raise BaseMismatchError(f"{folder} belongs to base {str(base_sha256)[:12]}..., not to the bank's")
    check_network(config, bank.meta["base_model"], str(folder))
    mask = config.mask()
    if mask.sizes != bank.sizes:
        is_stem_pruned = len(mask) > len(bank.sizes)
        reason = "a model whose stem is pruned is no voter" if is_stem_pruned else "their names or sizes differ"
        raise FormatError(f"{folder / CONFIG}: its masks do not fit the base's layers: {reason}")
    labels = tuple(config.id2label[i] for i in range(config.num_labels))
    weights = folder / WEIGHTS
    with storage_errors(weights, "read"):
        size = weights.stat().st_size
        sha256 = sha256_file(weights)
        scores_sha256 = sha256_file(folder / SCORES) if is_present(folder / SCORES) else None
    task = Task(labels, tuple(config.synsets or ()))
    metrics = dict(config.metrics or {})
    packed_mask = pack_mask(mask)
    entry = Entry(bank, check_id(entry_id), task, packed_mask, config.method, config.ratio, metrics, path, size, sha256)
    with named_errors(folder / CONFIG):
        means = from_text(config.class_means, len(labels)) if config.class_means is not None else None
    return replace(entry, scores_sha256=scores_sha256, class_means=means)


def copy_entry_files(folder: Path, copy: Path) -> None:
    """Copy the files of an entry into a new folder.

    Raises:
        FormatError: a file is a link or another thing than a regular file.
    """
    copy.mkdir(parents=True)
    for name in ENTRY_FILES:
        if is_present(folder / name):
            copy_regular(folder / name, copy / name)


def entry_folders(bank: BankReader) -> dict[str, str]:
    """Return the paths of all finished entry folders on disk by id, whether or not the index has them."""
    paths = {}
    tasks = bank.root / TASKS_FOLDER
    for config in sorted(file for file in walk(tasks) if file.name == CONFIG) if tasks.is_dir() else ():
        folder = config.parent
        relative = folder.relative_to(bank.root)
        if not any(part.startswith(TEMPORARY) for part in relative.parts) and (folder / WEIGHTS).exists():
            paths[folder.name] = relative.as_posix()
    return paths
