"""Publishing a bank: in commits of bounded size, each of which leaves a whole bank, and only what changed.

A commit carries its entries' files and the index that names them, so that no reader ever sees a row without files. Each
names the commit it builds on; when somebody else was faster, the index is read again, merged, and the commit made anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from ..cards.bank_card import BankCard
from ..cards.card import MAX_CARD_BYTES
from ..errors import BankError, BaseMismatchError
from ..hub.files import Files, HubFiles
from ..hub.repo import Operation, Published, Repo, holds_weights, read_text
from ..layout import BANK_FILE, BASE_FOLDER, CARD, CONFIG, INDEX_FILE, PREPROCESSOR, WEIGHTS
from ..markup import counted
from .bank import Bank
from .entry import Entry, check_id
from .folders import check_place, describe, new_path
from .index import INDEX_SCHEMA, MAX_INDEX_BYTES, check_complete, index_bytes, merged, read_table, rows_of, table_of
from .meta import read_meta
from .validation import check_entry, check_files

log = logging.getLogger(__name__)

COMMIT_ENTRIES = 250
COMMIT_BYTES = 1 << 30
ENTRY_FILES = (CONFIG, WEIGHTS, PREPROCESSOR)


@dataclass
class _State:
    """What the repo holds at one commit."""

    commit: str
    meta: dict[str, Any] | None
    table: pa.Table
    card: str | None

    @property
    def digests(self) -> dict[str, str]:
        return dict(zip(self.table["id"].to_pylist(), self.table["sha256"].to_pylist(), strict=True))

    @property
    def paths(self) -> dict[str, str]:
        paths = [path or "" for path in self.table["path"].to_pylist()]
        return dict(zip(self.table["id"].to_pylist(), paths, strict=True))

    def news(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those of the entries that are not there, have other weights there, or a sketch that is not there."""
        columns = (self.table[name].to_pylist() for name in ("id", "sha256", "sketch"))
        known = {i: (sha256, sketch) for i, sha256, sketch in zip(*columns, strict=True)}
        gone = (None, None)
        return [e for e in entries if known.get(e.id, gone) != (e.sha256, e.sketch or known.get(e.id, gone)[1])]


def _read(repo: Repo, commit: str) -> _State:
    there = repo.sizes([BANK_FILE, INDEX_FILE, CARD, CONFIG], commit)
    if CONFIG in there:
        raise BankError(f"{repo.repo_id} holds a model, not a bank: choose another name")
    card = read_text(repo, CARD, commit, MAX_CARD_BYTES) if CARD in there else None
    if BANK_FILE not in there:
        if holds_weights(repo.names(commit)):
            raise BankError(f"{repo.repo_id} holds a model, not a bank: choose another name")
        return _State(commit, None, INDEX_SCHEMA.empty_table(), card)
    files = HubFiles(repo.repo_id, BANK_FILE, revision=commit, token=repo.token)
    files.get({INDEX_FILE: MAX_INDEX_BYTES})
    index = files.root / INDEX_FILE
    return _State(commit, read_meta(files.root / BANK_FILE), check_complete(read_table(index), index), card)


def publish_bank(
    bank: Bank,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    license: str | None = None,
    delete: bool = False,
    progress: bool = False,
) -> Published:
    """Put a bank into a repo of the Hub, made if need be: what is new or changed there is sent, nothing else.

    Args:
        repo_id: ``owner/name``.
        private: whether a repo that is made is private; if left out, as its owner has set it.
        revision: a branch to write to, made if need be; ``main`` if left out.
        create_pr: open a pull request instead of writing.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.
        license: for the card, such as ``apache-2.0``.
        delete: also remove published entries that this bank does not have (``bank sync``); the bank must be there.

    Raises:
        BankError: an entry is damaged, or the repo holds something else.
        BaseMismatchError: the repo holds a bank of another base.
        HubError: there is no token, it may not write there, or the Hub cannot be reached.
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    if delete:
        state = _existing(repo)  # a misspelt name is no reason to make a repo
    else:
        repo.ensure(private)
        state = _read(repo, repo.head())
    _check_base(state, bank.base_sha256, repo_id)
    _check_presence(bank)
    entries = state.news(bank)
    _check_entries(bank, entries, progress)
    removed = sorted(set(state.digests) - set(bank.entries)) if delete else []
    return _Writer(repo, bank, state, license).write(entries, removed, progress)


def add_entries(
    repo_id: str,
    folders: Mapping[str, Path],
    *,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    progress: bool = False,
) -> Published:
    """Add models, from their folders, to a published bank; its weights are not downloaded.

    Args:
        folders: folder of each model, by the id of the entry it becomes.

    Raises:
        BankError: an id is taken by other weights. FormatError: a folder holds no sound model of the bank's base.
        HubError: see `publish_bank`.
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    state = _existing(repo)
    taken = state.digests
    paths = {new_path(check_id(entry_id), 0): Path(folder).expanduser() for entry_id, folder in folders.items()}
    bank = Bank(_ModelFolders(paths), state.meta or {})
    entries = [describe(bank, path.rpartition("/")[2], path) for path in paths]
    _check_entries(bank, entries, progress)
    for entry in entries:
        if taken.get(entry.id, entry.sha256) != entry.sha256:
            raise _taken(repo_id, entry.id)
    return _Writer(repo, bank, state, exclusive=True).write(entries, [], progress)


def remove_entries(
    repo_id: str, ids: Collection[str], *, revision: str | None = None, token: str | bool | None = None
) -> Published:
    """Remove entries from a published bank: their rows and their files.

    Raises:
        BankError: there is no such entry. HubError: see `publish_bank`.
    """
    repo = Repo(repo_id, token=token, revision=revision)
    state = _existing(repo)
    unknown = sorted(set(ids) - set(state.digests))
    if unknown:
        raise BankError(f"{repo_id} has no entry {unknown[0]!r}")
    return _Writer(repo, None, state).write([], sorted(ids), False)


class _Writer:
    """Makes the commits; `bank` has the base, unless the published bank has it for sure; `state` was read last."""

    def __init__(
        self, repo: Repo, bank: Bank | None, state: _State, license: str | None = None, exclusive: bool = False
    ) -> None:
        self.repo, self.bank, self.state, self.license, self.exclusive = repo, bank, state, license, exclusive

    def write(self, entries: list[Entry], removed: list[str], progress: bool) -> Published:
        done = Published(self.repo.url)
        batches = list(_batches(entries)) or [[]]
        for n, batch in enumerate(tqdm(batches, desc="publishing", unit="commit", disable=not progress)):
            last = n == len(batches) - 1
            gone = removed if last else []
            self.sent: list[str] = []
            commit = self.repo.commit(partial(self._operations, batch, gone, last), _message(batch, gone))
            if commit is not None:
                done.commits.append(commit)
                done.added += self.sent
                done.removed += gone
        done.url = self.repo.url  # of a pull request, once it is open
        return done

    def _operations(self, batch: list[Entry], removed: list[str], last: bool, head: str) -> list[Operation]:
        if self.state.commit != head:
            self.state = _read(self.repo, head)
        state = self.state
        published, made = state.digests, list[Operation]()
        if state.meta is None:
            made += self._base_operations()
        elif self.bank is not None:
            _check_base(state, self.bank.base_sha256, self.repo.repo_id)
        fresh = state.news(batch)
        sent = {entry.id for entry in fresh if published.get(entry.id) != entry.sha256}
        taken = [i for i in sent if i in published]
        if self.exclusive and taken:
            raise _taken(self.repo.repo_id, taken[0])
        gone = [i for i in removed if i in published]
        place = {e.id: new_path(e.id, len(published)) if e.id in sent else state.paths[e.id] for e in fresh}
        rows = [entry.row() | {"path": place[entry.id], **_NO_REPO} for entry in fresh]
        made += [op for entry in fresh if entry.id in sent for op in _additions(entry.folder, place[entry.id])]
        moved = {i for i in sent if state.paths.get(i, place[i]) != place[i]}
        left = [path for i, path in state.paths.items() if i not in moved and i not in gone]
        made += [_deletion(state.paths[i], [*left, *place.values()]) for i in [*gone, *sorted(moved)]]
        table = merged(state.table, table_of(rows), gone)
        if rows or gone or state.meta is None:
            made.append(_addition(INDEX_FILE, index_bytes(table, state.meta or self._meta())))
        card = self._card(state, table) if last else state.card
        for_card = not self.repo.create_pr or made or self.license  # nobody is asked to merge a new look alone
        if card != state.card and for_card:
            made.append(_addition(CARD, (card or "").encode()))
        self.sent = [entry.id for entry in fresh]
        return made

    def _base_operations(self) -> list[Operation]:
        assert self.bank is not None  # who only removes has seen that there is a bank
        content = json.dumps(self._meta(), indent=2, ensure_ascii=False) + "\n"
        return [_addition(BANK_FILE, content.encode()), *_additions(self.bank.base_folder, BASE_FOLDER)]

    def _meta(self) -> dict[str, Any]:
        """``bank.json`` of a bank that is new on the Hub."""
        assert self.bank is not None
        return self.bank.meta | {"base_model": self.bank.meta["base_model"] | {"path": BASE_FOLDER}}

    def _card(self, state: _State, table: pa.Table) -> str:
        rows = list(rows_of(table))
        return BankCard(self.repo.repo_id, state.meta or self._meta(), rows, self.license).render(state.card)


_NO_REPO = {"repo_id": None, "revision": None}


def _existing(repo: Repo) -> _State:
    state = _read(repo, repo.head())
    if state.meta is None:
        raise BankError(f"{repo.repo_id} holds no bank: publish one first (hf-metaprune bank publish)")
    return state


def _check_base(state: _State, sha256: str, repo_id: str) -> None:
    found = state.meta["base_model"]["sha256"] if state.meta else sha256
    if found != sha256:
        raise BaseMismatchError(f"{repo_id} is a bank of another base ({found[:12]}...): choose another name")


def _check_entries(bank: Bank, entries: Iterable[Entry], progress: bool) -> None:
    for entry in tqdm(list(entries), desc="checking", disable=not progress, leave=False):
        wrong = next(check_entry(bank, entry), None)
        if wrong is not None:
            raise BankError(f"entry {entry.id} cannot be published: {wrong}; see `hf-metaprune bank validate`")


def _check_presence(bank: Bank) -> None:
    """Refuse a folder that lacks files which its index names, also where they are published already."""
    if not bank.files.writable:
        return
    for entry in bank:
        wrong = check_files(entry.folder, ours=True)
        if wrong is not None:
            raise BankError(
                f"entry {entry.id} is damaged: {wrong}; take it out (hf-metaprune bank remove {bank.files.name} "
                f"{entry.id}), or bring its files back"
            )


def _taken(repo_id: str, entry_id: str) -> BankError:
    return BankError(f"{repo_id} has another entry {entry_id!r}: choose another id, or remove it first")


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Entries in groups that one commit can carry."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == COMMIT_ENTRIES or size + entry.size > COMMIT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def _message(added: list[Entry], removed: list[str]) -> str:
    parts = [f"add {counted(len(added), 'entry', 'entries')}"] if added else []
    parts += [f"remove {len(removed)}"] if removed else []
    return (" and ".join(parts) or "update the card").capitalize()


def _addition(path: str, content: bytes | Path) -> Operation:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, content)


def _additions(folder: Path, path: str) -> list[Operation]:
    return [_addition(f"{path}/{name}", folder / name) for name in ENTRY_FILES if (folder / name).exists()]


def _deletion(path: str, others: Collection[str]) -> Operation:
    """Delete an entry's folder, in which none of the others' lies.

    Raises:
        FormatError: see `check_place`.
    """
    from huggingface_hub import CommitOperationDelete

    check_place(path, others)
    return CommitOperationDelete(f"{path}/", is_folder=True)


class _ModelFolders(Files):
    """Folders of models anywhere on this machine, by the paths they will have in a bank."""

    has_base = False

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.name, self.root, self.folders = "the models", Path(), folders

    def get(self, limits: Mapping[str, int], progress: bool = False, force: bool = False) -> None:
        pass

    def path(self, relative: str) -> Path:
        return self.folders[relative]
