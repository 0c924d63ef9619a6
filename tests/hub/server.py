"""The loopback Hub itself: two listeners, one store, and a Python side for tests."""

from __future__ import annotations

import re
import secrets
import threading
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from tests.hub import files, reading, routes, writing
from tests.hub.faults import Faults
from tests.hub.store import Blob, Change, Commit, HubError, Moved, Repo, Store, Token, changed, is_large
from tests.hub.wire import Listener, Reply, Request, Seen

_ANSWERS = (reading, writing, files)  # their import fills the table of routes
Content = bytes | str | Path


class LoopbackHub:
    """A Hugging Face Hub on 127.0.0.1 that lives as long as its `with` block.

    Args:
        page_size: Entries on one page of a listing.
        lfs_threshold: Size in bytes above which any file goes to LFS.
        pins: Send readers of small files in public repositories to an address of the commit (a 307), as the Hub does;
            otherwise files are sent where they are asked for, as the Hub does for private and gated repositories.
    """

    def __init__(self, *, page_size: int = 1000, lfs_threshold: int = 10_000_000, pins: bool = True):
        self.page_size, self.lfs_threshold, self.pins = page_size, lfs_threshold, pins
        self.store, self.faults, self.secret = Store(), Faults(), secrets.token_bytes(16)
        self.crashes: list[str] = []
        self._log: list[Seen] = []
        self._log_lock = threading.Lock()
        self._hub = Listener("hub", self._answer, self._note, self.crashes.append)
        self._storage = Listener("storage", self._answer, self._note, self.crashes.append)
        self._hub.storage_endpoint = self._storage.endpoint
        self.endpoint, self.storage_endpoint = self._hub.endpoint, self._storage.endpoint

    def __enter__(self) -> LoopbackHub:
        self._hub.start()
        self._storage.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.stop()
        self._storage.stop()
        if self.crashes and error is None:
            raise AssertionError("The loopback Hub itself failed:\n" + "\n".join(self.crashes))

    # People

    def add_user(self, name: str, token: str | None = None, role: str = "write") -> str:
        """Make a user, or another token of one; returns the token. `role` is "write" or "read"."""
        token = token or f"hf_{name}_{role}_{secrets.token_hex(4)}"
        with self.store.lock:
            self.store.tokens[token] = Token(name, role)
        return token

    def add_org(self, name: str, members: Iterable[str]) -> None:
        """Make an organization, all of whose members may read and write everything in it."""
        with self.store.lock:
            self.store.orgs[name] = set(members)

    def grant(self, repo_id: str, user: str, repo_type: str = "model") -> None:
        """Let a user through the gate of a repository."""
        with self.store.lock:
            self.repo(repo_id, repo_type).granted.add(user)

    # Repositories, without HTTP

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        """The repository itself; its `private`, `gated`, `downloads` and `likes` may be set."""
        return self.store.repos[repo_type + "s", repo_id]

    def put_files(
        self,
        repo_id: str,
        contents: Mapping[str, Content],
        *,
        repo_type: str = "model",
        branch: str = "main",
        delete: Iterable[str] = (),
        private: bool = False,
        message: str = "Put files",
    ) -> str:
        """Commit files straight into a repository, made if it is missing; returns the commit.

        Args:
            repo_id: The repository.
            contents: The files by path, as bytes, text, or the path of a file to read.
            repo_type: "model", "dataset" or "space".
            branch: The branch, or `refs/pr/N`.
            delete: Paths of files to delete.
            private: For a repository that is made.
            message: The title of the commit.
        """
        blobs = {path: self._blob(path, content) for path, content in contents.items()}
        changes = [Change(path) for path in delete] + [Change(path, blob) for path, blob in blobs.items()]
        with self.store.lock:
            key = (repo_type + "s", repo_id)
            repo = self.store.repos.get(key) or self.store.create(*key, private=private)
            repo.uploaded |= {blob.sha256: blob for blob in blobs.values() if blob.lfs}
            parent = repo.at(branch)
            commit = repo.add_commit(parent, changed(parent.files, changes), message)
            repo.point(branch, commit.oid)
            return commit.oid

    def put_folder(self, repo_id: str, folder: Path, *, repo_type: str = "model", branch: str = "main") -> str:
        """Commit all files of a folder straight into a repository; returns the commit."""
        contents = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return self.put_files(repo_id, contents, repo_type=repo_type, branch=branch)

    def _blob(self, path: str, content: Content) -> Blob:
        data = content.read_bytes() if isinstance(content, Path) else content
        data = data.encode() if isinstance(data, str) else data
        return Blob(data, lfs=is_large(path, len(data), data[:512], self.lfs_threshold))

    def commit(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> Commit:
        """The commit a revision points to: its `oid`, `title`, `author`, `files` and so on."""
        with self.store.lock:
            return self.repo(repo_id, repo_type).at(revision)

    def history(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> list[Commit]:
        """The commits of a revision, newest first."""
        with self.store.lock:
            repo = self.repo(repo_id, repo_type)
            return list(repo.history(repo.at(revision)))

    def read_files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """All files of a revision by path, except `.gitattributes`, which every repository has."""
        blobs = self.commit(repo_id, revision, repo_type).files
        return {path: blob.data for path, blob in sorted(blobs.items()) if path != ".gitattributes"}

    def has_repo(self, repo_id: str, repo_type: str = "model") -> bool:
        """Whether anybody has made a repository, be it empty."""
        with self.store.lock:
            return (repo_type + "s", repo_id) in self.store.repos

    # The log

    @property
    def requests(self) -> list[Seen]:
        """All requests since the start or the last reset, in the order they were answered."""
        with self._log_lock:
            return list(self._log)

    def seen(
        self, method: str | None = None, path: str = "", host: str | None = None, status: int | None = None
    ) -> list[Seen]:
        """The requests of a method, a path (a regular expression found in it), a host, a status."""
        return [
            r
            for r in self.requests
            if method in (None, r.method) and host in (None, r.host) and status in (None, r.status)
            if re.search(path, r.path)
        ]

    def count(
        self, method: str | None = None, path: str = "", host: str | None = None, status: int | None = None
    ) -> int:
        return len(self.seen(method, path, host, status))

    @property
    def bytes_in(self) -> int:
        """Bytes of all bodies received."""
        return sum(r.bytes_in for r in self.requests)

    @property
    def bytes_out(self) -> int:
        """Bytes of all bodies sent."""
        return sum(r.bytes_out for r in self.requests)

    def reset_log(self) -> None:
        with self._log_lock:
            self._log.clear()

    def _note(self, seen: Seen) -> None:
        with self._log_lock:
            self._log.append(seen)

    # Answers

    def _answer(self, request: Request) -> Reply:
        """Answer one request, with the faults that lie in wait for it."""
        actions = self.faults.meeting(request)
        try:
            reply = next((r for action in actions if (r := action.before(request)) is not None), None)
            if reply is not None:
                return reply
            reply = self._proper(request)
            for action in actions:
                reply = action.after(request, reply)
        except Exception:
            self.crashes.append(f"{request.method} {request.target}\n{traceback.format_exc()}")
            # 501 is an error that the client does not try again
            return Reply.error(501, f"The loopback Hub failed:\n{traceback.format_exc()}")
        return reply

    def _proper(self, request: Request) -> Reply:
        try:
            with self.store.lock:
                function, parts = routes.find(request)
                request.token = self._token(request)
                return function(self, request, **parts)
        except HubError as error:
            return Reply.error(error.status, error.message, error.code, error.headers)
        except Moved as error:
            return Reply(307, {"Location": request.target.replace(parts["repo"], error.new_id, 1)})

    def _token(self, request: Request) -> Token | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        token = self.store.tokens.get(header.removeprefix("Bearer "))
        if token is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return token
