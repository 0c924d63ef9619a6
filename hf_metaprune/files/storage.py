"""Files that are never left half written: temporary name, fsync, rename."""

from __future__ import annotations

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
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ..errors import FormatError, StorageError, reason
from .layout import TEMPORARY
from .names import is_repo_id

MAX_JSON_BYTES = 32 << 20  # a config of a huge network stays far below
MAX_DEPTH = 64  # levels of lists and objects in JSON
FORGOTTEN = 24 * 3600.0  # seconds without a change, after which nobody can be writing a folder any more
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux, <fcntl.h>


@contextlib.contextmanager
def storage_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` about `path` into a `StorageError` that says what to do."""
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
    """Make a folder's entries durable (renames in it); a no-op where folders cannot be synced."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: no space, no permission, not a folder.
    """
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def from_hub(folder: Path) -> str:
    """What to do if a missing folder's name is meant as a repository of the Hub; nothing for other names."""
    name = folder.as_posix()
    if not is_repo_id(name) or folder.parent.exists():
        return ""
    return f"; what is on the Hub is downloaded first: hf download {name} --local-dir {folder.name}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FormatError: the file is missing, is not JSON, or is not an object.
    """
    if not path.parent.exists():
        raise FormatError(f"there is no folder {path.parent}{from_hub(path.parent)}")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size} bytes, more than {MAX_JSON_BYTES}")
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {reason(error)}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} must hold a JSON object")
    return value


def parse_json(text: str | bytes) -> Any:
    """A JSON value; what Python can parse, but not always copy, show or write again, is none.

    Raises:
        ValueError: it is not JSON, nests too deep, or has halves of surrogate pairs.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects") from error
    return check_json_value(value)


def check_json_value(value: Any) -> Any:
    """The JSON value itself.

    Raises:
        ValueError: it nests too deep, or has halves of surrogate pairs.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        held = [part for part in level if isinstance(part, (dict, list))]
        level = [below for part in held for below in (part.values() if isinstance(part, dict) else part)]
    if any(isinstance(part, (dict, list)) for part in level):
        raise ValueError(f"more than {MAX_DEPTH} levels of lists and objects")
    json.dumps(value, ensure_ascii=False).encode()  # refuses surrogates
    return value


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def check_writable(path: Path, *, overwrite: bool | Collection[str] = False, need: int = 0) -> None:
    """Find out now, not after long work, that a folder with `need` bytes cannot be written.

    Raises:
        StorageError: see `new_folder`.
    """
    with storage_errors(path, "write"):
        if any(p.exists() and not p.is_dir() for p in (path, *path.absolute().parents)):
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
        if path.exists() and any(path.iterdir()) and overwrite is not True:
            if not overwrite:
                raise FileExistsError(errno.EEXIST, "exists")
            others = sorted({p.name for p in path.iterdir()} - set(overwrite))
            if others:
                raise StorageError(
                    errno.EEXIST, f"{path} has not only the files of a model ({others[0]}): choose another folder"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # first: what cannot be written has no room either
            pass
        if shutil.disk_usage(path.parent).free < need:
            raise OSError(errno.ENOSPC, "full")


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool | Collection[str] = False) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    `overwrite`: whether a folder that is there may be replaced; if names are given, only one that holds nothing else.

    Raises:
        StorageError: `path` exists already, is not empty and may not be replaced, or cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    clear_unfinished(path, older_than=FORGOTTEN)
    with storage_errors(path, "write"):
        work = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent))
        try:
            work.chmod(0o777 & ~_umask())
            yield work
            for file in work.rglob("*"):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # some libraries write files that only their owner can read
                    with open(file, "rb") as handle:
                        os.fsync(handle.fileno())
            _swap(work, path)
        except StorageError as error:  # told of the folder that the user knows
            raise StorageError(error.errno or errno.EIO, str(error).replace(str(work), str(path))) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        fsync_dir(path.parent)


def _swap(work: Path, path: Path) -> None:
    """Put `work` at `path`; what was there is then at `work`, or is removed once the new one stands."""
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


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that not even a kill can come in between; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(one.absolute()), AT_FDCWD, os.fsencode(other.absolute()), RENAME_EXCHANGE) == 0


def clear_unfinished(path: Path, older_than: float = 0.0) -> None:
    """Delete what a dead writer of `path` left.

    Args:
        older_than: seconds since it was last written to; 0 only while no other process can be writing there.
    """
    for left in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-*"):
        with contextlib.suppress(OSError):
            if time.time() - max(p.stat().st_mtime for p in (left, *left.rglob("*"))) >= older_than:
                shutil.rmtree(left, ignore_errors=True)
