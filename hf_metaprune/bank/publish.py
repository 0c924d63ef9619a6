"""Publishing a bank: in commits of bounded size, each of which leaves a whole bank, and only what changed.

A commit carries its entries' files and the index that names them, so that no reader ever sees a row without files. Each
names the commit it builds on; when somebody else was faster, the index is read again, merged, and the commit made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from ..errors import BankError, BaseMismatchError
from ..files.layout import BANK_FILE, BASE_FOLDER, CARD, CONFIG, INDEX_FILE, PREPROCESSOR, SCORES, WEIGHTS
from ..hub.files import Files
from ..hub.repo import NOBODYS, Operation, Published, Repo
from ..reporting.bank_card import BankCard
from ..text import counted
from .entry import Entry, check_id
from .folders import check_place, describe, new_path
from .index import index_bytes, make_table, merged, table_rows
from .meta import KNOWN_KEYS
from .published import State, has_content, public_content, read_state, stale_entries, to_json
from .reader import BankReader
from .validation import check_entry, check_files

log = logging.getLogger(__name__)

COMMIT_ENTRIES = 250
COMMIT_BYTES = 1 << 30
ENTRY_FILES = (CONFIG, WEIGHTS, PREPROCESSOR, SCORES)


def publish_bank(
    bank: BankReader,
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
    _check_presence(bank)
    checked = False
    if delete:
        state = _existing(repo)  # a misspelt name is no reason to make a repo
    else:
        if not repo.exists():  # nor is a bank that is damaged
            _check_entries(bank, bank, progress)
            checked = True
        repo.ensure(private)
        state = read_state(repo, repo.head())
        if state.meta is None and (others := sorted(repo.names(state.commit) - NOBODYS)):
            raise BankError(f"{repo_id} holds something else ({others[0]}): choose another name")
    _check_base(state, bank.base_sha256, repo_id)
    entries = state.news(bank)
    if not checked:
        _check_entries(bank, entries, progress)
    lost = stale_entries(repo, state, bank)
    if delete and bank.left_out:
        why = next(iter(bank.left_out.values()))
        raise BankError(f"an entry could not be read, and would be removed from {repo_id}: {why}")
    removed = sorted(set(state.rows) - set(bank.entries)) if delete else []
    writer = _Writer(repo, bank, state, license, meta=bank.meta, lost=lost)
    new = {entry.id for entry in entries}
    return writer.write([*entries, *(bank[i] for i in sorted(lost - new))], removed, progress)


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
    paths = {new_path(check_id(entry_id), 0): Path(folder).expanduser() for entry_id, folder in folders.items()}
    bank = BankReader(_ModelFolders(paths), state.meta or {})
    entries = [describe(bank, path.rpartition("/")[2], path) for path in paths]
    _check_entries(bank, entries, progress)
    for entry in entries:
        if entry.id in state.rows and state.rows[entry.id]["sha256"] != entry.sha256:
            raise _taken(repo_id, entry.id)
    lost = stale_entries(repo, state, entries)
    return _Writer(repo, bank, state, exclusive=True, lost=lost).write(entries, [], progress)


def remove_entries(
    repo_id: str,
    ids: Collection[str],
    *,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Remove entries from a published bank: their rows and their files.

    Raises:
        BankError: there is no such entry. HubError: see `publish_bank`.
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    state = _existing(repo)
    unknown = sorted(set(ids) - set(state.rows))
    if unknown:
        raise BankError(f"{repo_id} has no entry {unknown[0]!r}")
    return _Writer(repo, None, state).write([], sorted(set(ids)), False)


class _Writer:
    """Makes the commits; `bank` has the base, unless the published bank has it for sure; `state` was read last."""

    def __init__(
        self,
        repo: Repo,
        bank: BankReader | None,
        state: State,
        license: str | None = None,
        *,
        exclusive: bool = False,
        meta: Mapping[str, Any] | None = None,
        lost: Collection[str] = (),
    ) -> None:
        self.repo, self.bank, self.state, self.license, self.exclusive = repo, bank, state, license, exclusive
        own = {"base_model": meta["base_model"] | {"path": BASE_FOLDER}} if meta else {}
        self.wanted = {key: meta[key] for key in ("name", "defaults", "layers") if key in meta} | own if meta else {}
        """What ``bank.json`` is to say besides."""
        self.lost = frozenset(lost)
        """Entries whose files are others there, or none, though the index names them."""

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
            self.state = read_state(self.repo, head)
        state = self.state
        published, made = state.rows, list[Operation]()
        meta = (state.meta or self._meta()) | self.wanted
        if state.meta is None:
            made += self._base_operations()
        elif self.bank is not None:
            _check_base(state, self.bank.base_sha256, self.repo.repo_id)
        if state.meta is not None and (meta != state.meta or BANK_FILE in state.missing):
            made.append(_addition(BANK_FILE, to_json(meta)))
        if state.meta is not None and self.wanted and last:
            made += self._base_files() if self._base_differs(head) else []
        fresh = state.news(batch)
        new = {entry.id for entry in fresh}
        fresh += [entry for entry in batch if entry.id in self.lost - new]
        sent = {entry.id for entry in fresh if state.differs(entry) or entry.id in self.lost}
        sent |= {entry.id for entry in fresh if entry.id not in state.paths}  # it had a repo of its own
        taken = [i for i in sent - self.lost if i in published]
        if self.exclusive and taken:
            raise _taken(self.repo.repo_id, taken[0])
        gone = [i for i in removed if i in published]
        place = {e.id: new_path(e.id, len(published)) if e.id in sent else state.paths[e.id] for e in fresh}
        rows = [entry.row() | {"path": place[entry.id], **_NO_REPO} for entry in fresh]
        made += [op for entry in fresh if entry.id in sent for op in _additions(entry.folder, place[entry.id])]
        paths = state.paths
        moved = {i for i in sent if paths.get(i, place[i]) != place[i]}
        left = [path for i, path in paths.items() if i not in moved and i not in gone and i not in sent]
        for i in sent:
            check_place(place[i], left)
        made += self._deletions(
            [paths[i] for i in [*gone, *sorted(moved)] if i in paths], [*left, *place.values()], head
        )
        table = merged(state.table, make_table(rows), gone)
        if rows or gone or meta != state.meta or INDEX_FILE in state.missing:
            made.append(_addition(INDEX_FILE, index_bytes(table, meta)))
        card = self._card(state, table, meta) if last and state.card_is_ours else state.card
        for_card = not self.repo.create_pr or made or self.license  # nobody is asked to merge a new look alone
        if card != state.card and for_card:
            made.append(_addition(CARD, (card or "").encode()))
        self.sent = [entry.id for entry in fresh]
        return made

    def _deletions(self, folders: list[str], others: Collection[str], head: str) -> list[Operation]:
        """Delete entries' folders, those that are there."""
        for folder in folders:
            check_place(folder, others)
        there = (
            self.repo.sizes([f"{folder}/{name}" for folder in folders for name in ENTRY_FILES], head) if folders else {}
        )
        return [_deletion(folder) for folder in folders if any(path.startswith(f"{folder}/") for path in there)]

    def _base_operations(self) -> list[Operation]:
        return [_addition(BANK_FILE, to_json(self._meta())), *self._base_files()]

    def _base_differs(self, head: str) -> bool:
        """Whether files of the base are missing there, or are others."""
        from huggingface_hub.utils.sha import git_hash

        assert self.bank is not None
        there, config = self.repo.files(BASE_FOLDER, head), self.bank.base_folder / CONFIG
        weights = there.get(f"{BASE_FOLDER}/{WEIGHTS}")
        same = has_content(weights, self.bank.base_folder / WEIGHTS, self.bank.base_sha256)
        return not same or there.get(f"{BASE_FOLDER}/{CONFIG}") != git_hash(public_content(config))

    def _base_files(self) -> list[Operation]:
        assert self.bank is not None  # who only removes has seen that there is a bank
        return _additions(self.bank.base_folder, BASE_FOLDER)

    def _meta(self) -> dict[str, Any]:
        """``bank.json`` of a bank that is new on the Hub."""
        assert self.bank is not None
        known = {key: value for key, value in self.bank.meta.items() if key in KNOWN_KEYS}
        return known | {"base_model": self.bank.meta["base_model"] | {"path": BASE_FOLDER}}

    def _card(self, state: State, table: pa.Table, meta: Mapping[str, Any]) -> str:
        return BankCard(self.repo.repo_id, meta, list(table_rows(table)), self.license).render(state.card)


_NO_REPO = {"repo_id": None, "revision": None}


def _existing(repo: Repo) -> State:
    state = read_state(repo, repo.head())
    if state.meta is None:
        raise BankError(f"{repo.repo_id} holds no bank: publish one first (hf-metaprune bank publish)")
    return state


def _check_base(state: State, sha256: str, repo_id: str) -> None:
    found = state.meta["base_model"]["sha256"] if state.meta else sha256
    if found != sha256:
        raise BaseMismatchError(f"{repo_id} is a bank of another base ({found[:12]}...): choose another name")


def _check_entries(bank: BankReader, entries: Iterable[Entry], progress: bool) -> None:
    for entry in tqdm(list(entries), desc="checking", disable=not progress, leave=False):
        wrong = next(check_entry(bank, entry), None)
        if wrong is not None:
            raise BankError(f"entry {entry.id} cannot be published: {wrong}; see `hf-metaprune bank validate`")


def _check_presence(bank: BankReader) -> None:
    """Refuse a folder that lacks files which its index names, also where they are published already.

    Raises:
        BankError: it does; or its entries lie in repos of their own.
    """
    if elsewhere := next((entry for entry in bank if entry.repo_id is not None), None):
        raise BankError(
            f"entry {elsewhere.id} lies in {elsewhere.repo_id}: what a search found is published there already; add "
            "models to a bank from their folders (hf-metaprune bank add)"
        )
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
    files = [folder / name for name in ENTRY_FILES if (folder / name).exists()]
    return [_addition(f"{path}/{f.name}", f if f.name in (WEIGHTS, SCORES) else public_content(f)) for f in files]


def _deletion(path: str) -> Operation:
    from huggingface_hub import CommitOperationDelete

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
