"""What a published bank holds at one commit, and in what a bank on this machine differs from it."""

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
from ..files.names import public_name
from ..files.storage import read_json
from ..hub.files import HubFiles
from ..hub.repo import Repo, read_text
from ..models.configuration import MetaPrunedConfig
from ..models.saving import CONFIG_KEYS
from ..reporting.card import MAX_CARD_BYTES
from .entry import Entry
from .index import INDEX_SCHEMA, MAX_INDEX_BYTES, check_complete, read_table, stored_meta, table_rows
from .meta import check_meta, read_meta

OF_THE_PLACE = ("path", "repo_id", "revision", "sketch")
"""Columns that do not say which model an entry is."""


@dataclass
class State:
    """What the repo holds at one commit."""

    commit: str
    meta: dict[str, Any] | None
    table: pa.Table
    card: str | None
    card_is_ours: bool = True
    """Whether the card may be written."""
    missing: tuple[str, ...] = ()
    """Of ``bank.json`` and the index, what a bank lacks."""

    @cached_property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows of the index by id."""
        return {row["id"]: row for row in table_rows(self.table)}

    @property
    def paths(self) -> dict[str, str]:
        """Where the entries' files lie in this repo; of those that have a repo of their own, nowhere."""
        return {i: row["path"] or "" for i, row in self.rows.items() if row["repo_id"] is None}

    def news(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those of the entries that are not there, are others there, or have a sketch that is not there."""
        return [
            e for e in entries if self.differs(e) or (e.sketch is not None and e.sketch != self.rows[e.id]["sketch"])
        ]

    def differs(self, entry: Entry) -> bool:
        """Whether the entry's files, or what the index says of them, are others than what is there."""
        there, own = self.rows.get(entry.id), entry.row()
        return there is None or any(there[key] != own[key] for key in own if key not in OF_THE_PLACE)


def read_state(repo: Repo, commit: str) -> State:
    """What a repo holds at a commit: a bank, parts of one, or nothing yet.

    Raises:
        BankError: it holds a model. FormatError: what it holds of a bank is damaged. HubError: it cannot be had.
    """
    there = repo.sizes([BANK_FILE, INDEX_FILE, CARD, CONFIG], commit)
    if CONFIG in there:
        raise BankError(f"{repo.repo_id} holds a model, not a bank: choose another name")
    try:
        return _read(repo, commit, there)
    except (BankError, NewerFormatError):
        raise
    except FormatError as error:
        raise FormatError(
            f"{repo.repo_id} holds a damaged bank: {error}. Revert the commit that did it (on its page, under History) "
            "or delete that file there, and publish again"
        ) from error


def _read(repo: Repo, commit: str, there: Mapping[str, int]) -> State:
    ours = there.get(CARD, 0) <= MAX_CARD_BYTES  # a larger card is left alone
    card = read_text(repo, CARD, commit, MAX_CARD_BYTES) if CARD in there and ours else None
    missing = tuple(name for name in (BANK_FILE, INDEX_FILE) if name not in there)
    if len(missing) == 2:
        return State(commit, None, INDEX_SCHEMA.empty_table(), card, ours)
    first = INDEX_FILE if BANK_FILE in missing else BANK_FILE
    files = HubFiles(repo.repo_id, first, revision=commit, token=repo.token, limit=MAX_INDEX_BYTES)
    index, table = files.root / INDEX_FILE, INDEX_SCHEMA.empty_table()  # an index that was lost is made anew
    if INDEX_FILE not in missing:
        files.get({INDEX_FILE: MAX_INDEX_BYTES})
        table = check_complete(read_table(index), index)
    meta = stored_meta(index) if BANK_FILE in missing else read_meta(files.root / BANK_FILE)
    return State(commit, check_meta(meta or {}, index), table, card, ours, missing)


def stale_entries(repo: Repo, state: State, entries: Iterable[Entry]) -> set[str]:
    """Entries that the published index names, but whose files are not there, or are others."""
    from huggingface_hub.utils.sha import git_hash

    known = {entry.id: entry for entry in entries if entry.id in state.paths}
    there = repo.files(TASKS_FOLDER, state.commit) if known else {}
    found = set()
    for i, entry in known.items():
        path = state.paths[i]
        small = {name: entry.folder / name for name in (CONFIG, PREPROCESSOR) if (entry.folder / name).exists()}
        wanted = {f"{path}/{name}": git_hash(public_content(file)) for name, file in small.items()}
        weights = has_content(there.get(f"{path}/{WEIGHTS}"), entry.folder / WEIGHTS, entry.sha256)
        scores = entry.scores_sha256 is None or has_content(
            there.get(f"{path}/{SCORES}"), entry.folder / SCORES, entry.scores_sha256
        )
        if not weights or not scores or any(there.get(p) != digest for p, digest in wanted.items()):
            found.add(i)
    return found


def has_content(digest: str | None, path: Path, sha256: str) -> bool:
    """Whether a published file, of which the Hub tells a digest, is a file of this machine with that sha256."""
    from huggingface_hub.utils.sha import git_hash

    if digest is None or len(digest) == 64:
        return digest == sha256
    return digest == git_hash(path.read_bytes())  # no LFS: a small file


def public_content(path: Path) -> bytes:
    """A small JSON file as it is published: nothing that tells of the machine where it was written."""
    content = path.read_bytes()
    if path.name != CONFIG:
        return content
    values = read_json(path)
    ours = values.get("model_type") == MetaPrunedConfig.model_type
    kept = {key: value for key, value in values.items() if key in CONFIG_KEYS or (not ours and key != "_name_or_path")}
    if isinstance(dataset := kept.get("dataset"), str) and ours:
        kept["dataset"] = public_name(dataset)
    return content if kept == values else to_json(kept)


def to_json(value: Any) -> bytes:
    """A value as the JSON files of a bank have it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
