"""`Bank`: a folder of pruned task models of one base model (format version 1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ..config import SearchOptions
from ..errors import BaseMismatchError, FormatError, MissingFileError, NotABankError, OptionError
from ..files.layout import BANK_FILE, BASE_FOLDER, CONFIG, FORMAT_VERSION, INDEX_FILE
from ..files.names import is_repo_id, user_path
from ..files.reading import is_present
from ..files.shipped import bank_folder
from ..files.storage import new_folder, read_json, storage_errors, write_json
from ..hub.files import HubFiles, LocalFiles
from ..hub.repo import Published
from ..models.base_model import BaseModel, identify
from ..options import override
from ..version import __version__
from .index import MAX_INDEX_BYTES, read_stored_meta
from .meta import check_meta, read_meta
from .publish import publish_bank
from .reader import MAX_CONFIG_BYTES
from .search import search_hub
from .writer import BankWriter

log = logging.getLogger(__name__)


class OpenOptions(TypedDict, total=False):
    """Keyword arguments of `open_bank`."""

    revision: str | None
    """A branch, tag or commit; only for the Hub."""
    token: str | bool | None
    """If left out, that of the user's login or of ``HF_TOKEN``."""
    cache_dir: str | Path | None
    """A folder to use instead of huggingface_hub's cache."""
    local_files_only: bool
    """Use only the cache."""
    strict: bool | None
    """Whether a malformed entry raises an error, or is skipped."""


class Bank(BankWriter):
    """A bank: pruned task models (entries) of one base model, by id.

    Reading is lazy. Writing is atomic and safe between processes. `Bank.open` and `Bank.from_hub` open a bank,
    `Bank.create` makes one, and `Bank.from_search` collects single models from the Hub. Iteration and ``bank[id]``
    give `Entry`.

    Example:
        ::

            bank = Bank.open("my-bank")
            print(len(bank), [entry.labels for entry in bank])

        A bank without its first entry::

            bank.remove(next(iter(bank)).id)
    """

    @classmethod
    def open(cls, path: str | Path, *, strict: bool = True) -> Bank:
        """Open a bank in a folder.

        Args:
            path: the folder that holds ``bank.json``.
            strict: whether a malformed entry raises an error; otherwise it is skipped with a warning.

        Returns:
            The bank; its entries are read when they are first used.

        Raises:
            NotABankError: the folder holds no bank.
            FormatError: there is no such folder, or the bank is damaged or of a newer format version.
            OptionError: the path is empty, or too long for a path.
        """
        files = LocalFiles(path)
        if not files.root.exists():
            raise FormatError(f"there is no folder {files.root}")
        if not is_present(files.root / BANK_FILE):
            mismatch = "is a model, not a bank" if is_present(files.root / CONFIG) else "is not a bank"
            raise NotABankError(f"{files.root} {mismatch}: it has no {BANK_FILE}")
        return cls(files, read_meta(files.root / BANK_FILE), strict=strict)

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        strict: bool = False,
    ) -> Bank:
        """Open a bank on the Hub at one commit; weights are downloaded when they are needed.

        Args:
            repo_id: ``owner/name``.
            revision: a branch, tag or commit; a branch is resolved to its commit once.
            token: if left out, that of the user's login or of ``HF_TOKEN``.
            cache_dir: a folder to use instead of huggingface_hub's cache.
            local_files_only: use only the cache; a file that is not there raises an error.
            strict: whether a malformed entry raises an error; otherwise it is skipped with a warning.

        Returns:
            The bank; only its index was downloaded.

        Raises:
            HubError: there is no such repo or revision, it cannot be reached, or it is not in the cache.
            FormatError: the repo holds no bank, or the bank is damaged or of a newer format version.
            OptionError: `repo_id` has another form.

        Example:
            ::

                bank = Bank.from_hub("org/resnet50-bank", revision="v1")
        """
        if not is_repo_id(repo_id):
            raise OptionError(f"{repo_id[:100]!r} is not an id of the Hub: use owner/name, such as org/resnet50-bank")
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        try:
            files = HubFiles(repo_id, INDEX_FILE, revision=revision, limit=MAX_INDEX_BYTES, **options)
        except MissingFileError as error:
            advice = "to let single models vote, search the Hub for them (from_search, --commons)"
            raise NotABankError(f"{repo_id} is not a bank: it has no {INDEX_FILE}; {advice}") from error
        meta = read_stored_meta(files.root / INDEX_FILE)
        if meta is None:
            files.get({BANK_FILE: MAX_CONFIG_BYTES})
            meta = read_json(files.root / BANK_FILE)
        return cls(files, check_meta(meta, files.root / BANK_FILE), strict=strict, hub_options=options)

    @classmethod
    def from_search(
        cls,
        base_model: str | Path | Bank,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        strict: bool = False,
        progress: bool = False,
        **options: Any,
    ) -> Bank:
        """Collect single models that anybody has published on the Hub; their weights are downloaded when they vote.

        Args:
            base_model: the base that the models must belong to, or a bank of that base: a folder, a Hub id, or an
                opened bank. A base is as timm or transformers saves it.
            revision: a branch, tag or commit of `base_model` on the Hub.
            token: if left out, that of the user's login or of ``HF_TOKEN``.
            cache_dir: a folder for weights and for checked headers, instead of huggingface_hub's cache.
            strict: whether a malformed model raises an error; otherwise it is skipped, see `skip_reasons`.
            progress: show a progress bar.
            options: any field of `SearchOptions`.

        Returns:
            A bank whose entries are the models; it may be empty.

        Raises:
            HubError: the Hub cannot be reached, or the token is wrong.
            FormatError: a model is malformed, and `strict` is set.

        Example:
            ::

                commons = Bank.from_search("demo-bank", author="ada", limit=100)
        """
        search_options = override(SearchOptions(), options)
        hub_options: dict[str, Any] = {"token": token, "cache_dir": cache_dir}
        if isinstance(base_model, Bank):
            bank = base_model
        else:
            try:
                bank = open_bank(base_model, revision=revision, **hub_options)
            except NotABankError:
                bank = cls.from_base(base_model, revision=revision, **hub_options)
        bank = cls(bank.files, bank.meta, strict=strict, hub_options=hub_options)
        return search_hub(bank, search_options, progress)

    @classmethod
    def from_base(cls, base_model: str | Path, *, revision: str | None = None, **hub_options: Any) -> Bank:
        """Make a bank without entries from a base model as timm or transformers saves it; nothing is written.

        Args:
            base_model: the base's folder, or its id on the Hub.
            revision: a branch, tag or commit on the Hub.
            hub_options: `token` and `cache_dir`, see `from_hub`.

        Raises:
            HubError: there is no such repo, or it cannot be reached.
            FormatError: there is no base model.
            ArchitectureError: the base cannot be pruned.
        """
        folder = user_path(base_model)
        local = isinstance(base_model, Path) or folder.exists() or not is_repo_id(base_model)
        files = LocalFiles(folder) if local else HubFiles(str(base_model), CONFIG, revision=revision, **hub_options)
        library, *_ = identify(read_json(files.root / CONFIG), files.root)
        repo = {"repo_id": files.repo_id, "revision": files.commit} if isinstance(files, HubFiles) else {}
        bank = cls(files, {"base_model": {"library": library, "path": ".", **repo}}, hub_options=hub_options)
        base = BaseModel.load(bank.base_folder, **repo)
        bank.meta = {
            "format_version": FORMAT_VERSION,
            "name": base.architecture,
            "base_model": base.identity() | {"path": "."},
            "layers": base.sizes,
            "defaults": {},
        }
        bank.use_entries({})
        return bank

    @classmethod
    def create(
        cls, path: str | Path, base: BaseModel, *, name: str = "bank", defaults: Mapping[str, Any] | None = None
    ) -> Bank:
        """Make an empty bank with a copy of its base, or open a bank of the same base that exists already.

        Args:
            path: the folder of the bank.
            base: the base model of all its entries.
            name: the bank's name for people.
            defaults: options that `MetaPruner` uses for this bank, such as ``{"ratio": 0.9}``.

        Returns:
            The bank, open for writing.

        Raises:
            BaseMismatchError: the folder holds a bank of another base.
            StorageError: the folder cannot be written.
            OptionError: the path is empty, or too long for a path.

        Example:
            ::

                bank = Bank.create("pet-bank", BaseModel.load("resnet50"), name="pets")
        """
        root = user_path(path)
        if (root / BANK_FILE).exists():
            bank = cls.open(root)
            if bank.base_sha256 != base.sha256:
                raise BaseMismatchError(
                    f"{root} is a bank of another base ({bank.base_sha256[:12]}...): choose another folder"
                )
            return bank
        with storage_errors(root, "write"):
            root.mkdir(parents=True, exist_ok=True)
        meta = {
            "format_version": FORMAT_VERSION,
            "hf_metaprune_version": __version__,
            "name": name,
            "base_model": base.identity() | {"path": BASE_FOLDER},
            "layers": base.sizes,
            "defaults": dict(defaults or {}),
        }
        bank = cls(LocalFiles(root), meta)
        with bank.lock():
            if (root / BANK_FILE).exists():  # another process was faster
                return cls.create(root, base)
            if not (root / BASE_FOLDER).exists():
                with new_folder(root / BASE_FOLDER) as work:
                    base.copy_files(work)
            if not (root / INDEX_FILE).exists():
                bank.write_index({})
            write_json(root / BANK_FILE, meta)
        return bank

    def push_to_hub(self, repo_id: str, **options: Any) -> Published:
        """Publish the bank; only new and changed entries are uploaded.

        Args:
            repo_id: ``owner/name``; the repo is made if it does not exist.
            options: `private`, `revision` (a branch), `create_pr`, `token`, `license`, `delete` and `progress`; see
                `publish_bank`.

        Returns:
            The address, the ids of the entries that were added or removed, and the commits.

        Raises:
            BankError: an entry is damaged, or the repo holds something else.
            HubError: there is no token, it may not write there, or the Hub cannot be reached.

        Example:
            ::

                print(bank.push_to_hub("me/pet-bank", license="apache-2.0").url)
        """
        return publish_bank(self, repo_id, **options)


def open_bank(
    bank: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    strict: bool | None = None,
) -> Bank:
    """Open a bank in a folder, a bank that comes with the library, or a bank on the Hub.

    A folder comes first: only ``owner/name`` without a folder of that path is looked up on the Hub, and
    ``./owner/name`` never is.

    Args:
        bank: a path, a Hub id, or ``demo-bank`` or ``demo-vit-bank``, which come with the library (``./demo-bank`` is a
            folder).
        revision: a branch, tag or commit; only for the Hub.
        token: if left out, that of the user's login or of ``HF_TOKEN``.
        cache_dir: a folder to use instead of huggingface_hub's cache.
        local_files_only: use only the cache; a file that is not there raises an error.
        strict: whether a malformed entry raises an error; otherwise it is skipped with a warning. If left out, it
            raises in a folder, and is skipped on the Hub, where anybody may have written it.

    Returns:
        The bank; its entries are read when they are first used.

    Raises:
        FormatError: there is no bank, or it is damaged or of a newer format version.
        HubError: the Hub cannot be reached, or has no such repo.
        OptionError: `revision` is given for a folder.

    Example:
        ::

            for entry in open_bank("demo-bank"):
                print(entry.id, entry.labels)
    """
    path = bank_folder(bank)
    if path is not None:
        if revision is not None:
            raise OptionError(
                f"revision={revision!r}: only banks on the Hub have revisions, and {path} is a folder here"
            )
        return Bank.open(path, strict=strict is not False)
    return Bank.from_hub(
        str(bank),
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        strict=bool(strict),
    )
