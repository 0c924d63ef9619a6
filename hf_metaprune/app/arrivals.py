"""What arrives at Gradio's upload route, which takes files from anybody: how much, and how long nobody uses it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .limits import ArrivalLimits

log = logging.getLogger(__name__)


def delete_upload(path: str) -> None:
    """Delete a file that was sent, and its folder if nothing else is in it; what is no file stays."""
    with contextlib.suppress(OSError):
        Path(path).unlink()
        Path(path).parent.rmdir()  # Gradio makes one for each content


def _status(file: Path) -> os.stat_result | None:
    """Return the status of a file, or None if Gradio or another request has moved it meanwhile."""
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _is_older(file: Path, age: float) -> bool:
    """Return whether a file that is there was last changed more than `age` seconds ago."""
    status = _status(file)
    return status is not None and time.time() - status.st_mtime > age


class RefusedError(Exception):
    """An upload is refused; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


FULL = "others are sending much at the moment: try again in some minutes"
CHECKED_BYTES = 10_000_000
"""Bytes of a request after which the server looks again whether there is room."""
MAX_FILES, CHECKED_FILES = 1000, 50
"""Most files of a request, as for Gradio, and the number after which the server looks again whether there is room."""
COUNTED_SECONDS = 1.0
"""Seconds until files are counted again: with many it takes long, and all visitors wait for it."""


def raise_open_files() -> None:
    """Let this process open as many files as it may: Gradio keeps those of an upload open."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_open_files() -> float:
    """Return how many files of uploads may be open at a time, so that others can be, too."""
    try:
        import resource
    except ImportError:  # Windows
        return 2000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else 0.8 * soft


class Arrival:
    """One request that is under way."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals, self.n_bytes, self._n_checked, self.n_files = arrivals, 0, 0, 0
        self.is_complete = False
        """Whether all has arrived, so that Gradio moves the files to their places."""

    def grow(self, n_bytes: int) -> None:
        """Add what has arrived.

        Raises:
            RefusedError: the server is full.
        """
        self.n_bytes += n_bytes
        if self.n_bytes - self._n_checked >= CHECKED_BYTES:
            self._n_checked = self.n_bytes
            self.arrivals.check_room()

    def begin_file(self) -> None:
        """Add a file; Gradio keeps all files of a request open.

        Raises:
            RefusedError: the server has no room for more.
        """
        self.n_files += 1
        if self.n_files > MAX_FILES:
            raise RefusedError(413, f"at most {MAX_FILES} files can be sent at a time")
        if self.n_files % CHECKED_FILES == 1:
            self.arrivals.check_room()

    def complete(self) -> None:
        """Note that all has arrived; no file is deleted until the request has ended."""
        with self.arrivals.lock:
            self.is_complete = True


class Arrivals:
    """The files that were sent to this server and that it still holds.

    Args:
        folder: where Gradio puts what arrives.
        limits: limits of one request and of the server.
        is_used: a function that tells whether a visitor uses a file.
    """

    def __init__(self, folder: Path, limits: ArrivalLimits, is_used: Callable[[str], bool]) -> None:
        self.folder, self.limits, self.is_used = folder, limits, is_used
        self._arrived: dict[str, float] = {}
        """Time of the last arrival by path of the files that no visitor has used yet."""
        self._claims: Counter[str] = Counter()
        """How often each file has arrived and was not given up: who sends the same file shares its path."""
        self._under_way: list[Arrival] = []
        """The requests that are under way."""
        self._surplus: set[str] = set()
        """Files that nobody needs, and that are deleted when no request is moving one like them to the same place."""
        self.lock = threading.Lock()
        """Held while files are counted or deleted."""
        self._stored, self._looked_at = (0, 0), -math.inf
        """Number and bytes of the files in the folder, and when they were counted."""

    @contextmanager
    def room_for(self, n_bytes: int | None) -> Iterator[Arrival]:
        """Keep room for a request of some bytes while it is read.

        The room grows with what arrives. A sender who says much and sends little takes little from others.

        Yields:
            The request, whose `grow` is to be called with what arrives.

        Raises:
            RefusedError: the request does not say its size, or is too large, or the server has no room for it.
        """
        if n_bytes is None:
            raise RefusedError(411, "the size of an upload must be said before it")
        if n_bytes > self.limits.request_bytes:
            raise RefusedError(413, f"at most {self.limits.request_bytes // 1_000_000} MB can be sent at a time")
        with self.lock:
            is_full = self._is_full(n_bytes)
        if is_full:
            self.sweep()
        with self.lock:
            if self._is_full(n_bytes) or len(self._under_way) >= self.limits.requests:
                raise RefusedError(503, FULL)
            arrival = Arrival(self)
            self._under_way.append(arrival)
        try:
            yield arrival
        finally:
            with self.lock:
                self._under_way.remove(arrival)
                self._stored = self._stored[0], self._stored[1] + arrival.n_bytes
                self._delete_surplus()

    def _is_full(self, n_bytes: int = 0) -> bool:
        """Return whether all files, what has arrived of requests and some bytes more are too much; the lock is held."""
        if time.monotonic() - self._looked_at > COUNTED_SECONDS:
            statuses = map(_status, (file for file in self._files() if not self._is_arriving(file)))
            sizes = [status.st_size for status in statuses if status is not None]
            self._stored, self._looked_at = (len(sizes), sum(sizes)), time.monotonic()
        n_files, stored_bytes = self._stored
        n_arriving = sum(arrival.n_files for arrival in self._under_way)
        arriving_bytes = sum(arrival.n_bytes for arrival in self._under_way)
        return (
            n_files + n_arriving >= self.limits.files
            or n_arriving >= max_open_files()
            or stored_bytes + arriving_bytes + n_bytes > self.limits.server_bytes
        )

    def _is_arriving(self, file: Path) -> bool:
        """Return whether a file is one of a request that is under way, which is counted there."""
        is_temporary = file.parent == self.folder and file.name.startswith(tempfile.gettempprefix())
        return is_temporary and bool(self._under_way)

    def check_room(self) -> None:
        """Check that what has arrived is not more than the server can hold.

        Raises:
            RefusedError: it is.
        """
        with self.lock:
            if self._is_full():
                raise RefusedError(503, FULL)

    def holds(self, path: str) -> bool:
        """Return whether a path is one of a file that was sent; the file may be deleted by now.

        Files are told apart by their paths, so that one has one spelling only.
        """
        if os.path.normpath(path) != path or not path.startswith(f"{self.folder}{os.sep}"):
            return False
        file, folder = Path(path), os.path.realpath(self.folder)
        try:
            is_below = file.is_absolute() and os.path.realpath(file).startswith(f"{folder}{os.sep}")
        except ValueError:  # a null character, or half of a surrogate pair
            return False
        return is_below and (not os.path.lexists(file) or (file.is_file() and not file.is_symlink()))

    def note(self, paths: list[str]) -> None:
        """Note that files have arrived; who uses them has `ArrivalLimits.unused_seconds` to begin."""
        with self.lock:
            self._arrived |= dict.fromkeys(paths, time.monotonic())
            self._claims.update(paths)
            self._stored = self._stored[0] + len(paths), self._stored[1]

    def arrived_at(self, path: str) -> float:
        """Return when a file has arrived last, in seconds of `time.monotonic`; 0 if that is long ago."""
        with self.lock:
            return self._arrived.get(path, 0.0)

    def delete(self, path: str) -> None:
        """Delete a file that a visitor needs no more, unless somebody else has sent it, too, and may still use it."""
        with self.lock:
            self._claims[path] -= 1
            if self._claims[path] <= 0:
                del self._claims[path]
                self._surplus.add(path)
            self._delete_surplus()

    def _delete_surplus(self) -> None:
        """Delete the files that nobody needs, unless a request is moving files to their places; the lock is held."""
        if any(arrival.is_complete for arrival in self._under_way):
            return
        for path in self._surplus:
            if path not in self._claims and not self.is_used(path):
                delete_upload(path)
        self._surplus.clear()

    def sweep(self) -> None:
        """Delete the files that nobody has used in time, and what is left of requests that were cut."""
        now, age = time.monotonic(), self.limits.unused_seconds
        with self.lock:
            due = [path for path, arrival in self._arrived.items() if now - arrival > age]
            for path in due:
                del self._arrived[path]
                if not self.is_used(path):
                    self._claims.pop(path, None)
                    delete_upload(path)
            if self.folder.is_dir():
                for file in self.folder.glob(f"{tempfile.gettempprefix()}*"):
                    if file.is_file() and _is_older(file, age):
                        file.unlink(missing_ok=True)
                for file in self._moved_files():
                    if _is_older(file, age) and str(file) not in self._arrived and not self.is_used(str(file)):
                        self._claims.pop(str(file), None)
                        delete_upload(str(file))
            self._looked_at = -math.inf

    def _moved_files(self) -> Iterator[Path]:
        """Yield the whole files, each in a folder that is named by its content; those of a refused request, too."""
        for file in self._files():
            if re.fullmatch(r"[0-9a-f]{64}", file.parent.name) and file.parent.parent == self.folder:
                yield file

    def _files(self) -> Iterator[Path]:
        """Yield all files; a folder that somebody deletes meanwhile has none."""
        for folder, _, names in os.walk(self.folder):
            yield from (file for name in names if (file := Path(folder, name)).is_file())
