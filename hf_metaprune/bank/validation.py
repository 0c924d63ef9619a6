"""Checking a bank: every entry against its base, its row and itself; says what is wrong and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import FormatError, MetaPruneError
from ..files.layout import BANK_FILE, CONFIG, INDEX_FILE, SCORES, WEIGHTS
from ..files.storage import write_json
from ..models.saving import load_model
from ..models.score_file import load_scores
from .bank import Bank
from .entry import Entry, check_magnitudes
from .folders import describe, entry_folders, set_aside
from .index import stored_meta
from .meta import check_meta
from .reader import MAX_CONFIG_BYTES, MAX_ENTRY_BYTES

SAID_TWICE = {
    "masks": "packed_mask",
    "labels or synsets": "task",
    "method": "method",
    "ratio": "ratio",
    "metrics": "metrics",
}
"""What both an entry's config and its row in the index say."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one entry (or with the bank itself: `entry_id` empty)."""

    entry_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.entry_id or 'bank'}: {self.what}"


def check_entry(bank: Bank, entry: Entry, by_base: bool = True) -> Iterator[str]:
    """What is wrong with one entry: files, sizes, digests, masks, labels, shapes, values.

    `by_base`: whether its values are measured by those of the base, which must be sound then.
    """
    try:
        wrong = check_files(entry.folder, bank.files_of(entry).writable)
        if wrong is not None:
            yield wrong
            return
        weights = entry.folder / WEIGHTS
        if weights.stat().st_size != entry.size:
            yield f"{weights} has {weights.stat().st_size} bytes, the index says {entry.size}"
            return
        described = describe(bank, entry.id, entry.path, entry.folder)
        described = replace(described, repo_id=entry.repo_id, revision=entry.revision)
        if described.sha256 != entry.sha256:
            yield f"{weights} was altered: its sha256 is not that of the index"
            return
        _check_model(described, by_base)
        if described.scores_sha256 != entry.scores_sha256:
            lacking = "is missing" if entry.scores_sha256 else "is not in the index"
            altered = described.scores_sha256 and entry.scores_sha256
            what = "was altered: its sha256 is not that of the index" if altered else lacking
            yield f"{entry.folder / SCORES} {what}"
        for what, field in SAID_TWICE.items():
            if getattr(described, field) != getattr(entry, field):
                yield f"{entry.folder / CONFIG} and the index differ in: {what}"
    except MetaPruneError as error:
        yield str(error)


def check_files(folder: Path, ours: bool) -> str | None:
    """What is wrong with an entry's files, unread; only in the cache of the Hub (not `ours`) may they be links."""
    limits = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: MAX_ENTRY_BYTES, SCORES: MAX_ENTRY_BYTES}
    for name, limit in limits.items():
        path = folder / name
        if name == SCORES and not path.exists() and not path.is_symlink():
            continue
        if ours and (path.is_symlink() or folder.is_symlink()):
            return f"{path} is a symbolic link"
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size > limit:
            return f"{path} has {path.stat().st_size} bytes, more than {limit}"
    return None


def _check_model(entry: Entry, by_base: bool = True) -> None:
    model = load_model(entry.folder, expected=entry.bank.base_sha256)
    if entry.scores_sha256 is not None:
        load_scores(entry.folder / SCORES, entry.bank.sizes, entry.bank.base_sha256)
    if by_base and entry.bank.files.has_base:
        check_magnitudes(model, entry.bank.base)


def validate_bank(bank: Bank, ids: Sequence[str] | None = None, progress: bool = False) -> list[Problem]:
    """All problems of a bank; an empty list means that every entry can be used.

    Raises:
        FormatError: the bank cannot even be listed.
    """
    problems = []
    try:
        bank.base  # noqa: B018
    except MetaPruneError as error:
        problems.append(Problem("", str(error)))
    base_is_sound = not problems
    entries = [bank[i] for i in ids] if ids is not None else list(bank)
    problems += [Problem(row, why) for row, why in bank.left_out.items()]
    for entry in tqdm(entries, desc="validating", disable=not progress, leave=False):
        problems += [Problem(entry.id, what) for what in check_entry(bank, entry, base_is_sound)]
    if ids is None and bank.files.writable and all(entry.repo_id is None for entry in bank):
        unknown = sorted(set(entry_folders(bank)) - set(bank.entries))
        problems += [
            Problem(i, "its folder is not in the index; bank validate --repair checks it and puts it there")
            for i in unknown
        ]
    return problems


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
            _check_model(entry)
        else:
            wrong = f"{entry.folder / WEIGHTS} was altered: its sha256 is not that of the index"
    if wrong is not None:
        raise FormatError(wrong)
    return entry
