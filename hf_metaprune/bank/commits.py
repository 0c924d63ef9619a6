"""The commits that publish a bank: which files each adds and deletes, and the index and the card with them.

A commit carries its entries' files and the index that names them, so that no reader ever sees a row without files. Each
commit names the one it builds on. If somebody else has committed meanwhile, the index is read again and merged, and the
commit is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm.auto import tqdm

from ..errors import BankError, BaseMismatchError, FormatError
from ..files.layout import (
    BANK_FILE,
    BASE_FOLDER,
    CARD,
    CONFIG,
    ENTRY_FILES,
    INDEX_FILE,
    PREPROCESSOR,
    SCORES,
    TRUNK_FOLDER,
    WEIGHTS,
)
from ..files.names import public_name
from ..files.reading import is_present, open_regular, sha256_file
from ..hub.repo import Operation, Published, Repo
from ..models.configuration import MetaPrunedConfig
from ..models.public_files import check_public_header, is_public, public_base, public_json, public_trunk
from ..reporting.bank_card import BankCard
from ..text import quantity
from .entry import Entry
from .folders import check_entry_path, new_path
from .index import index_bytes, make_table, merge_tables, table_rows
from .meta import KNOWN_KEYS
from .published import PublishedState, has_content, read_state, to_json
from .reader import BankReader

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

COMMIT_ENTRIES = 250
"""Most entries per commit."""
COMMIT_BYTES = 1 << 28
"""Most bytes of weights per commit, which are held in memory, unless one entry alone has more."""
CHANGED_KEYS = ("name", "defaults", "layers", "base_model", "trunk")
"""Keys of a published ``bank.json`` that publishing again changes."""
_NO_REPO = {"repo_id": None, "revision": None}


class BankCommits:
    """The commits that bring a published bank up to date.

    Args:
        repo: where to commit.
        bank: the bank that has the entries and the base; None if entries are only removed.
        state: what the repo held when it was last read.
        license: for the card.
        exclusive: whether an entry that the repo has with other weights is an error, and not replaced.
        meta: the ``bank.json`` whose name, defaults, layers and base are to be published.
        stale: ids of entries that the published index names, but whose published files are missing or others.
    """

    def __init__(
        self,
        repo: Repo,
        bank: BankReader | None,
        state: PublishedState,
        license: str | None = None,
        *,
        exclusive: bool = False,
        meta: Mapping[str, Any] | None = None,
        stale: Collection[str] = (),
    ) -> None:
        self.repo, self.bank, self.state, self.license, self.exclusive = repo, bank, state, license, exclusive
        public_values = _public_meta(meta) if meta else {}
        self.meta_changes = {key: public_values[key] for key in CHANGED_KEYS if key in public_values}
        if "trunk" in self.meta_changes:
            self.meta_changes["format_version"] = public_values["format_version"]
        """Values that ``bank.json`` must have."""
        self.stale = frozenset(stale)
        """Ids of entries whose published files are missing or others."""

    def write(self, entries: list[Entry], removed: list[str], progress: bool) -> Published:
        """Commit entries in batches of bounded size, and with the last batch the removals and the card."""
        result = Published(self.repo.url)
        batches = list(_batches(entries)) or [[]]
        for number, batch in enumerate(tqdm(batches, desc="publishing", unit="commit", disable=not progress)):
            is_last = number == len(batches) - 1
            batch_removed = removed if is_last else []
            self.indexed_ids: list[str] = []  # set by `_operations`, which runs again after a conflict
            commit = self.repo.commit(
                partial(self._operations, batch, batch_removed, is_last), _message(batch, batch_removed)
            )
            if commit is not None:
                result.commits.append(commit)
                result.added += self.indexed_ids
                result.removed += batch_removed
        result.url = self.repo.url  # the first commit may have opened a pull request
        return result

    def _operations(self, batch: list[Entry], removed: list[str], is_last: bool, head: str) -> list[Operation]:
        if self.state.commit != head:
            self.state = read_state(self.repo, head)
        state = self.state
        published_rows, operations = state.rows, list[Operation]()
        meta = (state.meta or self._meta()) | self.meta_changes
        if state.meta is None:
            operations += self._base_operations()
        elif self.bank is not None:
            check_base(state, self.bank.base_sha256, self.repo.repo_id)
        if state.meta is not None and (meta != state.meta or BANK_FILE in state.missing_files):
            operations.append(_addition(BANK_FILE, to_json(meta)))
        if state.meta is not None and self.meta_changes and is_last:
            operations += self._base_files() if self._base_differs(head) else []
            operations += self._trunk_files(head)
        changed_entries = state.changed_entries(batch)
        changed_ids = {entry.id for entry in changed_entries}
        changed_entries += [entry for entry in batch if entry.id in self.stale - changed_ids]
        upload_ids = {entry.id for entry in changed_entries if state.differs(entry) or entry.id in self.stale}
        # those without a path had a repo of their own
        upload_ids |= {entry.id for entry in changed_entries if entry.id not in state.paths}
        conflicts = [i for i in upload_ids - self.stale if i in published_rows]
        if self.exclusive and conflicts:
            raise id_conflict(self.repo.repo_id, conflicts[0])
        removed_ids = [i for i in removed if i in published_rows]
        new_paths = {
            entry.id: new_path(entry.id, len(published_rows)) if entry.id in upload_ids else state.paths[entry.id]
            for entry in changed_entries
        }
        rows = [entry.row() | {"path": new_paths[entry.id], **_NO_REPO} for entry in changed_entries]
        operations += [
            operation
            for entry in changed_entries
            if entry.id in upload_ids
            for operation in _entry_additions(entry, new_paths[entry.id])
        ]
        paths = state.paths
        moved_ids = {i for i in upload_ids if paths.get(i, new_paths[i]) != new_paths[i]}
        kept_paths = [
            path for i, path in paths.items() if i not in moved_ids and i not in removed_ids and i not in upload_ids
        ]
        for i in upload_ids:
            check_entry_path(new_paths[i], kept_paths)
        operations += self._deletions(
            [paths[i] for i in [*removed_ids, *sorted(moved_ids)] if i in paths],
            [*kept_paths, *new_paths.values()],
            head,
        )
        table = merge_tables(state.table, make_table(rows), removed_ids)
        if rows or removed_ids or meta != state.meta or INDEX_FILE in state.missing_files:
            operations.append(_addition(INDEX_FILE, index_bytes(table, meta)))
        card = self._card(state, table, meta) if is_last and state.card_is_ours else state.card
        may_update_card = (
            not self.repo.create_pr or operations or self.license
        )  # a pull request is not worth a new layout of the card alone
        if card != state.card and may_update_card:
            operations.append(_addition(CARD, (card or "").encode()))
        self.indexed_ids = [entry.id for entry in changed_entries]
        return operations

    def _deletions(self, folders: list[str], kept_folders: Collection[str], head: str) -> list[Operation]:
        """Return operations that delete those of the entries' folders that exist."""
        for folder in folders:
            check_entry_path(folder, kept_folders)
        paths = [f"{folder}/{name}" for folder in folders for name in ENTRY_FILES]
        existing_files = self.repo.file_sizes(paths, head) if paths else {}
        return [
            _deletion(folder) for folder in folders if any(path.startswith(f"{folder}/") for path in existing_files)
        ]

    def _base_operations(self) -> list[Operation]:
        return [_addition(BANK_FILE, to_json(self._meta())), *self._base_files(), *self._trunk_files(None)]

    def _base_differs(self, head: str) -> bool:
        """Return whether published files of the base are missing, or are others."""
        from huggingface_hub.utils.sha import git_hash

        assert self.bank is not None
        published_files = self.repo.files(BASE_FOLDER, head)
        config = public_json(self.bank.base_folder / CONFIG, self.bank.root)
        weights = published_files.get(f"{BASE_FOLDER}/{WEIGHTS}")
        weights_match = has_content(weights, self.bank.base_folder / WEIGHTS, self.bank.base_sha256)
        return not weights_match or published_files.get(f"{BASE_FOLDER}/{CONFIG}") != git_hash(config)

    def _base_files(self) -> list[Operation]:
        assert self.bank is not None  # removals alone need no base: the published bank has it
        folder = self.bank.base_folder
        return [
            *_json_additions(folder, BASE_FOLDER, self.bank.root),
            _tensor_addition(folder, BASE_FOLDER, WEIGHTS, self.bank.base_sha256),
        ]

    def _trunk_files(self, head: str | None) -> list[Operation]:
        """Return operations that add the files of the bank's trunk, unless a commit has them."""
        from huggingface_hub.utils.sha import git_hash

        assert self.bank is not None
        if "trunk" not in self.bank.meta:
            return []
        folder = self.bank.files.path(TRUNK_FOLDER)
        digest = sha256_file(folder / WEIGHTS) if is_present(folder / WEIGHTS) else ""
        self.bank.__dict__.pop("trunk", None)  # it is checked as it is now; what is sent must have this digest
        assert self.bank.trunk is not None
        config = public_trunk(folder / CONFIG, self.bank.root)
        published = self.repo.files(TRUNK_FOLDER, head) if head is not None else {}
        weights_digest = published.get(f"{TRUNK_FOLDER}/{WEIGHTS}")
        weights_match = has_content(weights_digest, folder / WEIGHTS, digest)
        if weights_match and published.get(f"{TRUNK_FOLDER}/{CONFIG}") == git_hash(config):
            return []
        return [_addition(f"{TRUNK_FOLDER}/{CONFIG}", config), _tensor_addition(folder, TRUNK_FOLDER, WEIGHTS, digest)]

    def _meta(self) -> dict[str, Any]:
        """Return the ``bank.json`` of a bank that is new on the Hub."""
        assert self.bank is not None
        return _public_meta(self.bank.meta)

    def _card(self, state: PublishedState, table: pa.Table, meta: Mapping[str, Any]) -> str:
        return BankCard(self.repo.repo_id, meta, list(table_rows(table)), self.license).render(state.card)


def _public_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is published of a ``bank.json``."""
    values = {key: value for key, value in meta.items() if key in KNOWN_KEYS}
    if isinstance(values.get("name"), str):
        values["name"] = public_name(values["name"])
    if not is_public(values.get("hf_metaprune_version")):
        del values["hf_metaprune_version"]
    if "defaults" in values:
        values["defaults"] = {key: value for key, value in values["defaults"].items() if key == "ratio"}
    return values | {"base_model": public_base(meta["base_model"]) | {"path": BASE_FOLDER}}


def check_base(state: PublishedState, sha256: str, repo_id: str) -> None:
    """Check that a published bank, if there is one, has the base with this digest.

    Raises:
        BaseMismatchError: the published bank has another base.
    """
    published_sha256 = state.meta["base_model"]["sha256"] if state.meta else sha256
    if published_sha256 != sha256:
        raise BaseMismatchError(
            f"{repo_id} is a bank of another base ({published_sha256[:12]}...): choose another name"
        )


def id_conflict(repo_id: str, entry_id: str) -> BankError:
    """Return the error for an id that a published entry with other weights has."""
    return BankError(f"{repo_id} has another entry {entry_id!r}: choose another id, or remove it first")


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Yield groups of entries that one commit can carry."""
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
    parts = [f"add {quantity(len(added), 'entry', 'entries')}"] if added else []
    parts += [f"remove {len(removed)}"] if removed else []
    return (" and ".join(parts) or "update the card").capitalize()


def _addition(path: str, content: bytes) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, content)


def _json_additions(folder: Path, path: str, root: Path) -> list[CommitOperationAdd]:
    """Return operations that add the JSON files of an entry or a base.

    Args:
        folder: the folder of the files.
        path: the folder in the repo.
        root: a folder above the files; no folder between may be a link.

    Raises:
        FormatError: a file is a link or another thing than a regular file, or cannot be published.
    """
    small_files = [folder / name for name in (CONFIG, PREPROCESSOR) if is_present(folder / name)]
    return [_addition(f"{path}/{file.name}", public_json(file, root)) for file in small_files]


def _entry_additions(entry: Entry, path: str) -> list[Operation]:
    """Return operations that add the files of an entry; what is sent is what its row in the index says.

    Args:
        entry: the entry.
        path: its folder in the repo.

    Raises:
        FormatError: a file is a link or another thing than a regular file, or was altered since it was checked.
    """
    operations = _json_additions(entry.folder, path, entry.root)
    config = next((operation for operation in operations if operation.path_in_repo == f"{path}/{CONFIG}"), None)
    if config is None:
        raise FormatError(f"{entry.folder / CONFIG} is missing")
    assert isinstance(config.path_or_fileobj, bytes)
    entry.check_config(MetaPrunedConfig.from_dict(json.loads(config.path_or_fileobj)))
    digests = _tensor_digests(entry).items()
    return [*operations, *(_tensor_addition(entry.folder, path, name, digest) for name, digest in digests)]


def _tensor_addition(folder: Path, path: str, name: str, digest: str) -> Operation:
    """Return the operation that adds a file of tensors.

    It has the content that was checked, because a path may lead elsewhere when huggingface_hub opens it.

    Raises:
        FormatError: the file is a link or another thing than a regular file, has another digest, or a header with more
            than our metadata.
    """
    with open_regular(folder / name) as file:
        content = file.read()
    if path != BASE_FOLDER:  # the base's file is its identity, and is sent as it is
        check_public_header(folder / name, content)
    operation = _addition(f"{path}/{name}", content)
    if operation.upload_info.sha256.hex() != digest:  # another process has replaced it
        raise FormatError(f"{folder / name} was altered: its sha256 is not what it was")
    return operation


def _tensor_digests(entry: Entry) -> dict[str, str]:
    scores = {SCORES: entry.scores_sha256} if entry.scores_sha256 is not None else {}
    return {WEIGHTS: entry.sha256} | scores


def _deletion(path: str) -> Operation:
    from huggingface_hub import CommitOperationDelete

    return CommitOperationDelete(f"{path}/", is_folder=True)
