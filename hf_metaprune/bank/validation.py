"""Checking a bank: every entry against its base, its row and itself; says what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import MetaPruneError
from ..files.layout import CONFIG, SCORES, WEIGHTS
from ..models.saving import load_model
from ..models.score_file import load_scores
from .entry import Entry, check_magnitudes
from .folders import describe, entry_folders
from .reader import MAX_CONFIG_BYTES, MAX_ENTRY_BYTES, BankReader

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


def check_entry(bank: BankReader, entry: Entry, by_base: bool = True) -> Iterator[str]:
    """What is wrong with one entry: files, sizes, digests, masks, labels, shapes, values.

    `by_base`: whether its values are measured by those of the base, which must be sound then.
    """
    try:
        wrong = check_files(entry.folder, bank.entry_files(entry).writable)
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
        check_model(described, by_base)
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


def check_model(entry: Entry, by_base: bool = True) -> None:
    model = load_model(entry.folder, expected=entry.bank.base_sha256)
    if entry.scores_sha256 is not None:
        load_scores(entry.folder / SCORES, entry.bank.sizes, entry.bank.base_sha256)
    if by_base and entry.bank.files.has_base:
        check_magnitudes(model, entry.bank.base)


def validate_bank(bank: BankReader, ids: Sequence[str] | None = None, progress: bool = False) -> list[Problem]:
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
