"""Publishing a bank, and changing a published one: what is checked before any commit is made (commits.py)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import BankError
from ..files.layout import CONFIG, PREPROCESSOR, TRUNK_FOLDER
from ..files.names import user_path
from ..files.reading import is_present
from ..hub.files import Files
from ..hub.repo import STARTER_FILES, Published, Repo
from ..models.public_files import is_public, public_json, public_trunk
from .commits import BankCommits, check_base, id_conflict
from .entry import Entry
from .entry_checks import check_id
from .folders import entry_from_folder, new_path
from .published import PublishedState, read_state, stale_entries
from .reader import MAX_BASE_BYTES, BankReader
from .validation import check_entry, check_files

log = logging.getLogger(__name__)


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
    """Publish a bank in a repo of the Hub, which is made if needed; only new and changed entries are uploaded.

    Args:
        bank: the bank to publish.
        repo_id: ``owner/name``.
        private: whether a new repo is private; if left out, the owner's default holds.
        revision: a branch to write to, made if needed; ``main`` if left out.
        create_pr: open a pull request instead of writing to the branch.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.
        license: for the card, such as ``apache-2.0``.
        delete: also remove published entries that this bank does not have (``bank sync``); the published bank must
            exist.
        progress: show progress bars.

    Returns:
        The address, the ids of the entries that were added or removed, and the commits.

    Raises:
        BankError: an entry is damaged, or the repo holds something else.
        BaseMismatchError: the repo holds a bank of another base.
        HubError: there is no token, it may not write there, or the Hub cannot be reached.
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    _check_presence(bank)
    is_checked = False
    if delete:
        state = _read_published_bank(repo)  # a misspelt name must not make a repo
    else:
        if not repo.exists():  # a damaged bank must not make a repo either
            _check_base_files(bank)
            _check_entries(bank, bank, progress)
            is_checked = True
        repo.ensure(private)
        state = read_state(repo, repo.head())
        if state.meta is None and (other_files := sorted(repo.names(state.commit) - STARTER_FILES)):
            raise BankError(f"{repo_id} holds something else ({other_files[0]}): choose another name")
    check_base(state, bank.base_sha256, repo_id)
    entries = state.changed_entries(bank)
    if not is_checked:
        _check_base_files(bank)
        _check_entries(bank, entries, progress)
    stale = stale_entries(repo, state, bank)
    new = {entry.id for entry in entries}
    if not is_checked:
        _check_entries(bank, [bank[i] for i in sorted(stale - new)], progress)
    if delete and bank.skip_reasons:
        reason = next(iter(bank.skip_reasons.values()))
        raise BankError(f"an entry could not be read, and would be removed from {repo_id}: {reason}")
    removed = sorted(set(state.rows) - set(bank.entries)) if delete else []
    writer = BankCommits(repo, bank, state, license, meta=bank.meta, stale=stale)
    return writer.write([*entries, *(bank[i] for i in sorted(stale - new))], removed, progress)


def add_entries(
    repo_id: str,
    folders: Mapping[str, Path],
    *,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    progress: bool = False,
) -> Published:
    """Add models to a published bank, without downloading the bank's weights.

    Args:
        repo_id: ``owner/name`` of the bank.
        folders: the folder of each model, by the id of the entry that it becomes.
        revision: a branch to write to; ``main`` if left out.
        create_pr: open a pull request instead of writing to the branch.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.
        progress: show progress bars.

    Returns:
        The address, the ids of the entries that were added, and the commits.

    Raises:
        BankError: the repo holds no bank, or an id belongs to an entry with other weights.
        FormatError: a folder holds no sound model of the bank's base.
        HubError: there is no token, it may not write there, or the Hub cannot be reached.

    Example:
        ::

            add_entries("org/resnet50-bank", {"my-pets": Path("model")}, create_pr=True)
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    state = _read_published_bank(repo)
    paths = {new_path(check_id(entry_id), 0): user_path(folder) for entry_id, folder in folders.items()}
    bank = BankReader(_ModelFolders(paths), state.meta or {})
    entries = [entry_from_folder(bank, path.rpartition("/")[2], path) for path in paths]
    _check_entries(bank, entries, progress)
    for entry in entries:
        if entry.id in state.rows and state.rows[entry.id]["sha256"] != entry.sha256:
            raise id_conflict(repo_id, entry.id)
    stale = stale_entries(repo, state, entries)
    return BankCommits(repo, bank, state, exclusive=True, stale=stale).write(entries, [], progress)


def remove_entries(
    repo_id: str,
    ids: Collection[str],
    *,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> Published:
    """Remove entries from a published bank: their rows and their files.

    Args:
        repo_id: ``owner/name`` of the bank.
        ids: the entries to remove.
        revision: a branch to write to; ``main`` if left out.
        create_pr: open a pull request instead of writing to the branch.
        token: with write access; if left out, that of the user's login or of ``HF_TOKEN``.

    Returns:
        The address, the ids of the entries that were removed, and the commits.

    Raises:
        BankError: the repo holds no bank, or the bank has no such entry.
        HubError: there is no token, it may not write there, or the Hub cannot be reached.

    Example:
        ::

            remove_entries("me/pet-bank", ["my-pets"])
    """
    repo = Repo(repo_id, token=token, revision=revision, create_pr=create_pr)
    state = _read_published_bank(repo)
    unknown = sorted(set(ids) - set(state.rows))
    if unknown:
        raise BankError(f"{repo_id} has no entry {unknown[0]!r}")
    return BankCommits(repo, None, state).write([], sorted(set(ids)), False)


def _read_published_bank(repo: Repo) -> PublishedState:
    state = read_state(repo, repo.head())
    if state.meta is None:
        raise BankError(f"{repo.repo_id} holds no bank: publish one first (hf-metaprune bank publish)")
    return state


def _check_entries(bank: BankReader, entries: Iterable[Entry], progress: bool) -> None:
    for entry in tqdm(list(entries), desc="checking", disable=not progress, leave=False):
        problem = next(check_entry(bank, entry), None)
        if not is_public([entry.id, entry.metrics, entry.method]):
            problem = "its id, its metrics or its method have a text that might be a path, an address or a token"
        if problem is not None:
            raise BankError(f"entry {entry.id} cannot be published: {problem}; see `hf-metaprune bank validate`")


def _check_presence(bank: BankReader) -> None:
    """Refuse a bank that lacks files of its entries or has links in their place, even if these are published already.

    Raises:
        BankError: a file is missing or no regular file, or an entry has a repo of its own.
    """
    if remote_entry := next((entry for entry in bank if entry.repo_id is not None), None):
        raise BankError(
            f"entry {remote_entry.id} lies in {remote_entry.repo_id}: what a search found is published there already; "
            "add models to a bank from their folders (hf-metaprune bank add)"
        )
    if not bank.files.writable:
        return
    if problem := check_files(bank.base_folder, MAX_BASE_BYTES):
        raise BankError(f"the base cannot be published: {problem}")
    for entry in bank:
        problem = check_files(entry.folder)
        if problem is not None:
            raise BankError(
                f"entry {entry.id} is damaged: {problem}; restore its files, or remove it (hf-metaprune bank remove "
                f"{bank.files.name} {entry.id})"
            )


def _check_base_files(bank: BankReader) -> None:
    """Refuse a bank whose base, layers or trunk are not what they seem.

    Raises:
        BankError: the layers are not those of the base.
        FormatError: a file is damaged.
    """
    if not bank.files.writable:
        return
    for name in (CONFIG, PREPROCESSOR):
        if is_present(bank.base_folder / name):
            public_json(bank.base_folder / name, bank.root)
    if bank.base.sizes != bank.sizes:
        raise BankError(f"the layers that {bank.files.name} names are not those of its base")
    if "trunk" in bank.meta:
        assert bank.trunk is not None
        public_trunk(bank.files.path(TRUNK_FOLDER) / CONFIG, bank.root)


class _ModelFolders(Files):
    """Folders of models anywhere on this machine, by the paths that they will have in a bank."""

    has_base = False

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.name, self.root, self.folders = "the models", Path(), folders

    def get(self, limits: Mapping[str, int], progress: bool = False, force: bool = False) -> None:
        pass

    def root_of(self, relative: str) -> Path:
        return self.folders[relative]

    def path(self, relative: str) -> Path:
        return self.folders[relative]
