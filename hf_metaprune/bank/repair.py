"""Mending a bank: folders that its index lacks, damaged entries, a lost ``bank.json``."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from ..errors import FormatError, MetaPruneError
from ..files.layout import BANK_FILE, INDEX_FILE, REJECTED_FOLDER, TEMPORARY, WEIGHTS
from ..files.storage import storage_errors, write_json
from .bank import Bank
from .entry import Entry
from .folders import describe, entry_folders
from .index import stored_meta
from .meta import check_meta
from .validation import Problem, check_files, check_model

log = logging.getLogger(__name__)


def recover(bank: Bank) -> list[str]:
    """Put finished folders that the index lacks (a writer died in between) into it; their ids."""
    with bank.lock("recover"):
        with bank.lock():  # whose holders alone write files into the root
            for left in bank.root.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        bank.reload()
        missing = {i: p for i, p in entry_folders(bank).items() if i not in bank.entries}
        found: dict[str, Entry] = {}
        for entry_id, path in missing.items():
            try:
                found[entry_id] = describe(bank, entry_id, path)
            except MetaPruneError as error:
                log.warning("left out %s: %s", path, error)
        if found:
            bank.update_index(found)
        return sorted(found)


def repair_index(bank_path: str | Path) -> tuple[Bank, list[Problem]]:
    """Make the index anew from the entries' folders; what was wrong with those that were left out.

    A ``bank.json`` that is missing is taken from its copy in the index.

    Folders of damaged entries are moved into the bank's ``.rejected``, so that nothing takes them for sound later.

    Raises:
        FormatError: ``bank.json`` itself is damaged. StorageError: it cannot be written.
    """
    _restore_meta(Path(bank_path).expanduser())
    bank = Bank.open(bank_path)
    known: dict[str, Entry] = {}
    with contextlib.suppress(MetaPruneError):
        known = bank.entries  # what the old index says of a file's digest still counts
    found: dict[str, Entry] = {}
    problems: list[Problem] = []
    folders = entry_folders(bank)
    for entry_id, path in folders.items():
        old = known.get(entry_id)
        try:
            entry = _sound(bank, entry_id, path, old)
        except MetaPruneError as error:
            problems.append(Problem(entry_id, str(error)))
            continue
        if old is not None:  # what only the index says
            entry = replace(entry, repo_id=old.repo_id, revision=old.revision, sketch=old.sketch)
        found[entry_id] = entry
    problems += [Problem(i, "its files are missing") for i in known if i not in folders]
    bank.replace_index(found)
    for entry_id, path in folders.items():
        if entry_id not in found:
            set_aside(bank, path)
    return bank, problems


def _restore_meta(root: Path) -> None:
    if (root / BANK_FILE).exists() or not (root / INDEX_FILE).exists():
        return
    meta = stored_meta(root / INDEX_FILE)
    if meta is not None:
        write_json(root / BANK_FILE, check_meta(meta, root / INDEX_FILE))


def _sound(bank: Bank, entry_id: str, path: str, old: Entry | None) -> Entry:
    """The entry in a folder, or an error that says what is wrong with it."""
    wrong = check_files(bank.files.path(path), True)
    if wrong is None:
        entry = describe(bank, entry_id, path)
        if old is None or (old.size, old.sha256) == (entry.size, entry.sha256):
            check_model(entry)
        else:
            wrong = f"{entry.folder / WEIGHTS} was altered: its sha256 is not that of the index"
    if wrong is not None:
        raise FormatError(wrong)
    return entry


def set_aside(bank: Bank, path: str) -> None:
    """Move an entry's folder out of the way, into ``.rejected``: nothing is deleted, and nothing reads it."""
    folder, rejected = bank.files.path(path), bank.root / REJECTED_FOLDER
    with bank.lock(), storage_errors(rejected, "write"):
        rejected.mkdir(exist_ok=True)
        names = (f"{folder.name}.{n}" for n in itertools.count(1))
        folder.rename(next(rejected / name for name in names if not (rejected / name).exists()))
