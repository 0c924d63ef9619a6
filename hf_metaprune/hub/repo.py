"""Writing to a repo on the Hub: whole commits on a known parent, made anew if somebody else was faster."""

from __future__ import annotations

import logging
import random
import re
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import HubError, MissingFileError, OptionError, PublishConflictError
from ..files.layout import CARD
from ..files.names import is_repo_id
from ..files.reading import read_regular
from .client import hub_api, hub_errors, scrub
from .files import HubFiles

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

Operation: TypeAlias = "CommitOperationAdd | CommitOperationDelete"

log = logging.getLogger(__name__)

STARTER_FILES = frozenset({".gitattributes", ".gitignore", CARD, "LICENSE", "LICENSE.md", "LICENSE.txt"})
"""Files that a repo may have before anything is published to it."""
PULL_REQUEST = re.compile(r"refs/pr/(\d+)")
TRIES = 8
FIRST_WAIT = 0.5  # seconds, doubled each time


@dataclass
class Published:
    """The result of publishing; no commits mean that nothing had changed.

    Example:
        Publishing a bank::

            published = bank.push_to_hub("me/my-bank")
            print(published.url, published.added, published.commits)
    """

    url: str
    """The page of the repo, or of the pull request."""
    added: list[str] = field(default_factory=list)
    """Ids of a bank's entries that were added or replaced."""
    removed: list[str] = field(default_factory=list)
    """Ids of entries that were removed."""
    commits: list[str] = field(default_factory=list)
    """The new commits, oldest first."""


class Repo:
    """A model repo, and the branch or pull request to write to.

    Args:
        repo_id: id of the repo.
        token: a token; None for that of the user's login or of HF_TOKEN.
        revision: branch to write to; ``main`` if left out.
        create_pr: open a pull request instead of writing to the branch.

    Raises:
        OptionError: `repo_id` is not valid, or `revision` and `create_pr` exclude each other.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> None:
        if not is_repo_id(repo_id):
            raise OptionError(f"{repo_id[:100]!r} is no id of a repo: use owner/name, such as me/my-model")
        if create_pr and revision not in (None, "main"):
            raise OptionError("create_pr=True opens a pull request against main: leave revision out")
        self.repo_id, self.token, self.create_pr = repo_id, token, create_pr
        self.pull_request: str | None = None
        """Address of the pull request that was opened."""
        self.branch = revision or "main"
        self.api = hub_api(token)

    @property
    def url(self) -> str:
        """The page of the repo, or of the pull request that was opened."""
        match = PULL_REQUEST.fullmatch(self.branch)
        discussion = f"/discussions/{match[1]}" if match else ""
        return self.pull_request or f"{self.api.endpoint}/{self.repo_id}{discussion}"

    def ensure(self, private: bool | None = None) -> None:
        """Make the repo and the branch if they are not there; a pull request needs neither.

        Args:
            private: make the repo private; None for the user's default.

        Raises:
            HubError: there is no token, it may not write there, the repo is public already, or the Hub cannot be
                reached.
            OptionError: `private` is given for a pull request.
        """
        if self.create_pr:
            if private:
                raise OptionError(
                    "private=True is for a new repo, and a pull request goes into an existing one: leave it out"
                )
            return
        with hub_errors(self.repo_id, "write to"):
            self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            if private and not self.api.model_info(self.repo_id, expand=["private"]).private:
                raise HubError(
                    f"{self.repo_id} exists already and is public: make it private in its settings on the Hub, or "
                    "choose another name"
                )
            if self.branch != "main" and not PULL_REQUEST.fullmatch(self.branch):  # a pull request cannot be made so
                self.api.create_branch(self.repo_id, branch=self.branch, exist_ok=True)

    def head(self) -> str:
        """Return the newest commit of the branch."""
        with hub_errors(self.repo_id, "read"):
            sha = self.api.model_info(self.repo_id, revision=self.branch, expand=["sha"]).sha
        if sha is None:
            raise HubError(f"the Hub does not say at which commit {self.repo_id} is")
        return sha

    def file_sizes(self, paths: Collection[str], commit: str) -> dict[str, int]:
        """Return the size in bytes per file, without files that do not exist."""
        with hub_errors(self.repo_id, "list"):
            items = self.api.get_paths_info(self.repo_id, list(paths), revision=commit)
        return {item.path: int(getattr(item, "size", 0)) for item in items}

    def file_digest(self, repo_id: str, path: str, revision: str | None) -> str | None:
        """Return the sha256 of a large file (LFS) of any repo, or None if there is no such file."""
        with hub_errors(repo_id, "read"):
            items = self.api.get_paths_info(repo_id, [path], revision=revision)
        pointers = [getattr(item, "lfs", None) for item in items]
        return pointers[0].sha256 if pointers and pointers[0] is not None else None

    def names(self, commit: str) -> set[str]:
        """Return the names of the files and folders at the top of the repo."""
        with hub_errors(self.repo_id, "list"):
            return {item.path for item in self.api.list_repo_tree(self.repo_id, revision=commit)}

    def files(self, folder: str, commit: str) -> dict[str, str]:
        """Return the digest per file of a folder, by path: sha256 for large files (LFS), or else git's.

        A folder that does not exist has no files.
        """
        try:
            with hub_errors(self.repo_id, "list"):
                items = list(self.api.list_repo_tree(self.repo_id, folder, recursive=True, revision=commit))
        except MissingFileError:
            return {}
        files = [item for item in items if hasattr(item, "blob_id")]
        return {item.path: item.lfs.sha256 if getattr(item, "lfs", None) else item.blob_id for item in files}

    def exists(self) -> bool:
        """Return whether the repo exists, after checking the token.

        Raises:
            HubError: there is no token, the token is wrong, or the Hub cannot be reached.
        """
        with hub_errors(self.repo_id, "write to"):
            self.api.whoami()
            return self.api.repo_exists(self.repo_id)

    def commit(self, make: Callable[[str], list[Operation]], message: str) -> str | None:
        """Make a commit, and make it anew if somebody else was faster.

        Args:
            make: a function that returns the operations, given the newest commit of the branch.
            message: the commit's message.

        Returns:
            The new commit, or None if nothing had changed.

        Raises:
            PublishConflictError: others were faster every time.
            HubError: the Hub cannot be reached, or refuses the commit.
        """
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            parent = self.head()
            operations = make(parent)
            if not operations:
                return None
            try:
                return self._commit(operations, message, parent)
            except PublishConflictError:
                log.info("%s was changed by somebody else; trying again", self.repo_id)
        raise PublishConflictError(f"{self.repo_id} is changed by others all the time: try again later")

    def _commit(self, operations: list[Operation], message: str, parent: str) -> str | None:
        with hub_errors(self.repo_id, "write to"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*data file.*")  # a bank's index is no data set
            info: Any = self.api.create_commit(
                self.repo_id,
                operations,
                commit_message=message,
                revision=self.branch,
                parent_commit=parent,
                create_pr=self.create_pr,
            )
        if self.create_pr and info.pr_revision:  # what follows goes into the same pull request
            self.pull_request = scrub(str(info.pr_url))
            self.create_pr, self.branch = False, info.pr_revision
        return info.oid if info.oid != parent else None  # the client makes no commit of unchanged files


def read_text(repo: Repo, path: str, commit: str, limit: int) -> str:
    """Read a small file of a repo as text; bytes that are not UTF-8 are replaced.

    Raises:
        HubError: the file cannot be fetched.
        FormatError: the file is larger than `limit` bytes.
    """
    files = HubFiles(repo.repo_id, path, revision=commit, token=repo.token, limit=limit)
    return read_regular(files.path(path), limit).decode("utf-8", "replace")
