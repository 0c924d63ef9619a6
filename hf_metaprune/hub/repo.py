"""Writing to a repo on the Hub: commits that are whole, name their parent, and are tried again when it has moved."""

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
from .client import hub_api, hub_errors, scrub
from .files import HubFiles

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

Operation: TypeAlias = "CommitOperationAdd | CommitOperationDelete"

log = logging.getLogger(__name__)

NOBODYS = frozenset({".gitattributes", ".gitignore", CARD, "LICENSE", "LICENSE.md", "LICENSE.txt"})
"""Files of a repo that holds nothing yet."""
PULL_REQUEST = re.compile(r"refs/pr/(\d+)")
TRIES = 8
FIRST_WAIT = 0.5  # seconds, doubled each time


@dataclass
class Published:
    """What a publication did; no commit means that nothing had changed."""

    url: str
    """The page of the repo, or of the pull request."""
    added: list[str] = field(default_factory=list)
    """Ids of a bank's entries that were added or replaced."""
    removed: list[str] = field(default_factory=list)
    """Ids of entries that were removed."""
    commits: list[str] = field(default_factory=list)


class Repo:
    """A model repo and the branch (or pull request) that is written to."""

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
        one = PULL_REQUEST.fullmatch(self.branch)
        return self.pull_request or f"{self.api.endpoint}/{self.repo_id}" + (f"/discussions/{one[1]}" if one else "")

    def ensure(self, private: bool | None = None) -> None:
        """Make the repo and the branch, if they are not there; a pull request needs neither.

        Raises:
            HubError: there is no token, it may not write there, or the Hub cannot be reached.
        """
        if self.create_pr:
            if private:
                raise OptionError("private=True is for a repo that is made: a pull request goes into one that is there")
            return
        with hub_errors(self.repo_id, "write to"):
            self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            if private and not self.api.model_info(self.repo_id, expand=["private"]).private:
                raise HubError(
                    f"{self.repo_id} is there already, and public: make it private in its settings on the Hub, or "
                    "choose another name"
                )
            if self.branch != "main" and not PULL_REQUEST.fullmatch(self.branch):  # which is there, or cannot be made
                self.api.create_branch(self.repo_id, branch=self.branch, exist_ok=True)

    def head(self) -> str:
        """The commit that the branch is at."""
        with hub_errors(self.repo_id, "read"):
            sha = self.api.model_info(self.repo_id, revision=self.branch, expand=["sha"]).sha
        if sha is None:
            raise HubError(f"the Hub does not say at which commit {self.repo_id} is")
        return sha

    def sizes(self, paths: Collection[str], commit: str) -> dict[str, int]:
        """Sizes in bytes of those of the files that are there."""
        with hub_errors(self.repo_id, "list"):
            found = self.api.get_paths_info(self.repo_id, list(paths), revision=commit)
        return {item.path: int(getattr(item, "size", 0)) for item in found}

    def file_digest(self, repo_id: str, path: str, revision: str | None) -> str | None:
        """sha256 of a large file of another repo; None if there is none, or it is not large."""
        with hub_errors(repo_id, "read"):
            found = self.api.get_paths_info(repo_id, [path], revision=revision)
        large = [getattr(item, "lfs", None) for item in found]
        return large[0].sha256 if large and large[0] is not None else None

    def names(self, commit: str) -> set[str]:
        """Names of the files and folders at the top."""
        with hub_errors(self.repo_id, "list"):
            return {item.path for item in self.api.list_repo_tree(self.repo_id, revision=commit)}

    def files(self, folder: str, commit: str) -> dict[str, str]:
        """All files in a folder, by path, with git's digest of each, or sha256 (LFS); none if it is not there."""
        try:
            with hub_errors(self.repo_id, "list"):
                found = list(self.api.list_repo_tree(self.repo_id, folder, recursive=True, revision=commit))
        except MissingFileError:
            return {}
        files = [item for item in found if hasattr(item, "blob_id")]
        return {item.path: item.lfs.sha256 if getattr(item, "lfs", None) else item.blob_id for item in files}

    def exists(self) -> bool:
        """Whether the repo is there; a token that is missing or wrong is found out now.

        Raises:
            HubError: there is no token, or it is wrong.
        """
        with hub_errors(self.repo_id, "write to"):
            self.api.whoami()
            return self.api.repo_exists(self.repo_id)

    def commit(self, make: Callable[[str], list[Operation]], message: str) -> str | None:
        """Commit what `make` says, given the branch's commit; made anew when somebody else was faster.

        Returns:
            The new commit, or None if nothing had changed.

        Raises:
            PublishConflictError: others were faster every time. HubError: see `hub_errors`.
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
        return info.oid if info.oid != parent else None  # the client makes no commit of files that are there already


def read_text(repo: Repo, path: str, commit: str, limit: int) -> str:
    """A small file of a repo as text.

    Raises:
        HubError: it cannot be had. FormatError: it is larger than `limit` bytes.
    """
    files = HubFiles(repo.repo_id, path, revision=commit, token=repo.token, limit=limit)
    return files.path(path).read_bytes().decode("utf-8", "replace")  # line ends stay as they are
