"""What reading a stranger's file may do, and what watches it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_metaprune.errors import MetaPruneError

MB = 1 << 20
ROOM = 4096 * MB
"""More address space than that is not given to a campaign: an allocation of 10 GB fails at once."""
MOST = 300_000_000
"""The most bytes that one case may take; its files have a few megabytes at most."""
FORBIDDEN = frozenset(
    {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
    | {"pickle.find_class", "ctypes.dlopen"}
)
WRITES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "shutil.rmtree"}
)
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class CaseFailure(AssertionError):
    """Reading did what it may not do."""


class Watch:
    """Runs one reading after the other; what it does is seen by an audit hook, which Python calls for most of it.

    `allowed` is the folder that may be written to, if any; `seconds` of CPU are the most that reading may take, if any.
    """

    _active: Watch | None = None
    _hooked = False

    def __init__(
        self,
        errors: tuple[type[Exception], ...] = (MetaPruneError,),
        allowed: Path | None = None,
        seconds: float | None = None,
    ) -> None:
        self.errors, self.allowed, self.seconds, self._seen = errors, allowed, seconds, list[str]()
        self.refusal = ""
        """What the last refused reading was told."""

    def run(self, read: Callable[[], object], beside: Path) -> bool:
        """Read; whether it was refused. `beside` is a folder that must not change, but for `allowed` in it.

        Raises:
            CaseFailure: says what reading did.
        """
        before = _listing(beside, self.allowed)
        start, start_seconds = _reset_peak(), time.process_time()
        self._seen.clear()
        is_refused = False
        with self._watching():
            try:
                read()
            except self.errors as error:
                is_refused, self.refusal = True, str(error)
                self._check_cause(error)
            except Exception as error:
                raise CaseFailure(f"{type(error).__module__}.{type(error).__name__}: {str(error)[:300]}") from error
        seconds = time.process_time() - start_seconds
        if self.seconds is not None and seconds > self.seconds:
            raise CaseFailure(f"it took {seconds:.1f} seconds")
        if self._seen:
            raise CaseFailure(f"it did: {self._seen[:3]}")
        if (memory := _peak() - start) > MOST:
            raise CaseFailure(f"it took {memory >> 20} MB")
        if (after := _listing(beside, self.allowed)) != before:
            raise CaseFailure(f"it changed {sorted(before.items() ^ after.items())[:3]}")
        return is_refused

    def _check_cause(self, error: BaseException | None) -> None:
        """An allocation that was refused is not a file that was."""
        message = str(error)[:500]
        while error is not None:
            if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
                raise CaseFailure(f"it asked for more memory than there is: {message}") from error
            error = error.__cause__ or error.__context__

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        if not Watch._hooked:
            sys.addaudithook(_hook)
            Watch._hooked = True
        Watch._active = self
        try:
            yield
        finally:
            Watch._active = None

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep what may not be."""
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            return  # below a folder that shutil.rmtree named
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)) and _is_link(arguments):
            self._seen.append(f"it followed the link {arguments[0]!r:.100}")
        if event in FORBIDDEN:
            self._seen.append(f"{event} {arguments!r:.100}")
        elif event in WRITES or (event == "open" and (arguments[2] or 0) & WRITE_FLAGS):
            path = str(arguments[0])
            if path.isdecimal() or "__pycache__" in path or path == os.devnull or self._may_write(path):
                return  # a number is a file that is open
            self._seen.append(f"{event} {path[:100]}")

    def _may_write(self, path: str) -> bool:
        return self.allowed is not None and Path(path).resolve().is_relative_to(self.allowed.resolve())


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if Watch._active is not None and (event in FORBIDDEN or event in WRITES or event == "open"):
        Watch._active.see(event, arguments)


def _is_link(arguments: tuple[Any, ...]) -> bool:
    """Whether a file that is opened is a link in a folder of a test, which would be followed."""
    path, no_follow = os.fsdecode(arguments[0]), (arguments[2] or 0) & os.O_NOFOLLOW
    return "/files/" in path and Path(path).is_symlink() and not no_follow


def _listing(folder: Path, but: Path | None) -> dict[str, tuple[int, int]]:
    """Everything in a folder, by size and time of its last change."""
    listing = {}
    for path in folder.rglob("*"):
        if but is None or (path != but and but not in path.parents):
            status = path.lstat()
            listing[str(path)] = status.st_size, 0 if path.is_dir() else status.st_mtime_ns
    return listing


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Within it the process may not take much more address space than it has; nothing where there is no such limit."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _reset_peak() -> int:
    """Forget the most memory that the process had; what it has now, in bytes (0 where the system does not say)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
