"""A published bank at one commit, and how a bank on this machine differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import BankError, FormatError, NewerFormatError
from ..files.layout import BANK_FILE, CARD, CONFIG, INDEX_FILE, PREPROCESSOR, SCORES, TASKS_FOLDER, WEIGHTS
from ..files.reading import is_present, open_regular
from ..hub.files import HubFiles
from ..hub.repo import Repo, read_text
from ..models.public_files import public_json
from ..reporting.card import MAX_CARD_BYTES
from .entry import Entry
from .index import INDEX_SCHEMA, MAX_INDEX_BYTES, check_complete, read_stored_meta, read_table, table_rows
from .meta import check_meta, read_meta

LOCATION_COLUMNS = ("path", "repo_id", "revision", "sketch", "class_means")
"""Columns that say where an entry is or what was added to it later, not which model it is."""


@dataclass
class PublishedState:
    """The bank in a repo at one commit."""

    commit: str
    """The commit that was read."""
    meta: dict[str, Any] | None
    """The values of ``bank.json``; None if the repo holds no bank."""
    table: pa.Table
    """The index; without rows if the repo has none."""
    card: str | None
    """The text of ``README.md``, if the repo has one that may be written."""
    card_is_ours: bool = True
    """Whether the card may be written: one that is too large is left as it is."""
    missing_files: tuple[str, ...] = ()
    """Which of ``bank.json`` and ``index.parquet`` the repo lacks, if it has the other."""

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the index by id."""
        return {row["id"]: row for row in table_rows(self.table)}

    @property
    def paths(self) -> dict[str, str]:
        """Paths of the entries in this repo by id, without entries that have a repo of their own."""
        return {i: row["path"] or "" for i, row in self.rows.items() if row["repo_id"] is None}

    def changed_entries(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries that are not published, are published with other values, or have a new sketch or means."""

        def has_new(entry: Entry) -> bool:
            values = {"sketch": entry.sketch, "class_means": entry.class_means}
            return any(value is not None and value != self.rows[entry.id][key] for key, value in values.items())

        return [entry for entry in entries if self.differs(entry) or has_new(entry)]

    def differs(self, entry: Entry) -> bool:
        """Return whether an entry is not published, or is published with other values than a sketch or class means."""
        published_row, row = self.rows.get(entry.id), entry.row()
        return published_row is None or any(
            published_row[key] != row[key] for key in row if key not in LOCATION_COLUMNS
        )


def read_state(repo: Repo, commit: str) -> PublishedState:
    """Read the bank in a repo at a commit; the repo may hold a part of a bank, or nothing yet.

    Raises:
        BankError: the repo holds a model.
        FormatError: the repo holds a damaged bank.
        HubError: a file cannot be downloaded.
    """
    file_sizes = repo.file_sizes([BANK_FILE, INDEX_FILE, CARD, CONFIG], commit)
    if CONFIG in file_sizes:
        raise BankError(f"{repo.repo_id} holds a model, not a bank: choose another name")
    try:
        return _read_bank_state(repo, commit, file_sizes)
    except (BankError, NewerFormatError):
        raise
    except FormatError as error:
        raise FormatError(
            f"{repo.repo_id} holds a damaged bank: {error}. Revert the commit that damaged it (on the repo's page, "
            "under History) or delete that file there, then publish again"
        ) from error


def _read_bank_state(repo: Repo, commit: str, file_sizes: Mapping[str, int]) -> PublishedState:
    card_is_ours = file_sizes.get(CARD, 0) <= MAX_CARD_BYTES  # a larger card is left alone
    card = read_text(repo, CARD, commit, MAX_CARD_BYTES) if CARD in file_sizes and card_is_ours else None
    missing_files = tuple(name for name in (BANK_FILE, INDEX_FILE) if name not in file_sizes)
    if len(missing_files) == 2:
        return PublishedState(commit, None, INDEX_SCHEMA.empty_table(), card, card_is_ours)
    first = INDEX_FILE if BANK_FILE in missing_files else BANK_FILE
    files = HubFiles(repo.repo_id, first, revision=commit, token=repo.token, limit=MAX_INDEX_BYTES)
    index, table = files.root / INDEX_FILE, INDEX_SCHEMA.empty_table()  # an index that was lost is made anew
    if INDEX_FILE not in missing_files:
        files.get({INDEX_FILE: MAX_INDEX_BYTES})
        table = check_complete(read_table(index), index)
    meta = read_stored_meta(index) if BANK_FILE in missing_files else read_meta(files.root / BANK_FILE)
    return PublishedState(commit, check_meta(meta or {}, index), table, card, card_is_ours, missing_files)


def stale_entries(repo: Repo, state: PublishedState, entries: Iterable[Entry]) -> set[str]:
    """Return the ids of entries that the published index has, but whose published files are missing or others."""
    from huggingface_hub.utils.sha import git_hash

    published_entries = {entry.id: entry for entry in entries if entry.id in state.paths}
    digests = repo.files(TASKS_FOLDER, state.commit) if published_entries else {}
    stale_ids = set()
    for i, entry in published_entries.items():
        path = state.paths[i]
        small_files = {name: entry.folder / name for name in (CONFIG, PREPROCESSOR) if is_present(entry.folder / name)}
        contents = {name: public_json(file, entry.root) for name, file in small_files.items()}
        expected_digests = {f"{path}/{name}": git_hash(content) for name, content in contents.items()}
        weights_match = has_content(digests.get(f"{path}/{WEIGHTS}"), entry.folder / WEIGHTS, entry.sha256)
        scores_match = entry.scores_sha256 is None or has_content(
            digests.get(f"{path}/{SCORES}"), entry.folder / SCORES, entry.scores_sha256
        )
        if (
            not weights_match
            or not scores_match
            or any(digests.get(file_path) != digest for file_path, digest in expected_digests.items())
        ):
            stale_ids.add(i)
    return stale_ids


def has_content(digest: str | None, path: Path, sha256: str) -> bool:
    """Return whether a published file is the same as a file on this machine.

    Args:
        digest: what the Hub states for the published file: a sha256 or a git hash; None if there is no such file.
        path: the file on this machine.
        sha256: the digest of the file on this machine.
    """
    from huggingface_hub.utils.sha import git_hash

    if digest is None or len(digest) == 64:
        return digest == sha256
    with open_regular(path) as file:
        return digest == git_hash(file.read())  # a small file is not stored by LFS


def to_json(value: Any) -> bytes:
    """Return a value as the JSON text of a bank's files."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
