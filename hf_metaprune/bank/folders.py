"""A bank's entries as folders: where a new one goes, what is in one, and which there are."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..data.task import Task
from ..errors import BaseMismatchError, FormatError
from ..files.layout import CONFIG, SCORES, TASKS_FOLDER, TEMPORARY, WEIGHTS
from ..files.storage import storage_errors
from ..masks.packing import pack_mask
from ..models.base_model import sha256_file
from ..models.saving import load_config
from .entry import Entry, check_id, check_network
from .reader import BankReader

log = logging.getLogger(__name__)

SHARD = re.compile(r"[0-9a-f]{2}")
"""Names of sub-folders; an entry of such a name goes into one, since one folder cannot be both."""
SHARD_ABOVE = 5_000  # entries in one folder; the Hub asks for fewer than 10,000


def new_path(entry_id: str, count: int) -> str:
    """Where an entry goes in a bank of `count` entries: large banks have sub-folders."""
    if count < SHARD_ABOVE and not SHARD.fullmatch(entry_id):
        return f"{TASKS_FOLDER}/{entry_id}"
    return f"{TASKS_FOLDER}/{hashlib.sha256(entry_id.encode()).hexdigest()[:2]}/{entry_id}"


def check_place(path: str, others: Iterable[str] = ()) -> None:
    """Refuse to delete what an index, which others may have written, has for an entry's folder, but is not its alone.

    Args:
        others: paths of the entries that stay.

    Raises:
        FormatError: entries lie elsewhere, or another entry lies there, too.
    """
    parts = path.split("/")
    if parts[0] != TASKS_FOLDER or len(parts) < 2 or {"", ".", ".."} & set(parts):
        raise FormatError(
            f"the index says that an entry lies in {path[:100]!r}, which is no place for one: mend it first"
        )
    shared = next((other for other in others if other == path or other.startswith(f"{path}/")), None)
    if shared is not None:
        raise FormatError(f"the index says that another entry lies in {shared[:100]!r}, too: mend it first")


def describe(bank: BankReader, entry_id: str, path: str, folder: Path | None = None) -> Entry:
    """The entry that a folder's files make, as for the index; the folder is that of the path, if left out.

    Raises:
        FormatError: its config is malformed. BaseMismatchError: it is of another base.
    """
    folder = folder or bank.files.path(path)
    config = load_config(folder)
    found = (config.base_model or {}).get("sha256")
    if found != bank.base_sha256:
        raise BaseMismatchError(f"{folder} belongs to base {str(found)[:12]}..., not to the bank's")
    check_network(config, bank.meta["base_model"], str(folder))
    mask = config.mask()
    if mask.sizes != bank.sizes:
        why = "a model whose stem is pruned is no voter" if len(mask) > len(bank.sizes) else "others, or other sizes"
        raise FormatError(f"{folder / CONFIG}: its masks do not fit the base's layers: {why}")
    labels = tuple(config.id2label[i] for i in range(config.num_labels))
    weights = folder / WEIGHTS
    with storage_errors(weights, "read"):
        size = weights.stat().st_size
        sha = sha256_file(weights)
        scores = sha256_file(folder / SCORES) if (folder / SCORES).exists() else None
    task = Task(labels, tuple(config.synsets or ()))
    metrics = dict(config.metrics or {})
    packed = pack_mask(mask)
    made = Entry(bank, check_id(entry_id), task, packed, config.method, config.ratio, metrics, path, size, sha)
    return replace(made, scores_sha256=scores)


def entry_folders(bank: BankReader) -> dict[str, str]:
    """Paths of all finished entry folders on disk by id, whether or not the index knows them."""
    found = {}
    for config in sorted((bank.root / TASKS_FOLDER).glob("**/" + CONFIG)):
        folder = config.parent
        relative = folder.relative_to(bank.root)
        if not any(part.startswith(TEMPORARY) for part in relative.parts) and (folder / WEIGHTS).exists():
            found[folder.name] = relative.as_posix()
    return found
