"""The files of a bank: in a folder, or in a commit of a repo on the Hub, from which they are fetched when needed."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..errors import FormatError, HubUnreachableError, MissingRepoError, NotCachedError
from ..files.names import MAX_NAME_BYTES, user_path
from ..files.reading import check_no_links
from ..version import __version__
from .client import LIBRARY, hub_answers, hub_errors

PARALLEL_DOWNLOADS = 8
"""Most files that are fetched at the same time."""
MAX_SMALL_BYTES = 32 << 20
"""Most bytes of a file without weights, such as a config or a card."""
MAX_RELATIVE_BYTES = 1024
"""Most bytes of a path in a bank."""


class Files(ABC):
    """The files of a bank below `root`; `get` fetches those that are needed."""

    name: str
    """Name of the bank in messages: a path, or a Hub id."""
    root: Path
    """Folder on this machine below which the files are."""
    writable = False
    """Whether the bank can be changed here."""
    has_base = True
    """Whether the base belongs to these files."""

    @abstractmethod
    def get(self, limits: Mapping[str, int], progress: bool = False, force: bool = False) -> None:
        """Fetch files that are not on this machine yet.

        Args:
            limits: most bytes per file, by its path below `root`.
            progress: show a progress bar.
            force: fetch all of them again.

        Raises:
            HubError: a file cannot be fetched.
            FormatError: a file is larger than its limit.
        """

    def root_of(self, relative: str) -> Path:
        """Return the folder above a path, below which no folder may be a link."""
        return self.root

    def path(self, relative: str) -> Path:
        """Return the path of a file or folder, which need not exist.

        Raises:
            FormatError: the path leads out of the bank, or is a link.
        """
        check_relative(relative)
        return self.root / relative


def check_relative(path: str) -> None:
    """Refuse a path that could lead out of the folder it is relative to, by its text alone.

    Raises:
        FormatError: the path is absolute, goes up, is too long, or is not valid on every system.
    """
    size = len(path.encode())
    if size > MAX_NAME_BYTES and (
        size > MAX_RELATIVE_BYTES or max(len(name.encode()) for name in path.split("/")) > MAX_NAME_BYTES
    ):
        raise FormatError(f"{path[:100]!r}... is too long for a path in a bank")
    is_unsafe = not path or bool({"\0", "\\", ":"} & set(path)) or bool({"", ".", ".."} & set(path.split("/")))
    if is_unsafe and path != ".":
        raise FormatError(f"{path[:100]!r} leads out of the bank")


class LocalFiles(Files):
    """A folder on this machine."""

    writable = True

    def __init__(self, root: str | Path) -> None:
        self.root = user_path(root)
        self.name = str(self.root)

    def get(self, limits: Mapping[str, int], progress: bool = False, force: bool = False) -> None:
        """Do nothing: whoever reads a file reports that it is missing or too large."""

    def path(self, relative: str) -> Path:
        path = super().path(relative)
        check_no_links(self.root, relative)
        return path


class HubFiles(Files):
    """One commit of a model repo on the Hub, in the ordinary cache of huggingface_hub.

    The revision is resolved when the object is made, and every later request names that commit.

    Args:
        repo_id: id of the repo.
        first: a file that is fetched at once, to resolve the revision.
        revision: branch, tag or commit; ``main`` if left out.
        token: a token; None for that of the user's login or of HF_TOKEN; False for none.
        cache_dir: folder of the cache, instead of huggingface_hub's.
        local_files_only: read only what the cache has.
        limit: most bytes of the first file.

    Raises:
        HubError: the first file cannot be fetched.
        FormatError: the first file is larger than its limit.
    """

    def __init__(
        self,
        repo_id: str,
        first: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        limit: int = MAX_SMALL_BYTES,
    ) -> None:
        self.name = self.repo_id = repo_id
        self._options: dict[str, Any] = {
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "library_name": LIBRARY,
            "library_version": __version__,
        }
        is_unreachable = not local_files_only and not hub_answers()
        self._options["local_files_only"] = local_files_only or is_unreachable
        try:
            path = self._download(first, limit, revision or "main")
        except NotCachedError as error:
            if not is_unreachable:
                raise
            raise HubUnreachableError(
                f"cannot get {first} from {repo_id}: the Hub cannot be reached, and the cache does not have it: check "
                f"the network{_folder_hint(repo_id)}"
            ) from error
        except MissingRepoError as error:
            raise MissingRepoError(f"{error}{_folder_hint(repo_id)}") from error
        self.root = _snapshot(path, first)
        self.commit = self.root.name
        if not _matches_digest(path):  # the branch moved between the client's two requests
            self._download(first, limit, self.commit, force=True)

    def __repr__(self) -> str:
        return f"HubFiles({self.repo_id!r}, {self.commit!r})"

    def get(self, limits: Mapping[str, int], progress: bool = False, force: bool = False) -> None:
        missing_files = {relative: n for relative, n in limits.items() if force or not self.path(relative).exists()}
        if not missing_files:
            return
        bar = tqdm(total=len(missing_files), desc=f"downloading from {self.repo_id}", unit="file", disable=not progress)
        with bar, ThreadPoolExecutor(min(PARALLEL_DOWNLOADS, len(missing_files))) as pool:
            jobs = [
                pool.submit(self._download, path, limit, self.commit, force) for path, limit in missing_files.items()
            ]
            try:
                for job in as_completed(jobs):
                    bar.update()
                    error = job.exception()
                    if isinstance(error, HubUnreachableError) and not isinstance(error, NotCachedError):
                        raise error  # the others would wait for it, too
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for job in jobs:
            job.result()  # all others are fetched; now raise the first error

    def _download(self, relative: str, limit: int, revision: str, force: bool = False) -> Path:
        from huggingface_hub import constants, hf_hub_download

        force = force and not (self._options["local_files_only"] or constants.HF_HUB_OFFLINE)
        with hub_errors(self.repo_id, f"get {relative} from"):
            return Path(
                hf_hub_download(
                    self.repo_id, relative, revision=revision, tqdm_class=_guard(relative, limit),
                    force_download=force, **self._options,
                )
            )  # fmt: skip


def _folder_hint(repo_id: str) -> str:
    """Return what to say if a repo is not found, and may have been meant as a folder."""
    if Path(repo_id).exists():
        return f"; {repo_id} is a folder here, too: open it as ./{repo_id}"
    return f"; if {repo_id} is meant as a folder, there is none"


def _snapshot(path: Path, relative: str) -> Path:
    """Return the folder of a commit in the cache, ``.../snapshots/<commit>``, from the path of a file in it."""
    return path.parents[relative.count("/")]


def _matches_digest(path: Path) -> bool:
    """Return whether a cached file matches the Hub's digest of it; True if the cache keeps no digest."""
    from huggingface_hub.utils.sha import git_hash

    try:
        digest, content = path.readlink().name, path.read_bytes()
    except OSError:  # no symbolic links here: the file is a copy
        return True
    if len(digest) == 64:
        return hashlib.sha256(content).hexdigest() == digest
    return len(digest) != 40 or git_hash(content) == digest


def _guard(relative: str, limit: int) -> type[tqdm]:
    """Return a silent progress bar for the client, which stops the download of a file that is too large."""

    class Guard(tqdm):
        def __init__(self, *args: Any, total: int | None = None, initial: int = 0, **_: Any) -> None:
            self._bytes = 0
            super().__init__(disable=True)
            self._count(max(total or 0, initial))
            self._bytes = initial

        def update(self, n: float | None = 1) -> bool | None:
            self._count(int(n or 0))
            return None

        def _count(self, n: int) -> None:
            self._bytes += n
            if self._bytes > limit:
                raise FormatError(f"{relative} has {self._bytes} bytes or more, not at most {limit}: it is not fetched")

    return Guard
