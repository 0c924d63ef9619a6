"""Writing that leaves no half-written files: a temporary name, fsync, and a rename."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import glob
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import FormatError, StorageError, reason
from .layout import TEMPORARY
from .names import is_repo_id, user_path
from .reading import is_present, open_regular, read_regular, walk

MAX_JSON_BYTES = 32 << 20  # a config of a huge network stays far below
MAX_DEPTH = 64  # levels of lists and objects in JSON
MAX_CONTAINERS = 200_000  # lists and objects in JSON: Python takes long to make many of them
STALE_SECONDS = 24 * 3600.0  # without a change for so long, an unfinished folder has no writer any more
FILE_SUFFIX = ".part"
"""Suffix of the names of unfinished files, which unfinished folders do not have."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # constants of Linux, <fcntl.h>


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` about `path` into a `StorageError` that says what to do.

    Args:
        path: the file or folder.
        doing: a verb that fits between "cannot" and the path, such as "write".

    Raises:
        StorageError: the path cannot be read or written; the message names the path and the cause.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space, or choose a folder on another disk",
            errno.EFBIG: "the file would be larger than this system allows: choose a folder on another disk",
            errno.EDQUOT: "the disk quota is used up: free some space, or choose another folder",
            errno.EACCES: "permission denied: choose a folder that you may write to",
            errno.EPERM: "permission denied: choose a folder that you may write to",
            errno.EROFS: "the file system is read-only: choose another folder",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
            errno.EEXIST: "it exists already and is not empty: choose another name, or pass overwrite (--overwrite)",
        }.get(error.errno or 0, str(error))
        raise StorageError(error.errno or errno.EIO, f"cannot {doing} {path}: {advice}") from error


def fsync_dir(path: Path) -> None:
    """Make renames in a folder durable; do nothing on systems that cannot sync folders."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: there is no space or no permission, or a part of the path is no folder.
    """
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_unfinished_files(path.parent)
        file, temporary = _new_locked_file(path.parent)
        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o666 & ~_umask())
                if os.name == "nt":  # where open files cannot be renamed
                    file.close()
                temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_dir(path.parent)


def _new_locked_file(folder: Path) -> tuple[IO[bytes], Path]:
    """Return a new file and its path; nobody deletes it until it is closed or the process dies."""
    while True:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=FILE_SUFFIX, dir=folder)
        file = os.fdopen(handle, "wb")
        if _lock(file) and is_present(Path(name)):  # else it was cleared away before it was locked
            return file, Path(name)
        file.close()


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file; return False if another process has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows, which does not delete files that a process has open
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)  # some network file systems have no locks
    return True


def _clear_unfinished_files(folder: Path) -> None:
    """Delete the unfinished files in a folder whose writers have died."""
    for leftover in folder.glob(f"{TEMPORARY}*{FILE_SUFFIX}"):
        with contextlib.suppress(OSError, FormatError), open_regular(leftover) as file:
            if _lock(file):
                leftover.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _download_hint(folder: Path) -> str:
    """Return advice for a missing folder whose name may be meant as a repo on the Hub; empty for other names."""
    name = folder.as_posix()
    if not is_repo_id(name) or folder.parent.exists():
        return ""
    return f"; if it is a repo on the Hub, download it first: hf download {name} --local-dir {folder.name}"


def check_folder(folder: str | Path) -> None:
    """Check that a folder which a user names exists.

    Raises:
        FormatError: it does not.
        OptionError: its path is empty, or too long for a path.
    """
    _check_exists(user_path(folder), str(folder))


def _check_exists(folder: Path, name: str) -> None:
    if not folder.exists():
        raise FormatError(f"there is no folder {name}{_download_hint(folder)}")


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object from a file; `root` is that of `open_regular`.

    Raises:
        FormatError: the file is missing, too large or no regular file, or its content is not a JSON object.
    """
    _check_exists(path.parent, str(path.parent))
    try:
        value = parse_json(read_regular(path, MAX_JSON_BYTES, root).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {reason(error)}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} must hold a JSON object")
    return value


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON value, and refuse what Python can parse, but cannot always copy, show or write again.

    Raises:
        ValueError: the text is not JSON, nests too deep, has too many lists and objects, or halves of surrogate pairs.
    """
    containers = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if containers > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_CONTAINERS} lists and objects")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects") from error
    if isinstance(text, str):
        text.encode()
    escape = "\\u" if isinstance(text, str) else b"\\u"
    if escape in text:  # type: ignore[operator]
        _check_surrogates(value)
    return _check_depth(value)


def check_json_value(value: Any) -> Any:
    """Check a JSON value, and return it.

    Raises:
        ValueError: the value nests too deep, or has halves of surrogate pairs.
    """
    _check_surrogates(value)
    return _check_depth(value)


def _check_surrogates(value: Any) -> None:
    json.dumps(value, ensure_ascii=False).encode()


def _check_depth(value: Any) -> Any:
    level = [value]
    for _ in range(MAX_DEPTH):
        containers = [part for part in level if isinstance(part, (dict, list))]
        if not containers:
            return value
        level = [item for part in containers for item in (part.values() if isinstance(part, dict) else part)]
    if any(isinstance(part, (dict, list)) for part in level):
        raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects")
    return value


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def check_writable(path: Path, *, overwrite: bool | Collection[str] = False, need: int = 0) -> None:
    """Refuse a folder that cannot be written, before long work and not after it.

    Args:
        path: the folder.
        overwrite: True: an existing folder may be replaced; names: it may if it holds only files of these names.
        need: bytes that the folder will take.

    Raises:
        StorageError: the folder exists and may not be replaced, cannot be written, or there is too little space.
    """
    with storage_errors(path, "write"):
        if any(p.exists() and not p.is_dir() for p in (path, *path.absolute().parents)):
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
        if path.exists() and any(path.iterdir()) and overwrite is not True:
            if not overwrite:
                raise FileExistsError(errno.EEXIST, "exists")
            names = {p.name for p in path.iterdir() if not p.name.startswith(TEMPORARY)}
            foreign_files = sorted(names - set(overwrite))
            if foreign_files:
                raise StorageError(
                    errno.EEXIST,
                    f"{path} has not only the files of a model ({foreign_files[0]}): choose another folder",
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # before the space: a read-only disk often has none, either
            pass
        if shutil.disk_usage(path.parent).free < need:
            raise OSError(errno.ENOSPC, "full")


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool | Collection[str] = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block succeeds, and is deleted if it fails.

    Args:
        path: the folder to write.
        overwrite: True: an existing folder is replaced; names: it is replaced if it holds only files of these names.

    Raises:
        StorageError: `path` is a folder with files and may not be replaced, or cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    clear_unfinished(path, older_than=STALE_SECONDS)
    with storage_errors(path, "write"):
        work, lock = _new_locked_folder(path)
        try:
            work.chmod(0o777 & ~_umask())
            yield work
            for file in work.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # some libraries write files that only their owner can read
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
            _swap(work, path)
        except StorageError as error:  # name the folder that the user knows
            raise StorageError(error.errno or errno.EIO, str(error).replace(str(work), str(path))) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if lock is not None:
                os.close(lock)
        fsync_dir(path.parent)


def _new_locked_folder(path: Path) -> tuple[Path, int | None]:
    """Return a new folder beside `path`, and a handle whose lock tells that its writer lives (None: no locks here)."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent))
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another process is clearing it away
            handle = _lock_folder(work)
            if handle is None or work.exists():  # else it was cleared away before it was locked
                return work, handle
            os.close(handle)


def _lock_folder(folder: Path) -> int | None:
    """Lock a folder, and return the handle that holds the lock; None if folders cannot be locked here.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        return None
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK"):  # there may be a link or a pipe in its place
        flags |= getattr(os, name, 0)
    handle = os.open(folder, flags)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(error.errno, "locked") from error
        return None  # some network file systems have no locks
    return handle


def _swap(work: Path, path: Path) -> None:
    """Rename `work` to `path`; a folder that was at `path` is moved to `work` or deleted."""
    if not path.exists():
        work.rename(path)
        return
    if _exchange(work, path):
        return
    old = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    path.rename(old / "old")
    try:
        work.rename(path)
    except OSError:
        (old / "old").rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step, which a kill cannot interrupt; return False if the system cannot do it."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    paths = os.fsencode(first.absolute()), os.fsencode(second.absolute())
    return rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0


def clear_unfinished(path: Path, older_than: float = 0.0) -> None:
    """Delete the unfinished folders that dead writers of `path` left.

    Args:
        path: the folder that they were writing.
        older_than: seconds without a change, where folders cannot be locked; 0 only if no other process can be writing
            there.
    """
    _clear_folders(path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-*"), older_than)


def clear_all_unfinished(folder: Path) -> None:
    """Delete all unfinished files and folders in a folder whose writers have died."""
    _clear_unfinished_files(folder)
    leftovers = list(folder.glob(f"{TEMPORARY}*"))
    for link in leftovers:
        if link.is_symlink():  # nobody writes through one
            with contextlib.suppress(OSError):
                link.unlink()
    _clear_folders(leftovers, STALE_SECONDS)


def temporary_folder(prefix: str) -> Path:
    """Make a folder in the system's folder of temporary files, which only this user can read.

    It is deleted when this process ends, or else when the next one makes such a folder.

    Args:
        prefix: how the folder's name begins.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _lock_folder(folder)  # as long as this process lives
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    others = [other for other in folder.parent.glob(f"{glob.escape(prefix)}*") if other != folder]
    _clear_folders([other for other in others if _has_content(other)], STALE_SECONDS)  # one without is being made
    return folder


def _has_content(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:  # it is another user's, or no folder
        return False


def _clear_folders(folders: Iterable[Path], older_than: float) -> None:
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        with contextlib.suppress(OSError, FormatError):  # a living writer holds the lock
            handle = _lock_folder(folder)
            try:
                if handle is not None or _seconds_unchanged(folder) >= older_than:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                if handle is not None:
                    os.close(handle)


def _seconds_unchanged(folder: Path) -> float:
    """Return for how long nothing in a folder has changed."""
    return time.time() - max(path.lstat().st_mtime for path in (folder, *walk(folder)))
