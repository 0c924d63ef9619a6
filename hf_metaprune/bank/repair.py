"""Repairing a bank: folders that its index lacks, damaged entries, a lost ``bank.json``."""

from __future__ import annotations

import contextlib
import itertools
import logging
from dataclasses import replace
from pathlib import Path

from ..errors import FormatError, MetaPruneError
from ..files.layout import BANK_FILE, INDEX_FILE, REJECTED_FOLDER, WEIGHTS
from ..files.names import user_path
from ..files.reading import check_no_links, is_present
from ..files.storage import clear_all_unfinished, storage_errors, write_json
from .bank import Bank
from .entry import Entry
from .folders import entry_folders, entry_from_folder
from .index import read_stored_meta
from .meta import check_meta
from .validation import Problem, check_files, check_model

log = logging.getLogger(__name__)


def recover(bank: Bank) -> list[str]:
    """Add finished entries that the index lacks, because their writer died before it wrote the row.

    Returns:
        The ids of the entries that were added.
    """
    with bank.lock("recover"):
        clear_all_unfinished(bank.root)
        bank.reload()
        unlisted_folders = {
            entry_id: path for entry_id, path in entry_folders(bank).items() if entry_id not in bank.entries
        }
        recovered_entries: dict[str, Entry] = {}
        for entry_id, path in unlisted_folders.items():
            try:
                recovered_entries[entry_id] = entry_from_folder(bank, entry_id, path)
            except MetaPruneError as error:
                log.warning("left out %s: %s", path, error)
        if recovered_entries:
            bank.update_index(recovered_entries)
        return sorted(recovered_entries)


def repair_index(bank_path: str | Path) -> tuple[Bank, list[Problem]]:
    """Make the index anew from the entries' folders.

    A missing ``bank.json`` is restored from its copy in the index. Folders of damaged entries are moved into the bank's
    ``.rejected``, so that nothing takes them for sound later.

    Args:
        bank_path: the folder of the bank.

    Returns:
        The repaired bank, and the problems of the entries that are no longer in it.

    Raises:
        FormatError: ``bank.json`` itself is damaged.
        StorageError: the folder cannot be written.
    """
    _restore_meta(user_path(bank_path))
    bank = Bank.open(bank_path)
    indexed_entries: dict[str, Entry] = {}
    with contextlib.suppress(MetaPruneError):
        indexed_entries = bank.entries  # digests of the old index still count: they show which files were altered
    sound_entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    folders = entry_folders(bank)
    for entry_id, path in folders.items():
        indexed_entry = indexed_entries.get(entry_id)
        try:
            entry = _read_sound_entry(bank, entry_id, path, indexed_entry)
        except MetaPruneError as error:
            problems.append(Problem(entry_id, str(error)))
            continue
        if indexed_entry is not None:  # these values are in the index only
            names = ("repo_id", "revision", "sketch", "class_means")
            entry = replace(entry, **{name: getattr(indexed_entry, name) for name in names})
        sound_entries[entry_id] = entry
    problems += [Problem(i, "its files are missing") for i in indexed_entries if i not in folders]
    bank.replace_index(sound_entries)
    for entry_id, path in folders.items():
        if entry_id not in sound_entries:
            reject_folder(bank, path)
    return bank, problems


def _restore_meta(root: Path) -> None:
    if is_present(root / BANK_FILE) or not is_present(root / INDEX_FILE):
        return
    meta = read_stored_meta(root / INDEX_FILE)
    if meta is not None:
        write_json(root / BANK_FILE, check_meta(meta, root / INDEX_FILE))


def _read_sound_entry(bank: Bank, entry_id: str, path: str, indexed_entry: Entry | None) -> Entry:
    """Return the entry in a folder after a check of its files.

    Raises:
        FormatError: the entry is damaged, or its weights are not those of the index.
    """
    problem = check_files(bank.files.path(path))
    if problem is None:
        entry = entry_from_folder(bank, entry_id, path)
        if indexed_entry is None or (indexed_entry.size, indexed_entry.sha256) == (entry.size, entry.sha256):
            check_model(entry)
        else:
            problem = f"{entry.folder / WEIGHTS} was altered: its sha256 is not that of the index"
    if problem is not None:
        raise FormatError(problem)
    return entry


def reject_folder(bank: Bank, path: str) -> None:
    """Move an entry's folder into ``.rejected``, where nothing reads it; nothing is deleted."""
    folder, rejected_folder = bank.files.path(path), bank.root / REJECTED_FOLDER
    check_no_links(bank.root, REJECTED_FOLDER)
    with bank.lock(), storage_errors(rejected_folder, "write"):
        rejected_folder.mkdir(exist_ok=True)
        names = (f"{folder.name}.{n}" for n in itertools.count(1))
        folder.rename(next(rejected_folder / name for name in names if not (rejected_folder / name).exists()))
