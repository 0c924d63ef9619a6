"""Checking a bank: the files of every entry against the base and against its row in the index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import FormatError, MetaPruneError, reason
from ..files.layout import CONFIG, PREPROCESSOR, SCORES, WEIGHTS
from ..files.reading import is_present, open_regular
from ..models.saving import load_model
from ..models.score_file import load_scores
from .entry import Entry
from .entry_checks import check_magnitudes
from .folders import entry_folders, entry_from_folder
from .reader import MAX_BASE_BYTES, MAX_CONFIG_BYTES, MAX_ENTRY_BYTES, BankReader

SHARED_FIELDS = {
    "masks": "packed_mask",
    "labels or synsets": "task",
    "method": "method",
    "ratio": "ratio",
    "metrics": "metrics",
}
"""Fields of `Entry` that both an entry's config and its row in the index state, by the words for them."""


@dataclass(frozen=True)
class Problem:
    """A problem of one entry, or of the bank itself."""

    entry_id: str
    """The entry's id, or the row of the index; empty for the bank itself."""
    what: str
    """The problem in words."""

    def __str__(self) -> str:
        return f"{self.entry_id or 'bank'}: {self.what}"


def check_entry(bank: BankReader, entry: Entry, compare_base: bool = True) -> Iterator[str]:
    """Yield what is wrong with one entry: files, sizes, digests, masks, labels, shapes and values.

    Args:
        bank: the bank of the entry.
        entry: the entry to check.
        compare_base: whether to compare the magnitudes of its weights with those of the base, which must be sound.
    """
    try:
        problem = check_files(entry.folder)
        if problem is not None:
            yield problem
            return
        weights = entry.folder / WEIGHTS
        if weights.stat().st_size != entry.size:
            yield f"{weights} has {weights.stat().st_size} bytes, the index says {entry.size}"
            return
        disk_entry = entry_from_folder(bank, entry.id, entry.path, entry.folder)
        disk_entry = replace(disk_entry, repo_id=entry.repo_id, revision=entry.revision)
        if disk_entry.sha256 != entry.sha256:
            yield f"{weights} was altered: its sha256 is not that of the index"
            return
        check_model(disk_entry, compare_base)
        if disk_entry.scores_sha256 != entry.scores_sha256:
            if disk_entry.scores_sha256 and entry.scores_sha256:
                problem = "was altered: its sha256 is not that of the index"
            else:
                problem = "is missing" if entry.scores_sha256 else "is not in the index"
            yield f"{entry.folder / SCORES} {problem}"
        if disk_entry.class_means not in (None, entry.class_means):
            yield f"{entry.folder / CONFIG} and the index differ in: class means"
        for aspect, field in SHARED_FIELDS.items():
            if getattr(disk_entry, field) != getattr(entry, field):
                yield f"{entry.folder / CONFIG} and the index differ in: {aspect}"
    except MetaPruneError as error:
        yield str(error)


def check_files(folder: Path, max_weight_bytes: int = MAX_ENTRY_BYTES) -> str | None:
    """Return what is wrong with the files of an entry or a base without reading them, or None.

    Args:
        folder: the folder of the entry or the base.
        max_weight_bytes: most bytes of its weights.
    """
    limits = {CONFIG: MAX_CONFIG_BYTES, PREPROCESSOR: MAX_CONFIG_BYTES, WEIGHTS: max_weight_bytes}
    for name, limit in (limits | {SCORES: MAX_ENTRY_BYTES}).items():
        path = folder / name
        if not is_present(path):
            if name in (CONFIG, WEIGHTS):
                return f"{path} is missing"
            continue
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
        except FormatError as error:
            return str(error)
        except OSError as error:
            return f"{path} cannot be read: {reason(error)}"
        if size > limit:
            return f"{path} has {size} bytes, more than {limit}"
    return None


def check_model(entry: Entry, compare_base: bool = True) -> None:
    """Check that the model and the scores of an entry can be loaded and fit its base.

    Raises:
        FormatError: a file is damaged or does not fit, or the weights cannot come from the base.
    """
    model = load_model(entry.folder, expected=entry.bank.base_sha256)
    if entry.scores_sha256 is not None:
        load_scores(entry.folder / SCORES, entry.bank.sizes, entry.bank.base_sha256)
    if compare_base and entry.bank.files.has_base:
        check_magnitudes(model.network.state_dict(), entry.bank.base)


def validate_bank(bank: BankReader, ids: Sequence[str] | None = None, progress: bool = False) -> list[Problem]:
    """Check a bank, and list its problems.

    Args:
        bank: the bank to check; if it is strict, a malformed row of the index raises an error.
        ids: the entries to check; if left out, all.
        progress: show a progress bar.

    Returns:
        All problems; an empty list means that every entry can be used.

    Raises:
        FormatError: the index cannot be read.
    """
    problems = []
    try:
        if problem := check_files(bank.base_folder, MAX_BASE_BYTES):
            raise FormatError(problem)
        bank.base  # noqa: B018
    except MetaPruneError as error:
        problems.append(Problem("", str(error)))
    base_is_sound = not problems
    if base_is_sound and bank.files.has_base:
        try:
            bank.trunk  # noqa: B018
        except MetaPruneError as error:
            problems.append(Problem("", f"the trunk cannot be used: {error}"))
    entries = [bank[i] for i in ids] if ids is not None else list(bank)
    problems += [Problem(row, message) for row, message in bank.skip_reasons.items()]
    for entry in tqdm(entries, desc="validating", disable=not progress, leave=False):
        problems += [Problem(entry.id, problem) for problem in check_entry(bank, entry, base_is_sound)]
    if ids is None and bank.files.writable and all(entry.repo_id is None for entry in bank):
        unknown = sorted(set(entry_folders(bank)) - set(bank.entries))
        problems += [
            Problem(i, "its folder is not in the index; bank validate --repair checks it and adds it") for i in unknown
        ]
    return problems
