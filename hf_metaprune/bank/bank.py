"""`Bank`: a folder of pruned task models of one base model (format version 1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import SearchOptions, override
from ..errors import BaseMismatchError, FormatError, MissingFileError, NotABankError, OptionError
from ..files.layout import BANK_FILE, BASE_FOLDER, CONFIG, FORMAT_VERSION, INDEX_FILE
from ..files.names import is_repo_id
from ..files.shipped import SHIPPED_BANKS, shipped_path
from ..files.storage import new_folder, read_json, storage_errors, write_json
from ..hub.files import HubFiles, LocalFiles
from ..hub.repo import Published
from ..models.base_model import BaseModel, identify
from ..version import __version__
from .index import MAX_INDEX_BYTES, stored_meta
from .meta import check_meta, read_meta
from .publish import publish_bank
from .reader import MAX_CONFIG_BYTES
from .search import search_hub
from .writer import BankWriter

log = logging.getLogger(__name__)


class Bank(BankWriter):
    """Entries by id, of one base model; reading is lazy, writing is atomic and safe between processes.

    Open one with `Bank.open` or `Bank.from_hub`, make one with `Bank.create`, or search the Hub for one with
    `Bank.from_search`. Iteration and ``bank[id]`` give `Entry`.
    """

    @classmethod
    def open(cls, path: str | Path, *, strict: bool = True) -> Bank:
        """A bank from its folder; a bad entry of one's own bank is an error, unless `strict` is unset.

        Raises:
            FormatError: there is no bank, it is damaged, or of a newer format version.
        """
        files = LocalFiles(path)
        if not files.root.exists():
            raise FormatError(f"there is no folder {files.root}")
        if not (files.root / BANK_FILE).is_file():
            what = "is a model, not a bank" if (files.root / CONFIG).is_file() else "is not a bank"
            raise NotABankError(f"{files.root} {what}: it has no {BANK_FILE}")
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
        """A bank on the Hub, at one commit; weights are fetched when they are needed.

        Args:
            repo_id: ``owner/name``.
            revision: a branch, tag or commit; resolved once.
            token: if left out, that of the user's login or of ``HF_TOKEN``.
            cache_dir: instead of huggingface_hub's.
            local_files_only: ask nothing of the Hub; what is not in the cache is an error.
            strict: whether a bad entry is an error, or left out with a note.

        Raises:
            HubError: there is no such repo or revision, it cannot be reached, or it is not in the cache.
            FormatError: it is no bank, it is damaged, or of a newer format version.
        """
        if not is_repo_id(repo_id):
            raise OptionError(f"{repo_id[:100]!r} is neither a folder nor an id of the Hub, such as org/resnet50-bank")
        options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        try:
            files = HubFiles(repo_id, INDEX_FILE, revision=revision, limit=MAX_INDEX_BYTES, **options)
        except MissingFileError as error:
            advice = "a single model votes through a search (from_search, --commons)"
            raise NotABankError(f"{repo_id} is not a bank: it has no {INDEX_FILE}; {advice}") from error
        meta = stored_meta(files.root / INDEX_FILE)
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
        """A bank of single models that anybody has published on the Hub; their weights are fetched when they vote.

        Args:
            base_model: the base that the models must belong to, as timm or transformers saves it, or a bank of it: a
                folder, a Hub id, or an opened bank.
            revision: a branch, tag or commit of `base_model` on the Hub.
            token: if left out, that of the user's login or of ``HF_TOKEN``.
            cache_dir: for weights, and for what is found out about models; instead of huggingface_hub's.
            strict: whether a bad model is an error, or left out with a note.
            progress: show a progress bar.
            options: any field of `SearchOptions`.

        Raises:
            HubError: the Hub cannot be reached, or the token is wrong.
            FormatError: a model is bad, and `strict` is set; else it is left out, see `left_out`.
        """
        wanted = override(SearchOptions(), options)
        hub_options: dict[str, Any] = {"token": token, "cache_dir": cache_dir}
        if isinstance(base_model, Bank):
            bank = base_model
        else:
            try:
                bank = open_bank(base_model, revision=revision, **hub_options)
            except NotABankError:
                bank = cls.from_base(base_model, revision=revision, **hub_options)
        bank = cls(bank.files, bank.meta, strict=strict, hub_options=hub_options)
        return search_hub(bank, wanted, progress)

    @classmethod
    def from_base(cls, base_model: str | Path, *, revision: str | None = None, **hub_options: Any) -> Bank:
        """A bank without entries around a base, in a folder or a repo of the Hub as timm or transformers saves it.

        Raises:
            HubError: there is no such repo, or it cannot be reached.
            FormatError, ArchitectureError: there is no base model, or none that can be pruned.
        """
        folder = Path(base_model).expanduser()
        local = folder.exists() or not is_repo_id(str(base_model))
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
        """A new, empty bank with a copy of its base; an existing bank of the same base is opened.

        Raises:
            BaseMismatchError: a bank of another base is there already.
            StorageError: the folder cannot be written.
        """
        root = Path(path).expanduser()
        if (root / BANK_FILE).exists():
            bank = cls.open(root)
            if bank.base_sha256 != base.sha256:
                raise BaseMismatchError(f"{root} is a bank of another base ({bank.base_sha256[:12]}...)")
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
        """Publish the bank: what is new or changed there is sent, nothing else.

        Args:
            repo_id: ``owner/name``; the repo is made if it is not there.
            options: `private`, `revision` (a branch), `create_pr`, `token`, `license`, `delete` and `progress`, see
                `publish_bank`.

        Raises:
            HubError: there is no token, it may not write there, or the Hub cannot be reached.
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
    """Open a bank: from a folder, by the name of one that comes with the library, or from the Hub.

    A folder comes first. Only ``owner/name`` without such a folder goes to the Hub; ``./owner/name`` never does.

    Args:
        bank: a path, ``demo-bank``, ``demo-vit-bank``, or a Hub id.
        strict: whether a bad entry is an error, or is left out with a note; if left open, it is in a folder, and is not
            on the Hub, where entries may be anybody's.

    Raises:
        FormatError: there is no bank, it is damaged, or of a newer format version.
        HubError: the Hub cannot be reached, or has no such repo.
    """
    path = Path(bank).expanduser()
    if bank in SHIPPED_BANKS and not path.exists():
        path = shipped_path(str(bank))
    if path.exists() or not isinstance(bank, str) or not is_repo_id(bank):
        if revision is not None:
            raise OptionError(f"revision={revision!r} is for banks on the Hub, but {path} is a folder of this machine")
        if not path.exists():
            raise FormatError(f"there is no folder {bank}, and that is no id of the Hub, which is owner/name")
        return Bank.open(path, strict=strict is not False)
    return Bank.from_hub(
        bank,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        strict=bool(strict),
    )
