"""What the loopback Hub holds: repositories of content-addressed commits, people and their tokens."""

from __future__ import annotations

import fnmatch
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property

_LARGE = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar safetensors "
    "tar tflite tgz wasm xz zip zst"
)
LFS_PATTERNS = (*(f"*.{suffix}" for suffix in _LARGE.split()), "*tfevents*")
GITATTRIBUTES = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS).encode()


class HubError(Exception):
    """An answer other than success, as the client recognizes it: by status and `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


class Moved(Exception):
    """The repository has another name now."""

    def __init__(self, new_id: str):
        super().__init__(new_id)
        self.new_id = new_id


@dataclass(frozen=True)
class Blob:
    """The content of a file, in git or, as a pointer, in LFS."""

    data: bytes = field(repr=False)
    lfs: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """What git calls it: the sha1 of the blob, or of the pointer to it."""
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


def is_large(path: str, size: int, sample: bytes, threshold: int) -> bool:
    """Tell whether a file goes to LFS: by its name, its size, or bytes that are no text."""
    if size == 0:
        return False
    is_listed = any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in LFS_PATTERNS)
    return is_listed or size > threshold or not _is_text(sample)


def _is_text(sample: bytes) -> bool:
    if b"\0" in sample:
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(sample) - 3  # the sample may end inside a letter
    return True


@dataclass(frozen=True)
class Commit:
    """One state of all files, and how it came to be."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime
    files: Mapping[str, Blob] = field(repr=False)


@dataclass(frozen=True)
class Change:
    """Put a blob at a path, or delete the file (or `folder`) there."""

    path: str
    blob: Blob | None = None
    folder: bool = False


@dataclass
class Repo:
    """A repository: commits, the references to them, and who may see it."""

    kind: str
    id: str
    private: bool = False
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    sdk: str | None = None
    downloads: int = 0
    likes: int = 0
    created: datetime = field(default_factory=lambda: now())
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, str] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    uploaded: dict[str, Blob] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def target(self, revision: str) -> str | None:
        """The commit a branch, tag, pull request or (part of a) commit name points to."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if name in self.branches:
            return self.branches[name]
        if name in self.tags:
            return self.tags[name]
        if revision.startswith("refs/pr/"):
            return self.pulls.get(int(revision[8:])) if revision[8:].isdigit() else None
        if revision in self.commits:
            return revision
        matches = [oid for oid in self.commits if oid.startswith(revision)] if len(revision) >= 7 else []
        return matches[0] if len(matches) == 1 else None

    def pulls_by(self, user: str) -> set[str]:
        """The pull requests that a user has opened."""
        return {f"refs/pr/{n}" for n, oid in self.pulls.items() if self.commits[oid].author == user}

    def at(self, revision: str) -> Commit:
        """The commit a revision points to, or an answer of RevisionNotFound."""
        oid = self.target(revision)
        if oid is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def point(self, revision: str, oid: str) -> None:
        """Move a branch or a pull request to a commit."""
        name = revision.removeprefix("refs/heads/")
        if revision.startswith("refs/pr/") and self.target(revision):
            self.pulls[int(revision[8:])] = oid
        elif name in self.branches:
            self.branches[name] = oid
        else:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self.commits[current.parent] if current.parent else None

    def add_commit(
        self, parent: Commit | None, files: Mapping[str, Blob], title: str, message: str = "", author: str = "system"
    ) -> Commit:
        """Record a commit; nothing points to it yet."""
        date, above = now(), parent.oid if parent else None
        tree = "".join(f"{path}\0{files[path].oid}\n" for path in sorted(files))
        oid = hashlib.sha1(f"{self.id}\n{above}\n{date}\n{title}\n{message}\n{tree}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, above, title, message, author, date, files)
        return self.commits[oid]


def changed(files: Mapping[str, Blob], changes: Sequence[Change]) -> dict[str, Blob]:
    """The files after some changes; deletions come first, so that a path may be deleted and made anew."""
    after = dict(files)
    for change in (c for c in changes if c.blob is None):
        prefix = change.path.rstrip("/") + "/"
        paths = [p for p in after if p.startswith(prefix)] if change.folder else [p for p in after if p == change.path]
        if not paths:
            raise HubError(404, f"A file with this name doesn't exist: {change.path}", "EntryNotFound")
        for path in paths:
            del after[path]
    for change in (c for c in changes if c.blob is not None):
        assert change.blob is not None
        _check_path(change.path)
        after[change.path] = change.blob
    folders = {"/".join(path.split("/")[:i]) for path in after for i in range(1, path.count("/") + 1)}
    if both := folders & after.keys():
        raise HubError(400, f"A path cannot be a file and a folder: {sorted(both)[0]}")
    return after


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..", ".git") for part in parts):
        raise HubError(400, f"Invalid path: {path!r}")


@dataclass(frozen=True)
class Token:
    """Who somebody is, and whether they may write."""

    user: str
    role: str = "write"


class Store:
    """All repositories, users and tokens; `lock` guards every look and every change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.tokens: dict[str, Token] = {}
        self.orgs: dict[str, set[str]] = {}

    def create(self, kind: str, repo_id: str, private: bool = False, sdk: str | None = None) -> Repo:
        """Make a repository with its first commit, of `.gitattributes`, as the Hub does."""
        repo = Repo(kind, repo_id, private=private, sdk=sdk)
        first = repo.add_commit(None, {".gitattributes": Blob(GITATTRIBUTES)}, "initial commit")
        repo.branches["main"] = first.oid
        self.repos[kind, repo_id] = repo
        self.moved.pop((kind, repo_id), None)
        return repo

    def writes(self, token: Token | None, owner: str) -> bool:
        """Tell whether somebody has a say in a namespace."""
        return token is not None and (token.user == owner or token.user in self.orgs.get(owner, ()))

    def sees(self, token: Token | None, repo: Repo) -> bool:
        return not repo.private or self.writes(token, repo.owner)

    def reads(self, token: Token | None, repo: Repo) -> bool:
        """Tell whether somebody gets the files of a repository that they see."""
        return not repo.gated or self.writes(token, repo.owner) or (token is not None and token.user in repo.granted)

    def find(self, token: Token | None, kind: str, repo_id: str) -> Repo:
        """The repository for this reader; a private one looks like a missing one to strangers."""
        repo = self.repos.get((kind, repo_id))
        if repo is None and (kind, repo_id) in self.moved:
            raise Moved(self.moved[kind, repo_id])
        if repo is None or not self.sees(token, repo):
            # The Hub tells an anonymous reader to log in, whether the repository exists or not
            status, message = (404, "Repository not found") if token else (401, "Invalid username or password.")
            raise HubError(status, message, "RepoNotFound")
        return repo

    def find_open(self, token: Token | None, kind: str, repo_id: str) -> Repo:
        """The same, for what a gate hides: files, not information."""
        repo = self.find(token, kind, repo_id)
        if not self.reads(token, repo):
            message = f"Access to {kind[:-1]} {repo_id} is restricted and you are not in the authorized list."
            raise HubError(403 if token else 401, message, "GatedRepo")
        return repo

    def find_own(
        self, token: Token | None, kind: str, repo_id: str, pull: bool = False, revision: str | None = None
    ) -> Repo:
        """The same, for writing; who may write somewhere may open a pull request (`pull`), and go on with their own."""
        pull = pull or (token is not None and revision in self.find_open(token, kind, repo_id).pulls_by(token.user))
        repo = self.find_open(token, kind, repo_id) if pull else self.find(token, kind, repo_id)
        self.check_writes(token, None if pull else repo.owner)
        return repo

    def check_writes(self, token: Token | None, owner: str | None) -> None:
        """Refuse who has no token, only a reading one, or no say in the namespace."""
        if token is None:
            raise HubError(401, "Invalid username or password.")
        if token.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if owner is not None and not self.writes(token, owner):
            raise HubError(403, f"You don't have the rights to write under the namespace {owner!r}.")


_clock = threading.Lock()
_latest = datetime.fromtimestamp(0, timezone.utc)


def now() -> datetime:
    """The time, never the same twice, so that sorting by it is certain."""
    global _latest
    with _clock:
        _latest = max(datetime.now(timezone.utc), _latest + timedelta(milliseconds=1))
        return _latest


def stamp(moment: datetime) -> str:
    """A moment as the Hub writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
